//! How shards are shared out: bounded, with the least movement, the same for everybody.

use std::collections::{BTreeMap, BTreeSet};

use aftercommit::internal::fleet::assign::assign;
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::leases::Incarnation;
use proptest::prelude::*;

use super::taking::{shard, worker};

type Held = BTreeMap<ShardId, Option<Incarnation>>;

fn workers(count: usize) -> BTreeSet<Incarnation> {
    (0..count).map(|n| worker(&format!("worker-{n}"))).collect()
}

fn unowned(count: usize) -> Held {
    (0..count).map(|n| (shard(n), None)).collect()
}

fn shared(live: &BTreeSet<Incarnation>, held: &Held) -> Held {
    let targets = assign(live, held.iter().map(|(id, owner)| (id, owner.as_ref())));
    let owned = |(id, to): (&ShardId, &Incarnation)| (id.clone(), Some(to.clone()));
    targets.into_iter().map(owned).collect()
}

fn loads(live: &BTreeSet<Incarnation>, held: &Held) -> Vec<usize> {
    let load = |name| held.values().filter(|o| o.as_ref() == Some(name)).count();
    live.iter().map(load).collect()
}

fn moves(before: &Held, after: &Held) -> usize {
    let moved = |(id, owner): &(&ShardId, &Option<Incarnation>)| after[*id] != **owner;
    before.iter().filter(moved).count()
}

/// What must move at least: what the dead hold, and what is above a fair share.
fn least(live: &BTreeSet<Incarnation>, before: &Held) -> usize {
    let (floor, over) = (before.len() / live.len(), before.len() % live.len());
    let mut loads = loads(live, before);
    loads.sort_unstable_by(|a, b| b.cmp(a));
    let share = |place| floor + usize::from(place < over);
    let kept = loads
        .iter()
        .enumerate()
        .map(|(i, load)| *load.min(&share(i)));
    before.len() - kept.sum::<usize>()
}

proptest! {
    #[test]
    fn every_shard_has_a_worker_and_every_worker_its_fair_share_with_the_fewest_moves(
        count in 1usize..12,
        owners in prop::collection::vec(prop::option::of(0usize..16), 0..80),
    ) {
        let live = workers(count);
        let owned = |(n, owner): (usize, &Option<usize>)| {
            (shard(n), owner.map(|o| worker(&format!("worker-{o}"))))
        };
        let before: Held = owners.iter().enumerate().map(owned).collect();
        let after = shared(&live, &before);
        prop_assert_eq!(after.len(), before.len());
        let loads = loads(&live, &after);
        let (floor, ceil) = (before.len() / count, before.len().div_ceil(count));
        prop_assert!(loads.iter().all(|load| (floor..=ceil).contains(load)), "{:?}", loads);
        prop_assert_eq!(moves(&before, &after), least(&live, &before));
        prop_assert_eq!(shared(&live, &after), after, "and then it rests");
    }

    #[test]
    fn the_answer_is_the_same_whatever_the_order_of_the_rows(
        order in Just((0..60usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let live = workers(7);
        let mut held = unowned(60);
        for n in 0..45 {
            held.insert(shard(n), Some(worker(&format!("worker-{}", n % 9))));
        }
        let rows: Vec<_> = order.into_iter().map(|n| held.get_key_value(&shard(n)).unwrap()).collect();
        let shuffled = assign(&live, rows.into_iter().map(|(id, owner)| (id, owner.as_ref())));
        let sorted = assign(&live, held.iter().map(|(id, owner)| (id, owner.as_ref())));
        prop_assert_eq!(shuffled, sorted);
    }
}

#[test]
fn a_worker_that_joins_is_given_its_share_and_nothing_else_moves() {
    let before = shared(&workers(4), &unowned(100));
    assert_eq!(loads(&workers(4), &before), [25; 4]);
    let after = shared(&workers(5), &before);
    assert_eq!(loads(&workers(5), &after), [20; 5]);
    assert_eq!(moves(&before, &after), 20);
}

#[test]
fn a_worker_that_leaves_leaves_only_its_own_behind() {
    let before = shared(&workers(5), &unowned(100));
    let after = shared(&workers(4), &before);
    assert_eq!(loads(&workers(4), &after), [25; 4]);
    assert_eq!(moves(&before, &after), 20);
}

#[test]
fn without_a_worker_nothing_is_assigned() {
    assert!(shared(&BTreeSet::new(), &unowned(3)).is_empty());
}
