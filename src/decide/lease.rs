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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::assign::assign;
pub(crate) use super::assign::hash;
use super::claim::Liveness;
use super::shard::{Shard, ShardId};
use crate::gate::left_out;

mod mine;
mod step;
mod still;
mod terms;

use mine::Mine;
use step::InStep;
use still::Still;
pub use terms::{Action, Change, Epoch, Hold, Incarnation, Peer, Row, Sight, Sighting, Take};

/// After so many times its patience a dead worker's row is removed, and a row that is gone is
/// forgotten.
const BURIED_AFTER: u32 = 6;
/// How many dead workers are remembered, for the claims that they left.
const BURIED: usize = 1_000;

/// One worker's knowledge of its fleet.
#[derive(Debug, Clone)]
pub struct Member {
    me: Incarnation,
    patience: Duration,
    still: BTreeMap<Incarnation, Still>,
    /// Those that died before my eyes, and are not watched any more.
    buried: VecDeque<Incarnation>,
    mine: BTreeMap<ShardId, Mine>,
    absent: BTreeMap<ShardId, Absent>,
}

/// Since when a shard has had no row, and when that was last seen.
#[derive(Debug, Clone, Copy)]
struct Absent {
    since: Duration,
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
            buried: VecDeque::new(),
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
        if sight.consistent {
            self.watch_absent(sight, now);
        }
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

    /// A listing of a large stream takes long: whether a row is still absent, looks tell in between.
    fn watch_absent(&mut self, sight: &Sight, now: Duration) {
        let patience = self.patience;
        self.absent.retain(|id, absent| {
            if now.saturating_sub(absent.seen) > patience / 2 {
                absent.since = now;
            }
            absent.seen = now;
            !sight.leases.contains_key(id)
        });
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
        let gone = self
            .still
            .extract_if(.., |name, still| forgotten(name, still));
        self.buried.extend(gone.map(|(name, _)| name));
        let too_many = self.buried.len().saturating_sub(BURIED);
        self.buried.drain(..too_many);
    }

    /// Whether a worker may still be acting. It is dead once it was seen to be still, or missing, for
    /// longer than its leases last: time in which nobody looked says nothing. Of one that these rows
    /// never named nothing is known: it may live in another fleet.
    pub fn liveness(&self, name: &Incarnation) -> Liveness {
        let dead = match self.still.get(name) {
            _ if *name == self.me => false,
            Some(still) => still.seen.saturating_sub(still.since) >= still.patience,
            None if self.buried.contains(name) => true,
            None => return Liveness::Unknown,
        };
        if dead {
            Liveness::Dead
        } else {
            Liveness::Alive
        }
    }

    fn evidence(&self, name: &Incarnation, now: Duration) -> Option<Sighting> {
        let still = self.still.get(name)?;
        (now.saturating_sub(still.since) >= still.patience).then_some(still.sighting)
    }

    /// When the next worker counts as dead, if nothing is heard of it until then.
    pub fn next_death(&self, now: Duration) -> Option<Duration> {
        let others = self.still.iter().filter(|(name, _)| **name != self.me);
        let deaths = others.map(|(_, still)| still.since.saturating_add(still.patience));
        deaths.filter(|at| *at > now).min()
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
        let read_by_all = sight.workers.values().map(|peer| peer.reads).min();
        let targets = assign(live, open.clone().map(|(id, row)| (id, row.owner.as_ref())));
        let names = self.still.keys();
        let dead: BTreeMap<_, _> = names
            .filter_map(|name| Some((name, self.evidence(name, now)?)))
            .collect();
        let (mut targets, mut known) = (InStep::new(targets), InStep::new(&self.mine));
        let mut actions = Vec::new();
        for (shard, row) in open {
            let mine = known.at(shard).copied().unwrap_or_default();
            let target = targets.at(shard);
            if mine.giving {
                continue;
            }
            if mine.owns.is_some() {
                // Handing over writes a row anew, in a format that everybody reads.
                let newer = read_by_all.is_some_and(|reads| row.format > reads);
                if target != Some(&self.me) || newer && !left_out!(FormatIgnored) {
                    actions.push(Action::HandOver(shard.clone(), target.cloned()));
                }
                continue;
            }
            let from = match &row.owner {
                None => None,
                // It stands in my name, but its epoch is one that I gave up or outgrew.
                Some(owner) if *owner == self.me => Some((owner.clone(), None)),
                Some(owner) => match dead.get(owner) {
                    Some(sighting) => Some((owner.clone(), Some(*sighting))),
                    None => continue,
                },
            };
            // Nobody else can take what stands in my name while I am alive, so that falls to me even
            // if it is to be another's in the end.
            let in_my_name = row.owner.as_ref() == Some(&self.me);
            // What its worker cannot read falls to all who can, to be handed to it.
            let reads = target.and_then(|name| sight.workers.get(name));
            let for_others = reads.is_some_and(|peer| peer.reads < row.format);
            if target == Some(&self.me) || in_my_name || for_others {
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
        let dead_for_long = |name: &Incarnation| {
            self.still.get(name).is_some_and(|still| {
                now.saturating_sub(still.since) >= still.patience.saturating_mul(BURIED_AFTER)
            })
        };
        let dead = sight.workers.iter();
        let mut dead: BTreeMap<_, _> = dead
            .filter(|(name, _)| **name != self.me && dead_for_long(name))
            .collect();
        // Seldom is anybody, and there may be very many leases.
        if !dead.is_empty() {
            for owner in sight.leases.values().filter_map(|row| row.owner.as_ref()) {
                dead.remove(owner);
            }
        }
        dead.into_iter()
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
