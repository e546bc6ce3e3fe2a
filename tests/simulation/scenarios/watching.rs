//! What a worker tells of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aftercommit::engine::Budget;
use aftercommit::monitor::Status;
use aftercommit::monitor::health::{HeldBack, NotReady, Stuck};
use aftercommit::monitor::metrics::{MetricValue, prometheus};
use tokio::time::{advance, timeout};

use super::calls::Heard;
use super::stage::{Stage, eventually, pass, secs};

/// The values of a metric's shards, or its one value.
fn values(status: &Status, name: &str) -> Vec<f64> {
    let samples = status.samples();
    match samples[0].value(name) {
        Some(MetricValue::Each(each)) => each.values.iter().map(|(_, value)| *value).collect(),
        Some(MetricValue::Gauge(value) | MetricValue::Process(value)) => vec![*value],
        Some(MetricValue::Counter(count)) => vec![f64::from(u32::try_from(*count).unwrap())],
        other => panic!("{name}: {other:?}"),
    }
}

fn value(status: &Status, name: &str) -> f64 {
    let values = values(status, name);
    assert_eq!(values.len(), 1, "{name}");
    values[0]
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_ready_from_its_first_heartbeat_until_it_drains() {
    let stage = Stage::new(1);
    let consumer = stage.consumer_on("one", stage.stream.clone(), stage.leases.clone());
    let idle = stage.status(&consumer);
    assert_eq!(idle.ready(), Err(NotReady::Joining(None)));
    let one = stage.worker("one");
    let status = one.status.clone();
    eventually(secs(5), "that it is ready", || status.ready().is_ok()).await;
    stage.hand.shut();
    stage.commit("item", "x");
    eventually(secs(5), "that it begins", || stage.hand.begun().len() == 1).await;
    let left = one.begin_to_leave();
    eventually(secs(1), "that it drains", || {
        status.ready() == Err(NotReady::Draining)
    })
    .await;
    assert_eq!(status.alive(), Ok(()), "whoever drains is well");
    stage.hand.open();
    left.await.unwrap().unwrap();
    pass(Duration::from_hours(1)).await;
    assert_eq!(status.alive(), Ok(()), "whoever has left is not stuck");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_does_not_turn_is_stuck_until_it_turns_again() {
    let stage = Stage::new(1);
    let consumer = stage.consumer_on("one", stage.stream.clone(), stage.leases.clone());
    let status = stage.status(&consumer);
    let mut run = Box::pin(consumer.run(std::future::pending()));
    assert!(timeout(secs(5), &mut run).await.is_err());
    assert_eq!(status.alive(), Ok(()));
    // Nobody polls it: as if one of its calls did not give the thread back.
    advance(secs(31)).await;
    match status.alive() {
        Err(Stuck::Fleet { stream, quiet }) => {
            assert!(stream == "confirmation#arn" && quiet >= secs(30));
        }
        other => panic!("{other:?}"),
    }
    assert!(timeout(secs(1), &mut run).await.is_err());
    assert_eq!(status.alive(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_lease_table_makes_a_worker_unready_and_kills_nobody() {
    let stage = Stage::new(1);
    let down = Arc::new(AtomicBool::new(false));
    let leases = Heard::failing_while(&stage.leases, &down, |_| true);
    let one = stage.worker_on("one", stage.stream.clone(), leases);
    eventually(secs(5), "that it is ready", || one.status.ready().is_ok()).await;
    down.store(true, Ordering::Relaxed);
    for _ in 0..60 {
        pass(Duration::from_mins(1)).await;
        assert_eq!(one.status.alive(), Ok(()));
    }
    let why = one.status.ready().unwrap_err();
    assert!(matches!(why, NotReady::NoHeartbeat(time, _) if time > Duration::from_mins(59)));
    down.store(false, Ordering::Relaxed);
    eventually(secs(5), "that it is ready", || one.status.ready().is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_keep_up_for_a_minute_is_unready_until_it_can() {
    let stage = Stage::new(1);
    let one = stage.worker("one");
    let status = &one.status;
    eventually(secs(5), "that it is ready", || status.ready().is_ok()).await;
    stage.hand.shut();
    stage.commit_many("item", 100);
    pass(secs(55)).await;
    assert_eq!(status.ready(), Ok(()), "busy is not overloaded");
    pass(secs(15)).await;
    let why = status.ready().unwrap_err();
    assert!(
        matches!(why, NotReady::Overloaded(_, HeldBack::Places)),
        "{why}"
    );
    assert!(!status.process().ready);
    assert_eq!(status.alive(), Ok(()));
    stage.hand.open();
    eventually(secs(3), "that it is ready", || status.ready().is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_is_overload_although_every_record_that_was_read_is_in_hand() {
    let mut stage = Stage::new(1);
    stage.settings.memory_budget = Budget::LEAST;
    stage.settings.concurrency = 1_000;
    let one = stage.worker("one");
    let status = &one.status;
    eventually(secs(5), "that it is ready", || status.ready().is_ok()).await;
    stage.hand.shut();
    let large = "x".repeat(100_000);
    for n in 0..30 {
        stage.commit(&format!("item{n}"), &large);
    }
    let unready = || {
        matches!(
            status.ready(),
            Err(NotReady::Overloaded(_, HeldBack::Memory))
        )
    };
    let after = eventually(secs(90), "that it is overloaded", unready).await;
    assert!(after >= secs(60), "{after:?}");
    assert!((value(status, "aftercommit_records_waiting")).abs() < 0.1);
    stage.hand.open();
    eventually(secs(3), "that it is ready", || status.ready().is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn the_numbers_are_what_happens() {
    let stage = Stage::new(2);
    let one = stage.worker("one");
    let status = &one.status;
    pass(secs(10)).await;
    assert_eq!(values(status, "aftercommit_lag_seconds"), [0.0, 0.0]);
    assert_eq!(
        values(status, "aftercommit_until_trim_seconds"),
        [86_400.0; 2]
    );
    stage.hand.shut();
    stage.commit_many("item", 100);
    pass(secs(100)).await;
    for lag in values(status, "aftercommit_lag_seconds") {
        assert!((99.0..101.0).contains(&lag), "{lag}");
    }
    for left in values(status, "aftercommit_until_trim_seconds") {
        assert!((86_299.0..86_301.0).contains(&left), "{left}");
    }
    assert!((value(status, "aftercommit_shards_owned") - 2.0).abs() < 0.1);
    assert!((value(status, "aftercommit_records_in_hand") - 32.0).abs() < 0.1);
    assert!((value(status, "aftercommit_records_waiting") - 68.0).abs() < 0.1);
    assert!(value(status, "aftercommit_buffered_bytes") > 0.0);
    stage.hand.open();
    pass(secs(30)).await;
    assert_eq!(values(status, "aftercommit_lag_seconds"), [0.0, 0.0]);
    assert!((value(status, "aftercommit_records_handled_total") - 100.0).abs() < 0.1);
    assert!(value(status, "aftercommit_heartbeats_total") > 60.0);
    assert!(value(status, "aftercommit_buffered_bytes").abs() < 0.1);
    let text = prometheus::text(status.samples()).unwrap();
    let labels = "group=\"confirmation\",effect=\"confirmation\",table=\"arn\"";
    for expected in [
        format!("aftercommit_commit_to_finished_seconds_count{{{labels}}} 100"),
        format!("aftercommit_commit_to_finished_seconds_bucket{{{labels},le=\"60\"}} 0"),
        format!("aftercommit_handle_seconds_count{{{labels}}} 100"),
    ] {
        assert!(text.contains(&expected), "no {expected} in\n{text}");
    }

    let history = status.process().history;
    assert_eq!(history.len(), 28, "one every five seconds");
    let worst = history.iter().filter_map(|moment| moment.lag_seconds);
    assert!((95.0..101.0).contains(&worst.reduce(f64::max).unwrap()));
    assert_eq!(history.last().unwrap().finished_total, 100);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_handed_over_is_reported_no_more() {
    let stage = Stage::new(2);
    let one = stage.worker("one");
    pass(secs(10)).await;
    let two = stage.worker("two");
    let shared = || {
        let owned = |status| value(status, "aftercommit_shards_owned");
        (owned(&one.status) - 1.0).abs() < 0.1 && (owned(&two.status) - 1.0).abs() < 0.1
    };
    eventually(secs(60), "that they share", shared).await;
    assert_eq!(values(&one.status, "aftercommit_lag_seconds").len(), 1);
}
