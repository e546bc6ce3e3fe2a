//! A group follows the table through all of its streams.

use std::time::Duration;

use aftercommit::leases::InitialPosition;
use aftercommit::source::memory::MemoryStream;

use super::stage::{Stage, eventually, pass, secs};

const FIRST: &str = "2026-01-01T00:00:00.000";
const SECOND: &str = "2026-01-02T00:00:00.000";
const THIRD: &str = "2026-01-03T00:00:00.000";

/// A stage whose table has a first stream of two shards.
fn stage() -> Stage {
    let mut stage = Stage::new(1);
    stage.stream = MemoryStream::labelled(FIRST, stage.now(), 2, 10);
    stage
}

/// The shards of the gaps.
fn gaps(stage: &Stage) -> Vec<String> {
    let view = stage.view();
    let gaps = view.gaps.iter().map(|gap| gap.shard.to_string());
    gaps.collect()
}

/// What was handled, in the order in which it was.
fn handled_in_order(stage: &Stage, first: &[String], second: &[String]) {
    let done = stage.hand.values();
    let last_of_first = done.iter().rposition(|name| first.contains(name));
    let first_of_second = done.iter().position(|name| second.contains(name));
    assert!(last_of_first < first_of_second, "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_replaced_is_followed_from_its_horizon_also_by_a_latest_group() {
    let mut stage = stage();
    stage.settings.start = InitialPosition::Latest;
    let _one = stage.worker("one");
    eventually(secs(20), "one reads", || stage.owned_by("one") == 2).await;
    let before = stage.commit_many("before", 10);
    eventually(secs(20), "handled", || stage.hand.sorted() == before).await;
    stage.stream.switch_on(SECOND, stage.now(), 2);
    let after = stage.commit_many("later", 10);
    let all = [before, after].concat();
    eventually(secs(60), "handled", || stage.hand.sorted() == all).await;
    assert_eq!(gaps(&stage), [""; 0]);
    assert_eq!(stage.view().streams.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_later_stream_waits_until_the_earlier_one_is_finished() {
    let stage = stage();
    stage.hand.shut();
    let _one = stage.worker("one");
    eventually(secs(20), "one reads", || stage.owned_by("one") == 2).await;
    let before = stage.commit_many("before", 10);
    stage.stream.switch_on(SECOND, stage.now(), 2);
    let after = stage.commit_many("later", 10);
    pass(Duration::from_mins(10)).await;
    let view = stage.view();
    let labels = view.leases.keys().map(|shard| shard.label());
    assert!(labels.clone().all(|label| label == Some(FIRST)));
    stage.hand.open();
    let all = [before.clone(), after.clone()].concat();
    eventually(secs(90), "handled", || stage.hand.sorted() == all).await;
    handled_in_order(&stage, &before, &after);
    assert_eq!(gaps(&stage), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_replaced_twice_while_nobody_runs_for_an_hour_loses_nothing() {
    let stage = stage();
    let one = stage.worker("one");
    let first = stage.commit_many("a", 10);
    eventually(secs(20), "handled", || stage.hand.sorted() == first).await;
    one.leave().await;
    let second = stage.commit_many("b", 10);
    stage.stream.switch_on(SECOND, stage.now(), 1);
    let third = stage.commit_many("c", 10);
    pass(Duration::from_hours(1)).await;
    stage.stream.switch_on(THIRD, stage.now(), 3);
    let fourth = stage.commit_many("d", 10);
    let _two = stage.worker("two");
    let all = [first, second.clone(), third.clone(), fourth.clone()].concat();
    eventually(secs(120), "handled", || stage.hand.sorted() == all).await;
    handled_in_order(&stage, &second, &third);
    handled_in_order(&stage, &third, &fourth);
    assert_eq!(gaps(&stage), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn streams_that_went_while_nobody_ran_for_longer_than_a_day_leave_gaps() {
    let stage = stage();
    let one = stage.worker("one");
    let first = stage.commit_many("a", 10);
    eventually(secs(20), "handled", || stage.hand.sorted() == first).await;
    one.leave().await;
    stage.stream.switch_on(SECOND, stage.now(), 1);
    stage.commit_many("lost", 10);
    stage.stream.switch_on(THIRD, stage.now() + secs(1), 1);
    pass(Duration::from_hours(25)).await;
    stage.stream.forget_stream(FIRST);
    stage.stream.forget_stream(SECOND);
    let last = stage.commit_many("z", 10);
    let _two = stage.worker("two");
    let all = [first, last].concat();
    eventually(secs(120), "handled", || stage.hand.sorted() == all).await;
    let gaps = gaps(&stage);
    assert!(gaps.contains(&format!("{THIRD}#before-stream")), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_table_has_no_stream_is_not_ready_says_why_and_goes_on_when_there_is_one() {
    let stage = stage();
    let one = stage.worker("one");
    eventually(secs(20), "one is ready", || one.status.ready().is_ok()).await;
    stage.stream.switch_off();
    eventually(secs(60), "one is not ready", || one.status.ready().is_err()).await;
    let told = || one.status.ready().unwrap_err().to_string();
    eventually(secs(60), "it says why", || told().contains("no stream")).await;
    pass(Duration::from_hours(3)).await;
    stage.stream.switch_on(SECOND, stage.now(), 1);
    let after = stage.commit_many("later", 10);
    eventually(secs(60), "handled", || stage.hand.sorted() == after).await;
    eventually(secs(60), "one is ready", || one.status.ready().is_ok()).await;
    assert_eq!(gaps(&stage), [""; 0]);
}
