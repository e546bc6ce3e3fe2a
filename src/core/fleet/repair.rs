//! Compares the stream's listing with the lease table: which rows to create, replace and remove.
//!
//! Everything that was missed elsewhere (a child that became visible late, a row that an operator
//! deleted) is found here, so no single failed call can leave a shard unread.

use std::time::{Duration, SystemTime};

use super::horizon::Horizon;
use super::lineage::Tree;
use super::listing::FinishedListing;
use super::rows::{Checkpoint, GapRow, GroupRow, InitialPosition, LeaseRow, StreamRow};
use super::rules::FleetRules;
use super::snapshot::{Unreadable, View};
use super::streams::{self, Moment};
use super::terms::{Epoch, Incarnation};
use crate::core::group::EffectName;
use crate::core::millis::since_1970;
use crate::core::shard::{Shard, ShardId};

/// Rows to create, to replace and to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Shards that were lost before they could be leased. Written before any lease is created.
    pub gaps: Vec<GapRow>,
    /// Missing leases.
    pub create: Vec<LeaseRow>,
    /// Leases that replace damaged rows.
    pub heal: Vec<LeaseRow>,
    /// Leases of ended shards that looks no longer need.
    pub archived: Vec<ShardId>,
    /// Leases of ended shards that nobody needs any more.
    pub ended: Vec<ShardId>,
    /// Heartbeats of dead workers, with the beat that each must still show if its row can be read.
    pub dead: Vec<(Incarnation, Option<u64>)>,
    /// What is known about the streams. Written last.
    pub streams: Vec<StreamRow>,
}

impl Repair {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty()
            && self.heal.is_empty()
            && self.archived.is_empty()
            && self.ended.is_empty()
            && self.dead.is_empty()
            && self.streams.is_empty()
    }
}

/// What a repair is based on: a listing, and a consistent look that came after it.
pub(super) struct Findings<'a> {
    pub view: &'a View,
    pub known: &'a FinishedListing,
    pub tree: Tree<'a>,
    pub horizon: Horizon<'a>,
    /// This worker has just bootstrapped the group, and no shard ever had a row.
    pub at_start: bool,
    /// When the listing began, by the service's clock.
    pub listed_at: SystemTime,
}

impl Findings<'_> {
    /// The shards that should have a row and have none. A group that starts with `latest` starts from
    /// what the stream listed `before` its bootstrap.
    pub fn due(&self, before: Option<&[Shard]>) -> Vec<Shard> {
        let group = self.horizon.group;
        let latest = group.is_some_and(|row| row.initial == InitialPosition::Latest);
        match before.filter(|_| latest) {
            Some(before) => Tree::new(before, self.view, None).leaves(),
            None => self.tree.due(),
        }
    }

    /// The shards whose rows are damaged. Rows of a newer format are left alone.
    pub fn damaged(&self) -> Vec<Shard> {
        let damaged = self.view.unreadable.iter().filter(|row| !row.is_newer());
        let damaged = damaged.filter(|row| !row.is_archived());
        let with_parent = |id: ShardId| {
            let mut listed = self.known.listed.shards.iter();
            let listed = listed.find(|shard| shard.id == id).cloned();
            listed.unwrap_or(Shard { id, parent: None })
        };
        damaged
            .filter_map(Unreadable::shard)
            .map(with_parent)
            .collect()
    }

    /// What to write if these shards need rows. Each comes with the highest epoch that was seen.
    pub fn repair(&self, missing: Vec<(Shard, Epoch)>) -> Repair {
        let damaged = self.damaged();
        let is_damaged = |id: &ShardId| damaged.iter().any(|shard| shard.id == *id);
        let mut repair = Repair {
            archived: self.tree.archivable(&self.view.archived),
            ended: self.removable(),
            dead: damaged_workers(self.view),
            ..Repair::default()
        };
        for (shard, highest) in missing {
            let mut row = self.new_row(&shard, highest);
            if !is_damaged(&row.shard) {
                repair.create.push(row);
                continue;
            }
            if self.tree.is_passed(&row.shard) {
                let children = self.tree.children(&row.shard);
                row.checkpoint = Checkpoint::End { children };
            }
            repair.heal.push(row);
        }
        if !self.at_start || self.horizon.starts_late() {
            let listed = &self.known.listed.shards;
            repair.gaps = self.horizon.never_leased(&repair.create, listed, self.view);
        }
        let streams = &self.known.listed.streams;
        let written = streams::writing(self.view, streams, &repair.create, &self.moment());
        repair.gaps.extend(written.gaps);
        repair.streams = written.rows;
        repair
    }

    fn new_row(&self, shard: &Shard, highest: Epoch) -> LeaseRow {
        let created = shard.id.label().and_then(|label| self.created(label));
        let parent = shard.parent.as_ref();
        let since = self.horizon.complete_until(self.view, parent, created);
        let before = epoch_before(self.view, shard).map_or(0, |before| before + 1);
        let row = LeaseRow::new(shard.id.clone(), shard.parent.clone(), highest.max(before));
        LeaseRow {
            starts_at: self.horizon.starts_at(),
            ..row.since(since)
        }
    }

    fn created(&self, label: &str) -> Option<SystemTime> {
        let mut streams = self.known.listed.streams.iter();
        streams.find(|stream| *stream.label == *label)?.created
    }

    /// About a shard that ended during the listing, the listing proves nothing.
    fn removable(&self) -> Vec<ShardId> {
        let mut removable = self.tree.removable();
        removable.retain(|shard| self.known.ended_before.contains(shard));
        removable
    }

    fn moment(&self) -> Moment {
        let is_finished = |begun: &&str| {
            let streams = self.known.listed.streams.iter();
            let mut labels = streams.map(|stream| &*stream.label);
            let is_off = self.known.listed.trouble.is_some();
            let is_off = is_off || labels.clone().any(|label| label > *begun);
            is_off && labels.any(|label| label == *begun) && self.tree.is_finished(begun)
        };
        let begun = begun_stream(self.view.leases.keys()).filter(is_finished);
        Moment {
            now: self.horizon.now,
            listed_at: self.listed_at,
            retention: self.horizon.retention,
            bootstrapped: self.horizon.group.map(|row| row.bootstrapped),
            fresh: self.at_start,
            finished: begun.map(str::to_owned),
        }
    }
}

/// The newest stream that has a lease: earlier ones are read to their end.
pub(super) fn begun_stream<'a>(leases: impl Iterator<Item = &'a ShardId>) -> Option<&'a str> {
    leases.filter_map(ShardId::label).max()
}

/// The epoch that a new row of this shard has to exceed: what the owners of earlier shards wrote to the
/// same items is older than what this shard's owners write. Those are its parent and every shard of the
/// earlier streams. If its parent has no row, any shard may be an ancestor.
fn epoch_before(view: &View, shard: &Shard) -> Option<Epoch> {
    let parent = shard.parent.as_ref();
    let is_orphan = parent.is_some_and(|parent| !view.leases.contains_key(parent));
    let label = shard.id.label();
    let is_before =
        |id: &ShardId| Some(id) == parent || id.label() < label || is_orphan && id.label() == label;
    let before = view.leases.values().filter(|row| is_before(&row.shard));
    before.map(|row| row.epoch).max()
}

/// The workers whose rows are damaged. Each notices at its next heartbeat and joins again.
fn damaged_workers(view: &View) -> Vec<(Incarnation, Option<u64>)> {
    let damaged = view.unreadable.iter().filter(|row| !row.is_newer());
    let names = damaged.filter_map(Unreadable::worker);
    names.map(|name| (name, None)).collect()
}

/// The group row to write if there is none. A group that has leases has lost its row: where it started
/// is unknown, so nothing is skipped, and it counts as old as anything in the stream.
pub(super) fn group_row(rules: &FleetRules, view: &View, now: SystemTime) -> GroupRow {
    let (initial, began) = if view.has_no_leases() {
        (rules.start, now)
    } else {
        let oldest = now.checked_sub(rules.retention);
        (InitialPosition::TrimHorizon, oldest.unwrap_or(now))
    };
    GroupRow {
        initial,
        bootstrapped: to_the_millisecond(began),
        effects: rules.effects.with(known_effects(view)),
    }
}

/// The effects that other rows than the group's name.
fn known_effects(view: &View) -> impl Iterator<Item = &EffectName> {
    let of_workers = view.workers.values().flat_map(|row| &row.effects);
    let leases = view.leases.values();
    of_workers.chain(leases.flat_map(|row| row.report.ahead.keys()))
}

/// Rows store milliseconds.
pub(super) fn to_the_millisecond(time: SystemTime) -> SystemTime {
    let since = since_1970(time);
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(0))
}
