//! A look at the lease table page by page: between two pages others write.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::core::shard::ShardId;
use crate::stores::leases::row::{
    GROUP_ROW, archive_key, gap_key, lease_key, stream_key, worker_key,
};
use crate::stores::leases::{GapRow, GroupRow, LeaseRow, StreamRow, Unreadable, View, WorkerRow};

/// A row of the lease table.
enum PagedRow<'a> {
    Group(&'a GroupRow),
    Stream(&'a StreamRow),
    Worker(&'a WorkerRow),
    Lease(&'a LeaseRow),
    Archived(&'a LeaseRow),
    Gap(&'a GapRow),
    Unreadable(&'a Unreadable),
}

/// The pages of one look, as far as they are read.
#[derive(Default)]
pub(super) struct Pages {
    seen: View,
    /// The last row that was read.
    last: Option<String>,
}

impl Pages {
    /// Reads the next page, of at most so many rows, from the table as it is now. Answers whether there
    /// is another one.
    pub fn read(&mut self, table: &View, size: usize) -> bool {
        let rows = rows(table);
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = rows.range((after, Bound::Unbounded));
        for (key, row) in rest.by_ref().take(size) {
            self.last = Some(key.clone());
            self.add(row);
        }
        rest.next().is_some()
    }

    /// All that the pages showed.
    pub fn seen(&self) -> &View {
        &self.seen
    }

    /// A lease that was archived, or came back, while the pages were read counts as it was seen last.
    fn add(&mut self, row: &PagedRow<'_>) {
        let seen = &mut self.seen;
        match *row {
            PagedRow::Group(row) => seen.group = Some(row.clone()),
            PagedRow::Stream(row) => {
                seen.streams.insert(row.label.clone(), row.clone());
            }
            PagedRow::Worker(row) => {
                seen.workers.insert(row.incarnation.clone(), row.clone());
            }
            PagedRow::Lease(row) => {
                seen.archived.remove(&row.shard);
                seen.leases.insert(row.shard.clone(), row.clone());
            }
            PagedRow::Archived(row) => {
                seen.archived.insert(row.shard.clone());
                seen.leases.insert(row.shard.clone(), row.clone());
            }
            PagedRow::Gap(row) => seen.gaps.push(row.clone()),
            PagedRow::Unreadable(row) => seen.unreadable.push(row.clone()),
        }
    }
}

/// The rows, by keys that sort as those of the lease table do.
fn rows(table: &View) -> BTreeMap<String, PagedRow<'_>> {
    let group = table.group.iter();
    let group = group.map(|row| (GROUP_ROW.to_owned(), PagedRow::Group(row)));
    let streams = table.streams.values();
    let streams = streams.map(|row| (stream_key(&row.label), PagedRow::Stream(row)));
    let workers = table.workers.values();
    let workers = workers.map(|row| (worker_key(&row.incarnation), PagedRow::Worker(row)));
    let gaps = table
        .gaps
        .iter()
        .map(|row| (gap_key(row), PagedRow::Gap(row)));
    let unreadable = table.unreadable.iter();
    let unreadable = unreadable.map(|row| (row.row.clone(), PagedRow::Unreadable(row)));
    let leases = table.leases.values().map(|row| {
        let shard = in_no_order(&row.shard);
        if table.archived.contains(&row.shard) {
            (archive_key(&shard), PagedRow::Archived(row))
        } else {
            (lease_key(&shard), PagedRow::Lease(row))
        }
    });
    let all = leases.chain(gaps).chain(group).chain(streams);
    all.chain(workers).chain(unreadable).collect()
}

/// The service promises nothing of the order of shards in a stream: a child may come before its parent.
fn in_no_order(shard: &ShardId) -> ShardId {
    let label = shard.label().unwrap_or_default();
    let id: String = shard.id().chars().rev().collect();
    ShardId::of_stream(label, &id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fleet::snapshot::Reach;

    fn table() -> View {
        let mut view = View::default();
        for id in ["a", "b", "c"] {
            let row = LeaseRow::new(ShardId::new(id), None, 1);
            view.leases.insert(row.shard.clone(), row);
        }
        view.archived.insert(ShardId::new("b"));
        view
    }

    #[test]
    fn all_pages_of_a_table_that_does_not_change_show_the_table() {
        let table = table();
        let mut pages = Pages::default();
        while pages.read(&table, 1) {}
        assert_eq!(*pages.seen(), table);
    }

    #[test]
    fn what_is_written_between_two_pages_is_seen_behind_them_alone() {
        let mut table = table();
        let mut pages = Pages::default();
        assert!(pages.read(&table, 1), "the archived lease");
        table.archived.insert(ShardId::new("a"));
        table.archived.remove(&ShardId::new("b"));
        while pages.read(&table, 1) {}
        let seen = pages.seen().within(Reach::Current);
        let seen: Vec<_> = seen.leases.keys().map(ShardId::as_str).collect();
        assert_eq!(seen, ["b", "c"], "the row that moved forwards is not seen");
    }
}
