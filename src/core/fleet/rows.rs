//! The rows of the lease table, shared by the fleet's decisions and the stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize};

use super::terms::{Epoch, Incarnation};
use crate::core::effects::GroupEffects;
use crate::core::group::EffectName;
use crate::core::millis;
use crate::core::position::{InvalidSequenceNumber, Position, SequenceNumber};
use crate::core::shard::ShardId;

/// The newest format of rows that this build reads.
pub const FORMAT: u32 = 1;

/// The format of the rows by which builds recognise each other: the group's, the streams' and the
/// workers'.
pub const FIRST_FORMAT: u32 = 1;

/// The sort key of the group's own row.
pub const GROUP_ROW: &str = "group";
/// The prefix of the sort key of a worker's row.
pub const WORKER: &str = "worker#";
/// The prefix of the sort key of a shard's lease.
pub const SHARD: &str = "shard#";
/// The prefix of the sort key of an ended shard's lease, once looks no longer need it.
pub const ARCHIVE: &str = "archive#";

/// Where a group started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InitialPosition {
    /// Everything that the stream still holds.
    TrimHorizon,
    /// Everything committed after the first bootstrap.
    Latest,
}

/// The `group` row. The first worker writes it, once. It outlives the table's streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Where the group started from.
    pub initial: InitialPosition,
    /// When the first worker bootstrapped, by the service's clock. With [`InitialPosition::Latest`],
    /// older records are skipped, as each lease says. To the millisecond.
    #[serde(with = "millis")]
    pub bootstrapped: SystemTime,
    /// The group's effects.
    #[serde(default)]
    pub effects: GroupEffects,
}

/// How far a stream of the table was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Marks", into = "Marks")]
pub enum StreamStage {
    /// It was listed. If it is gone before reading begins, all of it is lost.
    Seen,
    /// Some of its shards have leases. If it is gone at this stage, some of it may be lost.
    Begun,
    /// It was disabled, and everything that it listed after that was read; or it is older than the
    /// group; or its losses are recorded.
    Finished,
}

/// A stage as the row stores it: two attributes that are only ever added, so that a stage never falls.
#[derive(Serialize, Deserialize)]
struct Marks {
    begun: Option<bool>,
    finished: Option<bool>,
}

impl From<StreamStage> for Marks {
    fn from(stage: StreamStage) -> Self {
        let reached = |mark| (stage >= mark).then_some(true);
        Self {
            begun: reached(StreamStage::Begun),
            finished: reached(StreamStage::Finished),
        }
    }
}

impl From<Marks> for StreamStage {
    fn from(marks: Marks) -> Self {
        match (marks.begun, marks.finished) {
            (_, Some(true)) => Self::Finished,
            (Some(true), _) => Self::Begun,
            _ => Self::Seen,
        }
    }
}

/// A stream of the table, as known to the workers that list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRow {
    /// Its label, which is in the row's key.
    #[serde(skip_serializing, deserialize_with = "shared")]
    pub label: Arc<str>,
    /// How far it was read.
    #[serde(flatten)]
    pub stage: StreamStage,
    /// When no stream was later than those that have rows, by the service's clock.
    #[serde(with = "millis")]
    pub newest_at: SystemTime,
}

fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(from).map(Arc::from)
}

fn first_format() -> u32 {
    FIRST_FORMAT
}

/// A worker's heartbeat row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// The incarnation, which is in the row's key.
    #[serde(skip_serializing)]
    pub incarnation: Incarnation,
    /// Raised by every heartbeat.
    pub beat: u64,
    /// The worker is leaving: it gets no more shards.
    pub draining: bool,
    /// The worker has not been able to list the stream for a while: another does it.
    #[serde(default)]
    pub unable_to_list: bool,
    /// How long others must see the same beat before they can take this worker's leases. It is in the
    /// row so that differently configured workers do not rob each other.
    #[serde(rename = "lease_ms", with = "millis::length")]
    pub lease_duration: Duration,
    /// The worker's build.
    pub version: String,
    /// The newest row format that the worker reads. 1 if the row does not say.
    #[serde(default = "first_format")]
    pub reads: u32,
    /// The availability zone, if known.
    pub zone: Option<String>,
    /// The address of its status page, if it has one.
    pub status_address: Option<String>,
    /// What keeps a live worker from its work, such as a mail server that is down. For people only.
    pub trouble: Option<String>,
    /// A shard whose task makes no progress, in a live worker. For people only. The shard's own row
    /// cannot show it.
    pub stuck: Option<ShardId>,
    /// The effects that it performs. An effect that a live worker performs cannot be retired.
    #[serde(default)]
    pub effects: Vec<EffectName>,
    /// When it wrote this beat, by the service's clock. For people only.
    #[serde(default, with = "millis::if_any")]
    pub at: Option<SystemTime>,
}

/// How far a shard has been handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredCheckpoint", into = "StoredCheckpoint")]
pub enum Checkpoint {
    /// Everything up to here is finished. The rest is still to be read.
    At(Position),
    /// The shard has ended and everything in it is finished. `children` have leases of their own.
    End {
        /// The shards that continue it, as found when it ended.
        children: Vec<ShardId>,
    },
}

/// The checkpoint of a shard in which nothing is finished yet.
pub const HORIZON: &str = "TRIM_HORIZON";
/// The checkpoint of a finished shard.
pub const END: &str = "SHARD_END";

/// A checkpoint as the row stores it.
#[derive(Serialize, Deserialize)]
struct StoredCheckpoint {
    /// A sequence number, [`HORIZON`] or [`END`].
    checkpoint: String,
    #[serde(default)]
    children: Vec<ShardId>,
}

impl From<Checkpoint> for StoredCheckpoint {
    fn from(checkpoint: Checkpoint) -> Self {
        let (checkpoint, children) = match checkpoint {
            Checkpoint::At(Position::Horizon) => (HORIZON.to_owned(), Vec::new()),
            Checkpoint::At(Position::After(last)) => (last.into(), Vec::new()),
            Checkpoint::End { children } => (END.to_owned(), children),
        };
        Self {
            checkpoint,
            children,
        }
    }
}

impl TryFrom<StoredCheckpoint> for Checkpoint {
    type Error = InvalidSequenceNumber;

    fn try_from(place: StoredCheckpoint) -> Result<Self, Self::Error> {
        Ok(match &*place.checkpoint {
            HORIZON => Self::At(Position::Horizon),
            END => Self::End {
                children: place.children,
            },
            _ => Self::At(Position::After(place.checkpoint.try_into()?)),
        })
    }
}

/// A shard's lease row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The shard, which is in the row's key.
    #[serde(skip_serializing)]
    pub shard: ShardId,
    /// The shard that it continues, if any.
    pub parent: Option<ShardId>,
    /// The owner. `None`: free, can be taken at once.
    pub owner: Option<Incarnation>,
    /// Raised by every change of owner.
    pub epoch: Epoch,
    /// The format of the row. Writes use the newest format that all workers read.
    pub format: u32,
    /// Records created before this are older than the group and are skipped; `None`: all of them belong
    /// to the group. Written with the row and never changed, so that a group row that is lost or
    /// written late skips no record.
    #[serde(default, with = "millis::if_any")]
    pub starts_at: Option<SystemTime>,
    /// How far it is finished.
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// The progress that the owner last reported with the checkpoint.
    #[serde(flatten)]
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

    /// No record in the shard was committed before `time`, as far as is known: it could be read from
    /// then on.
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

/// What an owner reports about a shard with its checkpoint: for people, and to decide whether records
/// can have been trimmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When the last finished record was committed.
    #[serde(default, with = "millis::if_any")]
    pub frontier_time: Option<SystemTime>,
    /// When the shard was last read to its end with everything finished.
    #[serde(default, with = "millis::if_any")]
    pub caught_up_at: Option<SystemTime>,
    /// Records finished since the lease was taken.
    pub finished: u64,
    /// The last failure, if it still matters.
    pub last_error: Option<String>,
    /// When the oldest read and unfinished record was committed. An owner whose build does not know
    /// this attribute leaves it unchanged: [`Report::oldest_waiting`] checks whether it still counts.
    #[serde(default, with = "millis::if_any")]
    pub waiting_since: Option<SystemTime>,
    /// Records finished in about the last minute ([`Rate`](crate::core::rate::Rate)).
    #[serde(default)]
    pub per_minute: u64,
    /// When the owner reported this, by the service's clock.
    #[serde(default, with = "millis::if_any")]
    pub reported_at: Option<SystemTime>,
    /// The effects that have finished more than the checkpoint, each with the last record below which
    /// everything is finished. The checkpoint is the least position of all effects: reading starts
    /// there, and each effect skips what it has done.
    #[serde(default, with = "ahead")]
    pub ahead: BTreeMap<EffectName, SequenceNumber>,
}

/// A row without effects that are ahead has no such attribute.
mod ahead {
    use super::{BTreeMap, Deserialize, Deserializer, EffectName, SequenceNumber, Serialize};

    type Ahead = BTreeMap<EffectName, SequenceNumber>;

    pub fn serialize<S: serde::Serializer>(ahead: &Ahead, to: S) -> Result<S::Ok, S::Error> {
        Some(ahead).filter(|ahead| !ahead.is_empty()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ahead, D::Error> {
        Option::<Ahead>::deserialize(from).map(Option::unwrap_or_default)
    }
}

impl Report {
    /// No unfinished record was committed before this.
    pub fn complete_until(&self) -> Option<SystemTime> {
        self.frontier_time.max(self.caught_up_at)
    }

    /// When the oldest waiting record was committed; `None`: no read record waits.
    pub fn oldest_waiting(&self) -> Option<SystemTime> {
        self.waiting_since
            .filter(|since| self.complete_until().is_none_or(|until| *since >= until))
    }
}

/// Stands for a shard's id in a gap: all shards of a stream that was gone before it was read to its
/// end.
pub const WHOLE_STREAM: &str = "whole-stream";

/// Stands for a shard's id in a gap: unknown streams before the one in the gap.
pub const BEFORE_STREAM: &str = "before-stream";

/// Records that were trimmed before they could be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRow {
    /// The shard that lost them.
    pub shard: ShardId,
    /// The last record that was read before the gap; `None` if none was. Read records are handled; a
    /// crash in between is recorded as another gap that begins earlier.
    pub last_handled: Option<SequenceNumber>,
    /// When that record was committed.
    #[serde(default, with = "millis::if_any")]
    pub last_handled_time: Option<SystemTime>,
    /// The first record that was found after the gap; `None` until one is found.
    pub first_after: Option<SequenceNumber>,
    /// When the gap was noticed.
    #[serde(with = "millis")]
    pub detected: SystemTime,
    /// What an operator found out about it; `None`: nobody has resolved it yet.
    pub resolved: Option<GapResolution>,
}

impl GapRow {
    /// A gap of records that were never read. No record committed before `since` is in it.
    pub fn unread(shard: ShardId, since: Option<SystemTime>, detected: SystemTime) -> Self {
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

/// An operator has dealt with the gap: the lost records were found elsewhere, or do not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapResolution {
    /// The operator.
    pub by: String,
    /// When.
    #[serde(with = "millis")]
    pub at: SystemTime,
    /// Why nothing is left to do.
    pub note: String,
}
