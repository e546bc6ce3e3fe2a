//! Dead letters: records that failed, kept with their images until they are redriven or discarded.
//!
//! Each effect has letters of its own. A letter *parks* its key: while a key has an open letter, later records of the key follow it into
//! the table, so that a redrive handles them in commit order. A key is parked exactly as long as it has
//! open letters, and both change in one transaction. So a shard task that adds a follower and an
//! operator who finishes the last letter cannot miss each other: either the follower is written in
//! time, or [`DeadLetters::follow`] returns that the key is free, and the record is handled like any
//! other.
//!
//! Only the owner of a shard parks its keys: a letter is written under the [`Fence`] of the shard's
//! lease. So a worker that lost its shard unnoticed cannot park a key whose record the new owner has
//! handled. Lambda has no leases and writes without a fence.
//!
//! A row that this build cannot read (a newer build wrote it, or it is damaged) affects only its own
//! key. The key stays parked, its records follow into the table, and the row is reported.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_dynamo::Item;

use crate::core::group::{EffectName, Group, GroupTable};
use crate::core::millis;
use crate::core::record::{Event, ItemKey, Record, SequenceNumber};
use crate::core::shard::ShardId;

pub mod dynamodb;
pub mod memory;
#[cfg(feature = "sqs")]
mod on_failure;
mod parked;
pub(crate) mod row;
#[cfg(feature = "sqs")]
pub mod sqs;

pub use crate::core::group::EffectTable;
pub use crate::core::record::key_in_words;
pub use crate::core::{Attempt, Attempts, Reason};
pub use crate::stores::rows::fence::Fence;
pub use parked::{Claim, ParkedKey, ParkedPage};

/// How long a letter is kept after it was redriven or discarded.
pub const KEPT_AFTER: Duration = Duration::from_hours(30 * 24);

/// What an operator or a worker did with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When it was done. Rows store milliseconds.
    #[serde(with = "millis")]
    pub at: SystemTime,
    /// Who did it.
    pub by: String,
    /// What was done.
    pub what: LetterOutcome,
    /// The reason.
    pub why: Option<String>,
}

/// How a letter was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterOutcome {
    /// It was handled.
    Redriven,
    /// It was given up.
    Discarded,
}

impl LetterOutcome {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }
}

/// Identifies a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// The effect that failed, its group, and the table that the record is from.
    pub at: EffectTable,
    /// The item's key.
    pub key: ItemKey,
    /// The label of the record's stream, or empty if unknown. With the sequence number it orders the
    /// letters of a key.
    pub label: Arc<str>,
    /// The record's position in its stream.
    pub sequence_number: SequenceNumber,
}

impl LetterId {
    /// The ARN of the record's stream, or of its table if the stream is unknown.
    pub fn stream(&self) -> Arc<str> {
        self.at
            .at
            .stream(Some(&*self.label).filter(|label| !label.is_empty()))
    }
}

/// A letter without its record.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Its identity.
    pub id: LetterId,
    /// The item's key attributes.
    pub keys: Item,
    /// What happened to the item.
    pub event: Event,
    /// When the change was committed.
    pub created: SystemTime,
    /// The shard that the record was read from.
    pub shard: ShardId,
    /// Why it is a dead letter.
    pub reason: Reason,
    /// The failed attempts.
    pub attempts: Attempts,
    /// When it was written.
    pub written: SystemTime,
    /// Whether it is still to be redriven or discarded.
    pub open: bool,
    /// What was done with it. A closed letter opens again if its record comes again and fails again.
    pub deeds: Vec<Deed>,
}

impl Envelope {
    /// The item's key in readable form: `id=1042`, or `shop=7,id=1042`.
    pub fn key_in_words(&self) -> String {
        key_in_words(&self.keys)
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// The letter without the record.
    pub envelope: Envelope,
    /// The record, with all its images.
    pub record: Record,
}

impl Letter {
    /// A letter to be written now.
    pub fn new(
        origin: (&EffectTable, &ShardId),
        record: Record,
        reason: Reason,
        attempts: Attempts,
        now: SystemTime,
    ) -> Self {
        let (at, shard) = origin;
        let id = LetterId {
            at: at.clone(),
            key: record.key(),
            label: shard.label().unwrap_or_default().into(),
            sequence_number: record.sequence_number.clone(),
        };
        let envelope = Envelope {
            id,
            keys: record.keys.clone(),
            event: record.event,
            created: record.created,
            shard: shard.clone(),
            reason,
            attempts,
            written: now,
            open: true,
            deeds: Vec::new(),
        };
        Self { envelope, record }
    }
}

/// Whether a letter parks its key or follows others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coming {
    /// It parks its key.
    First,
    /// It follows others: its key must be parked.
    Behind,
}

/// The result of writing a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The letter is in the table, from this write or an earlier one.
    Done,
    /// It was to follow others, but its key is not parked: nothing was written.
    KeyFree,
    /// Another worker holds the lease: nothing was written.
    LeaseLost,
}

/// Which letters to list. The default is all open letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only of this group.
    pub group: Option<Group>,
    /// Only of this effect.
    pub effect: Option<EffectName>,
    /// Only of the table with this ARN.
    pub table: Option<String>,
    /// Only with one of these reasons; empty: any.
    pub reasons: Vec<Reason>,
    /// Only of this key, as in [`Envelope::key_in_words`], or only its value if the key is one
    /// attribute.
    pub key: Option<String>,
    /// Only those written at this time or before.
    pub written_until: Option<SystemTime>,
    /// Also those that were redriven or discarded.
    pub closed_too: bool,
}

impl Selection {
    /// Whether a letter is selected.
    pub fn allows(&self, letter: &Envelope) -> bool {
        let key = |wanted: &String| {
            let words = letter.key_in_words();
            let value = words.split_once('=').map(|(_, value)| value);
            words == *wanted || (letter.keys.inner().len() == 1 && value == Some(wanted))
        };
        let EffectTable { at, effect } = &letter.id.at;
        self.group.as_ref().is_none_or(|group| group == at.group())
            && self.effect.as_ref().is_none_or(|wanted| wanted == effect)
            && self.table.as_ref().is_none_or(|table| table == at.table())
            && (self.reasons.is_empty() || self.reasons.contains(&letter.reason))
            && self.key.as_ref().is_none_or(key)
            && self
                .written_until
                .is_none_or(|until| letter.written <= until)
            && (letter.open || self.closed_too)
    }
}

/// A page of letters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LetterPage {
    /// The letters, without their records.
    pub letters: Vec<Envelope>,
    /// Rows that cannot be read, each with the problem and what to do.
    pub unreadable: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// The dead letters.
///
/// An `Err` of a write means that it is unknown whether it was applied: repeat it.
#[async_trait]
pub trait DeadLetters: fmt::Debug + Send + Sync + 'static {
    /// Writes a letter, if the fence's lease is still held. An open letter is kept as it is.
    async fn write(
        &self,
        letter: &Letter,
        coming: Coming,
        fence: Option<&Fence>,
    ) -> anyhow::Result<Written>;

    /// Writes a letter and parks its key, without a lease.
    async fn park(&self, letter: &Letter) -> anyhow::Result<()> {
        self.write(letter, Coming::First, None).await.map(|_| ())
    }

    /// Writes a letter behind those of its key, without a lease. `Ok(None)`: the key is not parked, and
    /// nothing was written.
    async fn follow(&self, letter: &Letter) -> anyhow::Result<Option<()>> {
        let written = self.write(letter, Coming::Behind, None).await?;
        Ok((written == Written::Done).then_some(()))
    }

    /// Sends a copy of a written letter, if copies are configured. An `Err` means that the copy may not
    /// have arrived. It was retried already: do not repeat it.
    async fn copy(&self, _: &Letter) -> anyhow::Result<()> {
        Ok(())
    }

    /// At most `limit` parked keys of an effect on a table, read consistently.
    async fn parked_page(
        &self,
        at: &EffectTable,
        from: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<ParkedPage>;

    /// All parked keys of an effect on a table. There can be very many. For operators.
    async fn parked(&self, at: &EffectTable) -> anyhow::Result<ParkedPage> {
        let mut all = ParkedPage::default();
        let mut from = None;
        loop {
            let page = self.parked_page(at, from.as_deref(), usize::MAX).await?;
            all.keys.extend(page.keys);
            all.unreadable.extend(page.unreadable);
            from = page.next;
            if from.is_none() {
                return Ok(all);
            }
        }
    }

    /// Whether a key is parked, read consistently. A key whose row cannot be read counts as parked.
    async fn is_parked(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool>;

    /// The oldest open letter of a key, read consistently.
    async fn next_of(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<Option<Letter>>;

    /// The oldest open letter of a key after this one, read consistently. A redrive so reads no
    /// finished letter again.
    async fn next_after(&self, id: &LetterId) -> anyhow::Result<Option<Letter>>;

    /// A letter, open or closed.
    async fn read(&self, id: &LetterId) -> anyhow::Result<Option<Letter>>;

    /// Finishes an open letter, and unparks its key if it was the last. `Ok(None)`: the letter is not
    /// open. A finished letter is kept for [`KEPT_AFTER`].
    async fn close(&self, id: &LetterId, deed: &Deed) -> anyhow::Result<Option<()>>;

    /// Adds an attempt to an open letter. `Ok(None)`: it is not open.
    async fn note(&self, id: &LetterId, attempt: &Attempt) -> anyhow::Result<Option<()>>;

    /// Claims a parked key for redriving until `claim.until`. Repeated, it extends the claim.
    /// `Ok(None)`: another process has claimed the key, or it is not parked.
    ///
    /// A crash leaves the claim behind: nobody redrives the key until it ends.
    async fn claim(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
    ) -> anyhow::Result<Option<()>>;

    /// Releases a claimed key, if the claim is still held. `because` is the reason why it waits from
    /// now on. A letter that failed is no longer redriven automatically.
    async fn release(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
        because: Option<Reason>,
    ) -> anyhow::Result<()>;

    /// Unparks a key without open letters, which happens only if somebody deleted letters. Returns
    /// whether the key is free now.
    async fn unpark_if_empty(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool>;

    /// All letters of a key, open and closed, effect by effect, oldest first and without their records,
    /// read consistently. Reads only the key's letters.
    async fn of_key(&self, at: &GroupTable, key: &ItemKey) -> anyhow::Result<Vec<Envelope>>;

    /// Lists letters in pages, in no particular order. Reads the whole table: for operators.
    async fn list(&self, which: &Selection, from: Option<&str>) -> anyhow::Result<LetterPage>;
}
