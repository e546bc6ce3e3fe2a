//! Which shards are mine, and under which epoch.
//!
//! Four rules, each needed, keep two workers from owning one shard:
//!
//! 1. A start, and every lapse of trust, voids everything that I own ([`Holdings::lapse`]) until a
//!    consistent look that began after trust was restored. Looks and answers from before a lapse are
//!    void.
//! 2. I adopt no epoch lower than the highest one that I have seen for the shard.
//! 3. An epoch that I began to give up ([`Holdings::give_up`]), or that ended ([`Holdings::lose`]), is
//!    never mine again.
//! 4. An owner is an [`Incarnation`]: a restarted worker inherits nothing by name.
//!
//! A fifth keeps a worker from reading a shard beside its children, which have rows only once it needs
//! no more reading:
//!
//! 5. A shard that is continued is not mine, whatever its row says. A look reads page by page, so it
//!    may show a parent as it was before its end, and a child as it was after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::rows::LeaseRow;
use super::rules::FleetRule;
use super::snapshot::Snapshot;
use super::terms::{Epoch, Incarnation};
use crate::core::shard::ShardId;

#[cfg(test)]
mod tests;

/// What I know about my shards, and about those that I might take.
#[derive(Debug, Clone)]
pub struct Holdings {
    shards: BTreeMap<ShardId, Holding>,
    /// How long the epochs of a deleted row are remembered.
    remembered: Duration,
    left_out: Option<FleetRule>,
}

/// What I know about one shard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Holding {
    /// It is mine.
    owns: Option<Held>,
    /// It was mine, and I am giving it up.
    pub giving: Option<Held>,
    /// The last epoch that I gave up or lost.
    given_up: Option<Epoch>,
    /// The highest epoch that I ever saw.
    pub highest: Epoch,
    /// When its row was last seen.
    seen: Duration,
}

/// An epoch that I hold, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    epoch: Epoch,
    since: Duration,
}

/// What a look shows of a shard.
#[derive(Debug, Clone, Copy)]
struct ShardSight<'a> {
    row: Option<&'a LeaseRow>,
    /// A child of it, or a later stream, has a row.
    is_continued: bool,
}

impl Held {
    /// Whether a look proves that this is not mine any more. A look that began before I got the lease
    /// proves nothing, and only a consistent one proves that a row is gone.
    fn is_lost(self, me: &Incarnation, seen: ShardSight<'_>, snapshot: &Snapshot) -> bool {
        if snapshot.began < self.since {
            return false;
        }
        match seen.row {
            _ if seen.is_continued => true,
            None => snapshot.consistent,
            Some(row) if row.owner.as_ref() == Some(me) && row.epoch == self.epoch => row.ended(),
            Some(row) => snapshot.consistent || row.epoch > self.epoch,
        }
    }
}

impl Holding {
    /// Whether it is mine.
    pub fn is_mine(&self) -> bool {
        self.owns.is_some()
    }

    /// Whether a row that names me makes the shard mine.
    fn is_adoptable(&self, row: &LeaseRow, consistent: bool) -> bool {
        self.giving.is_none()
            && self.given_up.is_none_or(|given| row.epoch > given)
            && (row.epoch > self.highest || consistent && row.epoch == self.highest)
    }
}

/// The result of a look, with what it needs to count as proof.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Who looked.
    pub me: &'a Incarnation,
    /// What the look saw.
    pub snapshot: &'a Snapshot,
    /// Trust holds, and nothing has lapsed since before the look began. Otherwise nothing is adopted.
    pub trusted: bool,
    /// The time on my clock.
    pub now: Duration,
}

impl Holdings {
    /// The holdings of a worker that owns nothing. The epochs of a deleted row are remembered for this
    /// long.
    pub fn new(remembered: Duration, left_out: Option<FleetRule>) -> Self {
        Self {
            shards: BTreeMap::new(),
            remembered,
            left_out,
        }
    }

    /// Trust lapsed: nothing is mine until a consistent look shows it.
    pub fn lapse(&mut self) {
        for shard in self.shards.values_mut() {
            shard.owns = None;
        }
    }

    /// The epoch under which the shard is mine.
    pub fn owns(&self, shard: &ShardId) -> Option<Epoch> {
        self.shards.get(shard)?.owns.map(|held| held.epoch)
    }

    /// All shards that are mine.
    pub fn owned(&self) -> impl Iterator<Item = (&ShardId, Epoch)> {
        let shards = self.shards.iter();
        shards.filter_map(|(id, shard)| Some((id, shard.owns?.epoch)))
    }

    /// Whether any shard is still being given up.
    pub fn is_giving(&self) -> bool {
        self.shards.values().any(|shard| shard.giving.is_some())
    }

    /// The highest epoch that I have seen of the shard.
    pub fn highest(&self, shard: &ShardId) -> Epoch {
        self.shards.get(shard).map_or(0, |shard| shard.highest)
    }

    /// What I know of each shard.
    pub(super) fn all(&self) -> &BTreeMap<ShardId, Holding> {
        &self.shards
    }

    /// A take was answered. `None`: that epoch is void.
    pub fn gain(&mut self, shard: &ShardId, epoch: Epoch, now: Duration) -> Option<Epoch> {
        let mine = self.shards.entry(shard.clone()).or_default();
        let valid = epoch >= mine.highest && mine.given_up.is_none_or(|given| epoch > given);
        mine.highest = mine.highest.max(epoch);
        if valid {
            mine.owns = Some(Held { epoch, since: now });
        }
        valid.then_some(epoch)
    }

    /// An answer showed this epoch: no lower one is ever adopted.
    pub fn heard(&mut self, shard: &ShardId, epoch: Epoch) {
        let mine = self.shards.entry(shard.clone()).or_default();
        mine.highest = mine.highest.max(epoch);
    }

    /// I begin to give the shard up: from now on its epoch is never mine again.
    pub fn give_up(&mut self, shard: &ShardId) -> Option<Epoch> {
        let mine = self.shards.get_mut(shard)?;
        let held = mine.owns.take()?;
        mine.giving = Some(held);
        mine.given_up = Some(held.epoch);
        Some(held.epoch)
    }

    /// The shard is given up, or it is unknown whether it is.
    pub fn gave_up(&mut self, shard: &ShardId) {
        if let Some(mine) = self.shards.get_mut(shard) {
            mine.giving = None;
        }
    }

    /// The shard is read to its end, or a refused write showed that this epoch is not mine any more.
    /// A look that began before that still shows it, and must not bring it back.
    pub fn lose(&mut self, shard: &ShardId, epoch: Epoch) {
        if let Some(mine) = self.shards.get_mut(shard) {
            mine.owns = mine.owns.filter(|held| held.epoch != epoch);
            mine.given_up = mine.given_up.max(Some(epoch));
        }
    }

    /// Handles what a look saw. Returns the shards that are not mine any more, with the epoch under
    /// which they were.
    pub fn see(&mut self, sight: Sight<'_>) -> Vec<ShardId> {
        let Sight {
            me,
            snapshot,
            trusted,
            now,
        } = sight;
        let leases = &snapshot.view.leases;
        let known = self.shards.keys().chain(leases.keys());
        let known: BTreeSet<_> = known.cloned().collect();
        let parents = leases.values().filter_map(|row| row.parent.as_ref());
        let parents: BTreeSet<_> = parents.collect();
        let newest = leases.keys().map(ShardId::label).max();
        let mut lost = Vec::new();
        for shard in known {
            let row = leases.get(&shard);
            let is_continued = parents.contains(&shard) || Some(shard.label()) < newest;
            let seen = ShardSight { row, is_continued };
            let mine = self.shards.entry(shard.clone()).or_default();
            let before = mine.owns;
            mine.owns = before.filter(|held| !held.is_lost(me, seen, snapshot));
            // A row that I am giving up may be gone before the hand-over is answered.
            let giving = mine
                .giving
                .is_some_and(|held| held.is_lost(me, seen, snapshot));
            if let Some(row) = row {
                let names_me = row.owner.as_ref() == Some(me) && !row.ended() && !is_continued;
                let adoptable = mine.is_adoptable(row, snapshot.consistent)
                    || self.left_out == Some(FleetRule::NoStaleEpoch);
                if trusted && mine.owns.is_none() && names_me && adoptable {
                    mine.owns = Some(Held {
                        epoch: row.epoch,
                        since: now,
                    });
                }
                mine.highest = mine.highest.max(row.epoch);
                mine.seen = now;
            }
            let epoch = |held: Option<Held>| held.map(|held| held.epoch);
            if giving || before.is_some() && epoch(before) != epoch(mine.owns) {
                lost.push(shard);
            }
        }
        // A deleted row may come back: until then its epochs are remembered.
        self.shards.retain(|_, mine| {
            mine.owns.is_some()
                || mine.giving.is_some()
                || now.saturating_sub(mine.seen) <= self.remembered
        });
        lost
    }
}
