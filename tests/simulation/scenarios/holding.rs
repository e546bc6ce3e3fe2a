//! What a holder may do, and when it stops: scenarios 8 to 12 and 17.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aftercommit::monitor::Counters;
use aftercommit::record::Position;
use aftercommit::record::SequenceNumber;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{Checkpoint, Hold, LeaseStore, Report, Take, View};
use aftercommit::{Consumer, Context, Failure, Group, GroupTable, Record, RecordHandler};
use tokio::sync::watch;
use tokio::time::Instant;

use super::calls::{Fate, Heard, held};
use super::stage::{Stage, eventually, pass, secs};
use super::taking::{Member, beating, shard, worker};

fn hold(epoch: u64) -> Hold {
    Hold {
        shard: shard(0),
        owner: worker("me"),
        epoch,
    }
}

fn position() -> Position {
    Position::After(SequenceNumber::parse("000000000000000000700").unwrap())
}

fn seen(owner: &str, epoch: u64) -> View {
    let row = held(&shard(0), &worker(owner), epoch);
    View {
        leases: [(shard(0), row)].into(),
        ..View::default()
    }
}

async fn moved_away() -> (MemoryLeases, Take) {
    let leases = MemoryLeases::new();
    let mine = held(&shard(0), &worker("me"), 4);
    leases.create(&[mine]).await.unwrap();
    let there = beating("other", 1);
    leases.register(&there).await.unwrap();
    let (from, other, report) = (hold(4), worker("other"), Report::default());
    let given = leases.hand_over(&from, Some(&other), &Position::Horizon, &report);
    given.await.unwrap().unwrap();
    let back = Take {
        shard: shard(0),
        from: Some((worker("other"), None)),
        seen_epoch: 5,
        owner: worker("me"),
        epoch: 6,
    };
    (leases, back)
}

/// Scenario 8.
#[tokio::test]
async fn a_checkpoint_under_a_lease_that_went_elsewhere_is_refused_and_the_lease_dropped() {
    let (leases, _) = moved_away().await;
    let late = leases
        .checkpoint(&hold(4), &position(), &Report::default())
        .await;
    assert_eq!(late.unwrap(), None);
    let row = leases.snapshot().leases[&shard(0)].clone();
    assert_eq!(row.checkpoint, Checkpoint::At(Position::Horizon));

    let mut me = Member::new("me");
    assert_eq!(me.gain(&shard(0), 4, secs(1)), Some(4));
    assert_eq!(me.see(&seen("other", 5), secs(2)), [shard(0)], "it is lost");
    assert_eq!(me.holdings.owns(&shard(0)), None);
}

/// The count is an alarm's ground: one refusal must not look like two.
#[tokio::test(start_paused = true)]
async fn a_refused_checkpoint_is_counted_once() {
    let stage = Stage::new(1);
    // A look would tell before a checkpoint does.
    let blind = Arc::new(AtomicBool::new(false));
    let leases = Heard::failing_while(&stage.leases, &blind, |call| call == "look");
    let one = stage.worker_on("one", stage.stream.clone(), leases);
    stage.commit("a", "before");
    let only = stage.stream.open_shards()[0].clone();
    eventually(secs(10), "a checkpoint", || {
        stage.row(&only).is_some_and(|row| row.report.finished == 1)
    })
    .await;
    blind.store(true, Ordering::Relaxed);
    stage.leases.tamper(|view| {
        view.leases.get_mut(&only).unwrap().epoch += 5;
    });
    stage.commit("a", "under the old epoch");
    let refused = || one.counters.refused.load(Ordering::Relaxed);
    eventually(secs(30), "a refusal", || refused() > 0).await;
    pass(secs(60)).await;
    assert_eq!(refused(), 1);
}

/// Scenario 9.
#[tokio::test]
async fn a_lease_that_was_lost_and_regained_refuses_the_checkpoint_of_the_first_time() {
    let (leases, back) = moved_away().await;
    leases.take(&back).await.unwrap().unwrap();
    let report = Report::default();
    let old = leases.checkpoint(&hold(4), &position(), &report).await;
    assert_eq!(old.unwrap(), None);
    let new = leases.checkpoint(&hold(6), &position(), &report).await;
    assert_eq!(new.unwrap(), Some(()));
}

/// Scenario 10.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_heartbeats_fail_starts_nothing_until_one_succeeds() {
    let stage = Stage::new(2);
    let down = Arc::new(AtomicBool::new(false));
    let leases = Heard::failing_while(&stage.leases, &down, |call| call == "heartbeat");
    let one = stage.worker_on("one", stage.stream.clone(), leases);
    let first = stage.commit_many("before", 20);
    eventually(secs(5), "the first records", || {
        stage.hand.sorted() == first
    })
    .await;
    down.store(true, Ordering::Relaxed);
    pass(stage.settings.timing.trust()).await;
    stage.commit_many("during", 20);
    pass(secs(30)).await;
    assert_eq!(stage.hand.sorted(), first, "nothing outside the window");
    assert_eq!(one.counters.lapses.load(Ordering::Relaxed), 1);
    assert_eq!(stage.owned_by("one"), 2, "the rows say nothing of it");
    down.store(false, Ordering::Relaxed);
    eventually(secs(5), "the other records", || {
        stage.hand.done().len() == 40
    })
    .await;
    assert_eq!(one.counters.refused.load(Ordering::Relaxed), 0);
}

/// Shows the context that it is given.
struct Shown(watch::Sender<Option<Context>>);

impl RecordHandler for Shown {
    async fn handle(&self, _: &Record, context: &Context) -> Result<(), Failure> {
        self.0.send_replace(Some(context.clone()));
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_sees_the_window_as_a_deadline_that_heartbeats_move_and_that_passes_for_good() {
    let stage = Stage::new(1);
    let trust = stage.settings.timing.trust();
    let down = Arc::new(AtomicBool::new(false));
    let leases = Heard::failing_while(&stage.leases, &down, |call| call == "heartbeat");
    let contexts = watch::Sender::new(None);
    let mut shown = contexts.subscribe();
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "arn"),
        stage.stream.clone(),
        leases,
    )
    .handler(Shown(contexts));
    tokio::spawn(
        consumer
            .settings(stage.settings.clone())
            .run(std::future::pending()),
    );
    stage.commit("a", "never done");
    let shown = shown.wait_for(Option::is_some).await.unwrap().clone();
    let context = shown.unwrap();
    let first = context.deadline().unwrap();
    assert!(first <= Instant::now() + trust);
    pass(trust * 2).await;
    assert!(
        context.deadline().unwrap() > first + trust / 2,
        "heartbeats renew it"
    );

    down.store(true, Ordering::Relaxed);
    pass(secs(3)).await;
    let last = context.deadline().unwrap();
    tokio::time::sleep_until(last - Duration::from_millis(1)).await;
    assert!(context.may_act());
    tokio::time::sleep_until(last).await;
    assert!(!context.may_act());
    down.store(false, Ordering::Relaxed);
    pass(trust).await;
    assert_eq!(context.deadline(), None, "what lapsed never holds again");
}

/// Scenario 11.
#[tokio::test(start_paused = true)]
async fn a_write_that_fails_changes_nothing_in_what_a_worker_holds() {
    let stage = Stage::new(1);
    let leases = Heard::failing(&stage.leases, |call, before| {
        if call == "checkpoint" && before < 5 {
            Fate::Fails
        } else {
            Fate::Fine
        }
    });
    let only = stage.stream.open_shards()[0].clone();
    let one = stage.worker_on("one", stage.stream.clone(), leases.clone());
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    let names = stage.commit_many("item", 5);
    eventually(secs(5), "a failing checkpoint", || {
        leases.count("checkpoint") == 3
    })
    .await;
    let row = stage.row(&only).unwrap();
    assert_eq!(row.checkpoint, Checkpoint::At(Position::Horizon));
    stage.commit("later", "later");
    eventually(secs(5), "reading on", || stage.hand.done().len() == 6).await;
    eventually(secs(10), "the checkpoint in the end", || {
        stage.row(&only).unwrap().report.finished == 6
    })
    .await;
    assert_eq!(stage.hand.values()[..5], names, "handled once, in order");
    assert_eq!(stage.row(&only).unwrap().epoch, row.epoch);
    assert_eq!(count(&one.counters), (1, 0, 0));
}

/// Takes, hand-overs, lapses.
fn count(counters: &Counters) -> (u64, u64, u64) {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    (
        read(&counters.takes),
        read(&counters.hand_overs),
        read(&counters.lapses),
    )
}

/// Scenario 12.
#[tokio::test(start_paused = true)]
async fn who_is_handing_a_shard_over_starts_nothing_more_in_it() {
    let mut me = Member::new("me");
    me.gain(&shard(0), 4, secs(1));
    assert_eq!(me.holdings.give_up(&shard(0)), Some(4));
    let lost = me.see(&seen("me", 4), secs(2));
    assert_eq!(lost, [], "a row that lags gives nothing back");
    assert_eq!(me.holdings.owns(&shard(0)), None);

    let stage = Stage::new(1);
    let one = stage.worker("one");
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    stage.hand.shut();
    stage.commit("held", "held");
    eventually(secs(5), "the first record", || {
        stage.hand.begun().len() == 1
    })
    .await;
    let leaving = one.begin_to_leave();
    pass(secs(1)).await;
    stage.commit_many("more", 3);
    pass(secs(20)).await;
    assert_eq!(stage.hand.begun().len(), 1, "nothing more is started");
    assert_eq!(stage.owned_by("one"), 1, "and nothing is given before");
    stage.hand.open();
    leaving.await.unwrap().unwrap();
    assert_eq!(stage.hand.values(), ["held"]);
    let only = stage.stream.open_shards()[0].clone();
    let row = stage.row(&only).unwrap();
    assert_eq!((row.owner, row.report.finished), (None, 1));
}

/// Scenario 17.
#[tokio::test(start_paused = true)]
async fn a_handler_that_overruns_holds_a_hand_over_up_for_the_timeout_and_no_longer() {
    let stage = Stage::new(1);
    let one = stage.worker("one");
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    stage.hand.shut();
    stage.commit("held", "held");
    eventually(secs(5), "the record", || stage.hand.begun().len() == 1).await;
    let two = stage.worker("two");
    pass(secs(3)).await;
    let leaving = one.begin_to_leave();
    let only = stage.stream.open_shards()[0].clone();
    pass(secs(29)).await;
    assert_eq!(stage.owner(&only).as_deref(), Some("one"), "not before");
    pass(secs(2)).await;
    assert_eq!(stage.owner(&only).as_deref(), Some("two"), "after");
    leaving.await.unwrap().unwrap();
    stage.hand.open();
    eventually(secs(5), "the record again", || stage.hand.done().len() == 1).await;
    assert_eq!(stage.hand.done()[0].worker, "two");
    assert_eq!(count(&two.counters).0, 0, "given, not taken");
}
