//! The document that tells people and scripts how a fleet is doing.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::findings::{self, Finding, ResolvedBy};
use crate::stores::ledger::Needed;

/// The version of the document. It is raised when a field changes its meaning, not when one is added.
pub const FORMAT: u32 = 1;

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

/// How a fleet is doing on all its streams.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetStatus {
    /// The version of this document: [`FORMAT`].
    pub format: u32,
    /// When the rows were read.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// What the findings come to.
    pub verdict: Verdict,
    /// What a person has to do next, in words, the most urgent first. Empty if nothing is.
    pub advice: Vec<String>,
    /// Everything that is wrong, the most urgent first: also what the workers resolve by themselves.
    pub findings: Vec<Finding>,
    /// Each stream.
    pub streams: Vec<StreamStatus>,
    /// Orders that wait for a person, because nobody can tell whether their mail went out; `None`: not asked for, or no answer
    /// (then the advice says so).
    pub ambiguous: Option<u64>,
    /// Such orders whose mail the workers send once more by themselves; `None` as above.
    pub resending: Option<u64>,
    /// Orders that an operator released and that are not sent yet; `None` as above.
    pub released: Option<u64>,
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
    pub resolved: Option<Resolved>,
}

/// That somebody dealt with a gap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolved {
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

impl FleetStatus {
    /// What the streams come to. `needed`: how many orders need attention, if that was asked for.
    pub fn new(at: SystemTime, mut streams: Vec<StreamStatus>, needed: Option<Needed>) -> Self {
        let several = streams.len() > 1;
        let mut all = Vec::new();
        for stream in &mut streams {
            let found = findings::on(stream);
            stream.verdict = stream.verdict.max(of(&found));
            let table = &stream.table;
            let named = |mut finding: Finding| {
                if several {
                    finding.text = format!("{table}: {}", finding.text);
                }
                finding
            };
            all.extend(found.into_iter().map(named));
        }
        all.extend(needed.iter().flat_map(findings::on_orders));
        let worst = streams.iter().map(|stream| stream.verdict).max();
        let worst = worst.unwrap_or(Verdict::Unknown);
        let status = Self {
            format: FORMAT,
            at,
            verdict: worst.max(of(&all)),
            advice: Vec::new(),
            findings: Vec::new(),
            streams,
            ambiguous: needed.map(|needed| needed.ambiguous),
            resending: needed.map(|needed| needed.resending),
            released: needed.map(|needed| needed.released),
        };
        status.with(all)
    }

    /// The same, with these findings.
    fn with(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        self.findings.extend(findings);
        self.findings.sort_by_key(|finding| finding.kind);
        self.advice = self.words(ResolvedBy::Person);
        self
    }

    /// What is wrong and resolved so, in words.
    pub fn words(&self, by: ResolvedBy) -> Vec<String> {
        let of = self.findings.iter().filter(|finding| finding.by == by);
        of.map(|finding| finding.text.clone()).collect()
    }

    /// The same, where some of it was asked for and not answered, told in these words: what is well as
    /// far as it is known cannot be told then.
    #[must_use]
    pub fn without(self, answers: impl IntoIterator<Item = String>) -> Self {
        let findings: Vec<_> = answers
            .into_iter()
            .map(|why| findings::on_silence(&why))
            .collect();
        let verdict = match self.verdict {
            Verdict::Well | Verdict::Recovering if !findings.is_empty() => Verdict::Unknown,
            verdict => verdict,
        };
        Self { verdict, ..self }.with(findings)
    }
}

/// What findings come to.
fn of(findings: &[Finding]) -> Verdict {
    let verdicts = findings.iter().map(|finding| match finding.by {
        ResolvedBy::Person => Verdict::Attention,
        ResolvedBy::Workers => Verdict::Recovering,
    });
    verdicts.max().unwrap_or(Verdict::Well)
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
