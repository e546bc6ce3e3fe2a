//! Every metric by its name, and the numbers behind it: in the text that Prometheus reads here, for
//! CloudWatch in [`super::emf`].

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::budget::Budget;
use crate::group::{Effect, Group};
use crate::progress::{BOUNDS, Buckets, Counters, Histogram, ShardNow};

mod table;

pub use table::METRICS;

/// What became of the mails of a handler that sends some, since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Mails {
    /// The mail server took them.
    pub accepted: u64,
    /// Refused for good.
    pub failed: u64,
    /// Nobody can tell whether they were accepted.
    pub ambiguous: u64,
    /// Accepted though one of the same order was before: the second of a doubt.
    pub second_acceptances: u64,
    /// Settled while their order waits for an operator.
    pub parked: u64,
    /// Deliberately not sent.
    pub suppressed: u64,
    /// Put off by the server, or certainly not sent.
    pub deferred: u64,
    /// Dead letters because another item has the same effect key.
    pub collisions: u64,
}

impl Mails {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            failed: self.failed + other.failed,
            ambiguous: self.ambiguous + other.ambiguous,
            second_acceptances: self.second_acceptances + other.second_acceptances,
            parked: self.parked + other.parked,
            suppressed: self.suppressed + other.suppressed,
            deferred: self.deferred + other.deferred,
            collisions: self.collisions + other.collisions,
        }
    }
}

/// Whose metrics these are: labels in Prometheus, dimensions in CloudWatch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// The group that handles the changes.
    pub group: Group,
    /// The effect that it performs.
    pub effect: Effect,
    /// The name of the table whose changes are handled.
    pub table: String,
}

impl Labels {
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

    /// As Prometheus reads them.
    fn text(&self) -> String {
        let pairs = self.pairs();
        let pairs = pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        pairs.join(",")
    }
}

/// What the metrics are read from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Whose they are.
    pub labels: &'a Labels,
    /// What was done so far.
    pub counters: &'a Counters,
    /// How long attempts took.
    pub handling: &'a Histogram,
    /// What became of mails, where the handler sends some.
    pub mails: Option<Mails>,
    /// The shards of which the lag is known.
    pub behind: Vec<Behind>,
    /// The rest; `None` on Lambda, where there is no fleet.
    pub fleet: Option<FleetNow<'a>>,
}

/// How far a shard is behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// The shard.
    pub shard: String,
    /// The age of its oldest unsettled record.
    pub lag: Duration,
    /// How long until that record leaves the stream.
    pub until_trim: Duration,
}

/// What a member of a fleet has besides.
#[derive(Debug)]
pub struct FleetNow<'a> {
    /// From commit until settled.
    pub settling: &'a Histogram,
    /// The shards that it reads.
    pub shards: &'a [ShardNow],
    /// The memory budget, once it runs.
    pub budget: Option<&'a Budget>,
    /// For how long what the handler depends on has been down.
    pub down_for: Duration,
}

/// A metric: its name, and what it says.
#[derive(Debug)]
pub struct Metric {
    /// The same for Prometheus and CloudWatch.
    pub name: &'static str,
    /// What it says, in a line.
    pub help: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// Whether there is one on Lambda, too.
    pub on_lambda: bool,
    read: Read,
}

/// What a metric is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// Which of several shards' values stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worst {
    /// The greatest.
    Most,
    /// The least.
    Least,
}

/// Where a metric's value is.
#[derive(Debug, Clone, Copy)]
enum Read {
    Counter(fn(&Counters) -> &AtomicU64),
    Mails(fn(&Mails) -> u64),
    Shards(fn(&Behind) -> Duration, Worst),
    Table(fn(&[ShardNow]) -> u64),
    Process(fn(&FleetNow<'_>) -> f64),
    Handling,
    Settling,
    Build,
}

/// The value of a metric at a moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Only ever rises.
    Counter(u64),
    /// Of the table.
    Gauge(f64),
    /// Of each shard, and which of them stands for all.
    Shards(Vec<(String, f64)>, Worst),
    /// Of the process, whatever the table.
    Process(f64),
    /// How long things took.
    Times(Box<Buckets>),
    /// The build that runs.
    Build,
}

/// The metrics of one group, effect and table at a moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Whose they are.
    pub labels: Labels,
    /// Each metric that has a value.
    pub values: Vec<(&'static Metric, Value)>,
}

#[expect(clippy::cast_precision_loss, reason = "what is held at a time is few")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Metric {
    /// The value, if there is one.
    fn value(&self, facts: &Facts<'_>) -> Option<Value> {
        if facts.fleet.is_none() && !self.on_lambda {
            return None;
        }
        let fleet = facts.fleet.as_ref();
        Some(match self.read {
            Read::Counter(of) => Value::Counter(of(facts.counters).load(Ordering::Relaxed)),
            Read::Mails(of) => Value::Counter(of(facts.mails.as_ref()?)),
            Read::Shards(of, worst) => {
                let value = |one: &Behind| (one.shard.clone(), of(one).as_secs_f64());
                Value::Shards(facts.behind.iter().map(value).collect(), worst)
            }
            Read::Table(of) => Value::Gauge(float(of(fleet?.shards))),
            Read::Process(of) => Value::Process(of(fleet?)),
            Read::Handling => Value::Times(Box::new(facts.handling.buckets())),
            Read::Settling => Value::Times(Box::new(fleet?.settling.buckets())),
            Read::Build => Value::Build,
        })
    }

    /// As Prometheus names it: `counter`, `gauge` or `histogram`.
    pub fn kind(&self) -> &'static str {
        match self.read {
            Read::Counter(_) | Read::Mails(_) => "counter",
            Read::Shards(..) | Read::Table(_) | Read::Process(_) | Read::Build => "gauge",
            Read::Handling | Read::Settling => "histogram",
        }
    }
}

impl Value {
    /// The value of two consumers of one table.
    fn join(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(mine), Self::Counter(its)) => *mine += its,
            (Self::Gauge(mine), Self::Gauge(its)) => *mine += its,
            (Self::Shards(mine, _), Self::Shards(its, _)) => mine.extend_from_slice(its),
            (Self::Process(mine), Self::Process(its)) => *mine = mine.max(*its),
            (Self::Times(mine), Self::Times(its)) => {
                for (mine, its) in mine.iter_mut().zip(its.iter()) {
                    mine.count += its.count;
                    mine.seconds += its.seconds;
                }
            }
            // The same metric is the same kind of value.
            _ => {}
        }
    }
}

impl Sample {
    /// Every metric that these facts have a value for.
    pub fn of(facts: &Facts<'_>) -> Self {
        let values = METRICS
            .iter()
            .filter_map(|metric| Some((metric, metric.value(facts)?)));
        Self {
            labels: facts.labels.clone(),
            values: values.collect(),
        }
    }

    /// Joins the samples with the same labels: a table may have had several streams.
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
    pub fn value(&self, name: &str) -> Option<&Value> {
        let found = self.values.iter().find(|(metric, _)| metric.name == name);
        found.map(|(_, value)| value)
    }
}

/// The metrics in the text format of Prometheus.
///
/// Source: [Exposition formats](https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).
pub fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let labelled =
            |sample: &'_ Sample| Some((sample.labels.text(), sample.value(metric.name)?.clone()));
        let values: Vec<_> = samples.iter().filter_map(labelled).collect();
        if values.is_empty() {
            continue;
        }
        let (name, kind) = (metric.name, metric.kind());
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        let mut of_process: Option<Value> = None;
        for (labels, value) in values {
            match (&value, &mut of_process) {
                (Value::Process(_) | Value::Build, Some(process)) => process.join(&value),
                (Value::Process(_) | Value::Build, None) => of_process = Some(value),
                _ => lines(&mut text, name, &labels, &value),
            }
        }
        if let Some(value) = of_process {
            lines(&mut text, name, "", &value);
        }
    }
    text
}

/// The lines of one metric with these labels.
fn lines(text: &mut String, name: &str, labels: &str, value: &Value) {
    let _ = match value {
        Value::Counter(count) => writeln!(text, "{name}{{{labels}}} {count}"),
        Value::Gauge(value) => writeln!(text, "{name}{{{labels}}} {value}"),
        Value::Process(value) => writeln!(text, "{name} {value}"),
        Value::Build => writeln!(
            text,
            "{name}{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        ),
        Value::Shards(values, _) => values.iter().try_for_each(|(shard, value)| {
            let shard = escaped(shard);
            writeln!(text, "{name}{{{labels},shard=\"{shard}\"}} {value}")
        }),
        Value::Times(buckets) => times(text, name, labels, buckets),
    };
}

fn times(text: &mut String, name: &str, labels: &str, buckets: &Buckets) -> std::fmt::Result {
    let (mut count, mut sum) = (0, 0.0);
    let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, held) in bounds.zip(buckets) {
        count += held.count;
        sum += held.seconds;
        writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
    }
    writeln!(text, "{name}_sum{{{labels}}} {sum}")?;
    writeln!(text, "{name}_count{{{labels}}} {count}")
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
