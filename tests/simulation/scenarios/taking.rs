//! Who takes what, and from whom: scenarios 1 to 7, 13 and 16.

use std::sync::Arc;
use std::time::Duration;

use aftercommit::internal::claim::Liveness;
use aftercommit::internal::fleet::holdings::{Holdings, Sight};
use aftercommit::internal::fleet::membership::Members;
use aftercommit::internal::fleet::plan::{Move, Planner};
use aftercommit::internal::fleet::snapshot::Snapshot;
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{
    Epoch, Incarnation, LeaseRow, LeaseStore, Sighting, Take, View, WorkerRow,
};

use super::calls::held;
use super::stage::secs;

const PATIENCE: Duration = secs(10);

pub fn worker(name: &str) -> Incarnation {
    Incarnation::new(name, 1)
}

pub fn shard(number: usize) -> ShardId {
    ShardId::new(format!("shardId-{number:08}"))
}

/// The heartbeat of a worker that is alive.
pub fn beating(name: &str, beat: u64) -> WorkerRow {
    WorkerRow {
        incarnation: worker(name),
        beat,
        draining: false,
        unable_to_list: false,
        lease_duration: PATIENCE,
        version: String::new(),
        reads: 1,
        zone: None,
        status_address: None,
        trouble: None,
        stuck: None,
        effects: Vec::new(),
        at: None,
    }
}

/// Workers that all beat at 1, and leases `0..` of these owners, each under epoch 1.
fn view(workers: &[&str], owners: &[Option<&str>]) -> View {
    let workers = workers.iter().map(|name| (worker(name), beating(name, 1)));
    let row = |(number, owner): (usize, Option<&str>)| {
        let row = LeaseRow::new(shard(number), None, 1);
        let owner = owner.map(worker);
        (shard(number), LeaseRow { owner, ..row })
    };
    View {
        workers: workers.collect(),
        leases: owners.iter().copied().enumerate().map(row).collect(),
        ..View::default()
    }
}

/// What one worker knows of the others and of itself.
pub struct Member {
    members: Members,
    pub holdings: Holdings,
}

impl Member {
    pub fn new(name: &str) -> Self {
        Self {
            members: Members::new(worker(name), PATIENCE),
            holdings: Holdings::new(PATIENCE * 6, None),
        }
    }

    /// Takes in a consistent look that began and ended now, under trust.
    pub fn see(&mut self, view: &View, now: Duration) -> Vec<ShardId> {
        self.members.see(view, now);
        let snapshot = Snapshot {
            view: Arc::new(view.clone()),
            began: now,
            consistent: true,
        };
        self.holdings.see(Sight {
            me: self.members.me(),
            snapshot: &snapshot,
            trusted: true,
            now,
        })
    }

    fn plan(&self, view: &View, now: Duration) -> Vec<Move> {
        let planner = Planner {
            view,
            members: &self.members,
            holdings: &self.holdings,
            left_out: None,
        };
        let plan = planner.plan(&self.members.live(view, now, false), now);
        plan.actions
    }

    pub fn gain(&mut self, shard: &ShardId, epoch: Epoch, now: Duration) -> Option<Epoch> {
        self.holdings.gain(shard, epoch, now)
    }
}

/// What `name` does about what it sees now and never saw before.
fn plan(name: &str, view: &View) -> Vec<Move> {
    let mut member = Member::new(name);
    member.see(view, Duration::ZERO);
    member.plan(view, Duration::ZERO)
}

fn takes(actions: &[Move]) -> Vec<&Take> {
    let takes = actions.iter().filter_map(|action| match action {
        Move::Take(take) => Some(take),
        Move::HandOver(..) => None,
    });
    takes.collect()
}

/// A row that was deleted and written anew begins below: what an earlier owner wrote under its epoch
/// must not count as newer.
#[test]
fn a_take_is_above_every_epoch_that_was_ever_seen() {
    let free = view(&["me"], &[None]);
    let mut member = Member::new("me");
    member.holdings.heard(&shard(0), 9);
    member.see(&free, Duration::ZERO);
    let actions = member.plan(&free, Duration::ZERO);
    let takes = takes(&actions);
    assert_eq!((takes[0].seen_epoch, takes[0].epoch), (1, 10));
}

fn set(sight: &mut View, name: &str, change: impl FnOnce(&mut WorkerRow)) {
    change(sight.workers.get_mut(&worker(name)).unwrap());
}

/// Scenario 1.
#[tokio::test]
async fn a_lease_whose_owner_has_been_still_for_a_lease_duration_is_taken() {
    let sight = view(&["me", "other"], &[Some("other")]);
    let mut me = Member::new("me");
    me.see(&sight, Duration::ZERO);
    let just_before = Duration::from_millis(9_999);
    me.see(&sight, just_before);
    assert_eq!(me.plan(&sight, just_before), []);
    me.see(&sight, PATIENCE);
    let actions = me.plan(&sight, PATIENCE);
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
    let mut sight = view(&["me", "other"], &[Some("other")]);
    let mut me = Member::new("me");
    me.see(&sight, Duration::ZERO);
    set(&mut sight, "other", |peer| peer.beat = 2);
    me.see(&sight, PATIENCE);
    assert_eq!(me.plan(&sight, PATIENCE), []);

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
        let row = beating(name, *beat);
        leases.register(&row).await.unwrap();
    }
    leases.create(std::slice::from_ref(row)).await.unwrap();
    leases
}

/// Scenario 3.
#[test]
fn of_three_free_leases_beside_one_of_another_worker_exactly_two_are_taken() {
    let sight = view(&["me", "other"], &[None, None, None, Some("other")]);
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
    let mut sight = view(&["me", "other"], &[None, None, None, Some("other")]);
    set(&mut sight, "other", |peer| peer.draining = true);
    let actions = plan("me", &sight);
    let taken: Vec<_> = takes(&actions).iter().map(|t| t.shard.clone()).collect();
    assert_eq!(taken, [shard(0), shard(1), shard(2)]);
    assert_eq!(actions.len(), 3, "what it still holds is its own to give");
}

/// Scenario 5.
#[test]
fn nothing_moves_for_a_worker_that_is_short_by_one() {
    let sight = view(
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
    let sight = view(&["none", "one", "five"], &owners);
    assert_eq!(plan("none", &sight), []);
    assert_eq!(plan("one", &sight), []);
    let given = plan("five", &sight);
    let to = |name: &str| {
        let goes_there =
            |a: &&Move| matches!(a, Move::HandOver(_, Some(to)) if *to == worker(name));
        given.iter().filter(goes_there).count()
    };
    assert_eq!((to("none"), to("one"), given.len()), (2, 1, 3));
}

/// Scenario 7.
#[test]
fn while_a_lease_is_free_it_is_taken_and_nobody_has_to_give() {
    let sight = view(&["me", "other"], &[Some("other"), Some("other"), None]);
    let mine = plan("me", &sight);
    assert_eq!(takes(&mine).len(), 1);
    assert_eq!(takes(&mine)[0].shard, shard(2));
    assert_eq!(mine.len(), 1);
    assert_eq!(plan("other", &sight), []);
}

/// Scenario 13.
#[test]
fn a_lease_that_is_being_handed_over_is_left_alone_until_its_giver_has_died() {
    let mut sight = view(&["me", "giver"], &[Some("giver")]);
    set(&mut sight, "giver", |peer| peer.draining = true);
    let mut me = Member::new("me");
    for second in 0..60 {
        set(&mut sight, "giver", |peer| peer.beat += 1);
        me.see(&sight, secs(second));
        assert_eq!(me.plan(&sight, secs(second)), [], "second {second}");
    }
    let last = secs(59);
    me.see(&sight, last + secs(9));
    assert_eq!(me.plan(&sight, last + secs(9)), []);
    me.see(&sight, last + PATIENCE);
    let actions = me.plan(&sight, last + PATIENCE);
    assert_eq!(takes(&actions).len(), 1, "{actions:?}");
}

/// Time in which nobody looked says nothing of another worker.
#[test]
fn a_worker_is_dead_only_if_it_was_seen_to_be_still_for_so_long() {
    let sight = view(&["me", "other"], &[Some("other")]);
    let mut me = Member::new("me");
    me.see(&sight, Duration::ZERO);
    let last = secs(9);
    me.see(&sight, last);
    let other = worker("other");
    assert_eq!(me.members.liveness(&other), Liveness::Alive, "no look came");
    me.see(&sight, PATIENCE);
    assert_eq!(me.members.liveness(&other), Liveness::Dead);
}

/// Two fleets may share a ledger: a claimant that these rows never named may live in the other one.
#[test]
fn nothing_is_known_of_a_worker_that_was_never_seen_and_a_buried_one_stays_dead() {
    let both = view(&["me", "other"], &[Some("me")]);
    let alone = view(&["me"], &[Some("me")]);
    let mut me = Member::new("me");
    me.see(&both, Duration::ZERO);
    for second in 1..600 {
        me.see(&alone, secs(second));
    }
    assert_eq!(me.members.liveness(&worker("stranger")), Liveness::Unknown);
    assert_eq!(me.members.liveness(&worker("other")), Liveness::Dead);
    assert_eq!(me.members.liveness(&worker("me")), Liveness::Alive);
}

/// Scenario 16.
#[test]
fn a_dead_workers_leases_are_shared_among_the_living_and_it_gets_none() {
    let owners = [Some("dead"), Some("dead"), None, None, Some("dead"), None];
    let mut sight = view(&["a", "b", "dead"], &owners);
    let mut taken = Vec::new();
    for name in ["a", "b"] {
        let mut member = Member::new(name);
        member.see(&sight, Duration::ZERO);
        for living in ["a", "b"] {
            set(&mut sight, living, |peer| peer.beat += 1);
        }
        member.see(&sight, PATIENCE);
        let live = member.members.live(&sight, PATIENCE, false);
        assert_eq!(live, [worker("a"), worker("b")].into());
        let actions = member.plan(&sight, PATIENCE);
        assert_eq!(takes(&actions).len(), 3, "{name}: {actions:?}");
        taken.extend(takes(&actions).iter().map(|take| take.shard.clone()));
    }
    taken.sort();
    assert_eq!(taken, (0..6).map(shard).collect::<Vec<_>>());
}
