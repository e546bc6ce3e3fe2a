//! How dead letters are spelled in a table: key (`item`, `row`), three kinds of rows.
//!
//! - A *letter*: `item` is the group, the table and the item's key, `row` the stream's label and the
//!   sequence number, padded with zeros. One query gives the letters of a key in order.
//! - A *mark* for each parked key: `item` is `parked|`, the group and the table. One query
//!   gives all parked keys of a group on a table. It counts the key's open letters and goes with the last one.
//! - A *part* of a record that is too large for its letter: DynamoDB's items end at 400 KB, and a
//!   record can have two images of that size.
//!
//! Source: [item size](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-items).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_dynamo::{AttributeValue, Item};
use sha2::{Digest as _, Sha256};

use super::{
    Attempts, Claim, Deed, Envelope, KEPT_AFTER, Letter, LetterId, ParkedKey, Reason, Settled,
};
use crate::core::group::GroupTable;
use crate::core::record::{Event, ItemKey, Record, SequenceNumber, lambda_event};
use crate::core::shard::ShardId;
use crate::stores::rows::fields::{Fields, Reader, number, seconds, text, time, to_item, words};

/// The format version that this build writes into every row.
pub(super) const FORMAT: u32 = 1;

/// The partition key.
pub(crate) const ITEM: &str = "item";
/// The sort key.
pub(crate) const ROW: &str = "row";

/// The attributes of a letter that are read where its record is not needed.
pub(super) const OF_ENVELOPE: &[&str] = &[
    ITEM,
    ROW,
    "kind",
    "format",
    "group_table",
    "key",
    "keys",
    "sequence_number",
    "event",
    "created_ns",
    "shard",
    "reason",
    "written",
    "attempts_made",
    "attempts",
    "settled",
    "deeds",
];

/// So much of a record fits into one row, in bytes, beside everything else.
const PART: usize = 300_000;

/// A longer key is spelled by its digest: partition keys end at 2,048 bytes, sort keys at 1,024.
const LONGEST_KEY: usize = 900;

/// So many deeds are kept.
const DEEDS: usize = 20;

fn short(key: &ItemKey) -> String {
    let key = key.as_str();
    if key.len() <= LONGEST_KEY {
        return key.to_owned();
    }
    let digest = Sha256::digest(key.as_bytes());
    // No key begins so: they begin with a length.
    format!("sha256:{}", STANDARD.encode(digest))
}

/// The partition of a key's letters.
pub(super) fn item_of(at: &GroupTable, key: &ItemKey) -> String {
    format!("{at}|{}", short(key))
}

/// The partition of the marks of a group on a table.
pub(super) fn marks_of(at: &GroupTable) -> String {
    format!("parked|{at}")
}

/// Orders the letters of a key: by their stream, then by their place in it.
fn place(id: &LetterId) -> String {
    format!("{}#{}", id.label, id.sequence_number.padded())
}

/// The key of a letter's row.
pub(super) fn letter_key(id: &LetterId) -> Fields {
    vec![
        (ITEM, Some(text(item_of(&id.at, &id.key)))),
        (ROW, Some(text(place(id)))),
    ]
}

/// The key of a parked key's mark.
pub(super) fn mark_key(at: &GroupTable, key: &ItemKey) -> Fields {
    vec![
        (ITEM, Some(text(marks_of(at)))),
        (ROW, Some(text(short(key)))),
    ]
}

/// The key of a part of a record.
pub(super) fn part_key(id: &LetterId, n: usize) -> Fields {
    vec![
        (
            ITEM,
            Some(text(format!("parts|{}", item_of(&id.at, &id.key)))),
        ),
        (ROW, Some(text(format!("{}#{n:04}", place(id))))),
    ]
}

/// The record as text, in pieces that fit into a row each.
pub(super) fn pieces(letter: &Letter) -> anyhow::Result<Vec<String>> {
    let stream = letter.envelope.id.stream();
    let body = lambda_event::write(&letter.record, Some(&stream))?.to_string();
    let mut pieces = Vec::new();
    let mut rest = body.as_str();
    while rest.len() > PART {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(PART));
        pieces.push(piece.to_owned());
        rest = more;
    }
    pieces.push(rest.to_owned());
    Ok(pieces)
}

/// A part's row.
pub(super) fn part(id: &LetterId, n: usize, piece: &str, written: SystemTime) -> Item {
    let mut fields = part_key(id, n);
    fields.extend([
        ("format", Some(number(FORMAT))),
        ("kind", Some(text("part"))),
        ("written", Some(time(written))),
        ("piece", Some(text(piece))),
    ]);
    to_item(fields)
}

/// The attributes that a letter is written with: what was done with an earlier one stays.
pub(super) fn letter_fields(letter: &Letter, pieces: &[String]) -> Fields {
    let envelope = &letter.envelope;
    let (record, parts) = match pieces {
        [one] => (Some(text(one)), None),
        several => (None, Some(number(several.len() as u64))),
    };
    let mut fields = vec![
        ("format", Some(number(FORMAT))),
        ("kind", Some(text("letter"))),
        ("group_table", Some(text(envelope.id.at.to_string()))),
        ("key", Some(text(envelope.id.key.as_str()))),
        (
            "keys",
            Some(AttributeValue::M(envelope.keys.inner().clone())),
        ),
        (
            "sequence_number",
            Some(text(envelope.id.sequence_number.as_str())),
        ),
        ("event", Some(text(envelope.event.to_string()))),
        ("created_ns", Some(nanos(envelope.created))),
        ("shard", Some(text(envelope.shard.as_str()))),
        ("reason", Some(text(envelope.reason.word()))),
        ("written", Some(time(envelope.written))),
        ("record", record),
        ("parts", parts),
        ("settled", None),
        ("expires", None),
    ];
    fields.extend(attempt_fields(&envelope.attempts));
    fields
}

/// The attributes that tell the attempts.
pub(super) fn attempt_fields(attempts: &Attempts) -> Fields {
    let maps = attempts.last().map(|one| {
        let fields = vec![
            ("at", Some(time(one.at))),
            ("error", Some(words(&one.error))),
        ];
        AttributeValue::M(to_item(fields).into_inner())
    });
    vec![
        ("attempts_made", Some(number(attempts.made()))),
        ("attempts", Some(AttributeValue::L(maps.collect()))),
    ]
}

/// The attributes that settle a letter.
pub(super) fn settling(before: &Envelope, deed: &Deed) -> Fields {
    let deeds = before.deeds.iter().chain([deed]);
    let skipped = (before.deeds.len() + 1).saturating_sub(DEEDS);
    let maps = deeds.skip(skipped).map(|one| {
        let fields = vec![
            ("at", Some(time(one.at))),
            ("by", Some(words(&one.by))),
            ("what", Some(text(one.what.word()))),
            ("why", one.why.as_deref().map(words)),
        ];
        AttributeValue::M(to_item(fields).into_inner())
    });
    vec![
        ("settled", Some(time(deed.at))),
        ("expires", Some(expiry(deed))),
        ("deeds", Some(AttributeValue::L(maps.collect()))),
    ]
}

/// When a settled letter may be removed.
pub(super) fn expiry(deed: &Deed) -> AttributeValue {
    seconds(deed.at.checked_add(KEPT_AFTER).unwrap_or(deed.at))
}

/// The attributes of a mark that are written once.
pub(super) fn mark_fields(letter: &Envelope) -> Fields {
    vec![
        ("kind", Some(text("mark"))),
        ("group_table", Some(text(letter.id.at.to_string()))),
        ("key", Some(text(letter.id.key.as_str()))),
        ("keys", Some(AttributeValue::M(letter.keys.inner().clone()))),
        ("since", Some(time(letter.written))),
        ("reason", Some(text(letter.reason.word()))),
    ]
}

/// The fields of a mark that tell who has its key in hand.
pub(super) fn claim_fields(claim: Option<&Claim>) -> Fields {
    vec![
        ("claimed_by", claim.map(|claim| text(&*claim.by))),
        ("claimed_at", claim.map(|claim| time(claim.at))),
        ("claimed_until", claim.map(|claim| time(claim.until))),
    ]
}

/// Reads who has a mark's key in hand.
fn claim(reader: &Reader<'_>) -> anyhow::Result<Option<Claim>> {
    let Some(by) = reader.text_if_any("claimed_by")? else {
        return Ok(None);
    };
    Ok(Some(Claim {
        by: by.to_owned(),
        at: reader.time("claimed_at")?,
        until: reader.time("claimed_until")?,
    }))
}

/// Whether a newer build wrote the row.
pub(super) fn is_newer(item: &Item) -> bool {
    let format = Reader(item).number::<u32>("format");
    format.is_ok_and(|format| format > FORMAT)
}

/// Refuses a row of a format that this build does not know.
pub(super) fn readable(item: &Item) -> anyhow::Result<Reader<'_>> {
    let reader = Reader(item);
    let format: u32 = reader.number("format")?;
    if format > FORMAT {
        bail!(
            "it is written in format {format}, and this build reads up to {FORMAT}: update this program"
        );
    }
    Ok(reader)
}

/// Reads a mark.
pub(super) fn mark(item: &Item) -> anyhow::Result<ParkedKey> {
    let reader = readable(item)?;
    Ok(ParkedKey {
        key: ItemKey::from_row(reader.text("key")?),
        keys: map(item, "keys")?,
        letters: reader.number("letters")?,
        since: reader.time("since")?,
        reason: reader.text_if_any("reason")?.and_then(Reason::from_word),
        claim: claim(&reader)?,
    })
}

/// Reads a letter without its record.
pub(super) fn envelope(item: &Item) -> anyhow::Result<Envelope> {
    let reader = readable(item)?;
    let reason = reader.text("reason")?;
    let event = match reader.text("event")? {
        "INSERT" => Event::Insert,
        "MODIFY" => Event::Modify,
        "REMOVE" => Event::Remove,
        other => bail!("{other:?} is not an event"),
    };
    let deeds = reader.list("deeds")?.iter().map(deed);
    let shard = ShardId::new(reader.text("shard")?);
    Ok(Envelope {
        id: LetterId {
            at: group_table(&reader)?,
            key: ItemKey::from_row(reader.text("key")?),
            label: shard.label().unwrap_or_default().into(),
            sequence_number: SequenceNumber::parse(reader.text("sequence_number")?)?,
        },
        keys: map(item, "keys")?,
        event,
        created: from_nanos(reader.number("created_ns")?)?,
        shard,
        reason: Reason::from_word(reason).with_context(|| format!("{reason:?} is not a reason"))?,
        attempts: attempts(&reader)?,
        written: reader.time("written")?,
        open: reader.time_if_any("settled")?.is_none(),
        deeds: deeds.collect::<anyhow::Result<_>>()?,
    })
}

fn group_table(reader: &Reader<'_>) -> anyhow::Result<GroupTable> {
    let text = reader.text("group_table")?;
    GroupTable::parse(text).with_context(|| format!("{text:?} is not a group and a table"))
}

/// What a letter's row has of the record: all of it, or how many parts there are.
pub(super) enum Body<'a> {
    Whole(&'a str),
    Parts(usize),
}

/// Reads where the record is.
pub(super) fn body(item: &Item) -> anyhow::Result<Body<'_>> {
    let reader = Reader(item);
    Ok(match reader.text_if_any("record")? {
        Some(record) => Body::Whole(record),
        None => Body::Parts(reader.number("parts")?),
    })
}

/// Reads the record of a letter.
pub(super) fn record(body: &str, envelope: &Envelope) -> anyhow::Result<Record> {
    let event = serde_json::from_str(body).context("the record is not JSON")?;
    let record = lambda_event::read(&event)?.record;
    let created = envelope.created;
    Ok(Record { created, ..record })
}

fn map(item: &Item, name: &str) -> anyhow::Result<Item> {
    match item.get(name) {
        Some(AttributeValue::M(map)) => Ok(Item::from(map.clone())),
        _ => bail!("{name} is not a map"),
    }
}

fn inner(value: &AttributeValue) -> anyhow::Result<Item> {
    match value {
        AttributeValue::M(map) => Ok(Item::from(HashMap::clone(map))),
        _ => bail!("an entry of a list is not a map"),
    }
}

fn attempts(reader: &Reader<'_>) -> anyhow::Result<Attempts> {
    let mut attempts = Attempts::default();
    for one in reader.list("attempts")? {
        let one = inner(one)?;
        let one = Reader(&one);
        attempts.push(one.time("at")?, one.text("error")?);
    }
    Ok(attempts.of_all(reader.number("attempts_made")?))
}

fn deed(value: &AttributeValue) -> anyhow::Result<Deed> {
    let item = inner(value)?;
    let reader = Reader(&item);
    Ok(Deed {
        at: reader.time("at")?,
        by: reader.text("by")?.to_owned(),
        what: match reader.text("what")? {
            "redriven" => Settled::Redriven,
            "discarded" => Settled::Discarded,
            other => bail!("{other:?} is not a known action"),
        },
        why: reader.text_if_any("why")?.map(str::to_owned),
    })
}

const NANOS: u128 = 1_000_000_000;

/// A time to the nanosecond: a record's is kept as it came.
fn nanos(value: SystemTime) -> AttributeValue {
    let since = value.duration_since(SystemTime::UNIX_EPOCH);
    number(since.unwrap_or_default().as_nanos())
}

fn from_nanos(nanos: u128) -> anyhow::Result<SystemTime> {
    let seconds = u64::try_from(nanos / NANOS).ok();
    let rest = u32::try_from(nanos % NANOS).unwrap_or_default();
    let since = seconds.map(|seconds| Duration::new(seconds, rest));
    let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    time.context("created_ns is not a time")
}
