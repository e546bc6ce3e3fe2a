//! The lease table: who reads which shard, from where, and who is alive.
//!
//! One partition per group and table holds all rows of the fleet, so that one query sees everything:
//!
//! | row | holds |
//! |---|---|
//! | `group` | the initial position, the moment of the first bootstrap, the group's identity |
//! | `stream#<label>` | a stream of the table, and whether it was begun |
//! | `worker#<incarnation>` | one heartbeat per process, not one per lease |
//! | `shard#<stream label>#<shard>` | owner, epoch, checkpoint |
//! | `gap#<stream label>#<shard>#<last handled>` | what was trimmed before it could be read |
//!
//! Every row carries its format version. Rows of a newer one than this build reads ([`FORMAT`]) are
//! reported, never touched; how two versions get along is told in `format.rs`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::decide::shard::ShardId;
use crate::group::Identity;
use crate::record::{Position, SequenceNumber};

pub mod dynamodb;
mod fence;
mod format;
pub mod memory;
pub(crate) mod row;

pub use crate::decide::lease::{Epoch, Hold, Incarnation, Sighting, Take};
pub use crate::rows::fence::Fence;
pub use format::FORMAT;

/// Where a group started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitialPosition {
    /// Everything that the stream still holds.
    TrimHorizon,
    /// What was committed from the first bootstrap on.
    Latest,
}

/// The `group` row: written once, by the worker that comes first. It outlives the table's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// Where the group started from.
    pub initial: InitialPosition,
    /// When the first worker bootstrapped, by the service's clock; with [`InitialPosition::Latest`]
    /// records created before it are skipped, as each lease says. To the millisecond.
    pub bootstrapped: SystemTime,
    /// The settings that decide which record becomes which effect. Empty: the group has none.
    pub identity: Identity,
}

/// How far a stream of the table was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It was listed. If it is gone before it is begun, all of it is lost.
    Seen,
    /// Some of its shards have leases. If it is gone at this stage, some of it may be lost.
    Begun,
    /// It was switched off, and all that it listed after that was read; or it is older than the
    /// group; or what was lost of it is written down.
    Finished,
}

/// A stream of the table, as the workers that list know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    /// Its label.
    pub label: Arc<str>,
    /// How far it was read.
    pub stage: Stage,
    /// At this time no stream was later than those that have rows: of the service's clock.
    pub newest_at: SystemTime,
}

/// A worker's heartbeat row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    /// Which start of which worker.
    pub incarnation: Incarnation,
    /// Raised by every heartbeat.
    pub beat: u64,
    /// The worker is leaving: nothing more is assigned to it.
    pub draining: bool,
    /// The worker has not been able to list the stream for a while: another does it.
    pub unable_to_list: bool,
    /// How long others must see the same beat before they may take this worker's leases. It
    /// stands in the row so that workers that are configured differently cannot rob each other.
    pub lease_duration: Duration,
    /// The build that the worker runs.
    pub version: String,
    /// The newest format of rows that the worker reads. 1 where the row does not say.
    pub reads: u32,
    /// The availability zone, where known.
    pub zone: Option<String>,
    /// Where its status page is, where it has one.
    pub status_address: Option<String>,
    /// What keeps it from its work though it lives, such as a mail server that is down: for people
    /// only.
    pub trouble: Option<String>,
    /// A shard whose task does not turn, in a worker that lives: for people only. The shard's own row
    /// cannot tell it.
    pub stuck: Option<ShardId>,
    /// When it wrote this beat, by the service's clock: for people only.
    pub at: Option<SystemTime>,
}

/// How far a shard has been handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoint {
    /// Everything up to here is settled; the rest is still to be read.
    At(Position),
    /// The shard has ended and everything in it is settled. `children` have leases of their own.
    End {
        /// The shards that continue it, as found when it ended.
        children: Vec<ShardId>,
    },
}

/// A shard's lease row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The shard.
    pub shard: ShardId,
    /// The shard that it continues, if any.
    pub parent: Option<ShardId>,
    /// Who holds it. `None`: free, may be taken at once.
    pub owner: Option<Incarnation>,
    /// Raised by every change of owner.
    pub epoch: Epoch,
    /// The format that the row has; what is written takes the newest that all workers read.
    pub format: u32,
    /// Records created before this are older than the group and are skipped; `None`: all of them are
    /// the group's. Written with the row and never changed, so that a group row that is lost, or
    /// that is written late, skips nothing that is in hand.
    pub starts_at: Option<SystemTime>,
    /// How far it is settled.
    pub checkpoint: Checkpoint,
    /// The progress that the owner last reported beside the checkpoint.
    pub report: Report,
}

impl LeaseRow {
    /// A new, free lease.
    pub fn new(shard: ShardId, parent: Option<ShardId>, epoch: Epoch) -> Self {
        Self {
            shard,
            parent,
            owner: None,
            epoch,
            format: FORMAT,
            starts_at: None,
            checkpoint: Checkpoint::At(Position::Horizon),
            report: Report::default(),
        }
    }

    /// Nothing in the shard was committed before `time`, as far as that is known: from then on it
    /// could be read.
    #[must_use]
    pub fn since(mut self, time: Option<SystemTime>) -> Self {
        self.report.caught_up_at = time;
        self
    }

    /// Whether nothing is left to read.
    pub fn ended(&self) -> bool {
        matches!(self.checkpoint, Checkpoint::End { .. })
    }
}

/// What an owner tells of a shard beside its checkpoint: for people, and to tell whether trimming
/// can have taken anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// When the last settled record was committed.
    pub frontier_time: Option<SystemTime>,
    /// When the shard was last read to its end and everything in it was settled.
    pub caught_up_at: Option<SystemTime>,
    /// Records settled since the lease was taken.
    pub settled: u64,
    /// The last thing that went wrong, if it still matters.
    pub last_error: Option<String>,
    /// When the oldest record was committed that was read and is not settled. An owner whose build
    /// does not know of it leaves it as it is: [`Report::oldest_waiting`] tells what it is worth.
    pub waiting_since: Option<SystemTime>,
    /// Records settled in about the last minute ([`Rate`](crate::decide::rate::Rate)).
    pub per_minute: u64,
    /// When the owner told all this, by the service's clock.
    pub told_at: Option<SystemTime>,
}

impl Report {
    /// Nothing that is still to be settled was committed before this.
    pub fn complete_until(&self) -> Option<SystemTime> {
        self.frontier_time.max(self.caught_up_at)
    }

    /// When the oldest record was committed that waits; `None`: none was read that waits.
    pub fn oldest_waiting(&self) -> Option<SystemTime> {
        self.waiting_since
            .filter(|since| self.complete_until().is_none_or(|until| *since >= until))
    }
}

/// In place of a shard's id in a gap: all shards of a stream that was gone before it was read to
/// its end.
pub(crate) const WHOLE_STREAM: &str = "whole-stream";

/// In place of a shard's id in a gap: streams that nobody knows of, before the one in the gap.
pub(crate) const BEFORE_STREAM: &str = "before-stream";

/// Records that were trimmed before they could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRow {
    /// The shard that lost them.
    pub shard: ShardId,
    /// The last record that was read before the gap; `None` if none ever was. What was read is
    /// handled; what a crash cut off is missed anew, by a gap that begins earlier.
    pub last_handled: Option<SequenceNumber>,
    /// When that record was committed.
    pub last_handled_time: Option<SystemTime>,
    /// The first record that was found behind the gap; `None` until one is found.
    pub first_after: Option<SequenceNumber>,
    /// When the gap was noticed.
    pub detected: SystemTime,
    /// What an operator found out about it; `None`: nobody has looked yet.
    pub resolved: Option<GapResolution>,
}

impl GapRow {
    /// A gap of what was never read; nothing that was committed before `since` is in it.
    pub(crate) fn unread(shard: ShardId, since: Option<SystemTime>, detected: SystemTime) -> Self {
        Self {
            shard,
            last_handled: None,
            last_handled_time: since,
            first_after: None,
            detected,
            resolved: None,
        }
    }
}

/// That somebody dealt with a gap: what was lost was found elsewhere, or it does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapResolution {
    /// Who says so.
    pub by: String,
    /// When.
    pub at: SystemTime,
    /// Why nothing is left to do.
    pub note: String,
}

/// All rows of a group on a table, as one query saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The group's own row, once written.
    pub group: Option<GroupRow>,
    /// The table's streams, by label.
    pub streams: BTreeMap<Arc<str>, StreamRow>,
    /// The workers' heartbeats.
    pub workers: BTreeMap<Incarnation, WorkerRow>,
    /// The leases.
    pub leases: BTreeMap<ShardId, LeaseRow>,
    /// The gaps.
    pub gaps: Vec<GapRow>,
    /// Rows that this build cannot read, with the reason.
    pub unreadable: Vec<Unreadable>,
}

impl View {
    /// Whether the shard has a lease, be it one that cannot be read.
    pub(crate) fn has_lease(&self, shard: &ShardId) -> bool {
        let name = row::lease_key(shard);
        self.leases.contains_key(shard) || self.unreadable.iter().any(|row| row.row == name)
    }

    /// Whether there is no lease, and nothing that might be one.
    pub(crate) fn has_no_leases(&self) -> bool {
        self.leases.is_empty() && self.unreadable.is_empty()
    }
}

/// A row that this build cannot read. The others are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The row's key, such as `shard#shardId-0001`.
    pub row: String,
    /// Why.
    pub why: Unfit,
}

/// Why a row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// It was written by a newer build: left alone.
    Newer {
        /// The format that the row carries.
        format: u32,
    },
    /// It is damaged: healed by the full listing.
    Malformed {
        /// What is wrong with it.
        what: String,
    },
}

/// How fresh a look has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// May lag. Half the price.
    Eventual,
    /// Sees every write that was answered before the look began.
    Strong,
}

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
    /// [`ServiceTime`](crate::clock::ServiceTime) is: what is decided by it allows for a minute.
    fn service_time(&self) -> Option<SystemTime>;

    /// Reads all rows of the group on its table.
    fn look(&self, consistency: Consistency) -> impl Future<Output = anyhow::Result<View>> + Send;

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

    /// Removes the lease of an ended shard; one that has not ended stays.
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
