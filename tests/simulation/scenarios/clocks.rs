//! Workers whose clocks are wrong: what decides whether records were lost is the service's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aftercommit::Clock;
use aftercommit::stores::leases::InitialPosition;

use super::calls::Tapped;
use super::stage::{Stage, Worker, eventually, pass, secs};

const DAY: Duration = Duration::from_hours(24);

/// By this clock what was there a day ago is not gone yet.
fn slow(stage: &Stage) -> Clock {
    let right = stage.clock();
    Clock::new(move || right.now() - Duration::from_mins(20))
}

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

/// One worker reads what there is and leaves, five records are trimmed unread, and `two` begins
/// `after` that.
async fn five_are_lost(
    stage: &mut Stage,
    after: Duration,
    two: impl FnOnce(&mut Stage) -> Worker,
) -> usize {
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
    let _two = two(stage);
    let left = stage.commit_many("left", 3);
    eventually(secs(60), "what is left", || stage.hand.done().len() == 8).await;
    assert_eq!(stage.hand.sorted()[..3], left);
    stage.view().gaps.len()
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_clock_is_slow_writes_the_gap_that_the_stream_reports() {
    let mut stage = Stage::new(1);
    let slow = slow(&stage);
    let gaps = five_are_lost(&mut stage, DAY, |stage| {
        stage.wall = slow;
        stage.worker("two")
    });
    assert_eq!(gaps.await, 1);
}

/// Its monotonic clock stood still meanwhile, so what the lease table answered before counts as
/// young.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_machine_was_suspended_goes_by_the_time_of_the_stream_s_answers() {
    let mut stage = Stage::new(1);
    let (behind, right) = (slow(&stage), stage.clock());
    let gaps = five_are_lost(&mut stage, DAY, |stage| {
        let leases = stage.leases.clone().clock(behind);
        let source = Tapped::new(&stage.stream).clock(right);
        stage.worker_on("two", source, leases)
    });
    assert_eq!(gaps.await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_a_month_ahead_for_a_while_hides_no_later_gap() {
    let mut stage = Stage::new(1);
    let (by, clock) = ahead(&stage);
    by.store(30 * 24 * 3600, Ordering::Relaxed);
    stage.wall = clock;
    let gaps = five_are_lost(&mut stage, Duration::from_hours(25), |stage| {
        stage.wall = stage.clock();
        stage.worker("two")
    });
    assert_eq!(gaps.await, 1);
}
