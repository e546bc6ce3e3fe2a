//! Every metric, described once ([`METRICS`]), with its numbers. `metrics::prometheus` writes them for
//! Prometheus, [`super::emf`] for CloudWatch. Tests compare the documentation's table and the alarms
//! with the descriptions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::core::group::{EffectName, Group};
use crate::engine::budget::Budget;
use crate::engine::progress::{Buckets, Counters, Histogram, ShardNow};
use crate::monitor::levels::Levels;
use crate::once::{Counted, Tally};

#[cfg(feature = "http")]
pub mod prometheus;
mod table;

pub use table::METRICS;

/// The outcomes of the effects of a handler that performs them once, such as mails, since the process
/// started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Mails {
    /// They took place: the mail server accepted them.
    pub accepted: u64,
    /// Refused for good.
    pub failed: u64,
    /// It is unknown whether they were accepted.
    pub ambiguous: u64,
    /// Accepted although another one for the same order was: the second one after a doubt.
    pub second_acceptances: u64,
    /// No longer in doubt, because the other side recognised a repeat.
    pub closed: u64,
    /// Finished while their order waits for an operator.
    pub parked: u64,
    /// Deliberately not sent.
    pub suppressed: u64,
    /// Deferred by the server, or certainly not sent.
    pub deferred: u64,
    /// Dead letters because another item has the same effect key.
    pub collisions: u64,
}

impl Mails {
    /// The present counts of a handler.
    pub fn of(tally: &Tally) -> Self {
        Self {
            accepted: tally.of(Counted::Accepted),
            failed: tally.of(Counted::Refused),
            ambiguous: tally.of(Counted::Ambiguous),
            second_acceptances: tally.of(Counted::SecondAcceptances),
            closed: tally.of(Counted::Closed),
            parked: tally.of(Counted::Parked),
            suppressed: tally.of(Counted::Suppressed),
            deferred: tally.of(Counted::Deferred),
            collisions: tally.of(Counted::Collisions),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            failed: self.failed + other.failed,
            ambiguous: self.ambiguous + other.ambiguous,
            second_acceptances: self.second_acceptances + other.second_acceptances,
            closed: self.closed + other.closed,
            parked: self.parked + other.parked,
            suppressed: self.suppressed + other.suppressed,
            deferred: self.deferred + other.deferred,
            collisions: self.collisions + other.collisions,
        }
    }
}

/// The labels of the metrics in Prometheus, their dimensions in CloudWatch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricLabels {
    /// The group that handles the changes.
    pub group: Group,
    /// The effect that it performs.
    pub effect: EffectName,
    /// The name of the table whose changes are handled.
    pub table: String,
}

impl MetricLabels {
    /// The names of the labels.
    pub const NAMES: [&str; 3] = ["group", "effect", "table"];

    /// Each label with its value.
    pub fn pairs(&self) -> [(&'static str, &str); 3] {
        let [group, effect, table] = Self::NAMES;
        [
            (group, self.group.as_str()),
            (effect, self.effect.as_str()),
            (table, &self.table),
        ]
    }
}

/// The sources of the metrics.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The labels.
    pub labels: &'a MetricLabels,
    /// What was done so far.
    pub counters: &'a Counters,
    /// How long attempts took.
    pub handling: &'a Histogram,
    /// The outcomes of mails, if the handler sends some.
    pub mails: Option<Mails>,
    /// The shards that it reads; on Lambda, the shard of the event.
    pub shards: &'a [ShardNow],
    /// How long the handler's dependency has been down.
    pub down_for: Duration,
    /// What waits in the tables, from the process that counts it.
    pub levels: Option<&'a Levels>,
    /// The rest; `None` on Lambda, where there is no fleet.
    pub fleet: Option<FleetNow<'a>>,
}

/// What only a member of a fleet has.
#[derive(Debug)]
pub struct FleetNow<'a> {
    /// From commit until finished.
    pub finishing: &'a Histogram,
    /// The memory budget, once it runs.
    pub budget: Option<&'a Budget>,
    /// Log lines that were dropped since the process started.
    pub lines_dropped: u64,
}

/// A metric: its name and its description.
#[derive(Debug)]
pub struct Metric {
    /// The name, for Prometheus and CloudWatch.
    pub name: &'static str,
    /// The description, on one line.
    pub help: &'static str,
    /// The unit.
    pub unit: MetricUnit,
    /// Which processes write it.
    pub source: Measured,
    read: Read,
}

/// Which processes write a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// Each worker of a fleet, about itself.
    Worker,
    /// Each worker of a fleet and each Lambda function, about itself.
    Process,
    /// For the whole group, from the tables: the worker that lists the stream, and each Lambda function.
    Group,
    /// For the whole group, from the lease table: the worker that lists the stream.
    Lister,
}

impl Measured {
    /// Whether Lambda functions write it.
    pub fn on_lambda(self) -> bool {
        matches!(self, Self::Process | Self::Group)
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Worker => "each worker",
            Self::Process => "each worker, Lambda",
            Self::Group => "one worker for the group, Lambda",
            Self::Lister => "one worker for the group",
        }
    }
}

/// The unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricUnit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl MetricUnit {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

/// How several values are combined in CloudWatch, where each label costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The greatest value.
    Most,
    /// The smallest value.
    Least,
    /// The sum of the values.
    Sum,
}

/// How to read a metric's value.
#[derive(Debug, Clone, Copy)]
enum Read {
    Counter(fn(&Counters) -> &AtomicU64),
    Mails(fn(&Mails) -> u64),
    Shards(fn(&ShardNow) -> Option<Duration>, Joined),
    Table(fn(&[ShardNow]) -> u64),
    Level(fn(&Levels) -> Option<u64>),
    ByReason,
    Down,
    Process(fn(&FleetNow<'_>) -> f64),
    Handling,
    Finishing,
    Build,
}

/// The value of a metric at one moment.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricValue {
    /// A value that only rises.
    Counter(u64),
    /// A value for the table.
    Gauge(f64),
    /// A value for each value of a label.
    Each(Each),
    /// A value of the process, whatever the table.
    Process(f64),
    /// Durations.
    Times(Box<Buckets>),
    /// The running build.
    Build,
}

/// A number for each value of a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Each {
    /// The label, such as `shard`.
    pub label: &'static str,
    /// The label's values, each with its number.
    pub values: Vec<(String, f64)>,
    /// How the numbers are combined.
    pub joined: Joined,
}

impl Each {
    /// The combined number, if there is any.
    pub fn joined(&self) -> Option<f64> {
        let values = self.values.iter().map(|(_, value)| *value);
        match self.joined {
            Joined::Most => values.reduce(f64::max),
            Joined::Least => values.reduce(f64::min),
            Joined::Sum => Some(values.sum()),
        }
    }
}

/// The metrics of one group, effect and table at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The labels.
    pub labels: MetricLabels,
    /// Each metric that has a value.
    pub values: Vec<(&'static Metric, MetricValue)>,
}

#[expect(clippy::cast_precision_loss, reason = "what is held at a time is few")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Metric {
    /// The value, if there is one.
    fn value(&self, facts: &Facts<'_>) -> Option<MetricValue> {
        if facts.fleet.is_none() && !self.source.on_lambda() {
            return None;
        }
        let fleet = facts.fleet.as_ref();
        Some(match self.read {
            Read::Counter(of) => MetricValue::Counter(of(facts.counters).load(Ordering::Relaxed)),
            Read::Mails(of) => MetricValue::Counter(of(facts.mails.as_ref()?)),
            Read::Shards(of, joined) => {
                let value = |one: &ShardNow| Some((one.shard.to_string(), of(one)?.as_secs_f64()));
                MetricValue::Each(Each {
                    label: "shard",
                    values: facts.shards.iter().filter_map(value).collect(),
                    joined,
                })
            }
            Read::Table(of) => MetricValue::Gauge(float(of(facts.shards))),
            Read::Level(of) => MetricValue::Gauge(float(of(facts.levels?)?)),
            Read::ByReason => {
                let by_reason = facts.levels?.parked.as_ref()?.iter();
                let values = by_reason.map(|(reason, keys)| ((*reason).to_owned(), float(*keys)));
                MetricValue::Each(Each {
                    label: "reason",
                    values: values.collect(),
                    joined: Joined::Sum,
                })
            }
            Read::Down => MetricValue::Process(facts.down_for.as_secs_f64()),
            Read::Process(of) => MetricValue::Process(of(fleet?)),
            Read::Handling => MetricValue::Times(Box::new(facts.handling.buckets())),
            Read::Finishing => MetricValue::Times(Box::new(fleet?.finishing.buckets())),
            Read::Build => MetricValue::Build,
        })
    }

    /// The type in Prometheus: `counter`, `gauge` or `histogram`.
    pub fn kind(&self) -> &'static str {
        match self.read {
            Read::Counter(_) | Read::Mails(_) => "counter",
            Read::Shards(..)
            | Read::Table(_)
            | Read::Level(_)
            | Read::ByReason
            | Read::Down
            | Read::Process(_)
            | Read::Build => "gauge",
            Read::Handling | Read::Finishing => "histogram",
        }
    }
}

impl MetricValue {
    /// The value of two consumers of one table.
    fn join(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(mine), Self::Counter(its)) => *mine += its,
            (Self::Gauge(mine), Self::Gauge(its)) => *mine += its,
            (Self::Each(mine), Self::Each(its)) => mine.values.extend_from_slice(&its.values),
            (Self::Process(mine), Self::Process(its)) => *mine = mine.max(*its),
            (Self::Times(mine), Self::Times(its)) => {
                for (mine, its) in mine.iter_mut().zip(its.iter()) {
                    mine.count += its.count;
                    mine.seconds += its.seconds;
                }
            }
            // The same metric has the same kind of value.
            _ => {}
        }
    }
}

impl Sample {
    /// Every metric that has a value in these facts.
    pub fn of(facts: &Facts<'_>) -> Self {
        let values = METRICS
            .iter()
            .filter_map(|metric| Some((metric, metric.value(facts)?)));
        Self {
            labels: facts.labels.clone(),
            values: values.collect(),
        }
    }

    /// Combines the samples with the same labels: a table can have had several streams.
    pub fn by_labels(samples: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::new();
        for sample in samples {
            match joined.iter_mut().find(|one| one.labels == sample.labels) {
                Some(one) => one.join(&sample),
                None => joined.push(sample),
            }
        }
        joined
    }

    fn join(&mut self, other: &Self) {
        for (metric, value) in &other.values {
            match self
                .values
                .iter_mut()
                .find(|(mine, _)| mine.name == metric.name)
            {
                Some((_, mine)) => mine.join(value),
                None => self.values.push((metric, value.clone())),
            }
        }
    }

    /// The value of a metric.
    pub fn value(&self, name: &str) -> Option<&MetricValue> {
        let found = self.values.iter().find(|(metric, _)| metric.name == name);
        found.map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests;
