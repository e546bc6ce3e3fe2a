//! How the rows of the lease table are spelled: attribute names and values.

use std::time::Duration;

use serde_dynamo::{AttributeValue, Item};

use super::format::FIRST;
use super::{
    Checkpoint, GapResolution, GapRow, GroupRow, Incarnation, InitialPosition, LeaseRow, Report,
    Stage, StreamRow, Unfit, Unreadable, View, WorkerRow,
};
use crate::core::group::Identity;
use crate::core::record::{Position, SequenceNumber};
use crate::core::shard::ShardId;
use crate::stores::rows::expression::Expression;
use crate::stores::rows::fields::{Fields, Reader, Unexpected, number, text, time, to_item, words};

/// The partition key: `<group>#<table ARN>`.
pub const GROUP_TABLE: &str = "group_table";
/// The sort key: which row of the group.
pub const ROW: &str = "row";
pub use crate::core::fleet::rows::GROUP_ROW;

/// The checkpoint of a shard of which nothing is settled yet.
const HORIZON: &str = "TRIM_HORIZON";
/// The checkpoint of a shard that has ended and is settled.
pub(super) const END: &str = "SHARD_END";

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

/// The sort key of a gap: one for each place at which a shard may tear.
pub fn gap_key(gap: &GapRow) -> String {
    let last = gap.last_handled.as_ref();
    let last = last.map_or(HORIZON, SequenceNumber::as_str);
    format!("gap#{}#{last}", gap.shard)
}

fn instant(value: Option<std::time::SystemTime>) -> Option<AttributeValue> {
    value.map(time)
}

/// The group row's attributes, without its key.
pub(super) fn group_fields(row: &GroupRow) -> Fields {
    let initial = match row.initial {
        InitialPosition::TrimHorizon => "TRIM_HORIZON",
        InitialPosition::Latest => "LATEST",
    };
    vec![
        ("format", Some(number(FIRST))),
        ("initial", Some(text(initial))),
        ("bootstrapped", Some(time(row.bootstrapped))),
        identity_field(&row.identity),
    ]
}

/// The group's identity as a map of texts.
pub(super) fn identity_field(identity: &Identity) -> (&'static str, Option<AttributeValue>) {
    let settings = identity.settings();
    let settings = settings.map(|(name, value)| (name.to_owned(), text(value)));
    ("identity", Some(AttributeValue::M(settings.collect())))
}

/// A worker row's attributes, without its key.
pub(super) fn worker_fields(row: &WorkerRow) -> Fields {
    vec![
        ("format", Some(number(FIRST))),
        ("reads", Some(number(row.reads))),
        ("beat", Some(number(row.beat))),
        ("draining", Some(AttributeValue::Bool(row.draining))),
        (
            "unable_to_list",
            row.unable_to_list.then_some(AttributeValue::Bool(true)),
        ),
        ("lease_ms", Some(number(row.lease_duration.as_millis()))),
        ("version", Some(text(&*row.version))),
        ("zone", row.zone.as_deref().map(text)),
        ("status_address", row.status_address.as_deref().map(text)),
        ("trouble", row.trouble.as_deref().map(text)),
        ("stuck", row.stuck.as_ref().map(|id| text(id.as_str()))),
        ("at", instant(row.at)),
    ]
}

/// A lease row's attributes in this format, without its key.
pub(super) fn lease_fields(row: &LeaseRow, format: u32) -> Fields {
    let mut fields = vec![
        ("parent", row.parent.as_ref().map(|id| text(id.as_str()))),
        owner_field(row.owner.as_ref()),
        ("epoch", Some(number(row.epoch))),
        ("starts_at", instant(row.starts_at)),
    ];
    fields.extend(progress_fields(&row.checkpoint, &row.report, format));
    fields
}

/// The owner; a free lease has no such attribute.
pub(super) fn owner_field(owner: Option<&Incarnation>) -> (&'static str, Option<AttributeValue>) {
    ("owner", owner.map(|owner| text(owner.as_str())))
}

/// Whatever a change of a lease's checkpoint writes, in this format.
pub(super) fn progress_fields(checkpoint: &Checkpoint, report: &Report, format: u32) -> Fields {
    let mut fields = vec![("format", Some(number(format)))];
    fields.extend(checkpoint_fields(checkpoint));
    fields.extend(report_fields(report));
    fields
}

/// The checkpoint of a lease.
fn checkpoint_fields(checkpoint: &Checkpoint) -> Fields {
    let (place, children) = match checkpoint {
        Checkpoint::At(Position::Horizon) => (HORIZON, None),
        Checkpoint::At(Position::After(last)) => (last.as_str(), None),
        Checkpoint::End { children } => (END, Some(children)),
    };
    let children = children.map(|ids| ids.iter().map(|id| text(id.as_str())).collect());
    vec![
        ("checkpoint", Some(text(place))),
        ("children", children.map(AttributeValue::L)),
    ]
}

/// What the owner tells beside the checkpoint.
fn report_fields(report: &Report) -> Fields {
    vec![
        ("frontier_time", instant(report.frontier_time)),
        ("caught_up_at", instant(report.caught_up_at)),
        ("settled", Some(number(report.settled))),
        ("last_error", report.last_error.as_deref().map(words)),
        ("waiting_since", instant(report.waiting_since)),
        ("per_minute", Some(number(report.per_minute))),
        ("told_at", instant(report.told_at)),
    ]
}

/// A gap row's attributes in this format, without its key.
pub(super) fn gap_fields(row: &GapRow, format: u32) -> Fields {
    let place = |at: &Option<SequenceNumber>| at.as_ref().map(|at| text(at.as_str()));
    vec![
        ("format", Some(number(format))),
        ("shard", Some(text(row.shard.as_str()))),
        ("last_handled", place(&row.last_handled)),
        ("last_handled_time", instant(row.last_handled_time)),
        ("detected", Some(time(row.detected))),
    ]
}

/// Where a gap ends, as far as that is known.
pub(super) fn gap_end(row: &GapRow) -> (&'static str, Option<AttributeValue>) {
    let first = row.first_after.as_ref();
    ("first_after", first.map(|at| text(at.as_str())))
}

/// What somebody found out about a gap.
pub(super) fn gap_resolution(resolved: Option<&GapResolution>) -> Fields {
    vec![
        ("resolved_by", resolved.map(|one| words(&one.by))),
        ("resolved_at", resolved.map(|one| time(one.at))),
        ("resolved_note", resolved.map(|one| words(&one.note))),
    ]
}

/// A whole item: the key and the attributes.
pub(super) fn item(group_table: &str, row: &str, mut fields: Fields) -> Item {
    fields.push((GROUP_TABLE, Some(text(group_table))));
    fields.push((ROW, Some(text(row))));
    to_item(fields)
}

impl View {
    /// Sorts one row of the table into the view of a build that reads rows up to this format. A row
    /// that cannot be read is listed with its reason and disturbs no other.
    pub(super) fn add(&mut self, item: &Item, reads: u32) {
        let reader = Reader(item);
        let row = reader.text(ROW).unwrap_or_default();
        if let Err(why) = self.sort_in(row, item, reads) {
            let row = row.to_owned();
            self.unreadable.push(Unreadable { row, why });
        }
    }

    fn sort_in(&mut self, row: &str, item: &Item, reads: u32) -> Result<(), Unfit> {
        let reader = Reader(item);
        check_format(&reader, reads)?;
        if row == GROUP_ROW {
            self.group = Some(group(item, reads)?);
        } else if let Some(label) = row.strip_prefix("stream#") {
            let stream = stream(label, &reader)?;
            self.streams.insert(stream.label.clone(), stream);
        } else if let Some(name) = row.strip_prefix("worker#") {
            let incarnation = Incarnation::from_row(name);
            let worker = worker(incarnation.clone(), &reader)?;
            self.workers.insert(incarnation, worker);
        } else if let Some(id) = row.strip_prefix("shard#") {
            let shard = ShardId::new(id);
            self.leases
                .insert(shard.clone(), lease(shard, item, reads)?);
        } else if row.starts_with("gap#") {
            self.gaps.push(gap(&reader)?);
        } else {
            return Err(Unfit::Malformed {
                what: "unknown kind of row".to_owned(),
            });
        }
        Ok(())
    }
}

/// The row's format, if a build that reads up to `reads` can read it.
fn check_format(reader: &Reader, reads: u32) -> Result<u32, Unfit> {
    match reader.number("format")? {
        format if format > reads => Err(Unfit::Newer { format }),
        format => Ok(format),
    }
}

impl From<Unexpected> for Unfit {
    fn from(error: Unexpected) -> Self {
        Self::Malformed {
            what: error.to_string(),
        }
    }
}

/// Reads the group row.
pub(super) fn group(item: &Item, reads: u32) -> Result<GroupRow, Unfit> {
    let reader = Reader(item);
    check_format(&reader, reads)?;
    let initial = match reader.text("initial")? {
        "TRIM_HORIZON" => InitialPosition::TrimHorizon,
        "LATEST" => InitialPosition::Latest,
        other => {
            return Err(Unfit::Malformed {
                what: format!("initial is {other:?}, not TRIM_HORIZON or LATEST"),
            });
        }
    };
    Ok(GroupRow {
        initial,
        bootstrapped: reader.time("bootstrapped")?,
        identity: identity(item)?,
    })
}

fn identity(item: &Item) -> Result<Identity, Unfit> {
    let malformed = || Unfit::Malformed {
        what: "identity is not a map of texts".to_owned(),
    };
    let Some(AttributeValue::M(settings)) = item.get("identity") else {
        return Err(malformed());
    };
    let settings = settings.iter().map(|(name, value)| match value {
        AttributeValue::S(value) => Ok((name.clone(), value.clone())),
        _ => Err(malformed()),
    });
    settings.collect()
}

fn stream(label: &str, reader: &Reader) -> Result<StreamRow, Unfit> {
    Ok(StreamRow {
        label: label.into(),
        stage: match (
            reader.truth_if_any("begun")?,
            reader.truth_if_any("finished")?,
        ) {
            (_, true) => Stage::Finished,
            (true, false) => Stage::Begun,
            (false, false) => Stage::Seen,
        },
        newest_at: reader.time("newest_at")?,
    })
}

fn worker(incarnation: Incarnation, reader: &Reader) -> Result<WorkerRow, Unfit> {
    Ok(WorkerRow {
        incarnation,
        beat: reader.number("beat")?,
        draining: reader.truth("draining")?,
        unable_to_list: reader.truth_if_any("unable_to_list")?,
        lease_duration: Duration::from_millis(reader.number("lease_ms")?),
        version: reader.text("version")?.to_owned(),
        reads: reader.number_if_any("reads")?.unwrap_or(FIRST),
        zone: reader.text_if_any("zone")?.map(str::to_owned),
        status_address: reader.text_if_any("status_address")?.map(str::to_owned),
        trouble: reader.text_if_any("trouble")?.map(str::to_owned),
        stuck: reader.text_if_any("stuck")?.map(ShardId::new),
        at: reader.time_if_any("at")?,
    })
}

/// Reads a lease row.
pub(super) fn lease(shard: ShardId, item: &Item, reads: u32) -> Result<LeaseRow, Unfit> {
    let reader = Reader(item);
    let format = check_format(&reader, reads)?;
    let checkpoint = match reader.text("checkpoint")? {
        HORIZON => Checkpoint::At(Position::Horizon),
        END => Checkpoint::End {
            children: children(&reader)?,
        },
        place => Checkpoint::At(Position::After(sequence_number(place)?)),
    };
    Ok(LeaseRow {
        shard,
        parent: reader.text_if_any("parent")?.map(ShardId::new),
        owner: reader.text_if_any("owner")?.map(Incarnation::from_row),
        epoch: reader.number("epoch")?,
        format,
        starts_at: reader.time_if_any("starts_at")?,
        checkpoint,
        report: Report {
            frontier_time: reader.time_if_any("frontier_time")?,
            caught_up_at: reader.time_if_any("caught_up_at")?,
            settled: reader.number("settled")?,
            last_error: reader.text_if_any("last_error")?.map(str::to_owned),
            waiting_since: reader.time_if_any("waiting_since")?,
            per_minute: reader.number_if_any("per_minute")?.unwrap_or(0),
            told_at: reader.time_if_any("told_at")?,
        },
    })
}

/// The epoch of a row that may be damaged otherwise; 0 if it cannot be read.
pub(super) fn epoch(item: &Item) -> u64 {
    Reader(item).number("epoch").unwrap_or(0)
}

/// The beat of a row that may be damaged otherwise.
pub(super) fn beat(item: &Item) -> Option<u64> {
    Reader(item).number("beat").ok()
}

/// Every attribute that reading the group's row depends on.
pub(super) const GROUP_ATTRIBUTES: &[&str] = &["format", "initial", "bootstrapped", "identity"];

/// That these attributes still stand as they were seen.
pub(super) fn unchanged(seen: &Item, names: &[&str]) -> Expression {
    let of = |when: Expression, name: &&str| when.when(name, seen.inner().get(*name).cloned());
    names.iter().fold(Expression::default(), of)
}

/// Every attribute that reading a lease depends on.
pub(super) const LEASE_ATTRIBUTES: &[&str] = &[
    "format",
    "parent",
    "owner",
    "epoch",
    "starts_at",
    "checkpoint",
    "children",
    "frontier_time",
    "caught_up_at",
    "settled",
    "last_error",
    "waiting_since",
    "per_minute",
    "told_at",
];

fn children(reader: &Reader) -> Result<Vec<ShardId>, Unfit> {
    let ids = reader.list("children")?.iter();
    ids.map(|id| match id {
        AttributeValue::S(id) => Ok(ShardId::new(&**id)),
        _ => Err(Unfit::Malformed {
            what: "children is not a list of strings".to_owned(),
        }),
    })
    .collect()
}

fn gap(reader: &Reader) -> Result<GapRow, Unfit> {
    let place =
        |name| -> Result<_, Unfit> { reader.text_if_any(name)?.map(sequence_number).transpose() };
    Ok(GapRow {
        shard: ShardId::new(reader.text("shard")?),
        last_handled: place("last_handled")?,
        last_handled_time: reader.time_if_any("last_handled_time")?,
        first_after: place("first_after")?,
        detected: reader.time("detected")?,
        resolved: gap_resolved(reader)?,
    })
}

fn gap_resolved(reader: &Reader) -> Result<Option<GapResolution>, Unfit> {
    let Some(at) = reader.time_if_any("resolved_at")? else {
        return Ok(None);
    };
    Ok(Some(GapResolution {
        by: reader.text("resolved_by")?.to_owned(),
        at,
        note: reader.text("resolved_note")?.to_owned(),
    }))
}

fn sequence_number(text: &str) -> Result<SequenceNumber, Unfit> {
    SequenceNumber::parse(text).map_err(|error| Unfit::Malformed {
        what: error.to_string(),
    })
}
