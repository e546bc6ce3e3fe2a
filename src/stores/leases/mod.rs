//! The lease table: which workers are alive, which worker reads which shard, and from where.
//!
//! One partition per group and table holds all rows of the fleet, so that one query sees everything,
//! or a range of it:
//!
//! | row | holds |
//! |---|---|
//! | `group` | the initial position, the moment of the first bootstrap, the group's effects |
//! | `stream#<label>` | a stream of the table, and whether it was begun |
//! | `worker#<incarnation>` | one heartbeat per process, not one per lease |
//! | `shard#<stream label>#<shard>` | owner, epoch, checkpoint, and the effects that are ahead of it |
//! | `archive#<stream label>#<shard>` | the same for an ended shard whose children have rows; looks do
//! not read it |
//! | `gap#<stream label>#<shard>#<last handled>` | records that were trimmed before they could be read
//! |
//!
//! Every row has a format version. Rows of a newer format than this build reads ([`FORMAT`]) are
//! reported and never changed; `format.rs` describes how two versions work together.

use std::future::Future;
use std::time::SystemTime;

use crate::core::record::Position;
use crate::core::shard::ShardId;

pub mod dynamodb;
mod fence;
mod format;
pub mod memory;
pub(crate) mod row;

pub use crate::core::effects::{GroupEffect, GroupEffects};
#[cfg(feature = "simulation")]
pub(crate) use crate::core::fleet::rows::{BEFORE_STREAM, WHOLE_STREAM};
pub use crate::core::fleet::rows::{
    Checkpoint, FORMAT, GapResolution, GapRow, GroupRow, InitialPosition, LeaseRow, Report,
    StreamRow, StreamStage, WorkerRow,
};
pub use crate::core::fleet::snapshot::{Consistency, Reach, Unfit, Unreadable, View};
pub use crate::core::fleet::terms::{Epoch, Hold, Incarnation, Sighting, Take};
pub use crate::stores::rows::fence::Fence;

/// The lease table.
///
/// One conditional write or one transaction makes every decision that two workers could race for.
/// `Ok(None)` means that the race was lost: a normal answer. An `Err` means that it is unknown whether
/// the write was applied; **every write can be repeated, and a repeat of an applied write returns the
/// same answer** unless another write came in between. A crash after any call leaves rows from which
/// the rest of the fleet continues.
pub trait LeaseStore: Clone + Send + Sync + 'static {
    /// The newest format of rows that this build reads.
    fn reads(&self) -> u32;

    /// The time of the service that dates the stream's records; `None`: it has not answered yet, or the
    /// store has no service. It can be wrong by some seconds, like
    /// [`ServiceTime`](crate::stores::clock::ServiceTime): decisions based on it allow for a minute.
    fn service_time(&self) -> Option<SystemTime>;

    /// Reads the rows of the group on its table within this reach.
    fn look_at(
        &self,
        reach: Reach,
        consistency: Consistency,
    ) -> impl Future<Output = anyhow::Result<View>> + Send;

    /// Reads all rows of the group on its table.
    fn look(&self, consistency: Consistency) -> impl Future<Output = anyhow::Result<View>> + Send {
        self.look_at(Reach::All, consistency)
    }

    /// Writes the group row if there is none, and returns the one in the table.
    fn bootstrap(&self, row: GroupRow) -> impl Future<Output = anyhow::Result<GroupRow>> + Send;

    /// Replaces the effects in the group row if they are still `seen`. `Ok(None)`: they have changed, or
    /// there is no row.
    fn change_effects(
        &self,
        seen: &GroupEffects,
        new: &GroupEffects,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Writes what is known about a stream. Its stage never falls.
    fn note_stream(&self, row: &StreamRow) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Writes a worker row with its beat. If an earlier attempt of mine wrote it already, this raises
    /// the beat like a heartbeat: an answer always means that the row shows this beat or a later one.
    fn register(&self, row: &WorkerRow) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Raises the beat to `row.beat`. `Ok(None)`: the row is gone, so I must register as a new
    /// incarnation. A late heartbeat never lowers the beat.
    fn heartbeat(&self, row: &WorkerRow)
    -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Removes a worker row: one's own on leaving, or that of a worker that has long been dead (with
    /// `still_at` only if it still has this beat).
    fn remove_worker(
        &self,
        incarnation: &Incarnation,
        still_at: Option<u64>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Writes missing leases. Existing leases stay as they are.
    fn create(&self, rows: &[LeaseRow]) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Replaces a malformed lease row by a free one. Does nothing to a readable row.
    fn heal(&self, row: &LeaseRow) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Takes a free lease, or that of a dead worker. Returns the lease as it is now.
    fn take(&self, take: &Take) -> impl Future<Output = anyhow::Result<Option<LeaseRow>>> + Send;

    /// Gives a lease to `to` (`None`: to nobody) with `epoch + 1` and the last checkpoint, in one
    /// write. If `to` is leaving or gone, or could not read the row, nobody gets the lease, so that it
    /// can be taken at once.
    fn hand_over(
        &self,
        hold: &Hold,
        to: Option<&Incarnation>,
        checkpoint: &Position,
        report: &Report,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Moves the checkpoint of a lease that I hold.
    fn checkpoint(
        &self,
        hold: &Hold,
        checkpoint: &Position,
        report: &Report,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Ends a shard: creates the missing leases of its children and writes the parent's end, all or
    /// nothing.
    fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Moves the lease of an ended shard out of [`Reach::Current`]. Does nothing if the shard has not
    /// ended. The lease still exists: nothing creates it again.
    fn archive(&self, shard: &ShardId) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Removes the lease of an ended shard, archived or not. Does nothing if the shard has not ended.
    fn remove_ended(&self, shard: &ShardId) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Records a gap. Idempotent on (shard, last handled). A gap that is found again, or whose end
    /// becomes known, keeps the time of its first detection. `first_after` of `None` means that the gap
    /// has no known end (any more). An end replaces only an earlier one, so that a late write does not
    /// narrow a gap.
    ///
    /// A resolved gap opens again, because more may be lost.
    ///
    /// Written under the fence of `hold`, so that a late write of an earlier owner cannot narrow what a
    /// later owner has found. Without `hold` the shard never had a lease.
    fn record_gap(
        &self,
        gap: &GapRow,
        hold: Option<&Hold>,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// What a write to another table demands, so that only the holder of this lease can make it.
    fn fence(&self, hold: &Hold) -> Fence;
}
