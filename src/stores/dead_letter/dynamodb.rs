//! Dead letters in a table. `row.rs` defines the rows.

mod parts;
mod write;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use serde_dynamo::{AttributeValue, Item};

use super::row::{self, FORMAT, ITEM, ROW};
use super::{
    Attempt, Claim, Coming, DeadLetters, Deed, Envelope, Fence, Letter, LetterId, LetterPage,
    ParkedKey, ParkedPage, Reason, Selection, Written,
};
use crate::core::group::{EffectTable, GroupTable};
use crate::core::record::ItemKey;
use crate::stores::rows::dynamodb::{Table, Write};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::{Fields, RowReader, number, text, to_item};
use crate::stores::rows::transaction::{Part, Transaction};

/// How often a write is tried when other writes interfere.
const TRIES: usize = 8;

/// Rows read at a time to find a key's oldest letter.
const AHEAD: i32 = 4;

/// The dead letters' table.
#[derive(Debug, Clone)]
pub struct DynamoDbDeadLetters {
    table: Table,
}

impl DynamoDbDeadLetters {
    /// The dead letters in `table`, which must exist
    /// ([`crate::stores::tables::dynamodb::create_dead_letter_table`]).
    pub fn new(client: Client, table: &str) -> Self {
        let table = Table::new(client, table);
        Self { table }
    }

    /// Applies all parts or none, and returns which.
    async fn applied(&self, parts: Vec<Part>) -> anyhow::Result<bool> {
        Ok(self.table.transact(parts).await? == Transaction::Applied)
    }

    /// Writes these fields of a mark, if nobody has claimed its key since it was read.
    async fn change_claim(
        &self,
        at: &EffectTable,
        read: &ParkedKey,
        fields: Fields,
    ) -> anyhow::Result<bool> {
        let (name, value) = row::claim_field(read.claim.as_ref())?;
        let unchanged = RowExpression::on_readable(FORMAT).when(name, value);
        let key = row::mark_key(at, &read.key);
        let written = self.table.update(key, &unchanged.write(fields)).await?;
        Ok(matches!(written, Write::Applied(_)))
    }

    /// The first open one of these letters, after a row or from the beginning.
    async fn first_open(
        &self,
        of: RowExpression,
        mut after: Option<Item>,
    ) -> anyhow::Result<Option<Letter>> {
        loop {
            let (rows, next) = self.table.query_page(&of, AHEAD, after).await?;
            for row in rows {
                if read(&row)?.open {
                    return self.letter(&row).await.map(Some);
                }
            }
            after = next;
            if after.is_none() {
                return Ok(None);
            }
        }
    }

    async fn row(&self, id: &LetterId) -> anyhow::Result<Option<Item>> {
        self.table.get(row::letter_key(id)).await
    }

    async fn standing(&self, id: &LetterId) -> anyhow::Result<Option<Envelope>> {
        let row = self.row(id).await?;
        row.map(|row| read(&row)).transpose()
    }

    async fn mark(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<Option<ParkedKey>> {
        let mark = self.table.get(row::mark_key(at, key)).await?;
        mark.map(|mark| read_mark(&mark)).transpose()
    }
}

fn read_mark(row: &Item) -> anyhow::Result<ParkedKey> {
    row::mark(row).with_context(|| {
        let mark = RowReader(row).text(ROW).unwrap_or_default();
        if row::is_newer(row) {
            format!("the mark {mark} of a parked key cannot be read")
        } else {
            format!(
                "the mark {mark} of a parked key is damaged (delete its row; redriving the key \
                 writes it again)"
            )
        }
    })
}

fn read(row: &Item) -> anyhow::Result<Envelope> {
    row::envelope(row).with_context(|| failed(row))
}

/// A letter for a listing, which skips letters that cannot be read.
fn listed(row: &Item) -> Option<Envelope> {
    match read(row) {
        Ok(letter) => Some(letter),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(%error, "skipping a dead letter that cannot be read");
            None
        }
    }
}

fn failed(row: &Item) -> String {
    let number = RowReader(row).text(ROW).unwrap_or_default();
    format!("the dead letter {number} cannot be read")
}

/// The mark with one open letter less, if it still has the same count as `mark`.
fn one_less(key: Fields, mark: Option<&ParkedKey>) -> Part {
    let Some(mark) = mark else {
        return Part::Demand(key, RowExpression::on_none(ITEM));
    };
    let seen = Some(number(mark.letters));
    let unchanged = RowExpression::on_readable(FORMAT).when("letters", seen);
    if mark.letters <= 1 {
        Part::Delete(key, unchanged)
    } else {
        Part::Update(key, unchanged.add("letters", -1))
    }
}

#[async_trait]
impl DeadLetters for DynamoDbDeadLetters {
    async fn write(
        &self,
        letter: &Letter,
        coming: Coming,
        fence: Option<&Fence>,
    ) -> anyhow::Result<Written> {
        self.write_letter(letter, coming, fence).await
    }

    async fn parked_page(
        &self,
        at: &EffectTable,
        from: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<ParkedPage> {
        let (of, after) = (row::marks(at), from.map(|from| row::mark_at(at, from)));
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let (rows, next) = self.table.query_page(&of, limit, after).await?;
        let mut page = ParkedPage::default();
        for row in &rows {
            match read_mark(row) {
                Ok(parked) => page.keys.push(parked),
                Err(error) => page.unreadable.push(format!("{error:#}")),
            }
        }
        let next = next.as_ref().map(|key| RowReader(key).text(ROW));
        page.next = next.transpose()?.map(str::to_owned);
        Ok(page)
    }

    async fn is_parked(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        Ok(self.table.get(row::mark_key(at, key)).await?.is_some())
    }

    async fn next_of(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<Option<Letter>> {
        self.first_open(row::effect_letters_of(at, key), None).await
    }

    async fn next_after(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let after = to_item(row::letter_key(id));
        let of = row::effect_letters_of(&id.at, &id.key);
        self.first_open(of, Some(after)).await
    }

    async fn read(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        match self.row(id).await? {
            Some(row) => self.letter(&row).await.map(Some),
            None => Ok(None),
        }
    }

    async fn close(&self, id: &LetterId, deed: &Deed) -> anyhow::Result<Option<()>> {
        for _ in 0..TRIES {
            let Some(row) = self.row(id).await? else {
                return Ok(None);
            };
            let standing = read(&row)?;
            if !standing.open {
                return Ok(None);
            }
            let mark = self.mark(&id.at, &id.key).await?;
            let open = RowExpression::on_readable(FORMAT).when("closed", None);
            let close = open.write(row::closing(&standing, deed)?);
            let mark_key = row::mark_key(&id.at, &id.key);
            let parts = vec![
                Part::Update(row::letter_key(id), close),
                one_less(mark_key, mark.as_ref()),
            ];
            if self.applied(parts).await? {
                if let Err(error) = self.expire_parts(&row, &standing, deed).await {
                    let error = format!("{error:#}");
                    tracing::warn!(%error, "cannot remove the parts of a finished dead letter: \
                     they stay in the table");
                }
                return Ok(Some(()));
            }
        }
        bail!(
            "cannot finish a dead letter: other processes changed its key {TRIES} times \
             meanwhile; try again"
        )
    }

    async fn note(&self, id: &LetterId, attempt: &Attempt) -> anyhow::Result<Option<()>> {
        for _ in 0..TRIES {
            let Some(standing) = self.standing(id).await?.filter(|letter| letter.open) else {
                return Ok(None);
            };
            let mut attempts = standing.attempts;
            let made = number(attempts.made());
            attempts.push(attempt.at, &attempt.error);
            let unchanged = RowExpression::on_readable(FORMAT)
                .when("closed", None)
                .when("attempts_made", Some(made));
            let change = unchanged.write(row::attempt_fields(&attempts)?);
            let written = self.table.update(row::letter_key(id), &change).await?;
            if matches!(written, Write::Applied(_)) {
                return Ok(Some(()));
            }
        }
        bail!(
            "cannot record an attempt: other processes changed the dead letter {TRIES} times \
             meanwhile"
        )
    }

    async fn claim(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
    ) -> anyhow::Result<Option<()>> {
        for _ in 0..TRIES {
            let Some(mark) = self.mark(at, key).await? else {
                // Somebody deleted the mark.
                let Some(letter) = self.next_of(at, key).await? else {
                    return Ok(None);
                };
                self.keep(&letter.envelope).await?;
                continue;
            };
            if !mark.is_free_for(claim) {
                return Ok(None);
            }
            let fields = vec![row::claim_field(Some(claim))?];
            if self.change_claim(at, &mark, fields).await? {
                return Ok(Some(()));
            }
        }
        bail!("cannot claim a parked key: other processes changed it {TRIES} times meanwhile")
    }

    async fn release(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
        because: Option<Reason>,
    ) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let mark = self.mark(at, key).await?;
            let mine = |mark: &ParkedKey| mark.claim.as_ref().is_some_and(|of| of.by == claim.by);
            let Some(mark) = mark.filter(mine) else {
                return Ok(());
            };
            let mut fields = vec![row::claim_field(None)?];
            if let Some(reason) = because {
                fields.push(("reason", Some(text(reason.word()))));
            }
            if self.change_claim(at, &mark, fields).await? {
                return Ok(());
            }
        }
        bail!("cannot release a parked key: other processes changed it {TRIES} times meanwhile")
    }

    async fn unpark_if_empty(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        // The mark first: a letter that comes after this read changes its count.
        let Some(mark) = self.mark(at, key).await? else {
            return Ok(true);
        };
        if self.next_of(at, key).await?.is_some() {
            return Ok(false);
        }
        let seen = Some(number(mark.letters));
        let unchanged = RowExpression::on_readable(FORMAT).when("letters", seen);
        let gone = self
            .table
            .delete(row::mark_key(at, key), &unchanged)
            .await?;
        Ok(matches!(gone, Write::Applied(_)))
    }

    async fn of_key(&self, at: &GroupTable, key: &ItemKey) -> anyhow::Result<Vec<Envelope>> {
        let of = row::letters_of(at, key);
        let rows = self.table.query(&of.only(row::OF_ENVELOPE), true).await?;
        Ok(rows.iter().filter_map(listed).collect())
    }

    async fn list(&self, which: &Selection, from: Option<&str>) -> anyhow::Result<LetterPage> {
        let mut filter = RowExpression::default().when("kind", Some(text("letter")));
        if !which.closed_too {
            filter = filter.when("closed", None);
        }
        let filter = filter.only(row::OF_ENVELOPE);
        let after = from.map(place).transpose()?;
        let (rows, next) = self.table.scan(&filter, after).await?;
        let mut page = LetterPage::default();
        for row in rows {
            match read(&row) {
                Ok(letter) if which.allows(&letter) => page.letters.push(letter),
                Ok(_) => {}
                Err(error) => page.unreadable.push(format!("{error:#}")),
            }
        }
        page.next = next.map(|key| {
            let part = |name| match key.get(name) {
                Some(AttributeValue::S(text)) => text.clone(),
                _ => String::new(),
            };
            serde_json::json!([part(ITEM), part(ROW)]).to_string()
        });
        Ok(page)
    }
}

/// Where a listing continues.
fn place(from: &str) -> anyhow::Result<Fields> {
    let place = serde_json::from_str(from);
    let (item, row): (String, String) = place.context("this is not a position to continue from")?;
    Ok(vec![(ITEM, Some(text(item))), (ROW, Some(text(row)))])
}
