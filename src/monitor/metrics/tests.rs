#![allow(clippy::unwrap_used)]
use std::sync::LazyLock;

use super::prometheus::text;
use super::*;
use crate::core::shard::ShardId;
use crate::stores::dead_letter::Reason;

fn labels(effect: &str, table: &str) -> MetricLabels {
    MetricLabels {
        group: Group::new("shop").unwrap(),
        effect: EffectName::new(effect).unwrap(),
        table: table.to_owned(),
    }
}

static LABELS: LazyLock<MetricLabels> = LazyLock::new(|| labels("placed", "orders"));

fn behind(shard: &str, lag: u64) -> ShardNow {
    ShardNow {
        shard: ShardId::new(shard),
        ..ShardNow::of_event(Duration::from_secs(lag), Duration::from_hours(24))
    }
}

static LEVELS: LazyLock<Levels> = LazyLock::new(|| Levels {
    open_gaps: Some(2),
    ..Levels::default().with_parked([Some(Reason::Rejected), Some(Reason::Rescued), None])
});

static SHARDS: LazyLock<[ShardNow; 2]> = LazyLock::new(|| [behind("a", 3), behind("b", 0)]);

fn facts<'a>(counters: &'a Counters, times: &'a Histogram) -> Facts<'a> {
    Facts {
        labels: &LABELS,
        counters,
        handling: times,
        mails: Some(Mails {
            accepted: 7,
            ..Mails::default()
        }),
        shards: &*SHARDS,
        down_for: Duration::ZERO,
        levels: Some(&LEVELS),
        fleet: Some(FleetNow {
            finishing: times,
            budget: None,
            lines_dropped: 3,
        }),
    }
}

#[test]
fn the_text_is_what_prometheus_reads() {
    let (counters, times) = (Counters::default(), Histogram::default());
    counters.handled.store(5, Ordering::Relaxed);
    times.add(Duration::from_millis(20));
    times.add(Duration::from_hours(48));
    let text = text(vec![Sample::of(&facts(&counters, &times))]).unwrap();
    for line in [
        "# HELP aftercommit_records_handled_total Records that the handler finished.",
        "# TYPE aftercommit_records_handled_total counter",
        "aftercommit_records_handled_total{group=\"shop\",effect=\"placed\",table=\"orders\"} 5",
        "aftercommit_effects_accepted_total{group=\"shop\",effect=\"placed\",table=\"orders\"} 7",
        "# TYPE aftercommit_lag_seconds gauge",
        "aftercommit_lag_seconds{group=\"shop\",effect=\"placed\",table=\"orders\",shard=\"a\"} 3",
        "aftercommit_until_trim_seconds{group=\"shop\",effect=\"placed\",table=\"orders\",shard=\"b\"} 86400",
        "aftercommit_buffered_bytes 0",
        "aftercommit_log_lines_dropped 3",
        "aftercommit_parked_keys{group=\"shop\",effect=\"placed\",table=\"orders\",reason=\"rejected\"} 1",
        "aftercommit_parked_keys_failed{group=\"shop\",effect=\"placed\",table=\"orders\"} 2",
        "aftercommit_parked_keys_rescued{group=\"shop\",effect=\"placed\",table=\"orders\"} 1",
        "aftercommit_gaps_open{group=\"shop\",effect=\"placed\",table=\"orders\"} 2",
        "# TYPE aftercommit_handle_seconds histogram",
        "aftercommit_handle_seconds_bucket{group=\"shop\",effect=\"placed\",table=\"orders\",le=\"0.01\"} 0",
        "aftercommit_handle_seconds_bucket{group=\"shop\",effect=\"placed\",table=\"orders\",le=\"0.025\"} 1",
        "aftercommit_handle_seconds_bucket{group=\"shop\",effect=\"placed\",table=\"orders\",le=\"+Inf\"} 2",
        "aftercommit_handle_seconds_sum{group=\"shop\",effect=\"placed\",table=\"orders\"} 172800.02",
        "aftercommit_handle_seconds_count{group=\"shop\",effect=\"placed\",table=\"orders\"} 2",
        "aftercommit_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
}

#[test]
fn two_streams_of_a_table_are_one_and_two_tables_or_effects_are_two() {
    let (counters, times) = (Counters::default(), Histogram::default());
    counters.handled.store(5, Ordering::Relaxed);
    let of = |effect: &str, table: &str| {
        Sample::of(&Facts {
            labels: &labels(effect, table),
            ..facts(&counters, &times)
        })
    };
    let joined = Sample::by_labels([
        of("placed", "orders"),
        of("placed", "other"),
        of("placed", "orders"),
        of("shipped", "orders"),
    ]);
    let handled = |sample: &Sample| sample.value("aftercommit_records_handled_total").cloned();
    assert_eq!(joined.len(), 3);
    assert_eq!(handled(&joined[0]), Some(MetricValue::Counter(10)));
    assert_eq!(handled(&joined[1]), Some(MetricValue::Counter(5)));
    let text = text(joined).unwrap();
    let info = text
        .lines()
        .filter(|line| line.starts_with("aftercommit_build_info{"));
    assert_eq!(info.count(), 1, "no series twice");
}

#[test]
fn on_lambda_there_is_no_fleet() {
    let (counters, times) = (Counters::default(), Histogram::default());
    let sample = Sample::of(&Facts {
        fleet: None,
        ..facts(&counters, &times)
    });
    let mut names: Vec<_> = sample
        .values
        .iter()
        .map(|(metric, _)| metric.name)
        .collect();
    names.retain(|name| !name.contains("_effects_"));
    assert_eq!(
        names,
        [
            "aftercommit_records_handled_total",
            "aftercommit_records_filtered_total",
            "aftercommit_records_followed_total",
            "aftercommit_records_rescued_total",
            "aftercommit_events_of_earlier_streams_total",
            "aftercommit_dead_letters_total",
            "aftercommit_dead_letters_uncopied_total",
            "aftercommit_attempts_failed_total",
            "aftercommit_gaps_total",
            "aftercommit_lag_seconds",
            "aftercommit_until_trim_seconds",
            "aftercommit_dependency_down_seconds",
            "aftercommit_parked_keys",
            "aftercommit_parked_keys_failed",
            "aftercommit_parked_keys_rescued",
            "aftercommit_handle_seconds",
        ]
    );
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let mut seen = std::collections::BTreeSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(seen.insert(name), "{name} twice");
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(
            name.starts_with("aftercommit_") && name.chars().all(plain),
            "{name}"
        );
        assert_eq!(
            metric.kind() == "counter",
            name.ends_with("_total"),
            "{name}"
        );
        let unit = match metric.unit {
            MetricUnit::Seconds => name.ends_with("_seconds"),
            MetricUnit::Bytes => name.ends_with("_bytes"),
            MetricUnit::Count => !name.ends_with("_seconds") && !name.ends_with("_bytes"),
        };
        assert!(unit, "{name}");
    }
}

#[test]
fn a_label_cannot_break_out() {
    let (counters, times) = (Counters::default(), Histogram::default());
    let odd = labels("placed", "a\"b\\c\nd");
    let sample = Sample::of(&Facts {
        labels: &odd,
        ..facts(&counters, &times)
    });
    let text = text(vec![sample]).unwrap();
    let escaped = "table=\"a\\\"b\\\\c\\nd\"";
    assert!(text.contains(escaped), "{text}");
}
