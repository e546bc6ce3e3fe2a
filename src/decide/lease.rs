//! What I see, who is alive, and so what I should take, keep and hand over.
//!
//! [`Member`] is one worker's knowledge of its fleet. It reads no clock and calls nobody: what was
//! seen is handed in with the time (a [`Duration`] on the worker's own monotonic clock), and what
//! to do about it is handed back as [`Action`]s, each of which becomes one conditional write.
//!
//! There is no leader. [`assign`] gives every worker the same answer from the same rows.
//!
//! # Mine or not
//!
//! Four rules, each needed, keep two workers from owning one shard:
//!
//! 1. A start, and every lapse of trust, voids all I own ([`Member::lapse`]) until a consistent
//!    look that began after trust was restored. Looks and answers from before a lapse are void;
//!    the caller drops them.
//! 2. I adopt no epoch lower than the highest that I have seen for the shard.
//! 3. An epoch that I began to give up ([`Member::give_up`]) is never mine again.
//! 4. An owner is an [`Incarnation`]: a restarted worker inherits nothing by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::shard::{Shard, ShardId};
use crate::gate::left_out;

/// One start of one worker process: `<worker id>/<random>`. A restarted worker is another
/// incarnation and inherits nothing by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Names an incarnation of the worker `id`. `nonce` must never repeat for that worker.
    pub fn new(id: &str, nonce: u64) -> Self {
        Self(format!("{id}/{nonce:016x}").into())
    }

    /// Reads back what [`Incarnation::as_str`] gave.
    pub fn from_row(text: &str) -> Self {
        Self(text.into())
    }

    /// The worker's id, without the random part.
    pub fn worker(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(id, _)| id)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fence of a lease: raised by every change of owner, never lowered.
pub type Epoch = u64;

/// What a taker has seen of a lease's owner for a whole lease duration. The take applies only if
/// it is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// The owner's heartbeat stands at this beat.
    Beat(u64),
    /// The owner has no row.
    Missing,
}

/// The lease and epoch under which a worker acts on a shard: the fence of all its writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The shard.
    pub shard: ShardId,
    /// Who I am.
    pub owner: Incarnation,
    /// My epoch.
    pub epoch: Epoch,
}

/// A take of a lease: from whom, and on what evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The shard.
    pub shard: ShardId,
    /// The owner that was seen, with the evidence that it is dead; `None` for a free lease. No
    /// evidence is needed against oneself.
    pub from: Option<(Incarnation, Option<Sighting>)>,
    /// The epoch that was seen.
    pub seen_epoch: Epoch,
    /// Who takes.
    pub owner: Incarnation,
    /// The epoch to write: above the one seen, and above every one that the taker ever saw.
    pub epoch: Epoch,
}

/// A lease row, as far as membership needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who holds it.
    pub owner: Option<Incarnation>,
    /// Its fence.
    pub epoch: Epoch,
    /// Nothing is left to read.
    pub ended: bool,
}

/// A worker row, as far as membership needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its heartbeat.
    pub beat: u64,
    /// It is leaving.
    pub draining: bool,
    /// How long its heartbeat must stand still before it counts as dead.
    pub patience: Duration,
}

/// All rows that one look saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The heartbeats, mine among them.
    pub workers: BTreeMap<Incarnation, Peer>,
    /// The leases.
    pub leases: BTreeMap<ShardId, Row>,
    /// The look was consistent: it saw every write that was answered before it began.
    pub consistent: bool,
    /// When the look began.
    pub began: Duration,
}

/// What a look changed in what I own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The shard is mine under this epoch.
    Gained(ShardId, Epoch),
    /// The shard is not mine any more.
    Lost(ShardId),
}

/// What to do next: each is one conditional write that may lose its race.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take a free lease, a dead worker's, or one that stands in my name but is not mine.
    Take(Take),
    /// Stop, then give the shard to this worker, or to nobody if there is none.
    HandOver(ShardId, Option<Incarnation>),
    /// Remove a worker row that has been still for long and owns nothing.
    Bury(Incarnation, u64),
}

/// After so many times its patience a dead worker's row is removed, and a row that is gone is
/// forgotten.
const BURIED_AFTER: u32 = 6;

/// One worker's knowledge of its fleet.
#[derive(Debug, Clone)]
pub struct Member {
    me: Incarnation,
    patience: Duration,
    still: BTreeMap<Incarnation, Still>,
    mine: BTreeMap<ShardId, Mine>,
    absent: BTreeMap<ShardId, Absent>,
}

/// Since when a shard has had no row, and when that was last seen.
#[derive(Debug, Clone, Copy)]
struct Absent {
    since: Duration,
    seen: Duration,
}

/// Since when a worker has shown the same.
#[derive(Debug, Clone, Copy)]
struct Still {
    sighting: Sighting,
    since: Duration,
    seen: Duration,
    patience: Duration,
}

/// What I know of a shard that concerns me.
#[derive(Debug, Clone, Copy, Default)]
struct Mine {
    highest: Epoch,
    given_up: Option<Epoch>,
    /// What I began to give up last, and when I had gained it.
    given: Option<(Epoch, Duration)>,
    owns: Option<(Epoch, Duration)>,
    giving: bool,
    /// When its row was last there.
    seen: Duration,
}

impl Member {
    /// A worker that owns nothing. Others count as dead once they have been still for `patience`,
    /// or for what their own rows say, whichever is longer.
    pub fn new(me: Incarnation, patience: Duration) -> Self {
        Self {
            me,
            patience,
            still: BTreeMap::new(),
            mine: BTreeMap::new(),
            absent: BTreeMap::new(),
        }
    }

    /// Who I am.
    pub fn me(&self) -> &Incarnation {
        &self.me
    }

    /// I registered anew: what I owned is owned by somebody who is no more.
    pub fn reborn(&mut self, me: Incarnation) {
        self.lapse();
        self.me = me;
    }

    /// Trust lapsed: nothing is mine until a consistent look says so.
    pub fn lapse(&mut self) {
        for mine in self.mine.values_mut() {
            mine.owns = None;
        }
    }

    /// The epoch under which the shard is mine.
    pub fn owns(&self, shard: &ShardId) -> Option<Epoch> {
        self.mine.get(shard)?.owns.map(|(epoch, _)| epoch)
    }

    /// All shards that are mine.
    pub fn owned(&self) -> impl Iterator<Item = &ShardId> {
        self.mine
            .iter()
            .filter(|(_, mine)| mine.owns.is_some())
            .map(|(id, _)| id)
    }

    /// Whether any shard is still being given up.
    pub fn is_giving(&self) -> bool {
        self.mine.values().any(|mine| mine.giving)
    }

    /// A take was answered, or a row was written in my name. `None`: that epoch is void.
    pub fn gain(&mut self, shard: &ShardId, epoch: Epoch, now: Duration) -> Option<Epoch> {
        let mine = self.mine.entry(shard.clone()).or_default();
        let valid = epoch >= mine.highest && mine.given_up.is_none_or(|given| epoch > given);
        mine.highest = mine.highest.max(epoch);
        if valid {
            mine.owns = Some((epoch, now));
        }
        valid.then_some(epoch)
    }

    /// An answer told of this epoch: it is never to be undercut.
    pub fn heard(&mut self, shard: &ShardId, epoch: Epoch) {
        let mine = self.mine.entry(shard.clone()).or_default();
        mine.highest = mine.highest.max(epoch);
    }

    /// I begin to give the shard up: from now on its epoch is never mine again.
    pub fn give_up(&mut self, shard: &ShardId) -> Option<Epoch> {
        let mine = self.mine.get_mut(shard)?;
        mine.given = mine.owns.take();
        let (epoch, _) = mine.given?;
        mine.given_up = Some(epoch);
        mine.giving = true;
        Some(epoch)
    }

    /// The shard is given up, or it is not known whether it is.
    pub fn gave_up(&mut self, shard: &ShardId) {
        if let Some(mine) = self.mine.get_mut(shard) {
            mine.giving = false;
        }
    }

    /// I lost the shard, as a refused write told.
    pub fn lose(&mut self, shard: &ShardId) {
        if let Some(mine) = self.mine.get_mut(shard) {
            mine.owns = None;
        }
    }

    /// Takes in what a look saw. `trusted`: trust holds and nothing has lapsed since before the
    /// look began; without it nothing is adopted.
    pub fn see(&mut self, sight: &Sight, now: Duration, trusted: bool) -> Vec<Change> {
        self.watch(sight, now);
        let mut changes = Vec::new();
        let known: BTreeSet<_> = self
            .mine
            .keys()
            .chain(sight.leases.keys())
            .cloned()
            .collect();
        for shard in known {
            let row = sight.leases.get(&shard);
            let mine = self.mine.entry(shard.clone()).or_default();
            let before = mine.owns;
            if Mine::lost(mine.owns, &self.me, row, sight) {
                mine.owns = None;
            }
            // What I am giving up may be gone before I have given it.
            if mine.giving && Mine::lost(mine.given, &self.me, row, sight) {
                changes.push(Change::Lost(shard.clone()));
            }
            if trusted && mine.owns.is_none() && mine.adoptable(&self.me, row, sight.consistent) {
                mine.owns = row.map(|row| (row.epoch, now));
            }
            if let Some(row) = row {
                mine.highest = mine.highest.max(row.epoch);
                mine.seen = now;
            }
            let after = mine.owns.map(|(epoch, _)| epoch);
            let before = before.map(|(epoch, _)| epoch);
            if before.is_some() && before != after {
                changes.push(Change::Lost(shard.clone()));
            }
            if let Some(epoch) = after.filter(|_| before != after) {
                changes.push(Change::Gained(shard, epoch));
            }
        }
        // A row that is deleted may come again: until then its epochs are remembered.
        let remembered = self.patience.saturating_mul(BURIED_AFTER);
        self.mine.retain(|_, mine| {
            mine.owns.is_some() || mine.giving || now.saturating_sub(mine.seen) <= remembered
        });
        changes
    }

    fn watch(&mut self, sight: &Sight, now: Duration) {
        let owners = sight.leases.values().filter_map(|row| row.owner.as_ref());
        let names: BTreeSet<_> = self
            .still
            .keys()
            .chain(sight.workers.keys())
            .chain(owners)
            .cloned()
            .collect();
        for name in names {
            let peer = sight.workers.get(&name);
            let sighting = peer.map_or(Sighting::Missing, |peer| Sighting::Beat(peer.beat));
            let known = self.still.get(&name);
            let patience = peer
                .map(|peer| peer.patience)
                .or_else(|| known.map(|still| still.patience))
                .map_or(self.patience, |patience| patience.max(self.patience));
            let same = self
                .still
                .get(&name)
                .filter(|still| still.continues(sighting, now));
            let since = same.map_or(now, |still| still.since);
            self.still.insert(
                name,
                Still {
                    sighting,
                    since,
                    seen: now,
                    patience,
                },
            );
        }
        let forgotten = |name: &Incarnation, still: &Still| {
            still.sighting == Sighting::Missing
                && now.saturating_sub(still.since) > still.patience.saturating_mul(BURIED_AFTER)
                && !sight
                    .leases
                    .values()
                    .any(|row| row.owner.as_ref() == Some(name))
        };
        self.still.retain(|name, still| !forgotten(name, still));
    }

    /// Whether a worker has been still, or missing, for longer than its leases last. One that was
    /// never seen is watched from now on.
    pub fn is_dead(&mut self, name: &Incarnation, now: Duration) -> bool {
        if *name == self.me {
            return false;
        }
        let watched = Still {
            sighting: Sighting::Missing,
            since: now,
            seen: now,
            patience: self.patience,
        };
        let still = *self.still.entry(name.clone()).or_insert(watched);
        now.saturating_sub(still.since) >= still.patience
    }

    fn evidence(&self, name: &Incarnation, now: Duration) -> Option<Sighting> {
        let still = self.still.get(name)?;
        (now.saturating_sub(still.since) >= still.patience).then_some(still.sighting)
    }

    /// The workers that shards are shared among.
    pub fn live(&self, sight: &Sight, now: Duration, draining: bool) -> BTreeSet<Incarnation> {
        let others = sight.workers.iter().filter(|(name, peer)| {
            **name != self.me && !peer.draining && self.evidence(name, now).is_none()
        });
        let me = (!draining).then_some(&self.me);
        others.map(|(name, _)| name).chain(me).cloned().collect()
    }

    /// What I should do about what a look saw, given who is alive. Needs trust.
    pub fn plan(&self, sight: &Sight, live: &BTreeSet<Incarnation>, now: Duration) -> Vec<Action> {
        let open = sight.leases.iter().filter(|(_, row)| !row.ended);
        let targets = assign(live, open.clone().map(|(id, row)| (id, row.owner.as_ref())));
        let mut actions = Vec::new();
        for (shard, row) in open {
            let mine = self.mine.get(shard).copied().unwrap_or_default();
            let target = targets.get(shard).copied();
            if mine.giving {
                continue;
            }
            if mine.owns.is_some() {
                if target != Some(&self.me) {
                    actions.push(Action::HandOver(shard.clone(), target.cloned()));
                }
                continue;
            }
            let from = match &row.owner {
                None => None,
                // It stands in my name, but its epoch is one that I gave up or outgrew.
                Some(owner) if *owner == self.me => Some((owner.clone(), None)),
                Some(owner) => match self.evidence(owner, now) {
                    Some(sighting) => Some((owner.clone(), Some(sighting))),
                    None => continue,
                },
            };
            // Nobody else can take what stands in my name while I am alive, so that falls to me even
            // if it is to be another's in the end.
            let in_my_name = row.owner.as_ref() == Some(&self.me);
            if target == Some(&self.me) || in_my_name {
                actions.push(Action::Take(Take {
                    shard: shard.clone(),
                    from,
                    seen_epoch: row.epoch,
                    owner: self.me.clone(),
                    epoch: row.epoch.max(mine.highest) + 1,
                }));
            }
        }
        actions.extend(self.burials(sight, now));
        actions
    }

    fn burials(&self, sight: &Sight, now: Duration) -> Vec<Action> {
        let owners: BTreeSet<_> = sight
            .leases
            .values()
            .filter_map(|row| row.owner.as_ref())
            .collect();
        let dead_for_long = |name: &Incarnation| {
            self.still.get(name).is_some_and(|still| {
                now.saturating_sub(still.since) >= still.patience.saturating_mul(BURIED_AFTER)
            })
        };
        let buried = sight
            .workers
            .iter()
            .filter(|(name, _)| **name != self.me && !owners.contains(name) && dead_for_long(name));
        buried
            .map(|(name, peer)| Action::Bury(name.clone(), peer.beat))
            .collect()
    }

    /// Of the shards that should have a row and have none, those that have been without one for so
    /// long (in consistent looks) that nobody can still be acting on a row that was deleted.
    /// `fresh`: the fleet was bootstrapped just now, so there never was one.
    pub fn missing(&mut self, due: Vec<Shard>, now: Duration, fresh: bool) -> Vec<(Shard, Epoch)> {
        let ids: BTreeSet<_> = due.iter().map(|shard| shard.id.clone()).collect();
        self.absent.retain(|id, _| ids.contains(id));
        let mut long = Vec::new();
        for shard in due {
            let absent = self.absent.entry(shard.id.clone()).or_insert(Absent {
                since: now,
                seen: now,
            });
            if now.saturating_sub(absent.seen) > self.patience / 2 {
                // Nobody looked for so long that it may have been there meanwhile.
                absent.since = now;
            }
            absent.seen = now;
            let long_enough = now.saturating_sub(absent.since) >= self.patience;
            if fresh || left_out!(HealTooEarly) || long_enough {
                let highest = self.mine.get(&shard.id).map_or(0, |mine| mine.highest);
                long.push((shard, highest));
            }
        }
        long
    }
}

impl Still {
    /// Whether a sighting is the same as before. A beat never comes again, but a row that is
    /// missing may have been there while nobody looked.
    fn continues(&self, sighting: Sighting, now: Duration) -> bool {
        let lately = now.saturating_sub(self.seen) <= self.patience / 2;
        self.sighting == sighting && (lately || sighting != Sighting::Missing)
    }
}

impl Mine {
    /// Whether a look proves that what I hold, or am giving up, is not mine any more. A look that began before I
    /// gained it proves nothing, and only a consistent one proves that a row is gone.
    fn lost(
        held: Option<(Epoch, Duration)>,
        me: &Incarnation,
        row: Option<&Row>,
        sight: &Sight,
    ) -> bool {
        let Some((epoch, since)) = held else {
            return false;
        };
        if sight.began < since {
            return false;
        }
        match row {
            None => sight.consistent,
            Some(row) if row.owner.as_ref() == Some(me) && row.epoch == epoch => row.ended,
            Some(row) => sight.consistent || row.epoch > epoch,
        }
    }

    /// Whether a row that names me makes the shard mine.
    fn adoptable(&self, me: &Incarnation, row: Option<&Row>, consistent: bool) -> bool {
        if left_out!(StaleAdopt) {
            return row.is_some_and(|row| row.owner.as_ref() == Some(me) && !row.ended);
        }
        row.is_some_and(|row| {
            row.owner.as_ref() == Some(me)
                && !row.ended
                && !self.giving
                && self.given_up.is_none_or(|given| row.epoch > given)
                && (row.epoch > self.highest || consistent && row.epoch == self.highest)
        })
    }
}

/// Shares shards among workers: the same answer from the same rows on every worker.
///
/// Every worker gets `floor` or `ceil` of `shards / workers`. A worker keeps what it has up to its
/// share; only what must move moves, to the worker with the highest rendezvous score that has
/// room. Without workers the answer is empty.
pub fn assign<'a>(
    live: &'a BTreeSet<Incarnation>,
    shards: impl Iterator<Item = (&'a ShardId, Option<&'a Incarnation>)>,
) -> BTreeMap<&'a ShardId, &'a Incarnation> {
    let workers: Vec<_> = live
        .iter()
        .map(|name| (name, hash(name.as_str())))
        .collect();
    if workers.is_empty() {
        return BTreeMap::new();
    }
    let mut held: Vec<Vec<(u64, &ShardId)>> = vec![Vec::new(); workers.len()];
    let mut homeless = Vec::new();
    for (shard, owner) in shards {
        let owner = owner.and_then(|name| workers.binary_search_by_key(&name, |(n, _)| n).ok());
        match owner {
            Some(i) => held[i].push((score(workers[i].1, hash(shard.as_str())), shard)),
            None => homeless.push(shard),
        }
    }
    let total = homeless.len() + held.iter().map(Vec::len).sum::<usize>();
    let mut room = shares(total, &held);
    let mut targets = BTreeMap::new();
    for (i, mut shards) in held.into_iter().enumerate() {
        shards.sort_unstable_by(|a, b| b.cmp(a));
        for (place, (_, shard)) in shards.into_iter().enumerate() {
            if place < room[i] {
                targets.insert(shard, workers[i].0);
            } else {
                homeless.push(shard);
            }
        }
    }
    for target in targets.values() {
        if let Ok(i) = workers.binary_search_by_key(target, |(n, _)| n) {
            room[i] -= 1;
        }
    }
    homeless.sort_unstable();
    for shard in homeless {
        let of_shard = hash(shard.as_str());
        let open = (0..workers.len()).filter(|i| room[*i] > 0);
        if let Some(best) = open.max_by_key(|i| score(workers[*i].1, of_shard)) {
            room[best] -= 1;
            targets.insert(shard, workers[best].0);
        }
    }
    targets
}

/// How many shards each worker is to have: those that have most keep one more if it does not come
/// out even.
fn shares(total: usize, held: &[Vec<(u64, &ShardId)>]) -> Vec<usize> {
    let (floor, over) = (total / held.len(), total % held.len());
    let mut by_load: Vec<_> = (0..held.len()).collect();
    by_load.sort_by_key(|i| std::cmp::Reverse(held[*i].len()));
    let mut shares = vec![floor; held.len()];
    for i in by_load.into_iter().take(over) {
        shares[i] += 1;
    }
    shares
}

/// The worker that does a task which only one should do, by rendezvous.
pub fn chosen<'a>(live: &'a BTreeSet<Incarnation>, task: &str) -> Option<&'a Incarnation> {
    let of_task = hash(task);
    live.iter()
        .max_by_key(|name| score(hash(name.as_str()), of_task))
}

/// FNV-1a: the same on every build and machine, unlike the standard library's hasher.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64 over both hashes.
fn score(worker: u64, shard: u64) -> u64 {
    let mut z = worker ^ shard.rotate_left(32);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
