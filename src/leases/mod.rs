//! The lease table: who reads which shard, from where, and who is alive.
//!
//! One partition per stream holds all rows of the fleet, so that one query sees everything:
//!
//! | row | holds |
//! |---|---|
//! | `stream` | the initial position and the moment of the first bootstrap; written once |
//! | `worker#<incarnation>` | one heartbeat per process, not one per lease |
//! | `shard#<shard>` | owner, epoch, checkpoint |
//! | `gap#<shard>#<last handled>` | what was trimmed before it could be read |
//!
//! Every row carries its format version ([`FORMAT`]). Rows of a newer format are reported, never
//! touched.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::decide::shard::ShardId;
use crate::record::{Position, SequenceNumber};

pub mod dynamodb;
pub mod memory;
pub(crate) mod row;

/// The format version that this build writes into every row.
pub const FORMAT: u32 = 1;

/// One start of one worker process: `<worker id>/<random>`. A restarted worker is another
/// incarnation and inherits nothing by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Names an incarnation of the worker `id`. `nonce` must never repeat for that worker.
    pub fn new(id: &str, nonce: u64) -> Self {
        Self(format!("{id}/{nonce:016x}").into())
    }

    /// Reads back what [`Incarnation::as_str`] gave.
    pub fn from_row(text: &str) -> Self {
        Self(text.into())
    }

    /// The worker's id, without the random part.
    pub fn worker(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(id, _)| id)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fence of a lease: raised by every change of owner, never lowered.
pub type Epoch = u64;

/// Where a stream was started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialPosition {
    /// Everything that the stream still holds.
    TrimHorizon,
    /// What was committed from the first bootstrap on.
    Latest,
}

/// The `stream` row: written once, by whoever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRow {
    /// Where the fleet started from.
    pub initial: InitialPosition,
    /// When the first worker bootstrapped; with [`InitialPosition::Latest`] records created before
    /// it are skipped. To the millisecond.
    pub bootstrapped: SystemTime,
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
    /// How long others must see the same beat before they may take this worker's leases. It
    /// stands in the row so that workers that are configured differently cannot rob each other.
    pub lease_duration: Duration,
    /// The build that the worker runs.
    pub version: String,
    /// The availability zone, where known.
    pub zone: Option<String>,
    /// Where its status page is, where it has one.
    pub status_address: Option<String>,
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
            checkpoint: Checkpoint::At(Position::Horizon),
            report: Report::default(),
        }
    }

    /// Whether nothing is left to read.
    pub fn ended(&self) -> bool {
        matches!(self.checkpoint, Checkpoint::End { .. })
    }
}

/// What an owner tells of a shard beside its checkpoint. For people, not for decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// When the last settled record was committed.
    pub frontier_time: Option<SystemTime>,
    /// When the shard was last read to its end, so that there was nothing left to do.
    pub caught_up_at: Option<SystemTime>,
    /// Records settled since the lease was taken.
    pub settled: u64,
    /// The last thing that went wrong, if it still matters.
    pub last_error: Option<String>,
}

/// Records that were trimmed before they could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRow {
    /// The shard that lost them.
    pub shard: ShardId,
    /// The last record that was settled before the gap; `None` if none ever was.
    pub last_handled: Option<SequenceNumber>,
    /// When that record was committed.
    pub last_handled_time: Option<SystemTime>,
    /// The first record that was found behind the gap; `None` until one is found.
    pub first_after: Option<SequenceNumber>,
    /// When the gap was noticed.
    pub detected: SystemTime,
}

/// All rows of a stream, as one query saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The stream's own row, once written.
    pub stream: Option<StreamRow>,
    /// The workers' heartbeats.
    pub workers: BTreeMap<Incarnation, WorkerRow>,
    /// The leases.
    pub leases: BTreeMap<ShardId, LeaseRow>,
    /// The gaps.
    pub gaps: Vec<GapRow>,
    /// Rows that this build cannot read, with the reason.
    pub unreadable: Vec<Unreadable>,
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

/// What a taker has seen of a lease's owner for a whole lease duration. The take applies only if
/// it is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// The owner's heartbeat stands at this beat.
    Beat(u64),
    /// The owner has no row.
    Missing,
}

/// The lease and epoch under which a worker acts on a shard: the fence of all its writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The shard.
    pub shard: ShardId,
    /// Who I am.
    pub owner: Incarnation,
    /// My epoch.
    pub epoch: Epoch,
}

/// A take of a lease: from whom, and on what evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The shard.
    pub shard: ShardId,
    /// The owner that was seen; `None` for a free lease.
    pub from: Option<(Incarnation, Sighting)>,
    /// The epoch that was seen.
    pub seen_epoch: Epoch,
    /// Who takes.
    pub owner: Incarnation,
    /// The epoch to write: above the one seen, and above every one that the taker ever saw.
    pub epoch: Epoch,
}

/// The lease table.
///
/// Every decision that two workers could race for is one conditional write or one transaction.
/// `Ok(None)` means that the race was lost: a normal answer. An `Err` means that it is not known
/// whether the write was applied; **every write may be repeated, and a repeat of a write that was
/// applied answers like the first** as long as nothing else came between. A crash after any call
/// leaves rows that the rest of the fleet goes on from.
pub trait LeaseStore: Clone + Send + Sync + 'static {
    /// Reads all rows of the stream.
    fn look(&self, consistency: Consistency) -> impl Future<Output = anyhow::Result<View>> + Send;

    /// Writes the stream row if there is none, and returns the one that stands.
    fn bootstrap(&self, row: StreamRow) -> impl Future<Output = anyhow::Result<StreamRow>> + Send;

    /// Writes a new worker row, at the beat it carries.
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
    /// write.
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

    /// Writes a gap down. Idempotent on (shard, last handled): the first detection stays, and
    /// `first_after` is added when it becomes known.
    fn record_gap(&self, gap: &GapRow) -> impl Future<Output = anyhow::Result<()>> + Send;
}
