//! Nobody is in charge: scenarios 14, 15, 21 and 32.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use aftercommit::internal::fleet::assign::lister;
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::leases::GroupEffects;
use aftercommit::stores::leases::{
    GroupRow, Incarnation, InitialPosition, LeaseRow, Unfit, Unreadable,
};

use super::calls::{Fate, Heard, Tapped};
use super::stage::{Stage, eventually, pass, secs};

/// Scenario 14.
#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_is_tried_again_soon_and_stops_nothing_else() {
    let stage = Stage::new(4);
    let source = Tapped::failing(&stage.stream, 3);
    let names = stage.commit_many("item", 20);
    let one = stage.worker_on("one", source.clone(), stage.leases.clone());
    // Each of the three is tried again after at most a tenth of the interval.
    eventually(secs(20), "the leases", || stage.owned_by("one") == 4).await;
    eventually(secs(2), "the records", || stage.hand.sorted() == names).await;
    assert_eq!(source.count("describe", None), 4);
    assert_eq!(one.counters.lapses.load(Ordering::Relaxed), 0);
}

/// At four pages a second, 1,200 shards take 3 s to list, and 6,000 take 15: more than a lease lasts.
#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_long_to_list_is_read_and_its_rows_come_back() {
    for takes in [secs(3), secs(15)] {
        let stage = Stage::new(3);
        let source = Tapped::large(&stage.stream, takes);
        let _one = stage.worker_on("one", source.clone(), stage.leases.clone());
        eventually(secs(60), "the leases", || stage.owned_by("one") == 3).await;
        let lost = stage.stream.open_shards()[1].clone();
        stage.leases.tamper(|view| {
            view.leases.remove(&lost);
        });
        eventually(secs(150), "the lost one", || stage.owned_by("one") == 3).await;
        let listings = source.count("describe", None);
        assert!(listings <= 12, "{listings} listings, each of {takes:?}");
    }
}

/// Scenario 15.
#[tokio::test(start_paused = true)]
async fn a_malformed_row_stops_no_other_and_heals() {
    let stage = Stage::new(3);
    let one = stage.worker("one");
    eventually(secs(5), "the leases", || stage.owned_by("one") == 3).await;
    one.leave().await;
    let damaged = stage.stream.open_shards()[1].clone();
    let row = format!("shard#{damaged}");
    stage.leases.tamper(|view| {
        view.leases.remove(&damaged);
        view.unreadable.push(Unreadable {
            row,
            why: Unfit::Malformed {
                what: "the epoch is a text".to_owned(),
            },
        });
    });
    let names = stage.commit_many("item", 30);
    let _two = stage.worker("two");
    eventually(secs(5), "the others", || stage.owned_by("two") == 2).await;
    let healthy = |seen: &super::stage::Seen| seen.shard != damaged;
    eventually(secs(5), "the others' records", || {
        !stage.hand.done().is_empty()
    })
    .await;
    assert!(stage.hand.done().iter().all(healthy));
    eventually(secs(90), "all", || stage.hand.sorted() == names).await;
    assert_eq!(stage.owned_by("two"), 3);
    assert_eq!(stage.view().unreadable, []);
}

/// Scenario 21.
#[tokio::test(start_paused = true)]
async fn the_same_leases_come_about_whichever_call_fails() {
    let mut undisturbed = None;
    let calls = ["look", "register", "bootstrap", "create", "take", "finish"];
    let faults = calls
        .into_iter()
        .flat_map(|call| [Fate::Fails, Fate::Unanswered].map(|fate| (call, fate)));
    for (failing, fate) in [("nothing", Fate::Fine)].into_iter().chain(faults) {
        for nth in 0..3 {
            let stage = Stage::new(3);
            let ends = stage.stream.open_shards()[0].clone();
            stage.stream.end(&ends, true);
            let leases = Heard::failing(&stage.leases, move |call, before| {
                if call == failing && before == nth {
                    fate
                } else {
                    Fate::Fine
                }
            });
            let source = Tapped::failing(&stage.stream, usize::from(nth == 2));
            let _one = stage.worker_on("one", source, leases);
            pass(secs(100)).await;
            let rows: Vec<_> = stage.view().leases.into_values().map(shape).collect();
            assert_eq!(rows.len(), 5, "{failing} {fate:?} {nth}");
            assert_eq!(stage.owned_by("one"), 4, "{failing} {fate:?} {nth}");
            let expected = undisturbed.get_or_insert_with(|| rows.clone());
            assert_eq!(*expected, rows, "{failing} {fate:?} {nth}");
        }
    }
}

fn shape(row: LeaseRow) -> (ShardId, Option<ShardId>, bool, bool) {
    let (owned, ended) = (row.owner.is_some(), row.ended());
    (row.shard, row.parent, owned, ended)
}

/// Scenario 32.
#[tokio::test(start_paused = true)]
async fn when_the_worker_that_lists_dies_another_lists_within_a_lease_duration() {
    let stage = Stage::new(2);
    let mut fleet = BTreeMap::new();
    for name in ["one", "two", "three"] {
        let source = Tapped::new(&stage.stream);
        let worker = stage.worker_on(name, source.clone(), stage.leases.clone());
        fleet.insert(name, (worker, source));
    }
    pass(secs(200)).await;
    let mut live = stage.view().workers.into_keys().collect();
    let lists = lister(&live, &BTreeSet::new()).unwrap().clone();
    live.remove(&lists);
    let heir = lister(&live, &BTreeSet::new()).unwrap().clone();
    let count = |fleet: &BTreeMap<&str, (_, Tapped)>, name: &Incarnation| {
        fleet[name.worker()].1.count("describe", None)
    };
    let before = (count(&fleet, &lists), count(&fleet, &heir));
    pass(secs(132)).await;
    assert!(count(&fleet, &lists) >= before.0 + 2, "it lists");
    assert_eq!(count(&fleet, &heir), before.1, "and nobody else does");
    let (dies, _) = fleet.remove(lists.worker()).unwrap();
    dies.crash().await;
    eventually(secs(13), "a listing by the heir", || {
        count(&fleet, &heir) > before.1
    })
    .await;
}

/// A worker that cannot list, for whatever reason, says so in its row.
#[tokio::test(start_paused = true)]
async fn when_the_worker_that_lists_cannot_another_lists_until_it_can() {
    let stage = Stage::new(2);
    let mut fleet = BTreeMap::new();
    for name in ["one", "two", "three"] {
        let source = Tapped::new(&stage.stream);
        let worker = stage.worker_on(name, source.clone(), stage.leases.clone());
        fleet.insert(name, (worker, source));
    }
    pass(secs(200)).await;
    let live = stage.view().workers.into_keys().collect();
    let lists = lister(&live, &BTreeSet::new()).unwrap().clone();
    let heir = lister(&live, &BTreeSet::from([&lists])).unwrap().clone();
    let listed = |name: &Incarnation| fleet[name.worker()].1.count("describe", None);
    let before = listed(&heir);
    fleet[lists.worker()].1.fail_listings(6);
    // Its turn within a minute, three tries within 20 s, and a heartbeat that says so.
    eventually(secs(90), "a listing by the heir", || listed(&heir) > before).await;
    assert!(stage.view().workers[&lists].unable_to_list);
    // It tries on, once a minute, and is the one again when it can.
    let able = || !stage.view().workers[&lists].unable_to_list;
    eventually(secs(300), "a listing that succeeds", able).await;
    pass(secs(5)).await;
    let before = (listed(&lists), listed(&heir));
    pass(secs(132)).await;
    assert!(listed(&lists) >= before.0 + 2);
    assert_eq!(listed(&heir), before.1);
}

#[test]
fn if_no_worker_can_list_one_tries_all_the_same() {
    let live = ["a", "b", "c"].map(|name| Incarnation::new(name, 1));
    let live = BTreeSet::from(live);
    let named = lister(&live, &BTreeSet::new()).unwrap();
    let heir = lister(&live, &BTreeSet::from([named])).unwrap();
    assert_ne!(heir, named);
    assert_eq!(lister(&live, &live.iter().collect()), Some(named));
    assert_eq!(lister(&BTreeSet::new(), &BTreeSet::new()), None);
}

/// What [`super::lineage`] shows of the decision, done by a fleet.
#[tokio::test(start_paused = true)]
async fn a_finished_lease_is_removed_once_its_children_are_read_and_the_stream_forgot_it() {
    let stage = Stage::new(1);
    let _one = stage.worker("one");
    stage.commit("a", "of the parent");
    eventually(secs(10), "the record", || stage.hand.done().len() == 1).await;
    let parent = stage.stream.open_shards()[0].clone();
    let child = stage.stream.end(&parent, false).remove(0);
    eventually(secs(5), "the end", || {
        stage.row(&parent).is_some_and(|row| row.ended())
    })
    .await;

    // Past two listings: the stream still lists it.
    stage.commit("a", "of the child");
    pass(secs(150)).await;
    assert!(
        stage.row(&parent).is_some(),
        "the stream has not forgotten it"
    );
    assert!(!stage.stream.forget(&parent, stage.now()).is_empty());
    eventually(secs(90), "its removal", || stage.row(&parent).is_none()).await;
    pass(secs(300)).await;
    assert_eq!(stage.view().leases.keys().collect::<Vec<_>>(), [&child]);
    assert_eq!(stage.hand.values(), ["of the parent", "of the child"]);
}

/// An operator deleted the row, and the request of a worker that had seen none at first comes late.
#[tokio::test(start_paused = true)]
async fn a_group_row_that_is_written_late_skips_nothing_that_is_in_hand() {
    let stage = Stage::new(2);
    stage.hand.shut();
    let one = stage.worker("one");
    let names = stage.commit_many("item", 10);
    eventually(secs(20), "they are in hand", || {
        !stage.hand.begun().is_empty()
    })
    .await;
    one.crash().await;
    pass(Duration::from_mins(30)).await;
    stage.leases.tamper(|view| {
        view.group = Some(GroupRow {
            initial: InitialPosition::Latest,
            bootstrapped: stage.now(),
            effects: GroupEffects::default(),
        });
    });
    stage.hand.open();
    let two = stage.worker("two");
    eventually(secs(60), "all of them", || stage.hand.sorted() == names).await;
    assert_eq!(two.counters.skipped.load(Ordering::Relaxed), 0);
}
