//! Workers whose clocks are wrong: what decides whether records were lost is the service's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aftercommit::Clock;
use aftercommit::leases::InitialPosition;

use super::stage::{Stage, eventually, pass, secs};

/// So long before a day is over that what was there then may not be gone yet.
const NEARLY: Duration = Duration::from_mins(20);

/// A clock that is ahead by so many seconds, which may change.
fn ahead(stage: &Stage) -> (Arc<AtomicU64>, Clock) {
    let (by, right) = (Arc::new(AtomicU64::new(0)), stage.clock());
    let seconds = by.clone();
    let clock = move || right.now() + secs(seconds.load(Ordering::Relaxed));
    (by, Clock::new(clock))
}

#[tokio::test(start_paused = true)]
async fn a_latest_group_whose_first_worker_s_clock_is_fast_handles_all_that_comes_after_its_start()
{
    let mut stage = Stage::new(1);
    stage.settings.start = InitialPosition::Latest;
    let (by, clock) = ahead(&stage);
    by.store(300, Ordering::Relaxed);
    stage.wall = clock;
    let one = stage.worker("one");
    eventually(secs(20), "one reads", || stage.owned_by("one") == 1).await;
    for n in 0..10 {
        stage.commit(&format!("order{n}"), &n.to_string());
        pass(secs(30)).await;
    }
    assert_eq!(stage.hand.done().len(), 10);
    assert_eq!(one.counters.skipped.load(Ordering::Relaxed), 0);
}

/// One worker reads what there is and leaves, five records are trimmed unread, and another worker
/// comes `after` that.
async fn five_are_lost(stage: &mut Stage, wall: Clock, after: Duration) -> usize {
    let only = stage.stream.open_shards()[0].clone();
    stage.commit_many("read", 5);
    let one = stage.worker("one");
    eventually(secs(5), "the first", || stage.hand.done().len() == 5).await;
    eventually(secs(60), "the end is known", || {
        let report = stage.row(&only).unwrap().report;
        report.caught_up_at > report.frontier_time
    })
    .await;
    one.leave().await;
    stage.commit_many("lost", 5);
    pass(after).await;
    assert_eq!(stage.stream.trim(&only, stage.now() + secs(1)).len(), 10);
    stage.wall = wall;
    let _two = stage.worker("two");
    let left = stage.commit_many("left", 3);
    eventually(secs(60), "what is left", || stage.hand.done().len() == 8).await;
    assert_eq!(stage.hand.sorted()[..3], left);
    stage.view().gaps.len()
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_clock_is_slow_writes_the_gap_that_the_stream_tells() {
    let mut stage = Stage::new(1);
    let right = stage.clock();
    let slow = Clock::new(move || right.now() - NEARLY);
    let gaps = five_are_lost(&mut stage, slow, Duration::from_hours(24)).await;
    assert_eq!(gaps, 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_a_month_ahead_for_a_while_hides_no_later_gap() {
    let mut stage = Stage::new(1);
    let (by, clock) = ahead(&stage);
    by.store(30 * 24 * 3600, Ordering::Relaxed);
    stage.wall = clock;
    let right = stage.clock();
    let gaps = five_are_lost(&mut stage, right, Duration::from_hours(25)).await;
    assert_eq!(gaps, 1);
}
