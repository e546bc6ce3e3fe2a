//! How a fleet is doing on one stream: its workers, shards and gaps.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// The verdict, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusVerdict {
    /// Nothing is wrong.
    Well,
    /// Something is wrong, and the workers resolve it.
    Recovering,
    /// A person should look; the advice says where.
    Attention,
    /// The rows do not show it.
    Unknown,
}

/// How a fleet is doing on one stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamStatus {
    /// Its key: `<group>#<table ARN>`.
    pub group_table: String,
    /// The group.
    pub group: String,
    /// The effects of the group.
    pub effects: Vec<EffectStatus>,
    /// The table's name, if the ARN contains one.
    pub table: String,
    /// The verdict.
    pub verdict: StatusVerdict,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The shards, parents before their children.
    pub shards: Vec<ShardStatus>,
    /// Records that left the stream unread.
    pub gaps: Vec<Gap>,
    /// Rows that this build cannot read.
    pub unreadable: Vec<UnreadableRow>,
    /// Keys that wait behind a dead letter; `None`: not queried, or no answer (then the advice says
    /// so).
    pub parked_keys: Option<u64>,
    /// The same, by the reason of their dead letter.
    pub dead_letters: Option<BTreeMap<&'static str, u64>>,
}

/// An effect of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectStatus {
    /// Its name.
    pub name: String,
    /// How many workers perform it, of those that may be alive.
    pub workers: usize,
}

/// A worker of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// Its incarnation: its name, and which start of it.
    pub worker: String,
    /// Whether its heartbeat moves; `None`: it was not watched long enough to tell.
    pub alive: Option<bool>,
    /// For how many seconds its heartbeat has not moved, by the observer's clock.
    pub heartbeat_age_seconds: Option<f64>,
    /// It is leaving.
    pub draining: bool,
    /// Its build.
    pub version: String,
    /// Its availability zone, if known.
    pub zone: Option<String>,
    /// The address of its status page, if it has one.
    pub status_address: Option<String>,
    /// What keeps it from its work though it is alive, such as a mail server that is down.
    pub trouble: Option<String>,
    /// A shard whose task makes no progress, though the worker is alive.
    pub stuck_shard: Option<String>,
    /// How many open shards it owns.
    pub shards: usize,
}

/// The state of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// A live worker owns it.
    Reading,
    /// Nobody owns it: a worker takes it at its next look.
    Free,
    /// Its owner seems to be dead: another worker takes it soon.
    Orphaned,
    /// It is read to its end.
    Ended,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardStatus {
    /// Its id.
    pub shard: String,
    /// The shard that it continues.
    pub parent: Option<String>,
    /// The shards that continue it, once it has ended.
    pub children: Vec<String>,
    /// Its state.
    pub state: ShardState,
    /// The incarnation of its owner.
    pub owner: Option<String>,
    /// Raised by every change of owner.
    pub epoch: u64,
    /// Everything up to here is finished: `TRIM_HORIZON`, a sequence number, or `SHARD_END`.
    pub checkpoint: String,
    /// The age of the oldest unfinished record in seconds; an upper bound if nobody reads it or its
    /// task is stuck. `None`: not known, or the shard has ended.
    pub lag_seconds: Option<f64>,
    /// In how many seconds the next unfinished record leaves the stream; a lower bound if nobody reads
    /// it. `None`: not known, or the shard has ended.
    pub until_trim_seconds: Option<f64>,
    /// Records finished per minute.
    pub per_minute: f64,
    /// The last failure, if it still matters.
    pub last_error: Option<String>,
}

/// Records that left the stream before they could be read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gap {
    /// The shard that lost them.
    pub shard: String,
    /// The last record before them that was finished.
    pub last_handled: Option<String>,
    /// When that record was committed.
    #[serde(serialize_with = "rfc3339_if_any")]
    pub last_handled_time: Option<SystemTime>,
    /// The first record found after them.
    pub first_after: Option<String>,
    /// When the gap was found.
    #[serde(serialize_with = "rfc3339")]
    pub detected: SystemTime,
    /// What an operator found out about them; `None`: nobody has resolved the gap yet.
    pub resolved: Option<ResolvedGap>,
}

/// An operator has resolved a gap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResolvedGap {
    /// The operator.
    pub by: String,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// Why nothing is left to do.
    pub note: String,
}

/// A row that this build cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableRow {
    /// Its key.
    pub row: String,
    /// Why.
    pub why: String,
}

impl StreamStatus {
    /// The same, with the parked keys, each by the reason of its dead letter (`None`: an earlier build
    /// did not record it).
    #[must_use]
    pub fn with_parked(mut self, reasons: impl IntoIterator<Item = Option<&'static str>>) -> Self {
        let mut by_reason = BTreeMap::new();
        for reason in reasons {
            *by_reason.entry(reason.unwrap_or("unknown")).or_insert(0) += 1;
        }
        self.parked_keys = Some(by_reason.values().sum());
        self.dead_letters = Some(by_reason);
        self
    }
}

pub(super) fn rfc3339<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*time))
}

#[expect(clippy::ref_option, reason = "serde calls it with this type")]
fn rfc3339_if_any<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, to),
        None => to.serialize_none(),
    }
}
