//! The end of a shard, gaps, and rows that are healed.

use super::*;

fn children(names: &[&str]) -> Vec<LeaseRow> {
    let rows = names.iter();
    rows.map(|name| LeaseRow::new(shard(name), Some(shard("a")), 0))
        .collect()
}

fn end(children: &[LeaseRow]) -> Checkpoint {
    Checkpoint::End {
        children: children.iter().map(|row| row.shard.clone()).collect(),
    }
}

pub(super) async fn finishing_ends_the_parent_and_creates_the_children(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let children = children(&["b", "c"]);
    let ended = store.finish(&hold, &children, &report()).await;
    assert_eq!(ended.unwrap(), Some(()));
    let view = look(&store).await;
    let parent = &view.leases[&shard("a")];
    assert_eq!(parent.checkpoint, end(&children));
    assert_eq!(parent.report, report());
    assert_eq!(view.leases[&shard("b")], children[0]);
    assert_eq!(view.leases[&shard("c")], children[1]);
    // Nothing moves an ended shard any more.
    let late = store.checkpoint(&hold, &after("3"), &report()).await;
    assert_eq!(late.unwrap(), None);
    assert!(lease(&store, "a").await.ended());
}

pub(super) async fn a_finish_that_is_repeated_answers_like_the_first(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let mut two = children(&["b", "c"]);
    for _ in 0..2 {
        let ended = store.finish(&hold, &two, &report()).await;
        assert_eq!(ended.unwrap(), Some(()));
    }
    // A child that was taken in between changes nothing about it.
    let take = Take {
        shard: shard("b"),
        ..free_take("two", 1)
    };
    let taken = store.take(&take).await.unwrap().unwrap();
    let ended = store.finish(&hold, &two, &report()).await;
    assert_eq!(ended.unwrap(), Some(()));
    assert_eq!(lease(&store, "b").await, taken);
    // Another end is another write, and too late.
    two.pop();
    let other = store.finish(&hold, &two, &report()).await;
    assert_eq!(other.unwrap(), None);
}

pub(super) async fn finishing_leaves_a_child_that_is_there_as_it_is(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let children = children(&["b", "c"]);
    store.create(&children[..1]).await.unwrap();
    let take = Take {
        shard: shard("b"),
        ..free_take("two", 1)
    };
    let taken = store.take(&take).await.unwrap().unwrap();
    let ended = store.finish(&hold, &children, &report()).await;
    assert_eq!(ended.unwrap(), Some(()));
    let view = look(&store).await;
    assert_eq!(view.leases[&shard("a")].checkpoint, end(&children));
    assert_eq!(view.leases[&shard("b")], taken);
    assert_eq!(view.leases[&shard("c")], children[1]);
}

pub(super) async fn a_finish_that_is_refused_creates_no_child(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let take = take_from("two", "one", Sighting::Beat(1));
    store.take(&take).await.unwrap().unwrap();
    let ended = store.finish(&hold, &children(&["b"]), &report()).await;
    assert_eq!(ended.unwrap(), None);
    let view = look(&store).await;
    assert_eq!(view.leases.keys().collect::<Vec<_>>(), [&shard("a")]);
    assert!(!view.leases[&shard("a")].ended());
}

/// A handler may quote an answer of any length, and an item of the table ends at 400 KB.
pub(super) async fn an_error_of_any_length_stops_no_write(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let long = Report {
        last_error: Some("\u{20ac}".repeat(150_000)),
        ..report()
    };
    let written = store.checkpoint(&hold, &after("3"), &long).await;
    assert_eq!(written.unwrap(), Some(()));
    let ended = store.finish(&hold, &children(&["b"]), &long).await;
    assert_eq!(ended.unwrap(), Some(()));
    let reported = lease(&store, "a").await.report.last_error.unwrap();
    assert!(
        reported.starts_with("\u{20ac}\u{20ac}"),
        "the beginning is kept"
    );
}

pub(super) async fn finishing_with_very_many_children_creates_them_all(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let names: Vec<_> = (0..130).map(|n| format!("child-{n:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let children = children(&names);
    for _ in 0..2 {
        let ended = store.finish(&hold, &children, &report()).await;
        assert_eq!(ended.unwrap(), Some(()));
    }
    let view = look(&store).await;
    assert_eq!(view.leases.len(), 131);
    assert_eq!(view.leases[&shard("a")].checkpoint, end(&children));
}

pub(super) async fn only_ended_leases_are_removed(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    store.remove_ended(&shard("a")).await.unwrap();
    assert!(look(&store).await.leases.contains_key(&shard("a")));
    let ended = store.finish(&hold, &[], &report()).await;
    ended.unwrap().unwrap();
    store.remove_ended(&shard("a")).await.unwrap();
    store.remove_ended(&shard("a")).await.unwrap();
    assert!(look(&store).await.leases.is_empty());
}

pub(super) async fn an_archived_lease_is_out_of_reach_and_there_still(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    store.archive(&shard("a")).await.unwrap();
    let current = || store.look_at(Reach::Current, Consistency::Strong);
    let view = current().await.unwrap();
    assert!(view.leases.contains_key(&shard("a")), "it has not ended");
    let rows = children(&["b"]);
    let ended = store.finish(&hold, &rows, &report()).await;
    ended.unwrap().unwrap();
    let before = lease(&store, "a").await;
    for _ in 0..2 {
        store.archive(&shard("a")).await.unwrap();
        let view = current().await.unwrap();
        let shards: Vec<_> = view.leases.keys().cloned().collect();
        assert_eq!(shards, [shard("b")]);
        assert!(view.archived.is_empty());
        let all = look(&store).await;
        assert_eq!(all.leases[&shard("a")], before);
        assert_eq!(all.archived, [shard("a")].into());
        // A worker that was frozen since it missed the row.
        let late = LeaseRow::new(shard("a"), None, 9);
        store.create(&[late]).await.unwrap();
    }
    store.remove_ended(&shard("a")).await.unwrap();
    let all = look(&store).await;
    assert!(!all.leases.contains_key(&shard("a")) && all.archived.is_empty());
}

pub(super) async fn a_look_at_the_heartbeats_reads_nothing_else(store: impl LeaseStore) {
    held_by_one(&store).await;
    let beats = store.look_at(Reach::Workers, Consistency::Eventual).await;
    let mut all = look(&store).await;
    assert!(!all.leases.is_empty());
    all.leases.clear();
    assert_eq!(beats.unwrap(), all);
}

pub(super) async fn a_gap_keeps_its_first_detection_and_takes_its_newest_end(
    store: impl LeaseStore,
) {
    let place = |digits: &str| Some(SequenceNumber::parse(digits).unwrap());
    let first = GapRow {
        shard: shard("a"),
        last_handled: place("10"),
        last_handled_time: Some(at(1)),
        first_after: None,
        detected: at(2),
        resolved: None,
    };
    let again = GapRow {
        first_after: place("20"),
        detected: at(3),
        ..first.clone()
    };
    let later = GapRow {
        first_after: place("30"),
        ..again.clone()
    };
    let elsewhere = GapRow {
        last_handled: None,
        last_handled_time: None,
        ..first.clone()
    };
    let hold = held_by_one(&store).await;
    let recorded = store.record_gap(&first, Some(&hold)).await;
    recorded.unwrap().unwrap();
    assert_eq!(look(&store).await.gaps, std::slice::from_ref(&first));
    for gap in [&again, &later, &elsewhere] {
        let recorded = store.record_gap(gap, Some(&hold)).await;
        recorded.unwrap().unwrap();
    }
    let mut gaps = look(&store).await.gaps;
    gaps.sort_by_key(|gap| gap.last_handled.clone());
    let ended = GapRow {
        first_after: place("30"),
        ..first
    };
    assert_eq!(gaps, [elsewhere, ended]);
}

pub(super) async fn an_end_of_a_gap_that_is_written_late_moves_no_later_one_back(
    store: impl LeaseStore,
) {
    let end = |digits: &str| Some(SequenceNumber::parse(digits).unwrap());
    let gap = GapRow {
        shard: shard("1"),
        last_handled: None,
        last_handled_time: None,
        first_after: None,
        detected: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        resolved: None,
    };
    let ended = |digits| GapRow {
        first_after: end(digits),
        ..gap.clone()
    };
    // The numbers count, not the texts.
    for (written, stands) in [
        (&gap, None),
        (&ended("900"), end("900")),
        (&ended("1000"), end("1000")),
        (&ended("900"), end("1000")),
        (&ended("1000"), end("1000")),
        (&gap, None),
        (&ended("1100"), end("1100")),
    ] {
        store.record_gap(written, None).await.unwrap().unwrap();
        assert_eq!(look(&store).await.gaps[0].first_after, stands);
    }
}

pub(super) async fn a_former_owner_writes_no_gap(store: impl LeaseStore) {
    let hold = held_by_one(&store).await;
    let report = report();
    let given = store.hand_over(&hold, None, &Position::Horizon, &report);
    given.await.unwrap().unwrap();
    let gap = GapRow {
        shard: shard("a"),
        last_handled: None,
        last_handled_time: None,
        first_after: None,
        detected: at(2),
        resolved: None,
    };
    assert_eq!(store.record_gap(&gap, Some(&hold)).await.unwrap(), None);
    assert_eq!(look(&store).await.gaps, []);
    // Of a shard that never had a lease anybody may say so.
    store.record_gap(&gap, None).await.unwrap().unwrap();
    assert_eq!(look(&store).await.gaps, [gap]);
}

pub(super) async fn a_readable_lease_is_not_healed(store: impl LeaseStore) {
    held_by_one(&store).await;
    let before = lease(&store, "a").await;
    let fresh = LeaseRow::new(shard("a"), None, 9);
    store.heal(&fresh).await.unwrap();
    assert_eq!(lease(&store, "a").await, before);
}
