//! The rows of the lease table: keys, and attributes by serde.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_dynamo::{AttributeValue, Item};

use super::{
    Checkpoint, GapResolution, GapRow, GroupRow, Incarnation, LeaseRow, Reach, Report, StreamRow,
    Unfit, Unreadable, View, WorkerRow,
};
use crate::core::record::SequenceNumber;
use crate::core::shard::ShardId;
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::{RowReader, Unexpected, cut, number, text, to_item};
use crate::stores::rows::typed::{self, Attributes, from_row};

#[cfg(test)]
pub(crate) mod size;

/// The partition key: `<group>#<table ARN>`.
pub const GROUP_TABLE: &str = "group_table";
/// The sort key: which row of the group.
pub const ROW: &str = "row";
pub use crate::core::fleet::rows::GROUP_ROW;
use crate::core::fleet::rows::{ARCHIVE, WORKER};
pub(super) use crate::core::fleet::rows::{END, FIRST_FORMAT, HORIZON};

/// The sort key of a worker's row.
pub fn worker_key(incarnation: &Incarnation) -> String {
    format!("worker#{incarnation}")
}

/// The sort key of a stream's row.
pub fn stream_key(label: &str) -> String {
    format!("stream#{label}")
}

/// The sort key of a shard's lease.
pub fn lease_key(shard: &ShardId) -> String {
    format!("shard#{shard}")
}

/// The sort key of a shard's lease, once it is archived.
pub fn archive_key(shard: &ShardId) -> String {
    format!("{ARCHIVE}{shard}")
}

/// The rows within this reach, as a range of sort keys: archived leases sort before all other rows, and
/// heartbeats after them.
pub(super) fn range(reach: Reach) -> RowExpression {
    let from = |row: &str| RowExpression::default().when_at_least(ROW, text(row));
    match reach {
        Reach::All => RowExpression::default(),
        // The character after `#` is `$`.
        Reach::Current => from(&ARCHIVE.replace('#', "$")),
        Reach::Workers => from(WORKER),
    }
}

/// The sort key of a gap: one for each place where a shard can have a gap.
pub fn gap_key(gap: &GapRow) -> String {
    let last = gap.last_handled.as_ref();
    let last = last.map_or(HORIZON, SequenceNumber::as_str);
    format!("gap#{}#{last}", gap.shard)
}

/// The attributes of a row in this format, without its key. Errors are cut, so that no write fails
/// because of its length.
pub(super) fn attributes(row: &impl Serialize, format: u32) -> anyhow::Result<Attributes> {
    let mut attributes = typed::attributes(row)?;
    for name in ["last_error", "trouble"] {
        if let Some(Some(AttributeValue::S(words))) = attributes.get_mut(name) {
            words.truncate(cut(words).len());
        }
    }
    attributes.insert("format".to_owned(), Some(number(format)));
    Ok(attributes)
}

/// The owner; a free lease has no such attribute.
pub(super) fn owner(owner: Option<&Incarnation>) -> (&'static str, Option<AttributeValue>) {
    ("owner", owner.map(|owner| text(owner.as_str())))
}

/// What every change of a lease's checkpoint writes.
#[derive(Serialize)]
pub(super) struct LeaseProgress<'a> {
    #[serde(flatten)]
    pub checkpoint: &'a Checkpoint,
    #[serde(flatten)]
    pub report: &'a Report,
}

/// Where a gap ends, if known.
pub(super) fn gap_end(gap: &GapRow) -> (&'static str, Option<AttributeValue>) {
    let first = gap.first_after.as_ref();
    ("first_after", first.map(|at| text(at.as_str())))
}

/// What an operator found out about a gap.
pub(super) fn gap_resolution(
    resolved: Option<&GapResolution>,
) -> anyhow::Result<(&'static str, Option<AttributeValue>)> {
    let resolution = |by: &GapResolution| GapResolution {
        by: cut(&by.by).to_owned(),
        note: cut(&by.note).to_owned(),
        ..by.clone()
    };
    let resolved = resolved.map(|by| typed::to_map(&resolution(by)));
    Ok(("resolved", resolved.transpose()?))
}

/// A whole item: the key and the attributes.
pub(super) fn item(group_table: &str, row: &str, mut attributes: Attributes) -> Item {
    attributes.insert(GROUP_TABLE.to_owned(), Some(text(group_table)));
    attributes.insert(ROW.to_owned(), Some(text(row)));
    to_item(attributes)
}

/// The row under another sort key.
pub(super) fn under_key(item: Item, row: &str) -> Item {
    let mut attributes = item.into_inner();
    attributes.insert(ROW.to_owned(), text(row));
    attributes.into()
}

impl View {
    /// Adds one row of the table to the view of a build that reads rows up to this format. An
    /// unreadable row is listed with its reason and does not affect others.
    pub(super) fn add(&mut self, item: Item, reads: u32) {
        let row = RowReader(&item).text(ROW).unwrap_or_default().to_owned();
        if let Err(why) = self.sort_in(&row, item, reads) {
            self.unreadable.push(Unreadable { row, why });
        }
    }

    fn sort_in(&mut self, row: &str, item: Item, reads: u32) -> Result<(), Unfit> {
        if row == GROUP_ROW {
            self.group = Some(group(item, reads)?);
        } else if let Some(label) = row.strip_prefix("stream#") {
            let stream: StreamRow = read(item, Some(("label", label)), reads)?;
            self.streams.insert(stream.label.clone(), stream);
        } else if let Some(name) = row.strip_prefix("worker#") {
            let worker: WorkerRow = read(item, Some(("incarnation", name)), reads)?;
            self.workers.insert(worker.incarnation.clone(), worker);
        } else if let Some(id) = row.strip_prefix("shard#") {
            let lease = lease(&ShardId::new(id), item, reads)?;
            self.archived.remove(&lease.shard);
            self.leases.insert(lease.shard.clone(), lease);
        } else if let Some(id) = row.strip_prefix(ARCHIVE) {
            let lease = lease(&ShardId::new(id), item, reads)?;
            self.archived.insert(lease.shard.clone());
            self.leases.insert(lease.shard.clone(), lease);
        } else if row.starts_with("gap#") {
            self.gaps.push(read(item, None, reads)?);
        } else {
            check_format(&item, reads)?;
            return Err(Unfit::Malformed {
                what: "unknown kind of row".to_owned(),
            });
        }
        Ok(())
    }
}

/// Parses a row. `id` is the attribute that exists only in the row's key, with its value.
fn read<T: DeserializeOwned>(item: Item, id: Option<(&str, &str)>, reads: u32) -> Result<T, Unfit> {
    check_format(&item, reads)?;
    let mut attributes = item.into_inner();
    attributes.extend(id.map(|(name, value)| (name.to_owned(), text(value))));
    from_row(attributes.into()).map_err(|error| Unfit::Malformed {
        what: format!("{error:#}"),
    })
}

/// The row's format must be one that a build reading up to `reads` can read.
fn check_format(item: &Item, reads: u32) -> Result<(), Unfit> {
    match RowReader(item).number("format")? {
        format if format > reads => Err(Unfit::Newer { format }),
        _ => Ok(()),
    }
}

impl From<Unexpected> for Unfit {
    fn from(error: Unexpected) -> Self {
        Self::Malformed {
            what: error.to_string(),
        }
    }
}

/// Parses the group row.
pub(super) fn group(item: Item, reads: u32) -> Result<GroupRow, Unfit> {
    read(item, None, reads)
}

/// Parses a lease row.
pub(super) fn lease(shard: &ShardId, item: Item, reads: u32) -> Result<LeaseRow, Unfit> {
    read(item, Some(("shard", shard.as_str())), reads)
}

/// The epoch of a row that may be otherwise damaged; 0 if it cannot be read.
pub(super) fn epoch(item: &Item) -> u64 {
    RowReader(item).number("epoch").unwrap_or(0)
}

/// The beat of a row that may be otherwise damaged.
pub(super) fn beat(item: &Item) -> Option<u64> {
    RowReader(item).number("beat").ok()
}

/// Requires that the attributes of this row are still as they were seen.
pub(super) fn unchanged(seen: &Item, row: &Attributes) -> RowExpression {
    let of = |when: RowExpression, name: &String| when.when(name, seen.inner().get(name).cloned());
    row.keys().fold(RowExpression::default(), of)
}
