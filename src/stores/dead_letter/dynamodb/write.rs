//! Writes a letter in one transaction over the letter, the mark of its key and the lease. Letters under
//! one lease share a transaction.

use anyhow::bail;
use serde_dynamo::{AttributeValue, Item};

use super::{DynamoDbDeadLetters, TRIES, failed};
use crate::core::group::EffectTable;
use crate::core::record::ItemKey;
use crate::stores::dead_letter::row::{self, FORMAT, ITEM};
use crate::stores::dead_letter::{
    Coming, DeadLetters as _, Envelope, Fence, Letter, LetterId, Written,
};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fence::Fenced;
use crate::stores::rows::fields::number;
use crate::stores::rows::transaction::{Part, Transaction};

/// Rows read at a time to count a key's open letters.
const COUNTED: i32 = 100;

/// The most bytes of a letter and its mark besides the record: the attempts with their errors, and the
/// key several times.
const BESIDE: usize = 40_000;

/// The row that has the letter's key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    Open,
    Closed,
    /// A row that cannot be read, and that no newer build wrote.
    Damaged,
}

impl Coming {
    /// What a letter changes in the mark of its key.
    fn mark(self, letter: &Envelope) -> anyhow::Result<Part> {
        let mark = match self {
            Self::First => RowExpression::on_readable_or_none(FORMAT)
                .when_none_or("letters")
                .write(vec![("format", Some(number(FORMAT)))])
                .fill_in(row::mark_fields(letter)?),
            Self::Behind => {
                RowExpression::on_readable(FORMAT).when_at_least("letters", number(1_u32))
            }
        };
        let key = row::mark_key(&letter.id.at, &letter.id.key);
        Ok(Part::Update(key, mark.add("letters", 1)))
    }
}

/// What a letter changes in a mark that this build cannot read. The key stays parked. Every format
/// counts open letters in `letters`. A mark that has lost its count stays unreadable, so that nobody
/// trusts a count of one.
fn foreign_mark(id: &LetterId, mark: &Item) -> Part {
    let key = row::mark_key(&id.at, &id.key);
    let there = RowExpression::on_any(ITEM);
    match mark.get("letters") {
        Some(AttributeValue::N(_)) => Part::Update(key, there.add("letters", 1)),
        _ => Part::Update(key, there.add("uncounted", 1)),
    }
}

/// The most bytes that a letter with these pieces takes, with its mark. Several pieces are stored in
/// rows of their own.
fn size(pieces: &[String]) -> usize {
    match pieces {
        [one] => BESIDE + one.len(),
        _ => BESIDE,
    }
}

impl DynamoDbDeadLetters {
    pub(super) async fn write_letter(
        &self,
        letter: &Letter,
        coming: Coming,
        fence: Option<&Fence>,
    ) -> anyhow::Result<Written> {
        let (envelope, id) = (&letter.envelope, &letter.envelope.id);
        let pieces = row::pieces(letter)?;
        if let [_, _, ..] = &*pieces {
            if self.there(id).await? == There::Open {
                return self.keep(envelope).await;
            }
            for (n, piece) in pieces.iter().enumerate() {
                let part = row::part(id, n, piece, envelope.written);
                self.table.put(part, &RowExpression::default()).await?;
            }
        }
        let (mut damaged, mut mark) = (false, coming.mark(envelope)?);
        for _ in 0..TRIES {
            let open_not = if damaged {
                RowExpression::unless_newer(FORMAT)
            } else {
                RowExpression::on_readable_or_none(FORMAT).when_none_or("closed")
            };
            let fields = row::letter_fields(letter, &pieces)?;
            let parts = vec![
                Part::Update(row::letter_key(id), open_not.write(fields)),
                mark.clone(),
            ];
            let written = match fence {
                Some(fence) => fence.write(&self.table, parts, size(&pieces)).await?,
                None => match self.table.transact(parts).await? {
                    Transaction::Applied => Fenced::Applied,
                    Transaction::Refused(_) => Fenced::Refused,
                },
            };
            match written {
                Fenced::Applied => return Ok(Written::Done),
                Fenced::LeaseLost => return Ok(Written::LeaseLost),
                Fenced::Refused => {}
            }
            damaged = match self.there(id).await? {
                There::Open => return self.keep(envelope).await,
                there => there == There::Damaged,
            };
            let standing = self.table.get(row::mark_key(&id.at, &id.key)).await?;
            mark = match standing {
                None if coming == Coming::Behind => return Ok(Written::KeyFree),
                Some(standing) if row::mark(&standing).is_err() => foreign_mark(id, &standing),
                _ => coming.mark(envelope)?,
            };
        }
        bail!("cannot write a dead letter: other processes changed its key {TRIES} times meanwhile")
    }

    /// Makes sure that the key of an open letter is parked. It is, unless somebody deleted its mark.
    pub(super) async fn keep(&self, letter: &Envelope) -> anyhow::Result<Written> {
        let (at, key) = (&letter.id.at, &letter.id.key);
        if !self.is_parked(at, key).await? {
            let open = self.count_open(at, key).await?;
            let counted = [
                ("format", Some(number(FORMAT))),
                ("letters", Some(number(open.max(1)))),
            ];
            let mark = RowExpression::on_none(ITEM)
                .write(row::mark_fields(letter)?)
                .write(counted);
            self.table.update(row::mark_key(at, key), &mark).await?;
        }
        Ok(Written::Done)
    }

    /// How many open letters a key has, including unreadable ones.
    async fn count_open(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<u64> {
        let of = row::effect_letters_of(at, key);
        let (mut open, mut after) = (0, None);
        loop {
            let (rows, next) = self.table.query_page(&of, COUNTED, after).await?;
            open += rows
                .iter()
                .filter(|row| row.get("closed").is_none())
                .count() as u64;
            after = next;
            if after.is_none() {
                return Ok(open);
            }
        }
    }

    /// The row that has the letter's key now.
    async fn there(&self, id: &LetterId) -> anyhow::Result<There> {
        let Some(row) = self.row(id).await? else {
            return Ok(There::Nothing);
        };
        match row::envelope(&row) {
            Ok(envelope) if envelope.open => Ok(There::Open),
            Ok(_) => Ok(There::Closed),
            // A newer build is processing this record.
            Err(_) if row::is_newer(&row) && row.get("closed").is_none() => Ok(There::Open),
            Err(error) if row::is_newer(&row) => Err(error.context(failed(&row))),
            Err(_) => Ok(There::Damaged),
        }
    }
}
