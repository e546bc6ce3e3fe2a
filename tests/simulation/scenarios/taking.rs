//! Who takes what, and from whom: scenarios 1 to 7, 13 and 16.

use std::time::Duration;

use aftercommit::internal::decide::claim::Liveness;
use aftercommit::internal::decide::lease::{
    Action, Incarnation, Member, Peer, Row, Sight, Sighting, Take,
};
use aftercommit::internal::decide::shard::ShardId;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{LeaseStore, WorkerRow};

use super::calls::held;
use super::stage::secs;

const PATIENCE: Duration = secs(10);

pub fn worker(name: &str) -> Incarnation {
    Incarnation::new(name, 1)
}

pub fn shard(number: usize) -> ShardId {
    ShardId::new(format!("shardId-{number:08}"))
}

/// Workers that all beat at 1, and leases `0..` of these owners, each under epoch 1.
fn sight(workers: &[&str], owners: &[Option<&str>]) -> Sight {
    let peer = Peer {
        beat: 1,
        draining: false,
        reads: 1,
        unable_to_list: false,
        patience: PATIENCE,
    };
    let row = |owner: Option<&str>| Row {
        owner: owner.map(worker),
        epoch: 1,
        format: 1,
        ended: false,
    };
    Sight {
        newest_format: 1,
        workers: workers
            .iter()
            .map(|name| (worker(name), peer.clone()))
            .collect(),
        leases: owners
            .iter()
            .enumerate()
            .map(|(i, owner)| (shard(i), row(*owner)))
            .collect(),
        consistent: true,
        began: Duration::ZERO,
    }
}

/// What `name` does about what it sees now and never saw before.
fn plan(name: &str, sight: &Sight) -> Vec<Action> {
    let mut member = Member::new(worker(name), PATIENCE);
    member.see(sight, Duration::ZERO, true);
    next(&member, sight, Duration::ZERO)
}

fn next(member: &Member, sight: &Sight, now: Duration) -> Vec<Action> {
    member.plan(sight, &member.live(sight, now, false), now)
}

fn takes(actions: &[Action]) -> Vec<&Take> {
    let takes = actions.iter().filter_map(|action| match action {
        Action::Take(take) => Some(take),
        _ => None,
    });
    takes.collect()
}

/// A row that was deleted and written anew begins below: what an earlier owner wrote under its epoch
/// must not count as newer.
#[test]
fn a_take_is_above_every_epoch_that_was_ever_seen() {
    let free = sight(&["me"], &[None]);
    let mut member = Member::new(worker("me"), PATIENCE);
    member.heard(&shard(0), 9);
    member.see(&free, Duration::ZERO, true);
    let actions = next(&member, &free, Duration::ZERO);
    let takes = takes(&actions);
    assert_eq!((takes[0].seen_epoch, takes[0].epoch), (1, 10));
}

fn set(sight: &mut Sight, name: &str, change: impl FnOnce(&mut Peer)) {
    change(sight.workers.get_mut(&worker(name)).unwrap());
}

/// Scenario 1.
#[tokio::test]
async fn a_lease_whose_owner_has_been_still_for_a_lease_duration_is_taken() {
    let mut sight = sight(&["me", "other"], &[Some("other")]);
    let mut me = Member::new(worker("me"), PATIENCE);
    me.see(&sight, Duration::ZERO, true);
    let just_before = Duration::from_millis(9_999);
    me.see(&sight, just_before, true);
    assert_eq!(next(&me, &sight, just_before), []);
    sight.began = PATIENCE;
    me.see(&sight, PATIENCE, true);
    let actions = next(&me, &sight, PATIENCE);
    let [take] = takes(&actions)[..] else {
        panic!("one take, not {actions:?}");
    };
    assert_eq!(take.from, Some((worker("other"), Some(Sighting::Beat(1)))));

    let leases = table(&[("other", 1)], &held(&shard(0), &worker("other"), 1)).await;
    let row = leases.take(take).await.unwrap().unwrap();
    assert_eq!((row.owner, row.epoch), (Some(worker("me")), 2));
}

/// Scenario 2.
#[tokio::test]
async fn a_lease_whose_owner_beats_between_two_looks_is_not_taken() {
    let mut sight = sight(&["me", "other"], &[Some("other")]);
    let mut me = Member::new(worker("me"), PATIENCE);
    me.see(&sight, Duration::ZERO, true);
    set(&mut sight, "other", |peer| peer.beat = 2);
    me.see(&sight, PATIENCE, true);
    assert_eq!(next(&me, &sight, PATIENCE), []);

    // And if the beat comes after the last look, the write itself is refused.
    let late = Take {
        shard: shard(0),
        from: Some((worker("other"), Some(Sighting::Beat(2)))),
        seen_epoch: 1,
        owner: worker("me"),
        epoch: 2,
    };
    let leases = table(&[("other", 3)], &held(&shard(0), &worker("other"), 1)).await;
    assert_eq!(leases.take(&late).await.unwrap(), None);
}

async fn table(
    workers: &[(&str, u64)],
    row: &aftercommit::stores::leases::LeaseRow,
) -> MemoryLeases {
    let leases = MemoryLeases::new();
    for (name, beat) in workers {
        let row = WorkerRow {
            incarnation: worker(name),
            beat: *beat,
            draining: false,
            unable_to_list: false,
            lease_duration: PATIENCE,
            version: String::new(),
            reads: 1,
            zone: None,
            status_address: None,
            trouble: None,
            stuck: None,
            at: None,
        };
        leases.register(&row).await.unwrap();
    }
    leases.create(std::slice::from_ref(row)).await.unwrap();
    leases
}

/// Scenario 3.
#[test]
fn of_three_free_leases_beside_one_of_another_worker_exactly_two_are_taken() {
    let sight = sight(&["me", "other"], &[None, None, None, Some("other")]);
    let mine = plan("me", &sight);
    assert_eq!(takes(&mine).len(), 2);
    assert_eq!(mine.len(), 2, "nothing else is done: {mine:?}");
    let theirs = plan("other", &sight);
    assert_eq!(takes(&theirs).len(), 1, "the third is for the other one");
    assert_ne!(takes(&theirs)[0].shard, takes(&mine)[0].shard);
    assert_ne!(takes(&theirs)[0].shard, takes(&mine)[1].shard);
}

/// Scenario 4.
#[test]
fn all_three_free_leases_are_taken_if_the_other_worker_is_leaving() {
    let mut sight = sight(&["me", "other"], &[None, None, None, Some("other")]);
    set(&mut sight, "other", |peer| peer.draining = true);
    let actions = plan("me", &sight);
    let taken: Vec<_> = takes(&actions).iter().map(|t| t.shard.clone()).collect();
    assert_eq!(taken, [shard(0), shard(1), shard(2)]);
    assert_eq!(actions.len(), 3, "what it still holds is its own to give");
}

/// Scenario 5.
#[test]
fn nothing_moves_for_a_worker_that_is_short_by_one() {
    let sight = sight(
        &["a", "b", "c"],
        &[Some("a"), Some("a"), Some("b"), Some("b"), Some("c")],
    );
    for name in ["a", "b", "c"] {
        assert_eq!(plan(name, &sight), [], "{name}");
    }
}

/// Scenario 6.
#[test]
fn of_none_one_and_five_only_the_one_with_five_gives_and_exactly_what_the_others_lack() {
    let mut owners = vec![Some("five"); 5];
    owners.push(Some("one"));
    let sight = sight(&["none", "one", "five"], &owners);
    assert_eq!(plan("none", &sight), []);
    assert_eq!(plan("one", &sight), []);
    let given = plan("five", &sight);
    let to = |name: &str| {
        let goes_there =
            |a: &&Action| matches!(a, Action::HandOver(_, Some(to)) if *to == worker(name));
        given.iter().filter(goes_there).count()
    };
    assert_eq!((to("none"), to("one"), given.len()), (2, 1, 3));
}

/// Scenario 7.
#[test]
fn while_a_lease_is_free_it_is_taken_and_nobody_has_to_give() {
    let sight = sight(&["me", "other"], &[Some("other"), Some("other"), None]);
    let mine = plan("me", &sight);
    assert_eq!(takes(&mine).len(), 1);
    assert_eq!(takes(&mine)[0].shard, shard(2));
    assert_eq!(mine.len(), 1);
    assert_eq!(plan("other", &sight), []);
}

/// Scenario 13.
#[test]
fn a_lease_that_is_being_handed_over_is_left_alone_until_its_giver_has_died() {
    let mut sight = sight(&["me", "giver"], &[Some("giver")]);
    set(&mut sight, "giver", |peer| peer.draining = true);
    let mut me = Member::new(worker("me"), PATIENCE);
    for second in 0..60 {
        set(&mut sight, "giver", |peer| peer.beat += 1);
        me.see(&sight, secs(second), true);
        assert_eq!(next(&me, &sight, secs(second)), [], "second {second}");
    }
    let last = secs(59);
    me.see(&sight, last + secs(9), true);
    assert_eq!(next(&me, &sight, last + secs(9)), []);
    me.see(&sight, last + PATIENCE, true);
    let actions = next(&me, &sight, last + PATIENCE);
    assert_eq!(takes(&actions).len(), 1, "{actions:?}");
}

/// Time in which nobody looked says nothing of another worker.
#[test]
fn a_worker_is_dead_only_if_it_was_seen_to_be_still_for_so_long() {
    let sight = sight(&["me", "other"], &[Some("other")]);
    let mut me = Member::new(worker("me"), PATIENCE);
    me.see(&sight, Duration::ZERO, true);
    let last = secs(9);
    me.see(&sight, last, true);
    let other = worker("other");
    assert_eq!(me.liveness(&other), Liveness::Alive, "no look came");
    me.see(&sight, PATIENCE, true);
    assert_eq!(me.liveness(&other), Liveness::Dead);
}

/// Two fleets may share a ledger: a claimant that these rows never named may live in the other one.
#[test]
fn nothing_is_known_of_a_worker_that_was_never_seen_and_a_buried_one_stays_dead() {
    let both = sight(&["me", "other"], &[Some("me")]);
    let alone = sight(&["me"], &[Some("me")]);
    let mut me = Member::new(worker("me"), PATIENCE);
    me.see(&both, Duration::ZERO, true);
    for second in 1..600 {
        me.see(&alone, secs(second), true);
    }
    assert_eq!(me.liveness(&worker("stranger")), Liveness::Unknown);
    assert_eq!(me.liveness(&worker("other")), Liveness::Dead);
    assert_eq!(me.liveness(&worker("me")), Liveness::Alive);
}

/// Scenario 16.
#[test]
fn a_dead_workers_leases_are_shared_among_the_living_and_it_gets_none() {
    let owners = [Some("dead"), Some("dead"), None, None, Some("dead"), None];
    let mut sight = sight(&["a", "b", "dead"], &owners);
    let mut taken = Vec::new();
    for name in ["a", "b"] {
        let mut member = Member::new(worker(name), PATIENCE);
        member.see(&sight, Duration::ZERO, true);
        for living in ["a", "b"] {
            set(&mut sight, living, |peer| peer.beat += 1);
        }
        member.see(&sight, PATIENCE, true);
        let live = member.live(&sight, PATIENCE, false);
        assert_eq!(live, [worker("a"), worker("b")].into());
        let actions = next(&member, &sight, PATIENCE);
        assert_eq!(takes(&actions).len(), 3, "{name}: {actions:?}");
        taken.extend(takes(&actions).iter().map(|take| take.shard.clone()));
    }
    taken.sort();
    assert_eq!(taken, (0..6).map(shard).collect::<Vec<_>>());
}
