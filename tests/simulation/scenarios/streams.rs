//! A group follows the table through all of its streams.

use std::time::Duration;

use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::source::memory::MemoryStream;

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
    let reported = || one.status.ready().unwrap_err().to_string();
    eventually(secs(60), "it says why", || reported().contains("no stream")).await;
    pass(Duration::from_hours(3)).await;
    stage.stream.switch_on(SECOND, stage.now(), 1);
    let after = stage.commit_many("later", 10);
    eventually(secs(60), "handled", || stage.hand.sorted() == after).await;
    eventually(secs(60), "one is ready", || one.status.ready().is_ok()).await;
    assert_eq!(gaps(&stage), [""; 0]);
}

/// Whatever an owner wrote under its epoch in one stream is older than what is written in the next.
#[tokio::test(start_paused = true)]
async fn the_epochs_of_a_stream_begin_above_those_of_the_earlier_ones() {
    let stage = stage();
    for round in 0..4 {
        let name = format!("round {round}");
        let worker = stage.worker(&name);
        eventually(secs(20), "the leases", || stage.owned_by(&name) == 2).await;
        worker.leave().await;
    }
    let epochs = |label: &str| {
        let view = stage.view();
        let rows = view.leases.into_values();
        let of_stream = rows.filter(|row| row.shard.label() == Some(label));
        of_stream.map(|row| row.epoch).collect::<Vec<_>>()
    };
    let highest = |label| epochs(label).into_iter().max();
    let lowest = |label| epochs(label).into_iter().min();
    let first = highest(FIRST).unwrap();
    assert!(first > 4, "it rises with every owner");
    let _last = stage.worker("last");
    stage.stream.switch_on(SECOND, stage.now(), 2);
    eventually(secs(60), "the second", || lowest(SECOND).is_some()).await;
    assert!(lowest(SECOND) > highest(FIRST));

    // Also where the earlier stream has been gone for hours.
    let second = highest(SECOND);
    stage.stream.switch_off();
    pass(Duration::from_hours(25)).await;
    stage.stream.forget_stream(FIRST);
    stage.stream.forget_stream(SECOND);
    pass(Duration::from_hours(5)).await;
    stage.stream.switch_on(THIRD, stage.now(), 1);
    eventually(secs(60), "the third", || lowest(THIRD).is_some()).await;
    assert!(lowest(THIRD) > second, "{:?} {second:?}", lowest(THIRD));
}

/// Its first shards were read and not finished, and what continued them never had a lease: nothing
/// else tells of what was in there.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_gone_before_it_was_read_to_its_end_is_a_gap_as_a_whole() {
    let stage = stage();
    stage.hand.shut();
    let _one = stage.worker("one");
    eventually(secs(20), "one reads", || stage.owned_by("one") == 2).await;
    let held = stage.commit_many("held", 10);
    for shard in stage.stream.open_shards() {
        stage.stream.end(&shard, false);
    }
    stage.commit_many("lost", 10);
    stage.stream.switch_off();
    pass(Duration::from_hours(25)).await;
    stage.stream.forget_stream(FIRST);
    stage.hand.open();
    let whole = format!("{FIRST}#whole-stream");
    eventually(secs(300), "the gap", || gaps(&stage).contains(&whole)).await;
    stage.stream.switch_on(SECOND, stage.now(), 1);
    let later = stage.commit_many("later", 10);
    let all = [held, later].concat();
    eventually(secs(120), "handled", || stage.hand.sorted() == all).await;
    assert_eq!(gaps(&stage), [whole], "once");
}

/// A table may be without a stream for as long as it likes.
#[tokio::test(start_paused = true)]
async fn a_stream_that_was_read_to_its_end_leaves_no_gap_when_it_is_gone() {
    let stage = stage();
    let _one = stage.worker("one");
    let first = stage.commit_many("a", 10);
    eventually(secs(20), "handled", || stage.hand.sorted() == first).await;
    stage.stream.switch_off();
    pass(Duration::from_hours(25)).await;
    stage.stream.forget_stream(FIRST);
    pass(Duration::from_hours(25)).await;
    stage.stream.switch_on(SECOND, stage.now(), 1);
    let all = [first, stage.commit_many("b", 10)].concat();
    eventually(secs(60), "handled", || stage.hand.sorted() == all).await;
    assert_eq!(gaps(&stage), [""; 0]);
}

/// The shards that come first are the first to be forgotten, and nothing names the very first.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_begun_late_is_a_gap_as_a_whole_where_its_first_shards_are_forgotten() {
    let stage = stage();
    stage.hand.shut();
    let _one = stage.worker("one");
    eventually(secs(20), "one reads", || stage.owned_by("one") == 2).await;
    let held = stage.commit_many("held", 10);
    stage.stream.switch_on(SECOND, stage.now(), 1);
    let root = stage.stream.open_shards().remove(0);
    stage.commit_many("lost", 3);
    let child = stage.stream.end(&root, false).remove(0);
    stage.commit_many("gone", 3);
    stage.stream.end(&child, false);
    pass(Duration::from_hours(25)).await;
    let kept = stage.commit_many("kept", 3);
    for shard in [&root, &child] {
        let forgotten = stage
            .stream
            .forget(shard, stage.now() - Duration::from_hours(24));
        assert_eq!(forgotten.len(), 3);
    }
    stage.hand.open();
    let all = [held, kept].concat();
    // Whoever was held for so long is tried again five minutes later at most.
    eventually(secs(600), "handled", || stage.hand.sorted() == all).await;
    let whole = format!("{SECOND}#whole-stream");
    assert!(gaps(&stage).contains(&whole), "{:?}", gaps(&stage));
}
