//! The metrics in Amazon CloudWatch's embedded metric format (EMF): lines of JSON in a log. On ECS and
//! Lambda, standard output goes to such a log, so no agent and no API call is needed.
//!
//! Source: [the specification](https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
//!
//! A `_total` is the difference since the previous line, so that CloudWatch's sum over a period is what
//! happened in it. Of the shards' values, the worst one represents the worker. Durations are written as
//! an array, each the mean of its bucket: all of them up to a hundred, which is the most that the
//! specification allows, and above that a hundred that are spread evenly. So percentiles are right; the
//! counters have the number of durations.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value as Json, json};

use super::metrics::{Metric, MetricLabels, MetricUnit, MetricValue, Sample};
use crate::core::millis::since_1970;
use crate::engine::progress::{BucketCounts, Buckets};

/// The namespace of all metrics.
pub const NAMESPACE: &str = "aftercommit";

/// The most values of one metric in one line.
const MOST: u64 = 100;

/// Writes lines, and remembers what the last ones contained.
///
/// A Lambda function keeps one for its lifetime and writes a line at the end of each invocation:
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use aftercommit::monitor::{Counters, Histogram, ShardNow};
/// use aftercommit::monitor::emf::Emf;
/// use aftercommit::monitor::metrics::{Facts, MetricLabels, Mails, Sample};
/// use aftercommit::{EffectName, Group};
///
/// let (counters, handling) = (Counters::default(), Histogram::default());
/// let mut emf = Emf::default();
/// let labels = MetricLabels {
///     group: Group::default(),
///     effect: EffectName::default(),
///     table: "orders".to_owned(),
/// };
/// // ... an invocation ...
/// let sample = Sample::of(&Facts {
///     labels: &labels,
///     counters: &counters,
///     handling: &handling,
///     mails: Some(Mails::default()),
///     shards: &[ShardNow::of_event(Duration::from_secs(1), Duration::from_hours(24))],
///     down_for: Duration::ZERO,
///     levels: None,
///     fleet: None,
/// });
/// for line in emf.lines(SystemTime::now(), &[sample]) {
///     println!("{line}");
/// }
/// ```
#[derive(Debug, Default)]
pub struct Emf {
    /// By labels and metric.
    before: BTreeMap<(MetricLabels, &'static str), MetricValue>,
}

impl Emf {
    /// One line for each group, effect and table.
    pub fn lines(&mut self, at: SystemTime, samples: &[Sample]) -> Vec<String> {
        samples.iter().map(|sample| self.line(at, sample)).collect()
    }

    fn line(&mut self, at: SystemTime, sample: &Sample) -> String {
        let (mut members, mut definitions) = (Map::new(), Vec::new());
        for (metric, value) in &sample.values {
            let key = (sample.labels.clone(), metric.name);
            let before = self.before.insert(key, value.clone());
            if let Some(number) = number(value, before.as_ref()) {
                definitions.push(definition(metric));
                members.insert(metric.name.to_owned(), number);
            }
        }
        let millis = u64::try_from(since_1970(at).as_millis()).unwrap_or(u64::MAX);
        for (name, value) in sample.labels.pairs() {
            members.insert(name.to_owned(), value.into());
        }
        members.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        let directive = json!({
            "Namespace": NAMESPACE,
            "Dimensions": [MetricLabels::NAMES],
            "Metrics": definitions,
        });
        let about = json!({ "Timestamp": millis, "CloudWatchMetrics": [directive] });
        members.insert("_aws".to_owned(), about);
        Json::Object(members).to_string()
    }
}

fn definition(metric: &Metric) -> Json {
    let unit = match metric.unit {
        MetricUnit::Count => "Count",
        MetricUnit::Seconds => "Seconds",
        MetricUnit::Bytes => "Bytes",
    };
    json!({ "Name": metric.name, "Unit": unit })
}

/// The value in a line; `None`: there is nothing to report.
fn number(value: &MetricValue, before: Option<&MetricValue>) -> Option<Json> {
    match (value, before) {
        (MetricValue::Counter(now), Some(MetricValue::Counter(before))) => {
            Some(now.saturating_sub(*before).into())
        }
        (MetricValue::Counter(now), _) => Some((*now).into()),
        (MetricValue::Gauge(value) | MetricValue::Process(value), _) => Some((*value).into()),
        (MetricValue::Each(each), _) => each.joined().map(Json::from),
        (MetricValue::Times(now), Some(MetricValue::Times(before))) => times(now, before),
        (MetricValue::Times(now), _) => times(now, &Buckets::default()),
        (MetricValue::Build, _) => None,
    }
}

fn times(now: &Buckets, before: &Buckets) -> Option<Json> {
    let new = now.iter().zip(before).map(|(now, before)| BucketCounts {
        count: now.count.saturating_sub(before.count),
        seconds: (now.seconds - before.seconds).max(0.0),
    });
    #[expect(clippy::cast_precision_loss, reason = "a mean need not be exact")]
    let mean = |held: &BucketCounts| held.seconds / held.count as f64;
    let new: Vec<_> = new.filter(|held| held.count > 0).collect();
    let total: u64 = new.iter().map(|held| held.count).sum();
    let most = total.min(MOST);
    // In the middle of each of this many equal parts.
    let ranks = (0..most).map(|part| (2 * part + 1) * total / (2 * most));
    let at = |rank: u64| {
        let mut before = 0;
        let mut buckets = new.iter();
        let holds = |held: &&BucketCounts| {
            before += held.count;
            rank < before
        };
        buckets.find(holds).map(mean)
    };
    let times: Vec<_> = ranks.filter_map(at).collect();
    (!times.is_empty()).then(|| times.into())
}

#[cfg(test)]
mod tests;
