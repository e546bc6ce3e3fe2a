//! How an entry of the ledger is stored: attribute names and values.
//!
//! An entry with one claim and its outcome stays well below 1 KB, so that each write costs one unit.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_dynamo::{AttributeValue, Item};

use super::EffectKey;
use crate::core::claim::{
    Attention, Claimant, Entry, History, ItemRef, Kept, State, Step, StepKind,
};
use crate::core::millis::{Millis, since_1970};
use crate::stores::rows::fields::{RowReader, Unexpected, cut, text};
use crate::stores::rows::typed::{Bytes, from_row, to_row};

/// The format version that this build writes into every row.
pub(super) const FORMAT: u32 = 1;

/// The partition key: the effect.
pub(crate) const EFFECT: &str = "effect";
/// The time to live: the time in seconds since 1970 after which DynamoDB may remove the row.
pub(crate) const EXPIRES: &str = "expires";

/// The reason for attention. Only a row that needs a person's attention has this attribute.
pub(crate) const ATTENTION: &str = "attention";
/// The index of the rows that have [`ATTENTION`].
pub(crate) const ATTENTION_INDEX: &str = "attention";

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnfitEntry {
    #[error("it is written in format {0}, and this build reads up to {FORMAT}: update this worker")]
    Newer(u32),
    #[error("the row is damaged: {0:#}")]
    Malformed(anyhow::Error),
}

impl From<Unexpected> for UnfitEntry {
    fn from(error: Unexpected) -> Self {
        Self::Malformed(error.into())
    }
}

/// A row, attribute by attribute.
#[derive(Serialize, Deserialize)]
struct Row {
    effect: String,
    format: u32,
    expires: Option<u64>,
    state: String,
    fence: u64,
    revision: u64,
    claimant: Option<String>,
    nonce: Option<u64>,
    deadline: Option<Millis>,
    first_claimed: Option<Millis>,
    digest: Option<String>,
    item_table: Option<String>,
    item_key: Option<String>,
    recipient: Option<String>,
    mail: Option<Bytes>,
    reply: Option<String>,
    ambiguities: u32,
    #[serde(default)]
    doubtful: Vec<u64>,
    #[serde(default)]
    accepted: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    one_effect: Vec<u64>,
    resends: Option<bool>,
    released: Option<bool>,
    #[serde(default)]
    history: Vec<StepRow>,
    history_left_out: Option<u64>,
    changed: Millis,
    attention: Option<String>,
}

/// A step of the history.
#[derive(Serialize, Deserialize)]
struct StepRow {
    at: Millis,
    what: String,
    fence: Option<u64>,
    by: Option<String>,
    text: Option<String>,
}

/// The row for an entry. It may be removed `retention` after its last change.
pub(super) fn item(key: &EffectKey, entry: &Entry, retention: Duration) -> anyhow::Result<Item> {
    let (claimant, item) = (entry.claimant.as_ref(), entry.item.as_ref());
    let left_out = entry.history.left_out();
    to_row(&Row {
        effect: key.as_str().to_owned(),
        format: FORMAT,
        expires: entry.changed.checked_add(retention).map(seconds),
        state: entry.state.word().to_owned(),
        fence: entry.fence,
        revision: entry.revision,
        claimant: claimant.map(|by| by.incarnation.clone()),
        nonce: claimant.map(|by| by.nonce),
        deadline: claimant.map(|by| Millis(by.deadline)),
        first_claimed: entry.first_claimed.map(Millis),
        digest: entry.digest.clone(),
        item_table: item.map(|item| item.table.clone()),
        item_key: item.map(|item| item.key.clone()),
        recipient: item.and_then(|item| item.recipient.clone()),
        mail: entry.kept.as_ref().map(|kept| Bytes(kept.0.clone())),
        reply: entry.reply.as_deref().map(cut).map(str::to_owned),
        ambiguities: entry.ambiguities,
        doubtful: entry.doubtful.clone(),
        accepted: entry.accepted.clone(),
        one_effect: entry.one_effect.clone(),
        resends: entry.resends.then_some(true),
        released: entry.released.then_some(true),
        history: entry.history.steps().iter().map(StepRow::of).collect(),
        history_left_out: (left_out > 0).then_some(left_out),
        changed: Millis(entry.changed),
        attention: entry.attention().map(|why| why.word().to_owned()),
    })
}

/// In the unit of DynamoDB's time to live.
fn seconds(time: SystemTime) -> u64 {
    since_1970(time).as_secs()
}

/// The same row, with the removal time of the present row.
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

/// The effect that a row is about.
pub(super) fn key(item: &Item) -> Result<EffectKey, UnfitEntry> {
    Ok(EffectKey::from_row(RowReader(item).text(EFFECT)?))
}

/// Parses an entry.
pub(super) fn entry(item: &Item) -> Result<Entry, UnfitEntry> {
    // Another format may have other attributes.
    let format = RowReader(item).number("format")?;
    if format > FORMAT {
        return Err(UnfitEntry::Newer(format));
    }
    let row: Row = from_row(item.clone()).map_err(UnfitEntry::Malformed)?;
    row.entry().map_err(UnfitEntry::Malformed)
}

impl Row {
    fn entry(self) -> anyhow::Result<Entry> {
        let state = State::from_word(&self.state)
            .with_context(|| format!("{:?} is not a state", self.state))?;
        let claimant = match self.claimant {
            None => None,
            Some(incarnation) => Some(Claimant {
                incarnation,
                nonce: self.nonce.context("nonce is missing")?,
                deadline: self.deadline.context("deadline is missing")?.0,
            }),
        };
        let item = match self.item_key {
            None => None,
            Some(key) => Some(ItemRef {
                table: self.item_table.context("item_table is missing")?,
                key,
                recipient: self.recipient,
            }),
        };
        let steps: anyhow::Result<Vec<_>> = self.history.into_iter().map(StepRow::step).collect();
        Ok(Entry {
            state,
            fence: self.fence,
            revision: self.revision,
            claimant,
            first_claimed: self.first_claimed.map(|time| time.0),
            digest: self.digest,
            item,
            kept: self.mail.map(|mail| Kept(mail.0)),
            reply: self.reply,
            ambiguities: self.ambiguities,
            doubtful: self.doubtful,
            accepted: self.accepted,
            one_effect: self.one_effect,
            resends: self.resends.unwrap_or_default(),
            released: self.released.unwrap_or_default(),
            history: History::from_row(steps?, self.history_left_out.unwrap_or_default()),
            changed: self.changed.0,
        })
    }
}

impl StepRow {
    fn of(step: &Step) -> Self {
        Self {
            at: Millis(step.at),
            what: step.kind.word().to_owned(),
            fence: step.fence,
            by: step.by.clone(),
            text: step.text.clone(),
        }
    }

    fn step(self) -> anyhow::Result<Step> {
        let kind = StepKind::from_word(&self.what)
            .with_context(|| format!("{:?} is not a step of the history", self.what))?;
        Ok(Step {
            at: self.at.0,
            kind,
            fence: self.fence,
            by: self.by,
            text: self.text,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::core::claim::{Ask, Happened, Liveness, OnAmbiguous, Verdict, claim, transition};
    use crate::core::group::EffectName;

    /// The size as DynamoDB counts it: names and texts by their bytes, a number by its digits.
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
        let key = EffectKey::new(&EffectName::default(), &"7".repeat(36));
        let item = item(&key, entry, Duration::from_hours(24 * 400)).unwrap();
        let attribute = |(name, value): (&String, &AttributeValue)| name.len() + size(value);
        item.inner().iter().map(attribute).sum()
    }

    fn claimed(current: Option<&Entry>, nonce: u64) -> Entry {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let claimant = Claimant {
            incarnation: "ip-10-0-12-34.eu-central-1.compute.internal-17/1a2b3c4d5e6f".into(),
            nonce,
            deadline: now + Duration::from_mins(20),
        };
        let ask = Ask {
            digest: Some("d".repeat(64)),
            item: Some(ItemRef {
                table: "arn:aws:dynamodb:eu-central-1:123456789012:table/shop-orders".into(),
                key: r#"{"PK":{"S":"CUST#123456"},"SK":{"S":"ORDER#12345678"}}"#.into(),
                recipient: Some("0123456789abcdef".into()),
            }),
            comes_again: true,
            ..Ask::new(claimant, OnAmbiguous::Resend, now)
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
