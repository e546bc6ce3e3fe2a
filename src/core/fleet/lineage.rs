//! The shard tree: which shards a fleet should be reading.
//!
//! One rule carries the lineage: **a lease row exists for a shard only once its parent needs no more
//! reading.** So no row can exist for a child that would be read before its parent is finished, and a
//! missing row can be told apart from a row that is not due yet.
//!
//! A shard of DynamoDB Streams has at most one parent: shards split and roll over, they never
//! merge.
//!
//! The streams of a table continue each other in the same way. **A shard of a stream has a row only
//! once every shard of the earlier streams needs no more reading**. So a stream with a row shows that
//! all earlier ones are finished.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{Checkpoint, LeaseRow};
use super::rules::FleetRule;
use super::snapshot::{Unreadable, View};
use crate::core::position::Position;
use crate::core::shard::{Shard, ShardId};

#[cfg(test)]
mod tests;

/// The shard tree: the shards that the stream lists, and the rows of the fleet.
#[derive(Debug, Clone)]
pub struct Tree<'a> {
    listed: BTreeMap<ShardId, Option<ShardId>>,
    /// `None`: the row exists and cannot be read. Its shard and its children are left alone.
    rows: BTreeMap<ShardId, Option<&'a LeaseRow>>,
    left_out: Option<FleetRule>,
}

/// Whether nothing of a shard has been handled yet, or that is unknown.
fn is_unread(row: Option<&LeaseRow>) -> bool {
    row.is_none_or(|row| row.checkpoint == Checkpoint::At(Position::Horizon))
}

impl<'a> Tree<'a> {
    /// Combines a listing with the rows.
    pub fn new(listed: &[Shard], view: &'a View, left_out: Option<FleetRule>) -> Self {
        let unreadable = view.unreadable.iter().filter_map(Unreadable::shard);
        let rows = view.leases.values();
        let rows = rows.map(|row| (row.shard.clone(), Some(row)));
        Self {
            listed: listed
                .iter()
                .map(|shard| (shard.id.clone(), shard.parent.clone()))
                .collect(),
            rows: rows.chain(unreadable.map(|id| (id, None))).collect(),
            left_out,
        }
    }

    /// The shards from which a fleet with `latest` begins: those of the newest stream without listed
    /// children. A closed one counts too, since its children may not be visible yet.
    pub fn leaves(&self) -> Vec<Shard> {
        let parents: BTreeSet<_> = self.listed.values().flatten().collect();
        let newest = self.listed.keys().map(ShardId::label).max();
        self.shards(|id, _| !parents.contains(id) && Some(id.label()) == newest)
    }

    /// The shards that should have a row and have none: their parent and their earlier streams need no
    /// more reading, and no shard with a row continues them.
    pub fn due(&self) -> Vec<Shard> {
        let passed = self.passed();
        let open = self.oldest_open(&passed);
        self.shards(|id, parent| {
            !self.rows.contains_key(id)
                && !passed.contains(id)
                && open.is_none_or(|open| id.label() <= open.label())
                && parent.is_none_or(|parent| self.needs_no_reading(parent, &passed))
        })
    }

    /// The rows of ended shards that nobody needs any more: the stream has dropped the shard, and
    /// whatever continues it has been read from. That is each of its children, or, if it has none, a
    /// later stream. Until then its row holds the epoch that the later stream's epochs must exceed.
    pub fn removable(&self) -> Vec<ShardId> {
        let needs_it = |child: &ShardId| match self.rows.get(child) {
            Some(row) => is_unread(*row),
            None => self.listed.contains_key(child),
        };
        let newest = self.rows.keys().map(ShardId::label).max();
        let of_newest = self
            .rows
            .iter()
            .filter(|(id, _)| Some(id.label()) == newest);
        let reads_newest = !of_newest.map(|(_, row)| *row).any(is_unread);
        let is_followed = |id: &ShardId| reads_newest && Some(id.label()) < newest;
        let rows = self.rows.values().flatten();
        let of_rows = rows.clone().filter_map(|row| row.parent.as_ref());
        let of_listed = self.listed.values().flatten();
        let parents: BTreeSet<_> = of_listed.chain(of_rows).collect();
        let is_removable = |row: &&&LeaseRow| {
            let Checkpoint::End { children } = &row.checkpoint else {
                return false;
            };
            let id = &row.shard;
            let is_last = children.is_empty() && !parents.contains(id);
            !self.listed.contains_key(id)
                && (!is_last || is_followed(id))
                && !children.iter().any(needs_it)
                && !self.children(id).iter().any(needs_it)
        };
        let removable = rows.filter(is_removable);
        removable.map(|row| row.shard.clone()).collect()
    }

    /// The rows of ended shards that only a comparison with the listing still needs: the shard is
    /// continued, all of its children have rows, and the row is not `archived` yet.
    pub fn archivable(&self, archived: &BTreeSet<ShardId>) -> Vec<ShardId> {
        let listed = self.listed.iter();
        let listed = listed.filter_map(|(id, parent)| Some((parent.as_ref()?, id)));
        let has_row = |child: &ShardId| self.rows.contains_key(child);
        let (begun, waiting): (Vec<_>, Vec<_>) = listed.partition(|(_, child)| has_row(child));
        let begun: BTreeSet<_> = begun.into_iter().map(|(parent, _)| parent).collect();
        let waiting: BTreeSet<_> = waiting.into_iter().map(|(parent, _)| parent).collect();
        let ended = self.rows.values().flatten().filter_map(|row| {
            let Checkpoint::End { children } = &row.checkpoint else {
                return None;
            };
            let id = &row.shard;
            let is_continued = !children.is_empty() || begun.contains(id);
            let all = children.iter().all(has_row) && !waiting.contains(id);
            (is_continued && all && !archived.contains(id)).then_some(id)
        });
        ended.cloned().collect()
    }

    /// Whether the shard needs no more reading, because a shard that continues it has a row.
    pub fn is_passed(&self, shard: &ShardId) -> bool {
        self.passed().contains(shard)
    }

    /// Whether no shard of this stream, or of an earlier one, needs more reading.
    pub fn is_finished(&self, label: &str) -> bool {
        let passed = self.passed();
        let open = self.oldest_open(&passed);
        open.is_none_or(|open| open.label() > Some(label))
    }

    /// The listed shards that continue this one.
    pub fn children(&self, shard: &ShardId) -> Vec<ShardId> {
        let children = self.listed.iter();
        children
            .filter(|(_, parent)| parent.as_ref() == Some(shard))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn shards(&self, wanted: impl Fn(&ShardId, Option<&ShardId>) -> bool) -> Vec<Shard> {
        self.listed
            .iter()
            .filter(|(id, parent)| wanted(id, parent.as_ref()))
            .map(|(id, parent)| Shard {
                id: id.clone(),
                parent: parent.clone(),
            })
            .collect()
    }

    /// A shard that needs more reading, of the oldest stream that has such shards.
    fn oldest_open(&self, passed: &BTreeSet<ShardId>) -> Option<&ShardId> {
        if self.left_out == Some(FleetRule::OneStreamAtATime) {
            return None;
        }
        let all = self.listed.keys().chain(self.rows.keys());
        let open = all.filter(|id| !passed.contains(*id) && !self.needs_no_reading(id, passed));
        open.min_by_key(|id| id.label())
    }

    /// Every ancestor of a shard that has a row, and every shard of an earlier stream. By the rules of
    /// this module they are all finished.
    fn passed(&self) -> BTreeSet<ShardId> {
        let newest = self.rows.keys().map(ShardId::label).max();
        let all = self.listed.keys().chain(self.rows.keys());
        let earlier = all.filter(|id| newest.is_some_and(|newest| id.label() < newest));
        let mut passed: BTreeSet<ShardId> = earlier.cloned().collect();
        for id in self.rows.keys() {
            let mut at = id;
            while let Some(parent) = self.parent(at) {
                if !passed.insert(parent.clone()) {
                    break;
                }
                at = parent;
            }
        }
        passed
    }

    fn parent(&self, id: &ShardId) -> Option<&ShardId> {
        let row = self.rows.get(id).copied().flatten();
        let row = row.and_then(|row| row.parent.as_ref());
        row.or_else(|| self.listed.get(id).and_then(Option::as_ref))
    }

    fn needs_no_reading(&self, parent: &ShardId, passed: &BTreeSet<ShardId>) -> bool {
        if self.left_out == Some(FleetRule::ParentFirst) {
            return true;
        }
        match self.rows.get(parent) {
            Some(row) => row.is_some_and(LeaseRow::ended),
            None => passed.contains(parent) || !self.listed.contains_key(parent),
        }
    }
}
