//! What every lease store promises, run against each of them.

use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::engine::Identity;
use aftercommit::internal::shard::ShardId;
use aftercommit::record::{Position, SequenceNumber};
use aftercommit::stores::leases::GroupEffects;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{
    Checkpoint, Consistency, GapRow, GroupRow, Hold, Incarnation, InitialPosition, LeaseRow,
    LeaseStore, Reach, Report, Sighting, Take, View, WorkerRow,
};

use crate::stores::leases::OnServer;
use crate::support::server::on_each_store;

mod ending;
mod taking;

#[allow(clippy::wildcard_imports)]
use ending::*;
use taking::*;

on_each_store! {
    MemoryLeases::new(), OnServer::on, OnServer::leases;
    the_first_bootstrap_counts_and_later_ones_get_its_row,
    a_worker_is_seen_as_it_registered_and_as_it_beats,
    registering_again_raises_the_beat_and_never_lowers_it,
    a_heartbeat_of_a_worker_without_a_row_says_so,
    a_late_heartbeat_never_lowers_the_beat,
    a_late_registration_never_lowers_the_beat,
    a_worker_is_removed_only_at_the_beat_that_was_seen,
    leases_that_are_there_stay_as_they_are_when_created_again,
    a_free_lease_goes_to_one_taker_only,
    a_take_that_is_repeated_answers_like_the_first,
    a_free_take_is_refused_if_the_epoch_moved,
    an_ended_lease_is_not_taken,
    a_lease_is_taken_from_oneself_without_evidence,
    a_dead_workers_lease_is_taken_at_the_beat_seen,
    a_take_is_refused_if_the_owners_beat_moved,
    a_take_is_refused_if_the_lease_has_another_owner,
    a_repeated_take_answers_like_the_first_even_if_the_dead_owner_stirs,
    a_lease_of_a_missing_worker_is_taken_only_while_its_row_is_missing,
    a_zombies_writes_are_refused_after_a_take,
    a_lease_that_was_lost_and_regained_refuses_the_writes_of_the_old_epoch,
    a_checkpoint_is_seen_and_may_be_repeated,
    a_lease_is_handed_over_with_its_checkpoint,
    a_handover_that_is_repeated_answers_like_the_first,
    a_handover_is_lost_once_the_new_owner_moved_on,
    a_lease_that_is_handed_to_nobody_is_free,
    a_lease_is_handed_to_nobody_rather_than_to_a_worker_that_leaves,
    finishing_ends_the_parent_and_creates_the_children,
    a_finish_that_is_repeated_answers_like_the_first,
    finishing_leaves_a_child_that_is_there_as_it_is,
    a_finish_that_is_refused_creates_no_child,
    finishing_with_very_many_children_creates_them_all,
    an_error_of_any_length_stops_no_write,
    only_ended_leases_are_removed,
    an_archived_lease_is_out_of_reach_and_there_still,
    a_look_at_the_heartbeats_reads_nothing_else,
    a_gap_keeps_its_first_detection_and_takes_its_newest_end,
    an_end_of_a_gap_that_is_written_late_moves_no_later_one_back,
    a_former_owner_writes_no_gap,
    a_readable_lease_is_not_healed,
    the_effects_are_replaced_only_while_they_are_those_seen,
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

fn shard(name: &str) -> ShardId {
    ShardId::new(format!("shardId-{name}"))
}

fn after(digits: &str) -> Position {
    Position::After(SequenceNumber::parse(digits).unwrap())
}

fn incarnation(name: &str) -> Incarnation {
    Incarnation::new(name, 7)
}

pub fn worker(name: &str, beat: u64) -> WorkerRow {
    WorkerRow {
        incarnation: incarnation(name),
        beat,
        draining: false,
        unable_to_list: false,
        lease_duration: Duration::from_millis(10_500),
        version: "0.1.0".to_owned(),
        reads: 1,
        zone: Some("eu-central-1a".to_owned()),
        status_address: None,
        trouble: None,
        stuck: Some(ShardId::new("shardId-1")),
        effects: vec![EffectName::default()],
        at: Some(at(7_002)),
    }
}

fn report() -> Report {
    Report {
        frontier_time: Some(at(5_000)),
        caught_up_at: Some(at(6_001)),
        finished: 12,
        last_error: Some("the mail server is away".to_owned()),
        waiting_since: Some(at(6_500)),
        per_minute: 340,
        reported_at: Some(at(7_003)),
        ahead: [(
            EffectName::new("search").unwrap(),
            SequenceNumber::parse("0090").unwrap(),
        )]
        .into(),
    }
}

fn free_take(by: &str, epoch: u64) -> Take {
    Take {
        shard: shard("a"),
        from: None,
        seen_epoch: 0,
        owner: incarnation(by),
        epoch,
    }
}

fn take_from(by: &str, from: &str, sighting: Sighting) -> Take {
    Take {
        shard: shard("a"),
        from: Some((incarnation(from), Some(sighting))),
        seen_epoch: 1,
        owner: incarnation(by),
        epoch: 2,
    }
}

async fn look(store: &impl LeaseStore) -> View {
    store.look(Consistency::Strong).await.unwrap()
}

async fn lease(store: &impl LeaseStore, name: &str) -> LeaseRow {
    look(store).await.leases[&shard(name)].clone()
}

/// Shard `a` held by worker `one` at epoch 1, with a heartbeat at 1.
async fn held_by_one(store: &impl LeaseStore) -> Hold {
    store.register(&worker("one", 1)).await.unwrap();
    let row = LeaseRow {
        starts_at: Some(at(5)),
        ..LeaseRow::new(shard("a"), None, 0)
    };
    store.create(&[row]).await.unwrap();
    let taken = store.take(&free_take("one", 1)).await.unwrap().unwrap();
    Hold {
        shard: taken.shard,
        owner: incarnation("one"),
        epoch: 1,
    }
}

/// A group's effect of this name, with settings.
fn named(name: &str) -> GroupEffects {
    let settings = Identity::default().with("id", "SK");
    GroupEffects::of([(EffectName::new(name).unwrap(), settings)])
}

async fn the_effects_are_replaced_only_while_they_are_those_seen(store: impl LeaseStore) {
    let [old, new, other] = ["placed", "paid", "shipped"].map(named);
    assert_eq!(store.change_effects(&old, &new).await.unwrap(), None);
    let row = GroupRow {
        initial: InitialPosition::Latest,
        bootstrapped: at(1),
        effects: old.clone(),
    };
    store.bootstrap(row.clone()).await.unwrap();
    for _ in 0..2 {
        let changed = store.change_effects(&old, &new).await.unwrap();
        assert_eq!(changed, Some(()), "a repeat answers like the first");
    }
    assert_eq!(store.change_effects(&old, &other).await.unwrap(), None);
    let changed = GroupRow {
        effects: new,
        ..row
    };
    assert_eq!(look(&store).await.group, Some(changed));
}

async fn the_first_bootstrap_counts_and_later_ones_get_its_row(store: impl LeaseStore) {
    let first = GroupRow {
        initial: InitialPosition::Latest,
        bootstrapped: at(1),
        effects: named("placed"),
    };
    let second = GroupRow {
        initial: InitialPosition::TrimHorizon,
        bootstrapped: at(2),
        effects: GroupEffects::default(),
    };
    assert_eq!(look(&store).await.group, None);
    assert_eq!(store.bootstrap(first.clone()).await.unwrap(), first);
    assert_eq!(store.bootstrap(second).await.unwrap(), first);
    assert_eq!(look(&store).await.group, Some(first));
}

async fn registering_again_raises_the_beat_and_never_lowers_it(store: impl LeaseStore) {
    for (beat, shown) in [(1, 1), (3, 3), (2, 3)] {
        store.register(&worker("one", beat)).await.unwrap();
        let row = &look(&store).await.workers[&incarnation("one")];
        assert_eq!(row.beat, shown);
    }
}

async fn a_worker_is_seen_as_it_registered_and_as_it_beats(store: impl LeaseStore) {
    let mut row = worker("one", 3);
    store.register(&row).await.unwrap();
    assert_eq!(look(&store).await.workers[&row.incarnation], row);
    row.beat = 4;
    row.draining = true;
    row.zone = None;
    row.status_address = Some("10.0.0.1:9090".to_owned());
    assert_eq!(store.heartbeat(&row).await.unwrap(), Some(()));
    let view = store.look(Consistency::Eventual).await.unwrap();
    assert_eq!(view.workers[&row.incarnation], row);
}

async fn a_heartbeat_of_a_worker_without_a_row_says_so(store: impl LeaseStore) {
    let row = worker("one", 1);
    assert_eq!(store.heartbeat(&row).await.unwrap(), None);
    assert!(look(&store).await.workers.is_empty());
}

async fn a_late_heartbeat_never_lowers_the_beat(store: impl LeaseStore) {
    store.register(&worker("one", 1)).await.unwrap();
    store.heartbeat(&worker("one", 5)).await.unwrap().unwrap();
    let late = store.heartbeat(&worker("one", 3)).await.unwrap();
    let repeated = store.heartbeat(&worker("one", 5)).await.unwrap();
    assert_eq!((late, repeated), (Some(()), Some(())));
    assert_eq!(look(&store).await.workers[&incarnation("one")].beat, 5);
}

async fn a_late_registration_never_lowers_the_beat(store: impl LeaseStore) {
    store.register(&worker("one", 1)).await.unwrap();
    store.heartbeat(&worker("one", 5)).await.unwrap().unwrap();
    store.register(&worker("one", 1)).await.unwrap();
    assert_eq!(look(&store).await.workers[&incarnation("one")].beat, 5);
}

async fn a_worker_is_removed_only_at_the_beat_that_was_seen(store: impl LeaseStore) {
    let one = incarnation("one");
    store.register(&worker("one", 4)).await.unwrap();
    store.remove_worker(&one, Some(3)).await.unwrap();
    assert!(look(&store).await.workers.contains_key(&one));
    store.remove_worker(&one, Some(4)).await.unwrap();
    assert!(look(&store).await.workers.is_empty());
    store.remove_worker(&one, Some(4)).await.unwrap();
    store.register(&worker("one", 9)).await.unwrap();
    store.remove_worker(&one, None).await.unwrap();
    store.remove_worker(&one, None).await.unwrap();
    assert!(look(&store).await.workers.is_empty());
}

async fn leases_that_are_there_stay_as_they_are_when_created_again(store: impl LeaseStore) {
    held_by_one(&store).await;
    let before = lease(&store, "a").await;
    let child = LeaseRow::new(shard("b"), Some(shard("a")), 4);
    let rows = [LeaseRow::new(shard("a"), None, 0), child.clone()];
    store.create(&rows).await.unwrap();
    assert_eq!(lease(&store, "a").await, before);
    assert_eq!(lease(&store, "b").await, child);
}

async fn a_checkpoint_is_seen_and_may_be_repeated(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    for _ in 0..2 {
        let moved = store.checkpoint(&hold, &after("0017"), &report()).await;
        assert_eq!(moved.unwrap(), Some(()));
    }
    let row = lease(&store, "a").await;
    let Checkpoint::At(Position::After(place)) = &row.checkpoint else {
        panic!("not a place: {row:?}");
    };
    assert_eq!(place.as_str(), "0017", "kept as the stream spelled it");
    assert_eq!(row.report, report());
    // A report that is no longer true disappears.
    let calm = Report::default();
    let moved = store.checkpoint(&hold, &after("18"), &calm).await;
    assert_eq!(moved.unwrap(), Some(()));
    assert_eq!(lease(&store, "a").await.report, calm);
}

async fn a_lease_is_handed_over_with_its_checkpoint(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    store.register(&worker("two", 1)).await.unwrap();
    let two = incarnation("two");
    let given = store
        .hand_over(&hold, Some(&two), &after("44"), &report())
        .await;
    assert_eq!(given.unwrap(), Some(()));
    let expected = LeaseRow {
        owner: Some(two.clone()),
        starts_at: Some(at(5)),
        checkpoint: Checkpoint::At(after("44")),
        report: report(),
        ..LeaseRow::new(shard("a"), None, 2)
    };
    assert_eq!(lease(&store, "a").await, expected);
    let old = store.checkpoint(&hold, &after("45"), &report()).await;
    assert_eq!(old.unwrap(), None);
}

async fn a_handover_that_is_repeated_answers_like_the_first(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    store.register(&worker("two", 1)).await.unwrap();
    let two = incarnation("two");
    for to in [Some(&two), Some(&two)] {
        let given = store.hand_over(&hold, to, &after("44"), &report()).await;
        assert_eq!(given.unwrap(), Some(()));
    }
    let other = incarnation("three");
    let given = store
        .hand_over(&hold, Some(&other), &after("44"), &report())
        .await;
    assert_eq!(given.unwrap(), None);
    assert_eq!(lease(&store, "a").await.owner, Some(two));
}

async fn a_handover_is_lost_once_the_new_owner_moved_on(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    store.register(&worker("two", 1)).await.unwrap();
    let two = incarnation("two");
    let calm = Report::default();
    let give = || store.hand_over(&hold, Some(&two), &Position::Horizon, &calm);
    give().await.unwrap().unwrap();
    let theirs = Hold {
        owner: two.clone(),
        epoch: 2,
        ..hold.clone()
    };
    let moved = store.checkpoint(&theirs, &after("50"), &report()).await;
    moved.unwrap().unwrap();
    assert_eq!(give().await.unwrap(), None);
    let row = lease(&store, "a").await;
    assert_eq!(row.checkpoint, Checkpoint::At(after("50")));
}

async fn a_lease_is_handed_to_nobody_rather_than_to_a_worker_that_leaves(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let mut leaving = worker("two", 1);
    leaving.draining = true;
    store.register(&leaving).await.unwrap();
    for to in ["two", "never seen"] {
        let to = incarnation(to);
        let given = store
            .hand_over(&hold, Some(&to), &after("44"), &report())
            .await;
        assert_eq!(given.unwrap(), Some(()));
        assert_eq!(lease(&store, "a").await.owner, None);
    }
}

async fn a_lease_that_is_handed_to_nobody_is_free(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    for _ in 0..2 {
        let given = store.hand_over(&hold, None, &after("44"), &report()).await;
        assert_eq!(given.unwrap(), Some(()));
    }
    let row = lease(&store, "a").await;
    assert_eq!((row.owner, row.epoch), (None, 2));
    let take = Take {
        seen_epoch: 2,
        ..free_take("two", 3)
    };
    let taken = store.take(&take).await.unwrap().unwrap();
    assert_eq!(taken.checkpoint, Checkpoint::At(after("44")));
}
