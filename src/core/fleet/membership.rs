//! Who is alive.
//!
//! No clocks are compared. A worker is dead once this worker has seen its heartbeat unchanged, or its
//! row missing, for a whole lease duration on its own monotonic clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::snapshot::View;
use super::terms::{Incarnation, Sighting};
use crate::core::claim::Liveness;
use crate::core::effects::GroupEffects;

/// After this many times its patience a dead worker's row is removed, and a deleted row is forgotten.
pub(super) const REMOVED_AFTER: u32 = 6;
/// How many dead workers are remembered, to judge the claims that they left.
const REMEMBERED: usize = 1_000;

/// The workers of the fleet, as this one sees them.
#[derive(Debug, Clone)]
pub struct Members {
    me: Incarnation,
    patience: Duration,
    /// The effects that this worker performs.
    performs: GroupEffects,
    watched: BTreeMap<Incarnation, WatchedWorker>,
    /// Those that died while this worker watched, and that are no longer watched.
    gone: VecDeque<Incarnation>,
}

/// A watched worker: what it showed last, and since when.
#[derive(Debug, Clone, Copy)]
struct WatchedWorker {
    sighting: Sighting,
    since: Duration,
    seen: Duration,
    patience: Duration,
}

impl WatchedWorker {
    /// Whether a sighting is the same as before. A beat never repeats, but a missing row may have
    /// existed while nobody looked.
    fn continues(&self, sighting: Sighting, now: Duration) -> bool {
        let lately = now.saturating_sub(self.seen) <= self.patience / 2;
        self.sighting == sighting && (lately || sighting != Sighting::Missing)
    }

    /// Whether it has shown the same for this many times its patience.
    fn is_still(&self, times: u32, now: Duration) -> bool {
        now.saturating_sub(self.since) >= self.patience.saturating_mul(times)
    }
}

impl Members {
    /// A worker that has seen nobody. Others count as dead once they have not moved for `patience`, or
    /// for the duration in their own rows, whichever is longer.
    pub fn new(me: Incarnation, patience: Duration) -> Self {
        Self {
            me,
            patience,
            performs: GroupEffects::default(),
            watched: BTreeMap::new(),
            gone: VecDeque::new(),
        }
    }

    /// The same, of a worker that performs these effects.
    #[must_use]
    pub fn performing(self, performs: GroupEffects) -> Self {
        Self { performs, ..self }
    }

    /// This worker's incarnation.
    pub fn me(&self) -> &Incarnation {
        &self.me
    }

    /// This worker joined again, under this name.
    pub fn reborn(&mut self, me: Incarnation) {
        self.me = me;
    }

    /// Handles what a look saw.
    pub fn see(&mut self, view: &View, now: Duration) {
        let owners = view.leases.values().filter_map(|row| row.owner.as_ref());
        let named = self.watched.keys().chain(owners);
        let mut shown: BTreeMap<_, _> = named
            .map(|name| (name.clone(), (Sighting::Missing, None)))
            .collect();
        let beats = view.workers.values().map(|row| {
            let beat = (Sighting::Beat(row.beat), Some(row.lease_duration));
            (row.incarnation.clone(), beat)
        });
        shown.extend(beats);
        let newer = view.newer_workers();
        shown.extend(newer.map(|name| (name, (Sighting::Beat(0), Some(Duration::MAX)))));
        for (name, (sighting, patience)) in shown {
            let known = self.watched.get(&name);
            let patience = patience
                .or_else(|| known.map(|known| known.patience))
                .map_or(self.patience, |patience| patience.max(self.patience));
            let same = known.filter(|known| known.continues(sighting, now));
            let watched = WatchedWorker {
                sighting,
                since: same.map_or(now, |known| known.since),
                seen: now,
                patience,
            };
            self.watched.insert(name, watched);
        }
        self.forget(view, now);
    }

    fn forget(&mut self, view: &View, now: Duration) {
        let forgotten = |name: &Incarnation, watched: &WatchedWorker| {
            watched.sighting == Sighting::Missing
                && watched.is_still(REMOVED_AFTER, now)
                && !view
                    .leases
                    .values()
                    .any(|row| row.owner.as_ref() == Some(name))
        };
        let gone = self
            .watched
            .extract_if(.., |name, watched| forgotten(name, watched));
        self.gone.extend(gone.map(|(name, _)| name));
        let too_many = self.gone.len().saturating_sub(REMEMBERED);
        self.gone.drain(..too_many);
    }

    /// Whether a worker may still be acting. It is dead once it was seen not to move, or missing, for
    /// longer than its leases last. Time in which nobody looked does not count. A worker that these
    /// rows never named is unknown: it may live in another fleet.
    pub fn liveness(&self, name: &Incarnation) -> Liveness {
        match self.watched.get(name) {
            _ if *name == self.me => Liveness::Alive,
            Some(watched) if watched.is_still(1, watched.seen) => Liveness::Dead,
            Some(_) => Liveness::Alive,
            None if self.gone.contains(name) => Liveness::Dead,
            None => Liveness::Unknown,
        }
    }

    /// What was seen of a dead worker; `None`: it may be alive.
    fn evidence(&self, name: &Incarnation, now: Duration) -> Option<Sighting> {
        let watched = self.watched.get(name)?;
        watched.is_still(1, now).then_some(watched.sighting)
    }

    /// The workers that are dead, with the evidence.
    pub fn dead(&self, now: Duration) -> BTreeMap<&Incarnation, Sighting> {
        let names = self.watched.keys();
        names
            .filter_map(|name| Some((name, self.evidence(name, now)?)))
            .collect()
    }

    /// When the next worker counts as dead, if nothing is heard of it before.
    pub fn next_death(&self, now: Duration) -> Option<Duration> {
        let others = self.watched.iter().filter(|(name, _)| **name != self.me);
        let deaths = others.map(|(_, watched)| watched.since.saturating_add(watched.patience));
        deaths.filter(|at| *at > now).min()
    }

    /// The workers that shards are shared among: those that are alive, not leaving, and perform every
    /// effect of the group, or, if no worker performs every one, all that are alive and not leaving.
    pub fn live(&self, view: &View, now: Duration, draining: bool) -> BTreeSet<Incarnation> {
        let others = view.workers.values().filter(|row| {
            let name = &row.incarnation;
            *name != self.me && !row.draining && self.evidence(name, now).is_none()
        });
        let others = others.map(|row| &row.incarnation);
        let me = (!draining).then_some(&self.me);
        let live: BTreeSet<_> = others.chain(me).cloned().collect();
        let effects: Vec<_> = view
            .group
            .iter()
            .flat_map(|row| row.effects.names())
            .collect();
        let performs_all = |name: &&Incarnation| {
            let row = view.workers.get(*name).filter(|_| **name != self.me);
            effects.iter().all(|effect| match row {
                Some(row) => row.effects.contains(effect),
                None => self.performs.get(effect).is_some(),
            })
        };
        let all: BTreeSet<_> = live.iter().filter(performs_all).cloned().collect();
        if all.is_empty() { live } else { all }
    }

    /// The workers that have long been dead and own nothing, with the beats that they still show.
    pub fn removable(&self, view: &View, now: Duration) -> Vec<(Incarnation, Option<u64>)> {
        let is_long_dead = |name: &Incarnation| {
            let watched = self.watched.get(name);
            watched.is_some_and(|watched| watched.is_still(REMOVED_AFTER, now))
        };
        let mut dead: BTreeMap<_, _> = view
            .workers
            .iter()
            .filter(|(name, _)| **name != self.me && is_long_dead(name))
            .collect();
        // There is rarely any, and there may be very many leases.
        if !dead.is_empty() {
            for owner in view.leases.values().filter_map(|row| row.owner.as_ref()) {
                dead.remove(owner);
            }
        }
        dead.into_values()
            .map(|row| (row.incarnation.clone(), Some(row.beat)))
            .collect()
    }
}
