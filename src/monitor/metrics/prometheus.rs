//! The metrics in the text format of Prometheus.
//!
//! Source: [Exposition formats](https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{METRICS, Metric, MetricValue, Sample};
use crate::engine::progress::{BOUNDS, Buckets};

/// The content type.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The metrics in Prometheus's format.
///
/// # Errors
///
/// A label that the format does not allow.
pub fn text(samples: Vec<Sample>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Samples(samples)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Samples(Vec<Sample>);

type Pairs = Vec<(&'static str, String)>;

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let of = |sample: &'_ Sample| {
                let pairs = sample.labels.pairs().into_iter();
                let pairs = pairs.map(|(name, value)| (name, value.to_owned()));
                Some((pairs.collect::<Pairs>(), sample.value(metric.name)?.clone()))
            };
            let values: Vec<_> = self.0.iter().filter_map(of).collect();
            if values.is_empty() {
                continue;
            }
            let (name, kind) = described(metric);
            let encoder = encoder.encode_descriptor(name, metric.help, None, kind)?;
            encode(encoder, values)?;
        }
        Ok(())
    }
}

/// The name, without the suffix that the format adds, and the kind.
fn described(metric: &Metric) -> (&'static str, MetricType) {
    let name = metric.name;
    let without = |suffix| name.strip_suffix(suffix).unwrap_or(name);
    match metric.kind() {
        "counter" => (without("_total"), MetricType::Counter),
        "histogram" => (name, MetricType::Histogram),
        _ if name.ends_with("_info") => (without("_info"), MetricType::Info),
        _ => (name, MetricType::Gauge),
    }
}

/// All values of one metric. A value of the process is written once, without labels.
fn encode(mut encoder: MetricEncoder<'_>, values: Vec<(Pairs, MetricValue)>) -> fmt::Result {
    let mut of_process: Option<MetricValue> = None;
    for (pairs, value) in values {
        match (&value, &mut of_process) {
            (MetricValue::Process(_) | MetricValue::Build, Some(process)) => process.join(&value),
            (MetricValue::Process(_) | MetricValue::Build, None) => of_process = Some(value),
            (MetricValue::Counter(count), _) => {
                let mut of = encoder.encode_family(&pairs)?;
                of.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
            (MetricValue::Gauge(value), _) => gauge(encoder.encode_family(&pairs)?, *value)?,
            (MetricValue::Times(buckets), _) => times(encoder.encode_family(&pairs)?, buckets)?,
            (MetricValue::Each(each), _) => {
                for (of, value) in &each.values {
                    let mut pairs = pairs.clone();
                    pairs.push((each.label, of.clone()));
                    gauge(encoder.encode_family(&pairs)?, *value)?;
                }
            }
        }
    }
    match of_process {
        Some(MetricValue::Process(value)) => gauge(encoder, value),
        Some(_) => encoder.encode_info(&[("version", env!("CARGO_PKG_VERSION"))]),
        None => Ok(()),
    }
}

/// A whole number is written without a fraction.
fn gauge(mut encoder: MetricEncoder<'_>, value: f64) -> fmt::Result {
    #[expect(clippy::cast_possible_truncation, reason = "only where it is exact")]
    let whole = value as i64;
    #[expect(clippy::cast_precision_loss, reason = "it is compared")]
    let is_whole = (whole as f64).to_bits() == value.to_bits();
    if is_whole {
        encoder.encode_gauge(&whole)
    } else {
        encoder.encode_gauge(&value)
    }
}

fn times(mut encoder: MetricEncoder<'_>, held: &Buckets) -> fmt::Result {
    let sum = held.iter().map(|bucket| bucket.seconds).sum();
    let count = held.iter().map(|bucket| bucket.count).sum();
    let bounds = BOUNDS.into_iter().chain([f64::MAX]);
    let counts = held.iter().map(|bucket| bucket.count);
    let buckets: Vec<_> = bounds.zip(counts).collect();
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}
