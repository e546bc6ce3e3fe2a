#![allow(clippy::unwrap_used)]
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::core::group::{EffectName, Group};
use crate::engine::progress::{Counters, Histogram, ShardNow};
use crate::monitor::levels::Levels;
use crate::monitor::metrics::{Facts, FleetNow, METRICS, Mails, MetricLabels};
use crate::stores::ledger::Needed;

const AT: SystemTime = SystemTime::UNIX_EPOCH;

fn labels(table: &str) -> MetricLabels {
    MetricLabels {
        group: Group::new("shop").unwrap(),
        effect: EffectName::new("placed").unwrap(),
        table: table.to_owned(),
    }
}

fn sample(counters: &Counters, times: &Histogram) -> Sample {
    let day = Duration::from_hours(24);
    let behind = |lag| ShardNow::of_event(Duration::from_secs(lag), day);
    let levels = Levels {
        orders: Some(Needed::default()),
        open_gaps: Some(1),
        ..Levels::default().with_parked([None, None])
    };
    Sample::of(&Facts {
        labels: &labels("orders"),
        counters,
        handling: times,
        mails: Some(Mails::default()),
        shards: &[behind(3), behind(40), behind(0)],
        down_for: Duration::ZERO,
        levels: Some(&levels),
        fleet: Some(FleetNow {
            finishing: times,
            budget: None,
            lines_dropped: 3,
        }),
    })
}

fn line(emf: &mut Emf, counters: &Counters, times: &Histogram) -> Json {
    let lines = emf.lines(
        AT + Duration::from_millis(1_764_057_600_123),
        &[sample(counters, times)],
    );
    assert!(!lines[0].contains('\n'));
    serde_json::from_str(&lines[0]).unwrap()
}

#[test]
fn a_total_is_what_came_since_the_last_line() {
    let (counters, times) = (Counters::default(), Histogram::default());
    let mut emf = Emf::default();
    counters.handled.store(5, Ordering::Relaxed);
    times.add(Duration::from_secs(2));
    times.add(Duration::from_secs(1));
    let first = line(&mut emf, &counters, &times);
    assert_eq!(first["aftercommit_records_handled_total"], 5);
    assert_eq!(first["aftercommit_handle_seconds"], json!([1.0, 2.0]));
    assert_eq!(first["aftercommit_parked_keys"], 2.0, "of all reasons");
    assert_eq!(first["aftercommit_gaps_open"], 1.0);
    counters.handled.store(7, Ordering::Relaxed);
    let second = line(&mut emf, &counters, &times);
    assert_eq!(second["aftercommit_records_handled_total"], 2);
    assert_eq!(
        second.get("aftercommit_handle_seconds"),
        None,
        "nothing new"
    );
}

#[test]
fn the_worst_shard_represents_the_worker() {
    let (counters, times) = (Counters::default(), Histogram::default());
    let reported = line(&mut Emf::default(), &counters, &times);
    assert_eq!(reported["aftercommit_lag_seconds"], 40.0);
    assert_eq!(reported["aftercommit_until_trim_seconds"], 86_360.0);
}

/// The rules of the specification, and CloudWatch's rules for the name and unit of a metric.
///
/// Source: [the specification](https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html),
/// [MetricDatum](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html).
fn check(line: &Json) {
    let about = line["_aws"].as_object().unwrap();
    assert_eq!(about.len(), 2, "no members of one's own");
    assert!(about["Timestamp"].is_u64());
    let directives = about["CloudWatchMetrics"].as_array().unwrap();
    for directive in directives {
        let namespace = directive["Namespace"].as_str().unwrap();
        assert!((1..=255).contains(&namespace.len()) && !namespace.starts_with("AWS/"));
        let sets = directive["Dimensions"].as_array().unwrap();
        assert!(!sets.is_empty());
        for set in sets.iter().map(|set| set.as_array().unwrap()) {
            assert!(set.len() <= 30);
            for name in set.iter().map(|name| name.as_str().unwrap()) {
                let value = line[name].as_str().unwrap();
                assert!((1..=1_024).contains(&value.len()), "{name}: {value}");
            }
        }
        let metrics = directive["Metrics"].as_array().unwrap();
        assert!((1..=100).contains(&metrics.len()));
        for metric in metrics {
            let name = metric["Name"].as_str().unwrap();
            assert!((1..=255).contains(&name.len()) && name.is_ascii(), "{name}");
            let unit = metric["Unit"].as_str().unwrap();
            assert!(["Count", "Seconds", "Bytes"].contains(&unit), "{unit}");
            let value = &line[name];
            let list = value.as_array().is_some_and(|list| {
                (1..=100).contains(&list.len()) && list.iter().all(Json::is_number)
            });
            let known = value.is_number() || list;
            assert!(known, "{name}: {value}");
        }
    }
    assert!(line.to_string().len() <= 1 << 20, "1 MB");
}

#[test]
fn a_line_keeps_the_rules_of_the_format_and_contains_every_metric() {
    let (counters, times) = (Counters::default(), Histogram::default());
    times.add(Duration::from_secs(2));
    let reported = line(&mut Emf::default(), &counters, &times);
    check(&reported);
    let about = &reported["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(about["Dimensions"], json!([["group", "effect", "table"]]));
    assert_eq!(
        (&reported["group"], &reported["effect"]),
        (&json!("shop"), &json!("placed"))
    );
    assert_eq!(reported["_aws"]["Timestamp"], 1_764_057_600_123_u64);
    let metrics = reported["_aws"]["CloudWatchMetrics"][0]["Metrics"]
        .as_array()
        .unwrap();
    assert_eq!(
        metrics.len(),
        METRICS.len() - 1,
        "the build is a member, no metric"
    );
}

#[test]
fn of_many_times_a_hundred_are_reported_that_have_the_same_percentiles() {
    let (counters, times) = (Counters::default(), Histogram::default());
    for n in 0..10_000 {
        let slow = if n < 9_700 { 1 } else { 40 };
        times.add(Duration::from_secs(slow));
    }
    let reported = line(&mut Emf::default(), &counters, &times);
    check(&reported);
    let reported = reported["aftercommit_handle_seconds"].as_array().unwrap();
    let slow = reported.iter().filter(|time| **time == 40.0).count();
    assert_eq!((reported.len(), slow), (100, 3));
}
