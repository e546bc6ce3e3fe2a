//! The shard tree: which shards a fleet should be reading.
//!
//! One rule carries the lineage: **a lease row exists for a shard only once its parent needs no
//! more reading.** So a child that is read before its parent is finished cannot be written down at
//! all, and a row that is missing can be told from one that is not due yet.
//!
//! A shard of DynamoDB Streams has at most one parent: shards split and roll over, they never
//! merge.
//!
//! The streams of a table continue each other in the same way. **A shard of a stream has a row only
//! once every shard of the earlier streams needs no more reading**; so a stream with a row tells
//! that all earlier ones are passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::gate::left_out;

/// A shard of one of the table's streams: `<stream label>#<shard id>`.
///
/// Labels are times of equal length, so that shards sort by the age of their stream. A source that
/// has one stream only may leave the label out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// Wraps a text that names the shard, with or without a label.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The shard with this id of the stream with this label.
    pub fn of_stream(label: &str, id: &str) -> Self {
        Self(format!("{label}#{id}").into())
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label of the shard's stream, if it has one.
    pub fn label(&self) -> Option<&str> {
        self.0.split_once('#').map(|(label, _)| label)
    }

    /// The id that the stream gave to the shard.
    pub fn id(&self) -> &str {
        self.0.split_once('#').map_or(&*self.0, |(_, id)| id)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The shard that it continues. The parent may be gone from the listing already.
    pub parent: Option<ShardId>,
}

/// What a lease row says of its shard, as far as the tree needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is a row that cannot be read: leave the shard and its children alone.
    Unknown,
    /// Nothing of it is settled yet.
    AtHorizon,
    /// Some of it is settled.
    Reading,
    /// All of it is settled; these shards continue it.
    Ended(Vec<ShardId>),
}

/// The shard tree: the shards that the stream lists, and the rows that the fleet has.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    listed: BTreeMap<ShardId, Option<ShardId>>,
    rows: BTreeMap<ShardId, (Option<ShardId>, Standing)>,
}

impl Tree {
    /// Puts a listing and the rows together.
    pub fn new(
        listed: impl IntoIterator<Item = Shard>,
        rows: impl IntoIterator<Item = (ShardId, Option<ShardId>, Standing)>,
    ) -> Self {
        Self {
            listed: listed.into_iter().map(|s| (s.id, s.parent)).collect(),
            rows: rows
                .into_iter()
                .map(|(id, parent, standing)| (id, (parent, standing)))
                .collect(),
        }
    }

    /// The shards that a fleet which starts from now on begins with: those of the newest stream
    /// that nothing continues yet. A closed one counts too, since its children may not be visible
    /// yet.
    pub fn leaves(&self) -> Vec<Shard> {
        let parents: BTreeSet<_> = self.listed.values().flatten().collect();
        let newest = self.listed.keys().map(ShardId::label).max();
        self.shards(|id, _| !parents.contains(id) && Some(id.label()) == newest)
    }

    /// The shards that should have a row and have none: whose parent and whose earlier streams need
    /// no more reading, and which nothing that has a row continues.
    pub fn due(&self) -> Vec<Shard> {
        let passed = self.passed();
        let open = self.oldest_open(&passed);
        self.shards(|id, parent| {
            !self.rows.contains_key(id)
                && !passed.contains(id)
                && open.is_none_or(|open| id.label() <= open.label())
                && parent.is_none_or(|parent| self.settled(parent, &passed))
        })
    }

    /// The rows of ended shards that nobody needs any more: the stream has forgotten the shard,
    /// and whatever continues it has been read from. That is each of its children, and a later
    /// stream where it has none: until then its row holds the epoch that the later stream's must
    /// exceed.
    pub fn removable(&self) -> Vec<ShardId> {
        let is_unread = |at: &Standing| matches!(at, Standing::AtHorizon | Standing::Unknown);
        let needs_it = |child: &ShardId| match self.rows.get(child) {
            Some((_, standing)) => is_unread(standing),
            None => self.listed.contains_key(child),
        };
        let newest = self.rows.keys().map(ShardId::label).max();
        let of_newest = self
            .rows
            .iter()
            .filter(|(id, _)| Some(id.label()) == newest);
        let reads_newest = !of_newest.map(|(_, (_, at))| at).any(is_unread);
        let is_followed = |id: &ShardId| reads_newest && Some(id.label()) < newest;
        let of_rows = self.rows.values().map(|(parent, _)| parent);
        let parents: BTreeSet<_> = self.listed.values().chain(of_rows).flatten().collect();
        self.rows
            .iter()
            .filter(|(id, (_, standing))| match standing {
                Standing::Ended(children) => {
                    let is_last = children.is_empty() && !parents.contains(id);
                    !self.listed.contains_key(*id)
                        && (!is_last || is_followed(id))
                        && !children.iter().any(needs_it)
                        && !self.children(id).iter().any(needs_it)
                }
                _ => false,
            })
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Whether the shard needs no more reading, since something that continues it has a row.
    pub fn is_passed(&self, shard: &ShardId) -> bool {
        self.passed().contains(shard)
    }

    /// Whether no shard of this stream, or of an earlier one, needs more reading.
    pub fn is_finished(&self, label: &str) -> bool {
        let passed = self.passed();
        let open = self.oldest_open(&passed);
        open.is_none_or(|open| open.label() > Some(label))
    }

    /// The shards that continue this one, as far as they are listed.
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
        if left_out!(StreamsAtOnce) {
            return None;
        }
        let all = self.listed.keys().chain(self.rows.keys());
        let open = all.filter(|id| !passed.contains(*id) && !self.settled(id, passed));
        open.min_by_key(|id| id.label())
    }

    /// Every ancestor of a shard that has a row, and every shard of an earlier stream. By the rules
    /// of this module they are all settled.
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
        let row = self.rows.get(id).and_then(|(parent, _)| parent.as_ref());
        row.or_else(|| self.listed.get(id).and_then(Option::as_ref))
    }

    fn settled(&self, parent: &ShardId, passed: &BTreeSet<ShardId>) -> bool {
        if left_out!(ChildBeforeParent) {
            return true;
        }
        match self.rows.get(parent) {
            Some((_, standing)) => matches!(standing, Standing::Ended(_)),
            None => passed.contains(parent) || !self.listed.contains_key(parent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "2026-01-01T00:00:00.000";
    const SECOND: &str = "2026-01-02T00:00:00.000";
    const THIRD: &str = "2026-01-03T00:00:00.000";

    fn id(label: &str, id: &str) -> ShardId {
        ShardId::of_stream(label, id)
    }

    fn root(label: &str, name: &str) -> Shard {
        Shard {
            id: id(label, name),
            parent: None,
        }
    }

    fn due(listed: &[Shard], rows: &[(ShardId, Standing)]) -> Vec<ShardId> {
        let rows = rows.iter().cloned();
        let rows = rows.map(|(id, standing)| (id, None, standing));
        let due = Tree::new(listed.iter().cloned(), rows).due();
        due.into_iter().map(|shard| shard.id).collect()
    }

    fn ended() -> Standing {
        Standing::Ended(Vec::new())
    }

    #[test]
    fn a_shard_names_its_stream_and_sorts_by_it() {
        let shard = id(FIRST, "shardId-2");
        assert_eq!((shard.label(), shard.id()), (Some(FIRST), "shardId-2"));
        assert!(shard < id(SECOND, "shardId-1"));
        let plain = ShardId::new("shardId-2");
        assert_eq!((plain.label(), plain.id()), (None, "shardId-2"));
    }

    #[test]
    fn a_later_stream_is_due_only_when_every_shard_of_the_earlier_ones_is_finished() {
        let listed = [root(FIRST, "a"), root(FIRST, "b"), root(SECOND, "c")];
        let (a, b, c) = (id(FIRST, "a"), id(FIRST, "b"), id(SECOND, "c"));
        assert_eq!(due(&listed, &[]), [a.clone(), b.clone()]);
        let half = [(a.clone(), ended()), (b.clone(), Standing::Reading)];
        assert_eq!(due(&listed, &half), []);
        assert_eq!(
            due(&listed, &[(a.clone(), ended())]),
            std::slice::from_ref(&b)
        );
        let unreadable = [(a.clone(), ended()), (b.clone(), Standing::Unknown)];
        assert_eq!(due(&listed, &unreadable), []);
        assert_eq!(due(&listed, &[(a, ended()), (b, ended())]), [c]);
    }

    #[test]
    fn a_stream_that_is_gone_holds_the_next_one_up_only_while_a_row_of_it_is_unfinished() {
        let listed = [root(SECOND, "c")];
        let (a, c) = (id(FIRST, "a"), id(SECOND, "c"));
        assert_eq!(due(&listed, &[(a.clone(), Standing::Reading)]), []);
        assert_eq!(due(&listed, &[(a, ended())]), std::slice::from_ref(&c));
        assert_eq!(due(&listed, &[]), [c]);
    }

    #[test]
    fn streams_that_were_replaced_twice_are_read_in_turn() {
        let listed = [root(FIRST, "a"), root(SECOND, "b"), root(THIRD, "c")];
        let (a, b, c) = (id(FIRST, "a"), id(SECOND, "b"), id(THIRD, "c"));
        assert_eq!(
            due(&listed, &[(a.clone(), ended())]),
            std::slice::from_ref(&b)
        );
        let both = [(a, ended()), (b, ended())];
        assert_eq!(due(&listed, &both), [c]);
    }

    #[test]
    fn a_stream_with_a_row_tells_that_the_earlier_ones_are_passed() {
        let listed = [root(FIRST, "a"), root(SECOND, "b"), root(SECOND, "c")];
        let rows = [(id(SECOND, "b"), Standing::AtHorizon)];
        assert_eq!(due(&listed, &rows), [id(SECOND, "c")]);
    }

    #[test]
    fn the_last_row_of_a_stream_stays_until_a_later_stream_is_read() {
        let (a, b) = (id(FIRST, "a"), id(SECOND, "b"));
        let removable = |rows: &[(ShardId, Standing)]| {
            let rows = rows.iter().cloned();
            let rows = rows.map(|(id, standing)| (id, None, standing));
            Tree::new([], rows).removable()
        };
        assert_eq!(removable(&[(a.clone(), ended())]), []);
        let begun = [(a.clone(), ended()), (b.clone(), Standing::AtHorizon)];
        assert_eq!(removable(&begun), []);
        let read = [(a.clone(), ended()), (b, Standing::Reading)];
        assert_eq!(removable(&read), [a]);
    }

    #[test]
    fn a_fleet_that_starts_now_begins_with_the_leaves_of_the_newest_stream() {
        let child = Shard {
            id: id(SECOND, "c"),
            parent: Some(id(SECOND, "b")),
        };
        let listed = [root(FIRST, "a"), root(SECOND, "b"), child];
        let leaves = Tree::new(listed, []).leaves();
        let leaves: Vec<_> = leaves.into_iter().map(|shard| shard.id).collect();
        assert_eq!(leaves, [id(SECOND, "c")]);
    }
}
