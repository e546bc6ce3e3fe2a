//! How a fleet is doing on one stream: its workers, shards and gaps.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// How things stand, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong.
    Well,
    /// What is wrong is resolved by the workers.
    Recovering,
    /// Somebody should look: the advice says at what.
    Attention,
    /// The rows do not tell.
    Unknown,
}

/// How a fleet is doing on one stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamStatus {
    /// Its key: `<group>#<table ARN>`.
    pub group_table: String,
    /// The group.
    pub group: String,
    /// The effect that the group performs; `None`: the group's row does not name one.
    pub effect: Option<String>,
    /// The table's name, as far as the ARN tells it.
    pub table: String,
    /// How things stand.
    pub verdict: Verdict,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The shards, parents before their children.
    pub shards: Vec<ShardStatus>,
    /// Records that left the stream unread.
    pub gaps: Vec<Gap>,
    /// Rows that this build cannot read.
    pub unreadable: Vec<UnreadableRow>,
    /// Keys that wait behind a dead letter; `None`: not asked for, or no answer (then the advice says
    /// so).
    pub parked_keys: Option<u64>,
    /// The same by the reason of their dead letter.
    pub dead_letters: Option<BTreeMap<&'static str, u64>>,
}

/// A worker of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// Its incarnation: its name, and which start of it.
    pub worker: String,
    /// Whether its heartbeat moves; `None`: it was not watched for long enough to tell.
    pub alive: Option<bool>,
    /// For how many seconds its heartbeat has stood still, by the observer's clock.
    pub heartbeat_age_seconds: Option<f64>,
    /// It is leaving.
    pub draining: bool,
    /// Its build.
    pub version: String,
    /// Its availability zone, where known.
    pub zone: Option<String>,
    /// Where its page is, where it has one.
    pub status_address: Option<String>,
    /// What keeps it from its work though it lives, such as a mail server that is down.
    pub trouble: Option<String>,
    /// A shard of it whose task does not turn, though the worker lives.
    pub stuck_shard: Option<String>,
    /// How many shards it owns that have not ended.
    pub shards: usize,
}

/// What becomes of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// A worker that lives has it.
    Reading,
    /// Nobody has it: a worker takes it at its next look.
    Free,
    /// Whoever has it seems to be dead: another takes it soon.
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
    /// What becomes of it.
    pub state: ShardState,
    /// The incarnation that has it.
    pub owner: Option<String>,
    /// Raised by every change of owner.
    pub epoch: u64,
    /// Up to where everything is settled: `TRIM_HORIZON`, a sequence number, or `SHARD_END`.
    pub checkpoint: String,
    /// How old the oldest record is that is not settled, in seconds: at most, where nobody reads it or
    /// its task is stuck.
    /// `None`: not known, or the shard has ended.
    pub lag_seconds: Option<f64>,
    /// After so many seconds the next record that is not settled leaves the stream: at least, where
    /// nobody reads it. `None`: not known, or the shard has ended.
    pub until_trim_seconds: Option<f64>,
    /// Records settled in a minute.
    pub per_minute: f64,
    /// The last thing that went wrong, if it still matters.
    pub last_error: Option<String>,
}

/// Records that left the stream before they could be read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gap {
    /// The shard that lost them.
    pub shard: String,
    /// The last record before them that was settled.
    pub last_handled: Option<String>,
    /// When that record was committed.
    #[serde(serialize_with = "rfc3339_if_any")]
    pub last_handled_time: Option<SystemTime>,
    /// The first record found behind them.
    pub first_after: Option<String>,
    /// When they were missed.
    #[serde(serialize_with = "rfc3339")]
    pub detected: SystemTime,
    /// What an operator found out about them; `None`: nobody has dealt with them.
    pub resolved: Option<ResolvedGap>,
}

/// That somebody dealt with a gap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResolvedGap {
    /// Who says so.
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
    /// The same, with the keys that are parked, each by the reason of its dead letter (`None`: a
    /// build before told none).
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

#[expect(clippy::ref_option, reason = "as serde calls it")]
fn rfc3339_if_any<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, to),
        None => to.serialize_none(),
    }
}
