//! How dead letters are stored in a table: key (`item`, `row`), three kinds of rows.
//!
//! - A *letter*: `item` is the group, the table and the item's key, `row` the effect, the stream's label
//!   and the sequence number, padded with zeros. One query gives the letters of a key in order.
//! - A *mark* for each parked key: `item` is `parked|`, the group and the table, `row` the effect and
//!   the key. One query gives all parked keys of an effect. It counts the key's open letters and goes with the last one.
//! - A *part* of a record that is too large for its letter: DynamoDB's items end at 400 KB, and a
//!   record can have two images of that size.
//!
//! Source: [item size](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-items).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_dynamo::{AttributeValue, Item};
use sha2::{Digest as _, Sha256};

use super::{Attempts, Claim, Deed, Envelope, KEPT_AFTER, Letter, LetterId, ParkedKey, Reason};
use crate::core::group::{EffectName, EffectTable, GroupTable};
use crate::core::millis;
use crate::core::millis::since_1970;
use crate::core::record::{Event, ItemKey, Record, SequenceNumber, lambda_event};
use crate::core::shard::ShardId;
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::{Fields, RowReader, cut, number, seconds, text, time, to_item};
use crate::stores::rows::typed::{Attributes, attributes, from_row, to_map};

/// The format version that this build writes into every row.
pub(super) const FORMAT: u32 = 1;

/// The partition key.
pub(crate) const ITEM: &str = "item";
/// The sort key.
pub(crate) const ROW: &str = "row";

/// The attributes of a letter that are read when its record is not needed.
pub(super) const OF_ENVELOPE: &[&str] = &[
    ITEM,
    ROW,
    "kind",
    "format",
    "group_table",
    "effect",
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
    "closed",
    "deeds",
];

/// How many bytes of a record fit into one row, besides everything else.
const PART: usize = 300_000;

/// A longer key is replaced by its digest: partition keys are limited to 2,048 bytes, sort keys to
/// 1,024.
const LONGEST_KEY: usize = 900;

/// How many deeds are kept.
const DEEDS: usize = 20;

fn short(key: &ItemKey) -> String {
    let key = key.as_str();
    if key.len() <= LONGEST_KEY {
        return key.to_owned();
    }
    let digest = Sha256::digest(key.as_bytes());
    // No key begins like this: keys begin with a length.
    format!("sha256:{}", STANDARD.encode(digest))
}

/// The partition of a key's letters.
fn item_of(at: &GroupTable, key: &ItemKey) -> String {
    format!("{at}|{}", short(key))
}

/// The partition of the marks of a group on a table.
fn marks_of(at: &GroupTable) -> AttributeValue {
    text(format!("parked|{at}"))
}

/// How the sort keys of an effect's rows begin. No name contains `#`.
fn of_effect(effect: &EffectName) -> String {
    format!("{effect}#")
}

/// Orders the letters of a key: by their effect, by their stream, then by their position in it.
fn place(id: &LetterId) -> String {
    let number = id.sequence_number.padded();
    format!("{}{}#{number}", of_effect(&id.at.effect), id.label)
}

/// The letters of a key, of all effects.
pub(super) fn letters_of(at: &GroupTable, key: &ItemKey) -> RowExpression {
    RowExpression::default().when(ITEM, Some(text(item_of(at, key))))
}

/// The letters of a key, of one effect.
pub(super) fn effect_letters_of(at: &EffectTable, key: &ItemKey) -> RowExpression {
    letters_of(&at.at, key).when_begins(ROW, &of_effect(&at.effect))
}

/// The parked keys of an effect.
pub(super) fn marks(at: &EffectTable) -> RowExpression {
    let of_group = RowExpression::default().when(ITEM, Some(marks_of(&at.at)));
    of_group.when_begins(ROW, &of_effect(&at.effect))
}

/// The key of a mark's row, from its sort key.
pub(super) fn mark_at(at: &EffectTable, row: &str) -> Item {
    to_item(vec![(ITEM, Some(marks_of(&at.at))), (ROW, Some(text(row)))])
}

/// The key of a letter's row.
pub(super) fn letter_key(id: &LetterId) -> Fields {
    vec![
        (ITEM, Some(text(item_of(&id.at.at, &id.key)))),
        (ROW, Some(text(place(id)))),
    ]
}

/// The key of a parked key's mark.
pub(super) fn mark_key(at: &EffectTable, key: &ItemKey) -> Fields {
    vec![
        (ITEM, Some(marks_of(&at.at))),
        (
            ROW,
            Some(text(format!("{}{}", of_effect(&at.effect), short(key)))),
        ),
    ]
}

/// The key of a part of a record.
pub(super) fn part_key(id: &LetterId, n: usize) -> Fields {
    vec![
        (
            ITEM,
            Some(text(format!("parts|{}", item_of(&id.at.at, &id.key)))),
        ),
        (ROW, Some(text(format!("{}#{n:04}", place(id))))),
    ]
}

/// The record as text, in pieces that each fit into a row.
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

/// The row of a part.
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

/// A letter without its record, attribute by attribute.
#[derive(Serialize, Deserialize)]
struct LetterRow {
    group_table: GroupTable,
    effect: EffectName,
    key: ItemKey,
    keys: Item,
    sequence_number: SequenceNumber,
    event: Event,
    created_ns: u64,
    shard: ShardId,
    reason: Reason,
    #[serde(with = "millis")]
    written: SystemTime,
    #[serde(flatten)]
    attempts: Attempts,
    #[serde(default, with = "millis::if_any")]
    closed: Option<SystemTime>,
    #[serde(default)]
    deeds: Vec<Deed>,
}

/// The attributes to write for a letter. What was done with an earlier letter stays.
pub(super) fn letter_fields(letter: &Letter, pieces: &[String]) -> anyhow::Result<Attributes> {
    let envelope = letter.envelope.clone();
    let (record, parts) = match pieces {
        [one] => (Some(text(one)), None),
        several => (None, Some(number(several.len() as u64))),
    };
    let mut fields = attributes(&LetterRow {
        group_table: envelope.id.at.at,
        effect: envelope.id.at.effect,
        key: envelope.id.key,
        keys: envelope.keys,
        sequence_number: envelope.id.sequence_number,
        event: envelope.event,
        created_ns: nanos(envelope.created),
        shard: envelope.shard,
        reason: envelope.reason,
        written: envelope.written,
        attempts: envelope.attempts,
        closed: None,
        deeds: Vec::new(),
    })?;
    fields.remove("deeds");
    let others = [
        ("format", Some(number(FORMAT))),
        ("kind", Some(text("letter"))),
        ("record", record),
        ("parts", parts),
        ("expires", None),
    ];
    fields.extend(others.map(|(name, value)| (name.to_owned(), value)));
    Ok(fields)
}

/// The attributes of the attempts.
pub(super) fn attempt_fields(attempts: &Attempts) -> anyhow::Result<Attributes> {
    attributes(attempts)
}

/// The attributes that close a letter.
pub(super) fn closing(before: &Envelope, deed: &Deed) -> anyhow::Result<Fields> {
    let deed = Deed {
        by: cut(&deed.by).to_owned(),
        why: deed.why.as_deref().map(|why| cut(why).to_owned()),
        ..deed.clone()
    };
    let (closed, expires) = (time(deed.at), expiry(&deed));
    let skipped = (before.deeds.len() + 1).saturating_sub(DEEDS);
    let deeds = before.deeds.iter().chain([&deed]).skip(skipped);
    let deeds = deeds.map(to_map);
    Ok(vec![
        ("closed", Some(closed)),
        ("expires", Some(expires)),
        (
            "deeds",
            Some(AttributeValue::L(deeds.collect::<anyhow::Result<_>>()?)),
        ),
    ])
}

/// When a closed letter may be removed.
pub(super) fn expiry(deed: &Deed) -> AttributeValue {
    seconds(deed.at.checked_add(KEPT_AFTER).unwrap_or(deed.at))
}

/// A mark, attribute by attribute.
#[derive(Serialize, Deserialize)]
struct MarkRow {
    group_table: GroupTable,
    effect: EffectName,
    key: ItemKey,
    keys: Item,
    #[serde(with = "millis")]
    since: SystemTime,
    reason: Option<String>,
    #[serde(skip_serializing)]
    letters: u64,
    #[serde(skip_serializing)]
    claim: Option<Claim>,
}

/// The attributes of a mark that are written only once.
pub(super) fn mark_fields(letter: &Envelope) -> anyhow::Result<Attributes> {
    let mut fields = attributes(&MarkRow {
        group_table: letter.id.at.at.clone(),
        effect: letter.id.at.effect.clone(),
        key: letter.id.key.clone(),
        keys: letter.keys.clone(),
        since: letter.written,
        reason: Some(letter.reason.word().to_owned()),
        letters: 0,
        claim: None,
    })?;
    fields.insert("kind".to_owned(), Some(text("mark")));
    Ok(fields)
}

/// Who is redriving a mark's key.
pub(super) fn claim_field(
    claim: Option<&Claim>,
) -> anyhow::Result<(&'static str, Option<AttributeValue>)> {
    Ok(("claim", claim.map(to_map).transpose()?))
}

/// Whether a newer build wrote the row.
pub(super) fn is_newer(item: &Item) -> bool {
    let format = RowReader(item).number::<u32>("format");
    format.is_ok_and(|format| format > FORMAT)
}

/// Parses a row of a format that this build knows.
fn read<T: DeserializeOwned>(item: &Item) -> anyhow::Result<T> {
    let format: u32 = RowReader(item).number("format")?;
    if format > FORMAT {
        bail!(
            "it is written in format {format}, and this build reads up to {FORMAT}: update this program"
        );
    }
    // A letter's record has up to 300 KB, and is parsed separately.
    let attributes = item.inner().iter().filter(|(name, _)| *name != "record");
    let attributes = attributes.map(|(name, value)| (name.clone(), Some(value.clone())));
    from_row(to_item(attributes))
}

/// Parses a mark.
pub(super) fn mark(item: &Item) -> anyhow::Result<ParkedKey> {
    let row: MarkRow = read(item)?;
    Ok(ParkedKey {
        key: row.key,
        keys: row.keys,
        letters: row.letters,
        since: row.since,
        reason: row.reason.as_deref().and_then(Reason::from_word),
        claim: row.claim,
    })
}

/// Parses a letter without its record.
pub(super) fn envelope(item: &Item) -> anyhow::Result<Envelope> {
    let row: LetterRow = read(item)?;
    Ok(Envelope {
        id: LetterId {
            at: EffectTable::new(row.group_table, row.effect),
            key: row.key,
            label: row.shard.label().unwrap_or_default().into(),
            sequence_number: row.sequence_number,
        },
        keys: row.keys,
        event: row.event,
        created: UNIX_EPOCH + Duration::from_nanos(row.created_ns),
        shard: row.shard,
        reason: row.reason,
        attempts: row.attempts,
        written: row.written,
        open: row.closed.is_none(),
        deeds: row.deeds,
    })
}

/// The record in a letter's row: all of it, or the number of its parts.
pub(super) enum StoredBody<'a> {
    Whole(&'a str),
    Parts(usize),
}

/// Parses where the record is.
pub(super) fn body(item: &Item) -> anyhow::Result<StoredBody<'_>> {
    let reader = RowReader(item);
    Ok(match reader.text_if_any("record")? {
        Some(record) => StoredBody::Whole(record),
        None => StoredBody::Parts(reader.number("parts")?),
    })
}

/// Parses the record of a letter.
pub(super) fn record(body: &str, envelope: &Envelope) -> anyhow::Result<Record> {
    let event = serde_json::from_str(body).context("the record is not JSON")?;
    let record = lambda_event::read(&event)?.record;
    let created = envelope.created;
    Ok(Record { created, ..record })
}

/// A time with nanoseconds: a record's time is kept as it came. It fits until the year 2554.
fn nanos(value: SystemTime) -> u64 {
    u64::try_from(since_1970(value).as_nanos()).unwrap_or(u64::MAX)
}
