//! The rows of the lease table, as the fleet's decisions and the stores share them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize};

use super::terms::{Epoch, Incarnation};
use crate::core::group::Identity;
use crate::core::millis;
use crate::core::position::{InvalidSequenceNumber, Position, SequenceNumber};
use crate::core::shard::ShardId;

/// The newest format of rows that this build reads.
pub const FORMAT: u32 = 1;

/// The format of the rows by which builds come to know each other: the group's, the streams' and the
/// workers'.
pub const FIRST_FORMAT: u32 = 1;

/// The sort key of the group's own row.
pub const GROUP_ROW: &str = "group";
/// What the sort key of a worker's row begins with.
pub const WORKER: &str = "worker#";
/// What the sort key of a shard's lease begins with.
pub const SHARD: &str = "shard#";
/// What the sort key of an ended shard's lease begins with, once looks need it no more.
pub const ARCHIVE: &str = "archive#";

/// Where a group started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InitialPosition {
    /// Everything that the stream still holds.
    TrimHorizon,
    /// What was committed from the first bootstrap on.
    Latest,
}

/// The `group` row: written once, by the worker that comes first. It outlives the table's streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Where the group started from.
    pub initial: InitialPosition,
    /// When the first worker bootstrapped, by the service's clock; with [`InitialPosition::Latest`]
    /// records created before it are skipped, as each lease says. To the millisecond.
    #[serde(with = "millis")]
    pub bootstrapped: SystemTime,
    /// The settings that decide which record becomes which effect. Empty: the group has none.
    pub identity: Identity,
}

/// How far a stream of the table was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Marks", into = "Marks")]
pub enum Stage {
    /// It was listed. If it is gone before it is begun, all of it is lost.
    Seen,
    /// Some of its shards have leases. If it is gone at this stage, some of it may be lost.
    Begun,
    /// It was switched off, and all that it listed after that was read; or it is older than the
    /// group; or what was lost of it is written down.
    Finished,
}

/// A stage as the row has it: two attributes that are only ever added, so that a stage never falls.
#[derive(Serialize, Deserialize)]
struct Marks {
    begun: Option<bool>,
    finished: Option<bool>,
}

impl From<Stage> for Marks {
    fn from(stage: Stage) -> Self {
        let reached = |mark| (stage >= mark).then_some(true);
        Self {
            begun: reached(Stage::Begun),
            finished: reached(Stage::Finished),
        }
    }
}

impl From<Marks> for Stage {
    fn from(marks: Marks) -> Self {
        match (marks.begun, marks.finished) {
            (_, Some(true)) => Self::Finished,
            (Some(true), _) => Self::Begun,
            _ => Self::Seen,
        }
    }
}

/// A stream of the table, as the workers that list know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRow {
    /// Its label. The row's key has it.
    #[serde(skip_serializing, deserialize_with = "shared")]
    pub label: Arc<str>,
    /// How far it was read.
    #[serde(flatten)]
    pub stage: Stage,
    /// At this time no stream was later than those that have rows: of the service's clock.
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
    /// Which start of which worker. The row's key has it.
    #[serde(skip_serializing)]
    pub incarnation: Incarnation,
    /// Raised by every heartbeat.
    pub beat: u64,
    /// The worker is leaving: nothing more is assigned to it.
    pub draining: bool,
    /// The worker has not been able to list the stream for a while: another does it.
    #[serde(default)]
    pub unable_to_list: bool,
    /// How long others must see the same beat before they may take this worker's leases. It
    /// stands in the row so that workers that are configured differently cannot rob each other.
    #[serde(rename = "lease_ms", with = "millis::length")]
    pub lease_duration: Duration,
    /// The build that the worker runs.
    pub version: String,
    /// The newest format of rows that the worker reads. 1 where the row does not say.
    #[serde(default = "first_format")]
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
    #[serde(default, with = "millis::if_any")]
    pub at: Option<SystemTime>,
}

/// How far a shard has been handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Place", into = "Place")]
pub enum Checkpoint {
    /// Everything up to here is settled; the rest is still to be read.
    At(Position),
    /// The shard has ended and everything in it is settled. `children` have leases of their own.
    End {
        /// The shards that continue it, as found when it ended.
        children: Vec<ShardId>,
    },
}

/// The checkpoint of a shard of which nothing is settled yet.
pub const HORIZON: &str = "TRIM_HORIZON";
/// The checkpoint of a shard that has ended and is settled.
pub const END: &str = "SHARD_END";

/// A checkpoint as the row has it.
#[derive(Serialize, Deserialize)]
struct Place {
    /// A sequence number, [`HORIZON`] or [`END`].
    checkpoint: String,
    #[serde(default)]
    children: Vec<ShardId>,
}

impl From<Checkpoint> for Place {
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

impl TryFrom<Place> for Checkpoint {
    type Error = InvalidSequenceNumber;

    fn try_from(place: Place) -> Result<Self, Self::Error> {
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
    /// The shard. The row's key has it.
    #[serde(skip_serializing)]
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
    #[serde(default, with = "millis::if_any")]
    pub starts_at: Option<SystemTime>,
    /// How far it is settled.
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// The progress that the owner last reported beside the checkpoint.
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When the last settled record was committed.
    #[serde(default, with = "millis::if_any")]
    pub frontier_time: Option<SystemTime>,
    /// When the shard was last read to its end and everything in it was settled.
    #[serde(default, with = "millis::if_any")]
    pub caught_up_at: Option<SystemTime>,
    /// Records settled since the lease was taken.
    pub settled: u64,
    /// The last thing that went wrong, if it still matters.
    pub last_error: Option<String>,
    /// When the oldest record was committed that was read and is not settled. An owner whose build
    /// does not know of it leaves it as it is: [`Report::oldest_waiting`] tells what it is worth.
    #[serde(default, with = "millis::if_any")]
    pub waiting_since: Option<SystemTime>,
    /// Records settled in about the last minute ([`Rate`](crate::core::rate::Rate)).
    #[serde(default)]
    pub per_minute: u64,
    /// When the owner told all this, by the service's clock.
    #[serde(default, with = "millis::if_any")]
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
pub const WHOLE_STREAM: &str = "whole-stream";

/// In place of a shard's id in a gap: streams that nobody knows of, before the one in the gap.
pub const BEFORE_STREAM: &str = "before-stream";

/// Records that were trimmed before they could be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRow {
    /// The shard that lost them.
    pub shard: ShardId,
    /// The last record that was read before the gap; `None` if none ever was. What was read is
    /// handled; what a crash cut off is missed anew, by a gap that begins earlier.
    pub last_handled: Option<SequenceNumber>,
    /// When that record was committed.
    #[serde(default, with = "millis::if_any")]
    pub last_handled_time: Option<SystemTime>,
    /// The first record that was found behind the gap; `None` until one is found.
    pub first_after: Option<SequenceNumber>,
    /// When the gap was noticed.
    #[serde(with = "millis")]
    pub detected: SystemTime,
    /// What an operator found out about it; `None`: nobody has looked yet.
    pub resolved: Option<GapResolution>,
}

impl GapRow {
    /// A gap of what was never read; nothing that was committed before `since` is in it.
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

/// That somebody dealt with a gap: what was lost was found elsewhere, or it does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapResolution {
    /// Who says so.
    pub by: String,
    /// When.
    #[serde(with = "millis")]
    pub at: SystemTime,
    /// Why nothing is left to do.
    pub note: String,
}
