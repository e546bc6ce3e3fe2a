//! How an entry of the ledger is spelled: attribute names and values.
//!
//! An entry of one claim and its outcome stays well under 1 KB, so that each write costs one unit.

use std::time::Duration;

use serde_dynamo::{AttributeValue, Item};

use super::EffectKey;
use crate::decide::claim::{
    Attention, Claimant, Entry, History, ItemRef, Kept, State, Step, StepKind,
};
use crate::rows::fields::{
    Fields, Reader, Unexpected, binary, number, seconds, text, time, to_item, words,
};

/// The format version that this build writes into every row.
pub(super) const FORMAT: u32 = 1;

/// The partition key: the effect.
pub(crate) const EFFECT: &str = "effect";
/// The attribute after whose time DynamoDB may remove the row, in seconds since 1970.
pub(crate) const EXPIRES: &str = "expires";

/// Only a row that needs a person's attention has this attribute: why.
pub(crate) const ATTENTION: &str = "attention";
/// The mail that may have to be sent again, packed.
const MAIL: &str = "mail";
/// The index of the rows that have [`ATTENTION`].
pub(crate) const ATTENTION_INDEX: &str = "attention";

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is written in format {0}, and this build reads up to {FORMAT}: update this worker")]
    Newer(u32),
    #[error("the row is damaged: {0}")]
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
        (MAIL, entry.kept.as_ref().map(|kept| binary(&kept.0))),
        ("reply", entry.reply.as_deref().map(words)),
        ("ambiguities", Some(number(entry.ambiguities))),
        ("doubtful", fences(&entry.doubtful)),
        ("accepted", fences(&entry.accepted)),
        (
            "resends",
            entry.resends.then_some(AttributeValue::Bool(true)),
        ),
        (
            "released",
            entry.released.then_some(AttributeValue::Bool(true)),
        ),
        ("history", history(&entry.history)),
        ("history_left_out", left_out(&entry.history)),
        ("changed", Some(time(entry.changed))),
        (ATTENTION, entry.attention().map(attention)),
    ];
    fields.extend(claimant_fields(entry.claimant.as_ref()));
    fields.extend(item_fields(entry.item.as_ref()));
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

/// The value of [`ATTENTION`].
pub(super) fn attention(why: Attention) -> AttributeValue {
    text(why.word())
}

fn claimant_fields(claimant: Option<&Claimant>) -> Fields {
    vec![
        ("claimant", claimant.map(|by| text(&*by.incarnation))),
        ("nonce", claimant.map(|by| number(by.nonce))),
        ("deadline", claimant.map(|by| time(by.deadline))),
    ]
}

fn item_fields(item: Option<&ItemRef>) -> Fields {
    vec![
        ("item_table", item.map(|item| text(&*item.table))),
        ("item_key", item.map(|item| text(&*item.key))),
        (
            "recipient",
            item.and_then(|item| item.recipient.as_deref().map(text)),
        ),
    ]
}

fn left_out(history: &History) -> Option<AttributeValue> {
    (history.left_out() > 0).then(|| number(history.left_out()))
}

fn history(all: &History) -> Option<AttributeValue> {
    let steps = all.steps().iter().map(|step| {
        let fields = vec![
            ("at", Some(time(step.at))),
            ("what", Some(text(step.kind.word()))),
            ("fence", step.fence.map(number)),
            ("by", step.by.as_deref().map(text)),
            ("text", step.text.as_deref().map(text)),
        ];
        AttributeValue::M(to_item(fields).into_inner())
    });
    (!all.steps().is_empty()).then(|| AttributeValue::L(steps.collect()))
}

fn fences(all: &[u64]) -> Option<AttributeValue> {
    (!all.is_empty()).then(|| AttributeValue::L(all.iter().map(|fence| number(*fence)).collect()))
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
        item: item_ref(&reader)?,
        kept: reader
            .binary_if_any(MAIL)?
            .map(|bytes| Kept(bytes.to_vec())),
        reply: reader.text_if_any("reply")?.map(str::to_owned),
        ambiguities: reader.number("ambiguities")?,
        doubtful: read_fences(&reader, "doubtful")?,
        accepted: read_fences(&reader, "accepted")?,
        resends: matches!(item.get("resends"), Some(AttributeValue::Bool(true))),
        released: matches!(item.get("released"), Some(AttributeValue::Bool(true))),
        history: read_history(&reader)?,
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

fn item_ref(reader: &Reader) -> Result<Option<ItemRef>, Unfit> {
    let Some(key) = reader.text_if_any("item_key")? else {
        return Ok(None);
    };
    Ok(Some(ItemRef {
        table: reader.text("item_table")?.to_owned(),
        key: key.to_owned(),
        recipient: reader.text_if_any("recipient")?.map(str::to_owned),
    }))
}

fn read_history(reader: &Reader) -> Result<History, Unfit> {
    let steps: Result<Vec<_>, Unfit> = maps(reader, "history")?
        .iter()
        .map(|map| step(&Reader(map)))
        .collect();
    let left_out = reader.number_if_any("history_left_out")?;
    Ok(History::from_row(steps?, left_out.unwrap_or_default()))
}

fn step(reader: &Reader) -> Result<Step, Unfit> {
    let word = reader.text("what")?;
    let kind = StepKind::from_word(word)
        .ok_or_else(|| Unfit::Malformed(format!("{word:?} is not a step of the history")))?;
    Ok(Step {
        at: reader.time("at")?,
        kind,
        fence: reader.number_if_any("fence")?,
        by: reader.text_if_any("by")?.map(str::to_owned),
        text: reader.text_if_any("text")?.map(str::to_owned),
    })
}

/// A list of maps, empty if missing.
fn maps(reader: &Reader, name: &'static str) -> Result<Vec<Item>, Unfit> {
    let all = reader.list(name)?.iter();
    all.map(|one| match one {
        AttributeValue::M(map) => Ok(Item::from(map.clone())),
        _ => Err(Unfit::Malformed(format!(
            "{name:?} holds something other than maps"
        ))),
    })
    .collect()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::decide::claim::{Ask, Happened, Liveness, OnAmbiguous, Verdict, claim, transition};
    use crate::group::Effect;
    use std::time::SystemTime;

    /// As DynamoDB counts it: names and texts by their bytes, a number by its digits.
    fn size(value: &AttributeValue) -> usize {
        match value {
            AttributeValue::S(text) => text.len(),
            AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
            AttributeValue::B(bytes) => bytes.len(),
            AttributeValue::L(list) => 3 + list.iter().map(|one| 1 + size(one)).sum::<usize>(),
            AttributeValue::M(map) => {
                let entry =
                    |(name, value): (&String, &AttributeValue)| name.len() + 1 + size(value);
                3 + map.iter().map(entry).sum::<usize>()
            }
            _ => 1,
        }
    }

    fn row_size(entry: &Entry) -> usize {
        let key = EffectKey::new(&Effect::default(), &"7".repeat(36));
        let item = item(&key, entry, Duration::from_hours(24 * 400));
        let attribute = |(name, value): (&String, &AttributeValue)| name.len() + size(value);
        item.inner().iter().map(attribute).sum()
    }

    fn claimed(current: Option<&Entry>, nonce: u64) -> Entry {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let ask = Ask {
            claimant: Claimant {
                incarnation: "ip-10-0-12-34.eu-central-1.compute.internal-17/1a2b3c4d5e6f".into(),
                nonce,
                deadline: now + Duration::from_mins(20),
            },
            digest: Some("d".repeat(64)),
            item: Some(ItemRef {
                table: "arn:aws:dynamodb:eu-central-1:123456789012:table/shop-orders".into(),
                key: r#"{"PK":{"S":"CUST#123456"},"SK":{"S":"ORDER#12345678"}}"#.into(),
                recipient: Some("0123456789abcdef".into()),
            }),
            kept: None,
            abandoned: Vec::new(),
            policy: OnAmbiguous::Resend,
            comes_again: true,
            now,
        };
        match claim(current, &ask, Liveness::Dead) {
            Verdict::Claim(entry) => entry,
            verdict => panic!("{verdict:?}"),
        }
    }

    fn then(entry: &Entry, happened: &Happened) -> Entry {
        transition(Some(entry), happened, entry.changed).expect("it can happen")
    }

    #[test]
    fn a_claim_and_its_outcome_are_a_write_unit_each() {
        let claim = claimed(None, u64::MAX);
        let reply = "250 2.0.0 Ok: queued as 4XyzAbCdEf12345 [10.0.1.2]".to_owned();
        let sent = then(&claim, &Happened::Accepted { fence: 1, reply });
        for row in [claim, sent] {
            assert!(row_size(&row) <= 1_024, "{}: {}", row.state, row_size(&row));
        }
    }

    #[test]
    fn a_row_stays_small_however_often_the_effect_is_tried_and_whatever_the_server_says() {
        let mut row = claimed(None, 1);
        for fence in 1..500 {
            let reply = "450 später ".repeat(10_000);
            row = then(&row, &Happened::NotAccepted { fence, reply });
            row = claimed(Some(&row), fence + 1);
        }
        assert!(row_size(&row) < 40_000, "{}", row_size(&row));
    }
}
