//! Who may take a lease, and whose writes are refused.

use super::*;

pub(super) async fn a_free_lease_goes_to_one_taker_only(store: impl LeaseStore) {
    let row = LeaseRow::new(shard("a"), None, 0);
    store.create(std::slice::from_ref(&row)).await.unwrap();
    let taken = store.take(&free_take("one", 1)).await.unwrap().unwrap();
    let expected = LeaseRow {
        owner: Some(incarnation("one")),
        epoch: 1,
        ..row
    };
    assert_eq!(taken, expected);
    assert_eq!(store.take(&free_take("two", 1)).await.unwrap(), None);
    assert_eq!(lease(&store, "a").await, expected);
}

pub(super) async fn a_take_that_is_repeated_answers_like_the_first(store: impl LeaseStore) {
    let row = LeaseRow::new(shard("a"), None, 0);
    store.create(&[row]).await.unwrap();
    let first = store.take(&free_take("one", 3)).await.unwrap();
    assert!(first.is_some());
    assert_eq!(store.take(&free_take("one", 3)).await.unwrap(), first);
}

pub(super) async fn a_free_take_is_refused_if_the_epoch_moved(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    store
        .hand_over(&hold, None, &Position::Horizon, &Report::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(store.take(&free_take("two", 9)).await.unwrap(), None);
    let missing = Take {
        shard: shard("nowhere"),
        ..free_take("two", 1)
    };
    assert_eq!(store.take(&missing).await.unwrap(), None);
    assert!(!look(&store).await.leases.contains_key(&shard("nowhere")));
}

pub(super) async fn an_ended_lease_is_not_taken(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let ended = store.finish(&hold, &[], &report()).await;
    ended.unwrap().unwrap();
    let row = lease(&store, "a").await;
    let take = Take {
        seen_epoch: row.epoch,
        ..free_take("two", row.epoch + 1)
    };
    assert_eq!(store.take(&take).await.unwrap(), None);
    assert_eq!(lease(&store, "a").await, row);
}

pub(super) async fn a_lease_is_taken_from_oneself_without_evidence(store: impl LeaseStore) {
    held_by_one(&store).await;
    store.heartbeat(&worker("one", 2)).await.unwrap().unwrap();
    let anew = Take {
        from: Some((incarnation("one"), None)),
        ..take_from("one", "one", Sighting::Missing)
    };
    let taken = store.take(&anew).await.unwrap().unwrap();
    assert_eq!((taken.owner, taken.epoch), (Some(incarnation("one")), 2));
}

pub(super) async fn a_dead_workers_lease_is_taken_at_the_beat_seen(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let moved = store.checkpoint(&hold, &after("17"), &report()).await;
    moved.unwrap().unwrap();
    let take = take_from("two", "one", Sighting::Beat(1));
    let taken = store.take(&take).await.unwrap().unwrap();
    assert_eq!(taken.owner, Some(incarnation("two")));
    assert_eq!(taken.epoch, 2);
    assert_eq!(taken.checkpoint, Checkpoint::At(after("17")));
    assert_eq!(lease(&store, "a").await, taken);
    assert_eq!(store.take(&take).await.unwrap(), Some(taken));
}

pub(super) async fn a_take_is_refused_if_the_owners_beat_moved(store: impl LeaseStore) {
    held_by_one(&store).await;
    store.heartbeat(&worker("one", 2)).await.unwrap().unwrap();
    let before = lease(&store, "a").await;
    for sighting in [Sighting::Beat(1), Sighting::Missing] {
        let take = take_from("two", "one", sighting);
        assert_eq!(store.take(&take).await.unwrap(), None);
    }
    assert_eq!(lease(&store, "a").await, before);
}

pub(super) async fn a_take_is_refused_if_the_lease_has_another_owner(store: impl LeaseStore) {
    held_by_one(&store).await;
    store.register(&worker("two", 1)).await.unwrap();
    let take = take_from("three", "two", Sighting::Beat(1));
    assert_eq!(store.take(&take).await.unwrap(), None);
    let late = Take {
        seen_epoch: 0,
        ..take_from("three", "one", Sighting::Beat(1))
    };
    assert_eq!(store.take(&late).await.unwrap(), None);
    assert_eq!(lease(&store, "a").await.owner, Some(incarnation("one")));
}

pub(super) async fn a_repeated_take_answers_like_the_first_even_if_the_dead_owner_stirs(
    store: impl LeaseStore,
) {
    held_by_one(&store).await;
    let take = take_from("two", "one", Sighting::Beat(1));
    let first = store.take(&take).await.unwrap();
    assert!(first.is_some());
    store.heartbeat(&worker("one", 2)).await.unwrap().unwrap();
    assert_eq!(store.take(&take).await.unwrap(), first);
}

pub(super) async fn a_lease_of_a_missing_worker_is_taken_only_while_its_row_is_missing(
    store: impl LeaseStore,
) {
    held_by_one(&store).await;
    let take = take_from("two", "one", Sighting::Missing);
    assert_eq!(store.take(&take).await.unwrap(), None);
    let one = incarnation("one");
    store.remove_worker(&one, None).await.unwrap();
    let beat = take_from("two", "one", Sighting::Beat(1));
    assert_eq!(store.take(&beat).await.unwrap(), None);
    let taken = store.take(&take).await.unwrap().unwrap();
    assert_eq!(taken.owner, Some(incarnation("two")));
}

pub(super) async fn a_zombies_writes_are_refused_after_a_take(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let take = take_from("two", "one", Sighting::Beat(1));
    let taken = store.take(&take).await.unwrap().unwrap();
    let three = incarnation("three");
    let checkpoint = store.checkpoint(&hold, &after("99"), &report()).await;
    let handover = store
        .hand_over(&hold, Some(&three), &after("99"), &report())
        .await;
    let finish = store.finish(&hold, &[], &report()).await;
    assert_eq!(checkpoint.unwrap(), None);
    assert_eq!(handover.unwrap(), None);
    assert_eq!(finish.unwrap(), None);
    assert_eq!(lease(&store, "a").await, taken);
}

pub(super) async fn a_lease_that_was_lost_and_regained_refuses_the_writes_of_the_old_epoch(
    store: impl LeaseStore,
) {
    let hold = held_by_one(&store).await;
    let give = store.hand_over(&hold, None, &after("4"), &report()).await;
    give.unwrap().unwrap();
    let again = Take {
        seen_epoch: 2,
        ..free_take("one", 3)
    };
    let regained = store.take(&again).await.unwrap().unwrap();
    let two = incarnation("two");
    let checkpoint = store.checkpoint(&hold, &after("99"), &report()).await;
    let handover = store
        .hand_over(&hold, Some(&two), &after("99"), &report())
        .await;
    let finish = store.finish(&hold, &[], &report()).await;
    assert_eq!(checkpoint.unwrap(), None);
    assert_eq!(handover.unwrap(), None);
    assert_eq!(finish.unwrap(), None);
    assert_eq!(lease(&store, "a").await, regained);
}
