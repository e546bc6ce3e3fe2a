//! How an entry of the ledger is spelled: attribute names and values.
//!
//! An entry of one claim and its outcome stays well under 1 KB, so that each write costs one unit.

use std::collections::HashMap;
use std::time::Duration;

use serde_dynamo::{AttributeValue, Item};

use super::EffectKey;
use crate::decide::claim::{Claimant, Entry, SettledAs, Settlement, State};
use crate::rows::fields::{Fields, Reader, Unexpected, number, seconds, text, time, to_item};

/// The format version that this build writes into every row.
pub(super) const FORMAT: u32 = 1;

/// The partition key: the effect.
pub(crate) const EFFECT: &str = "effect";
/// The attribute after whose time DynamoDB may remove the row, in seconds since 1970.
pub(crate) const EXPIRES: &str = "expires";

/// Only a row that nobody can tell of has this attribute: the state's word.
pub(crate) const DOUBT: &str = "doubt";
/// The index of those rows.
pub(crate) const DOUBTS: &str = "doubts";

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it has format {0}, this build reads up to {FORMAT}: update this worker")]
    Newer(u32),
    #[error("it is damaged: {0}")]
    Malformed(String),
}

impl From<Unexpected> for Unfit {
    fn from(error: Unexpected) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The row that holds an entry. It may be removed `retention` after its last change.
pub(super) fn item(key: &EffectKey, entry: &Entry, retention: Duration) -> Item {
    let expires = entry.changed.checked_add(retention);
    let mut fields = vec![
        (EFFECT, Some(text(key.as_str()))),
        (EXPIRES, expires.map(seconds)),
        ("format", Some(number(FORMAT))),
        ("state", Some(text(entry.state.word()))),
        ("fence", Some(number(entry.fence))),
        ("revision", Some(number(entry.revision))),
        ("first_claimed", entry.first_claimed.map(time)),
        ("digest", entry.digest.as_deref().map(text)),
        ("reply", entry.reply.as_deref().map(text)),
        ("ambiguities", Some(number(entry.ambiguities))),
        ("doubtful", fences(&entry.doubtful)),
        ("accepted", fences(&entry.accepted)),
        ("settlements", settlements(&entry.settlements)),
        ("changed", Some(time(entry.changed))),
        (DOUBT, (entry.state == State::Ambiguous).then(in_doubt)),
    ];
    fields.extend(claimant_fields(entry.claimant.as_ref()));
    to_item(fields)
}

/// The same row, to be removed when the one that stands was to be.
pub(super) fn expiring_as(item: Item, standing: Option<&Item>) -> Item {
    let mut fields = item.into_inner();
    fields.remove(EXPIRES);
    let expires = standing.and_then(|item| item.get(EXPIRES));
    fields.extend(expires.map(|expires| (EXPIRES.to_owned(), expires.clone())));
    fields.into()
}

/// The value of [`DOUBT`].
pub(super) fn in_doubt() -> AttributeValue {
    text(State::Ambiguous.word())
}

fn claimant_fields(claimant: Option<&Claimant>) -> Fields {
    vec![
        ("claimant", claimant.map(|by| text(&*by.incarnation))),
        ("nonce", claimant.map(|by| number(by.nonce))),
        ("deadline", claimant.map(|by| time(by.deadline))),
    ]
}

fn fences(all: &[u64]) -> Option<AttributeValue> {
    (!all.is_empty()).then(|| AttributeValue::L(all.iter().map(|fence| number(*fence)).collect()))
}

fn settlements(all: &[Settlement]) -> Option<AttributeValue> {
    let maps = all.iter().map(|one| {
        let verdict = match one.verdict {
            SettledAs::Sent => "SENT",
            SettledAs::Resend => "RESEND",
        };
        let fields = vec![
            ("by", Some(text(&*one.by))),
            ("at", Some(time(one.at))),
            ("reason", Some(text(&*one.reason))),
            ("verdict", Some(text(verdict))),
        ];
        AttributeValue::M(to_item(fields).into_inner())
    });
    (!all.is_empty()).then(|| AttributeValue::L(maps.collect()))
}

/// Which effect a row is about.
pub(super) fn key(item: &Item) -> Result<EffectKey, Unfit> {
    Ok(EffectKey::from_row(Reader(item).text(EFFECT)?))
}

/// Reads an entry.
pub(super) fn entry(item: &Item) -> Result<Entry, Unfit> {
    let reader = Reader(item);
    let format = reader.number("format")?;
    if format > FORMAT {
        return Err(Unfit::Newer(format));
    }
    let word = reader.text("state")?;
    let state = State::from_word(word)
        .ok_or_else(|| Unfit::Malformed(format!("{word:?} is not a state")))?;
    Ok(Entry {
        state,
        fence: reader.number("fence")?,
        revision: reader.number("revision")?,
        claimant: claimant(&reader)?,
        first_claimed: reader.time_if_any("first_claimed")?,
        digest: reader.text_if_any("digest")?.map(str::to_owned),
        reply: reader.text_if_any("reply")?.map(str::to_owned),
        ambiguities: reader.number("ambiguities")?,
        doubtful: read_fences(&reader, "doubtful")?,
        accepted: read_fences(&reader, "accepted")?,
        settlements: read_settlements(&reader)?,
        changed: reader.time("changed")?,
    })
}

fn claimant(reader: &Reader) -> Result<Option<Claimant>, Unfit> {
    let Some(incarnation) = reader.text_if_any("claimant")? else {
        return Ok(None);
    };
    Ok(Some(Claimant {
        incarnation: incarnation.to_owned(),
        nonce: reader.number("nonce")?,
        deadline: reader.time("deadline")?,
    }))
}

fn read_fences(reader: &Reader, name: &'static str) -> Result<Vec<u64>, Unfit> {
    let all = reader.list(name)?.iter();
    all.map(|one| match one {
        AttributeValue::N(fence) => fence.parse().ok(),
        _ => None,
    })
    .map(|fence| fence.ok_or_else(|| Unfit::Malformed(format!("{name:?} holds what is no fence"))))
    .collect()
}

fn read_settlements(reader: &Reader) -> Result<Vec<Settlement>, Unfit> {
    let all = reader.list("settlements")?.iter();
    all.map(|one| match one {
        AttributeValue::M(map) => settlement(map),
        _ => Err(Unfit::Malformed("a settlement is not a map".to_owned())),
    })
    .collect()
}

fn settlement(map: &HashMap<String, AttributeValue>) -> Result<Settlement, Unfit> {
    let item = Item::from(map.clone());
    let reader = Reader(&item);
    Ok(Settlement {
        by: reader.text("by")?.to_owned(),
        at: reader.time("at")?,
        reason: reader.text("reason")?.to_owned(),
        verdict: match reader.text("verdict")? {
            "SENT" => SettledAs::Sent,
            "RESEND" => SettledAs::Resend,
            other => return Err(Unfit::Malformed(format!("{other:?} is not a verdict"))),
        },
    })
}
