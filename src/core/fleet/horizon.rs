//! Where a new lease begins: what is older than the group, and what the stream may have trimmed before
//! the shard had a lease.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::rows::{Checkpoint, GapRow, GroupRow, InitialPosition, LeaseRow, WHOLE_STREAM};
use super::snapshot::View;
use crate::core::shard::{Shard, ShardId};

/// When a fleet starts from the horizon, it does not claim what the stream is about to trim: this part
/// of the stream's retention (half an hour of 24 hours). So the first reads may come some minutes after
/// the bootstrap before they count as late.
pub const EDGE: f64 = 0.02;

/// The stream's times are rounded down (to the second on AWS, to the minute by Amazon's local
/// emulator), and the service's own time is known to within some seconds. So `latest` begins this much
/// early: the edge is approximate, but no record that was committed after the bootstrap is skipped.
const START_SLACK: Duration = Duration::from_mins(1);

/// When the group began, and what the stream has kept since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Horizon<'a> {
    pub group: Option<&'a GroupRow>,
    pub retention: Duration,
    /// By the service's clock.
    pub now: SystemTime,
}

impl Horizon<'_> {
    /// Records that were created before this are older than the group.
    pub fn starts_at(&self) -> Option<SystemTime> {
        let group = self.group?;
        match group.initial {
            InitialPosition::TrimHorizon => None,
            InitialPosition::Latest => group.bootstrapped.checked_sub(START_SLACK),
        }
    }

    /// A lower bound for the times of a shard's unread records: they are not older than what was
    /// finished in its parent, than the stream, or than what the fleet wants. A fleet that starts from
    /// the horizon wants what the stream held at its bootstrap, except for [`EDGE`].
    pub fn complete_until(
        &self,
        view: &View,
        parent: Option<&ShardId>,
        created: Option<SystemTime>,
    ) -> Option<SystemTime> {
        let parent = parent.and_then(|parent| view.leases.get(parent));
        let finished = parent.and_then(|row| row.report.complete_until());
        let held = self.retention.mul_f64(1.0 - EDGE);
        let of_fleet = self.group.and_then(|row| match row.initial {
            InitialPosition::Latest => Some(row.bootstrapped),
            InitialPosition::TrimHorizon => row.bootstrapped.checked_sub(held),
        });
        finished.or(of_fleet.max(created))
    }

    /// Whether the stream may have trimmed a shard between the bootstrap and the first leases.
    pub fn starts_late(&self) -> bool {
        let soon = self.retention.mul_f64(EDGE / 2.0);
        self.group.is_none_or(|row| {
            let passed = self.now.duration_since(row.bootstrapped);
            passed.unwrap_or_default() >= soon
        })
    }

    /// The parents of new leases that the stream dropped before they ever had a lease. Their own
    /// parents may have been dropped as well, unless a shard that was read names them as its children:
    /// nothing else does.
    pub fn never_leased(&self, new: &[LeaseRow], listed: &[Shard], view: &View) -> Vec<GapRow> {
        let parents = new.iter().filter_map(|row| row.parent.as_ref());
        let lost = parents.filter(|parent| {
            !view.has_lease(parent) && !listed.iter().any(|shard| shard.id == **parent)
        });
        let read = view.leases.values().map(|row| &row.checkpoint);
        let is_named = |parent: &ShardId| {
            let mut read = read.clone();
            read.any(|at| matches!(at, Checkpoint::End { children } if children.contains(parent)))
        };
        let lost = lost.map(|parent| match parent.label() {
            Some(label) if !is_named(parent) => ShardId::of_stream(label, WHOLE_STREAM),
            _ => parent.clone(),
        });
        let lost: BTreeSet<_> = lost.collect();
        let since = self.group.map(|row| row.bootstrapped);
        let gap = |shard| GapRow::unread(shard, since, self.now);
        lost.into_iter().map(gap).collect()
    }
}
