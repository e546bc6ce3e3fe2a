//! The lease table: who reads which shard, from where, and who is alive.
//!
//! One partition per group and table holds all rows of the fleet, so that one query sees everything,
//! or a range of it:
//!
//! | row | holds |
//! |---|---|
//! | `group` | the initial position, the moment of the first bootstrap, the group's identity |
//! | `stream#<label>` | a stream of the table, and whether it was begun |
//! | `worker#<incarnation>` | one heartbeat per process, not one per lease |
//! | `shard#<stream label>#<shard>` | owner, epoch, checkpoint |
//! | `archive#<stream label>#<shard>` | the same of an ended shard whose children have rows: looks do not read it |
//! | `gap#<stream label>#<shard>#<last handled>` | what was trimmed before it could be read |
//!
//! Every row carries its format version. Rows of a newer one than this build reads ([`FORMAT`]) are
//! reported, never touched; how two versions get along is told in `format.rs`.

use std::future::Future;
use std::time::SystemTime;

use crate::core::group::Identity;
use crate::core::record::Position;
use crate::core::shard::ShardId;

pub mod dynamodb;
mod fence;
mod format;
pub mod memory;
pub(crate) mod row;

#[cfg(feature = "simulation")]
pub(crate) use crate::core::fleet::rows::{BEFORE_STREAM, WHOLE_STREAM};
pub use crate::core::fleet::rows::{
    Checkpoint, FORMAT, GapResolution, GapRow, GroupRow, InitialPosition, LeaseRow, Report, Stage,
    StreamRow, WorkerRow,
};
pub use crate::core::fleet::snapshot::{Consistency, Reach, Unfit, Unreadable, View};
pub use crate::core::fleet::terms::{Epoch, Hold, Incarnation, Sighting, Take};
pub use crate::stores::rows::fence::Fence;

/// The lease table.
///
/// Every decision that two workers could race for is one conditional write or one transaction.
/// `Ok(None)` means that the race was lost: a normal answer. An `Err` means that it is not known
/// whether the write was applied; **every write may be repeated, and a repeat of a write that was
/// applied answers like the first** as long as nothing else came between. A crash after any call
/// leaves rows that the rest of the fleet goes on from.
pub trait LeaseStore: Clone + Send + Sync + 'static {
    /// The newest format of rows that this build reads.
    fn reads(&self) -> u32;

    /// The time of the service that dates the stream's records; `None`: it has not answered yet, or
    /// the store has no service. May be some seconds off, as
    /// [`ServiceTime`](crate::stores::clock::ServiceTime) is: what is decided by it allows for a minute.
    fn service_time(&self) -> Option<SystemTime>;

    /// Reads the rows of the group on its table that are within this reach.
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

    /// Replaces the identity in the group row if it is still `seen`. `Ok(None)`: it is another by
    /// now, or there is no row.
    fn change_identity(
        &self,
        seen: &Identity,
        new: &Identity,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Writes what is known of a stream. Its stage never falls.
    fn note_stream(&self, row: &StreamRow) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Writes a worker row, at the beat it carries. Where an earlier try of mine has written it
    /// already, this raises the beat like a heartbeat: an answer always means that the row shows
    /// this beat or a later one.
    fn register(&self, row: &WorkerRow) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Raises the beat to `row.beat`. `Ok(None)`: the row is gone, so I must register as a new
    /// incarnation. A heartbeat that arrives late never lowers the beat.
    fn heartbeat(&self, row: &WorkerRow)
    -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Removes a worker row: one's own on leaving, or one that has been dead for long
    /// (`still_at`: only if it still stands at this beat).
    fn remove_worker(
        &self,
        incarnation: &Incarnation,
        still_at: Option<u64>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Writes leases that are not there yet. Those that are there stay as they are.
    fn create(&self, rows: &[LeaseRow]) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Replaces a malformed lease row by a free one; does nothing to a row that can be read.
    fn heal(&self, row: &LeaseRow) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Takes a free lease, or that of a dead worker. Answers the lease as it now stands.
    fn take(&self, take: &Take) -> impl Future<Output = anyhow::Result<Option<LeaseRow>>> + Send;

    /// Gives a lease to `to` (`None`: to nobody) with `epoch + 1` and the last checkpoint, in one
    /// write. If `to` is leaving or gone, or could not read the row, nobody gets it, so that it can be
    /// taken at once.
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

    /// Ends a shard: creates its children's leases (those that are not there yet) and writes the
    /// end of the parent, all or nothing.
    fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// Moves the lease of an ended shard to where [`Reach::Current`] does not reach; one that has not
    /// ended stays. It counts as there still: nothing creates it again.
    fn archive(&self, shard: &ShardId) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Removes the lease of an ended shard, archived or not; one that has not ended stays.
    fn remove_ended(&self, shard: &ShardId) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Writes a gap down. Idempotent on (shard, last handled). A gap that is noticed again, or whose
    /// end becomes known, keeps the time of its first detection. `first_after` of `None` means
    /// that the gap has no known end (any more); an end takes the place of an earlier one only, so that
    /// a write that comes late narrows no gap.
    ///
    /// One that somebody had resolved is open again, as more may be lost.
    ///
    /// Under the fence of `hold`, so that a late write of an earlier owner cannot narrow what a
    /// later one has found. Without one the shard never had a lease.
    fn record_gap(
        &self,
        gap: &GapRow,
        hold: Option<&Hold>,
    ) -> impl Future<Output = anyhow::Result<Option<()>>> + Send;

    /// What a write to another table demands so that only the holder of this lease makes it.
    fn fence(&self, hold: &Hold) -> Fence;
}
