//! Reading under pressure: scenarios 23 and 24, and four defects of another engine.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aftercommit::engine::{Budget, OnGap};
use aftercommit::record::Position;
use aftercommit::stores::leases::GroupEffects;
use aftercommit::stores::leases::{Checkpoint, GroupRow, InitialPosition, LeaseStore as _};
use aftercommit::stores::source::SourceError;

use super::calls::{Heard, Tapped};
use super::stage::{Stage, eventually, pass, secs};

/// Scenario 23.
#[tokio::test(start_paused = true)]
async fn fetching_stops_while_the_memory_budget_is_full() {
    let mut stage = Stage::new(2);
    stage.settings.memory_budget = Budget::LEAST;
    stage.hand.shut();
    let names = stage.commit_many("item", 100);
    let source = Tapped::new(&stage.stream);
    let _one = stage.worker_on("one", source.clone(), stage.leases.clone());
    eventually(secs(5), "a record", || !stage.hand.begun().is_empty()).await;
    let reads = source.count("read", None);
    assert_eq!(reads, 1, "what is left has no room for a whole read");
    pass(secs(60)).await;
    assert_eq!(source.count("read", None), reads);
    stage.hand.open();
    eventually(secs(10), "all of it", || stage.hand.sorted() == names).await;
}

/// Nothing but the handler takes time: `bench -- shard` measures what a machine adds.
#[tokio::test(start_paused = true)]
async fn thirty_two_lanes_and_a_handler_of_five_milliseconds_pass_6_000_records_a_second() {
    let mut stage = Stage::with_handler_taking(1, Duration::from_millis(5));
    stage.settings.concurrency = 32;
    stage.commit_many("item", 12_000);
    let _one = stage.worker("one");
    eventually(secs(5), "the first", || !stage.hand.begun().is_empty()).await;
    eventually(secs(2), "all", || stage.hand.done().len() == 12_000).await;
}

/// No shard takes the memory of the others.
#[tokio::test(start_paused = true)]
async fn a_shard_whose_handler_hangs_stops_no_other_however_much_it_could_read() {
    let mut stage = Stage::new(3);
    stage.settings.memory_budget = 5 << 20;
    let stuck = stage.stream.open_shards()[0].clone();
    stage.hand.stick(&stuck);
    let _one = stage.worker("one");
    // More than the whole budget, in each shard.
    let shards: Vec<_> = (0..30_000)
        .map(|n| stage.commit(&format!("item{n}"), "x"))
        .collect();
    let others = shards.iter().filter(|shard| **shard != stuck).count();
    assert!(shards.len() - others > 8_192);
    pass(secs(120)).await;
    assert_eq!(stage.hand.done().len(), others);
}

/// Scenario 24, and the first half of the other engine's first defect.
#[tokio::test(start_paused = true)]
async fn an_iterator_that_expires_is_made_anew_behind_the_last_record() {
    let mut stage = Stage::new(1);
    stage.settings.memory_budget = Budget::LEAST;
    stage.settings.timing.handler_timeout = Duration::from_hours(1);
    stage.hand.shut();
    let names = stage.commit_many("item", 30);
    let source = Tapped::new(&stage.stream);
    let one = stage.worker_on("one", source.clone(), stage.leases.clone());
    pass(Duration::from_mins(20)).await;
    assert_eq!(stage.hand.begun().len(), 10, "one batch, and no room");
    stage.hand.open();
    eventually(secs(10), "all of it", || stage.hand.done().len() == 30).await;
    assert_eq!(source.count("expired", None), 1, "it did expire");
    assert_eq!(stage.hand.sorted(), names, "each once");
    assert_eq!(one.counters.gaps.load(Ordering::Relaxed), 0);
    assert_eq!(stage.view().gaps, []);
}

/// Defect 1 of another engine: a checkpoint that was trimmed wedges the shard.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_trimmed_is_a_gap_row_and_reading_goes_on() {
    let stage = Stage::new(1);
    let one = stage.worker("one");
    stage.commit_many("read", 5);
    eventually(secs(5), "the first", || stage.hand.done().len() == 5).await;
    one.leave().await;
    let only = stage.stream.open_shards()[0].clone();
    let last = match stage.row(&only).unwrap().checkpoint {
        aftercommit::stores::leases::Checkpoint::At(aftercommit::record::Position::After(last)) => {
            last
        }
        other => panic!("a position, not {other:?}"),
    };
    stage.commit_many("lost", 5);
    pass(Duration::from_hours(25)).await;
    assert_eq!(stage.stream.trim(&only, stage.now()).len(), 10);
    let left = stage.commit_many("left", 3);

    let two = stage.worker("two");
    eventually(secs(10), "what is left", || stage.hand.done().len() == 8).await;
    assert_eq!(stage.hand.values()[5..], left);
    let gaps = stage.view().gaps;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].last_handled.as_ref(), Some(&last));
    // Not by whom it was read, but by whom it is missed.
    let time = gaps[0].last_handled_time.expect("when that was committed");
    assert!(stage.now().duration_since(time).unwrap() > Duration::from_hours(25));
    assert!(gaps[0].first_after.as_ref() > Some(&last));
    assert_eq!(two.counters.gaps.load(Ordering::Relaxed), 1);
    eventually(secs(5), "a checkpoint behind the gap", || {
        stage.row(&only).unwrap().report.finished == 3
    })
    .await;
}

/// A clock, a bug or another server may make a stream say this for ever.
#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_saying_trimmed_or_expired_is_asked_less_and_less_often() {
    for error in [|| SourceError::Trimmed, || SourceError::Expired] {
        let stage = Stage::new(1);
        stage.commit_many("item", 5);
        let source = Tapped::refusing(&stage.stream, error);
        let leases = Heard::new(&stage.leases);
        let one = stage.worker_on("one", source.clone(), leases.clone());
        pass(Duration::from_mins(10)).await;
        let (reads, gaps) = (source.count("read", None), leases.count("record_gap"));
        assert!((10..250).contains(&reads), "{:?}: {reads} reads", error());
        assert!(gaps <= 1, "{:?}: {gaps} gaps", error());
        assert!(one.counters.gaps.load(Ordering::Relaxed) <= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_to_halt_at_a_gap_stops_and_the_others_continue() {
    let mut stage = Stage::new(2);
    stage.settings.on_gap = OnGap::Halt;
    let shards = stage.stream.open_shards();
    let keys = [0, 1].map(|n| stage.key_in(&shards[n], &format!("of shard {n}")));
    let values = || {
        let mut values = stage.hand.values();
        values.retain(|value| value != "probe");
        values
    };
    let one = stage.worker("one");
    stage.commit(&keys[0], "read");
    eventually(secs(5), "the first", || values() == ["read"]).await;
    one.leave().await;
    stage.commit(&keys[0], "lost");
    pass(Duration::from_hours(25)).await;
    let lost = stage.stream.trim(&shards[0], stage.now());
    assert!(lost.len() >= 2, "{lost:?}");
    stage.commit(&keys[0], "behind the gap");

    let two = stage.worker("two");
    eventually(secs(10), "the gap", || stage.view().gaps.len() == 1).await;
    stage.commit(&keys[1], "elsewhere");
    eventually(secs(10), "the other shard", || values().len() == 2).await;
    pass(secs(300)).await;
    assert_eq!(values(), ["read", "elsewhere"]);
    assert_eq!(two.counters.gaps.load(Ordering::Relaxed), 1);
    two.leave().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_gap_is_finished_and_written_down_before_its_shard_halts() {
    let mut stage = Stage::new(1);
    stage.settings.on_gap = OnGap::Halt;
    stage.settings.timing.handler_timeout = Duration::from_hours(50);
    let only = stage.stream.open_shards()[0].clone();
    stage.hand.shut();
    let one = stage.worker("one");
    stage.commit("a", "in hand");
    stage.commit("a", "behind it");
    eventually(secs(5), "the first", || stage.hand.begun().len() == 1).await;
    pass(Duration::from_hours(25)).await;
    stage.commit("a", "lost");
    stage.stream.trim(&only, stage.now() + secs(1));
    stage.commit("a", "behind the gap");
    eventually(secs(5), "the gap", || stage.view().gaps.len() == 1).await;
    let gap = stage.view().gaps[0].clone();
    assert!(stage.hand.values().is_empty());

    stage.hand.open();
    let read = Checkpoint::At(Position::After(gap.last_handled.unwrap()));
    eventually(secs(5), "the last checkpoint", || {
        stage.row(&only).unwrap().checkpoint == read
    })
    .await;
    let reported = stage.row(&only).unwrap().report.last_error;
    assert!(reported.is_some_and(|reported| reported.starts_with("halted")));
    pass(secs(60)).await;
    assert_eq!(stage.hand.values(), ["in hand", "behind it"]);
    assert_eq!(
        stage.owner(&only).as_deref(),
        Some("one"),
        "nobody else runs into it"
    );
    one.leave().await;
    assert_eq!(
        (stage.row(&only).unwrap().checkpoint, stage.owner(&only)),
        (read, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_while_its_shard_comes_to_a_halt_hands_it_over_all_the_same() {
    let mut stage = Stage::new(1);
    stage.settings.on_gap = OnGap::Halt;
    let only = stage.stream.open_shards()[0].clone();
    let began = stage.now();
    stage.stream.trim(&only, stage.now());
    let start = GroupRow {
        initial: InitialPosition::TrimHorizon,
        bootstrapped: began - Duration::from_hours(30),
        effects: GroupEffects::default(),
    };
    stage.leases.bootstrap(start).await.unwrap();
    let one = stage.worker("one");
    stage.commit("a", "of which nobody knows what was before");
    eventually(secs(60), "the gap", || stage.view().gaps.len() == 1).await;
    let left = tokio::time::timeout(secs(5), one.leave()).await;
    assert!(left.is_ok(), "it waits for a shard that has halted");
    assert_eq!(stage.owner(&only), None);
}

/// Nobody has read the shard yet, so no trimmed checkpoint tells.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_first_read_long_after_the_start_begins_with_a_gap_row() {
    let stage = Stage::new(1);
    let start = GroupRow {
        initial: InitialPosition::TrimHorizon,
        bootstrapped: stage.now(),
        effects: GroupEffects::default(),
    };
    stage.leases.bootstrap(start).await.unwrap();
    stage.commit_many("lost", 5);
    pass(Duration::from_hours(25)).await;
    let only = stage.stream.open_shards()[0].clone();
    assert_eq!(stage.stream.trim(&only, stage.now()).len(), 5);
    let left = stage.commit_many("left", 3);
    let _one = stage.worker("one");
    eventually(secs(60), "what is left", || stage.hand.values() == left).await;
    let gaps = stage.view().gaps;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((&gaps[0].shard, &gaps[0].last_handled), (&only, &None));
    assert!(gaps[0].first_after.is_some());
}

/// Defect 2 of another engine: a child look-up that is empty once leaves the child unread for ever.
#[tokio::test(start_paused = true)]
async fn a_child_that_stays_invisible_for_long_is_found_by_the_full_listing() {
    let stage = Stage::new(1);
    let source = Tapped::new(&stage.stream);
    let _one = stage.worker_on("one", source.clone(), stage.leases.clone());
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    let parent = stage.stream.open_shards()[0].clone();
    let child = stage.stream.end(&parent, false).remove(0);
    stage.stream.hide(&child, true);
    stage.commit("a", "in the child");
    pass(Duration::from_mins(10)).await;
    assert!(stage.row(&parent).unwrap().ended(), "nobody asks any more");
    assert!(source.count("children", Some(&parent)) > 1);
    assert!(stage.row(&child).is_none());
    stage.stream.hide(&child, false);
    // The next listing, and the time for which a row must have been missing.
    eventually(secs(66 + 36), "the child", || stage.hand.done().len() == 1).await;
    assert_eq!(stage.hand.done()[0].shard, child);
}

/// Defect 3 of another engine: an ended lease that was removed is made anew, and its lineage read again.
#[tokio::test(start_paused = true)]
async fn an_ended_lease_that_is_deleted_while_its_child_is_read_is_not_read_again() {
    let stage = Stage::new(1);
    let one = stage.worker("one");
    let parent = stage.stream.open_shards()[0].clone();
    let parents = stage.commit_many("parent", 10);
    let child = stage.stream.end(&parent, false).remove(0);
    let childs = stage.commit_many("child", 10);
    eventually(secs(10), "both", || stage.hand.done().len() == 20).await;
    one.crash().await;
    stage.leases.tamper(|view| {
        view.leases.remove(&parent);
    });
    let source = Tapped::new(&stage.stream);
    let _two = stage.worker_on("two", source.clone(), stage.leases.clone());
    eventually(secs(15), "the take-over", || {
        stage.owner(&child).as_deref() == Some("two")
    })
    .await;
    pass(Duration::from_mins(5)).await;
    assert!(source.count("describe", None) >= 3, "it did list");
    assert!(stage.row(&parent).is_none());
    assert_eq!(source.count("iterator", Some(&parent)), 0);
    // A crash between a record and its checkpoint may repeat what the child held, and no more.
    let values = stage.hand.values();
    assert_eq!(values[..20], [parents, childs.clone()].concat());
    assert!(values[20..].iter().all(|value| childs.contains(value)));
}

/// Defect 4 of another engine: a hot shard starves the cold ones and the heartbeat.
#[tokio::test(start_paused = true)]
async fn a_hot_shard_delays_neither_a_cold_one_nor_the_heartbeat() {
    let mut stage = Stage::with_handler_taking(2, Duration::from_millis(50));
    stage.settings.concurrency = 4;
    let shards = stage.stream.open_shards();
    let (hot, cold) = (
        stage.key_in(&shards[0], "hot"),
        stage.key_in(&shards[1], "cold"),
    );
    // 50 ms for each: the hot item alone is busy for 500 s, 50 lease durations.
    for n in 0..10_000 {
        stage.commit(&hot, &n.to_string());
    }
    let one = stage.worker("one");
    eventually(secs(5), "the hot shard", || stage.hand.done().len() > 20).await;
    for round in 0..40 {
        let value = format!("cold round {round}");
        stage.commit(&cold, &value);
        let there = || stage.hand.done().iter().any(|seen| seen.value == value);
        eventually(secs(2), "the cold record", there).await;
        pass(secs(3)).await;
    }
    assert!(stage.hand.done().len() < 9_000, "the hot one is still hot");
    assert_eq!(one.counters.lapses.load(Ordering::Relaxed), 0);
    let beat = stage.view().workers.into_values().next().unwrap().beat;
    assert!(beat >= 60, "{beat} beats in 120 s and more");
    let mut hot_ones = stage.hand.done();
    hot_ones.retain(|seen| seen.key == hot && seen.value != "probe");
    let in_order = |(n, seen): (usize, &super::stage::Seen)| seen.value == n.to_string();
    assert!(hot_ones.iter().enumerate().all(in_order));
}
