//! The settings of a member.

use std::time::Duration;

use super::rows::InitialPosition;
use crate::core::backoff::Backoff;
use crate::core::effects::GroupEffects;

/// The settings of a member.
#[derive(Debug, Clone)]
pub struct FleetRules {
    /// Names the worker; each start of it is an [`Incarnation`](super::terms::Incarnation) of its own.
    pub worker_id: String,
    /// Where a new group starts from.
    pub start: InitialPosition,
    /// The effects that this worker performs.
    pub effects: GroupEffects,
    /// Whether this worker may replace the identities of the group's effects by its own, once.
    pub accepts_new_identity: bool,
    /// How long a heartbeat must not move before its worker counts as dead.
    pub lease_duration: Duration,
    /// How long I trust my leases after I began a heartbeat or a consistent look: shorter than others
    /// wait.
    pub trust: Duration,
    /// How often a heartbeat is written.
    pub heartbeat_interval: Duration,
    /// How often the heartbeats are read, and the leases while they are few.
    pub look_interval: Duration,
    /// Up to this many leases are read as often as the heartbeats, even while there is nothing to do.
    pub few_rows: usize,
    /// How often one worker of the fleet lists the stream.
    pub listing_interval: Duration,
    /// How long records in flight may take when their shard is handed over.
    pub handover_timeout: Duration,
    /// The timeout of a call to the lease table.
    pub call_timeout: Duration,
    /// The shortest wait before a failed call is repeated.
    pub shortest_wait: Duration,
    /// How long the stream keeps a record.
    pub retention: Duration,
    /// A rule that a simulation leaves out.
    pub left_out: Option<FleetRule>,
}

impl FleetRules {
    /// How long to wait before repeating a call to the lease table that failed this many times in a
    /// row.
    pub(super) fn wait(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let backoff = Backoff {
            base: self.shortest_wait * 2,
            cap: self.lease_duration / 10,
        };
        backoff.wait(failures, rng).max(self.shortest_wait)
    }
}

/// FleetRules that a simulation leaves out, one at a time, to check that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetRule {
    /// A lapse of trust voids every lease until a look that began afterwards.
    RereadAfterLapse,
    /// A look counts from its beginning, and only if nothing lapsed since.
    FreshLook,
    /// No epoch is adopted that is lower than one that was seen, or that was given up.
    NoStaleEpoch,
    /// A restarted worker inherits nothing by name.
    NothingByName,
    /// A shard is drained before it is given away.
    DrainFirst,
    /// A listing repairs what was missed.
    ListingRepairs,
    /// A row that is missing is replaced only once nobody can still be acting on it.
    PatientRepair,
    /// A row is written in a format that every worker reads.
    FormatForAll,
    /// A stream is read only once the earlier ones are finished.
    OneStreamAtATime,
    /// A child is read only once its parent is finished.
    ParentFirst,
    /// Trust ends before others lose patience.
    TrustMargin,
}
