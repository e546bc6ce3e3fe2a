//! Records that do not fit into their letter's row are stored in rows beside it.

use anyhow::Context as _;
use serde_dynamo::Item;

use super::{DynamoDbDeadLetters, failed, read};
use crate::stores::dead_letter::row::{self, StoredBody};
use crate::stores::dead_letter::{Deed, Envelope, Letter, LetterId};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::{RowReader, time};

impl DynamoDbDeadLetters {
    /// The letter of a row, with its record.
    pub(super) async fn letter(&self, row: &Item) -> anyhow::Result<Letter> {
        let envelope = read(row)?;
        let body = match row::body(row)? {
            StoredBody::Whole(body) => body.to_owned(),
            StoredBody::Parts(count) => self.pieces(&envelope.id, count).await?,
        };
        let record = row::record(&body, &envelope);
        let record = record.with_context(|| failed(row))?;
        Ok(Letter { envelope, record })
    }

    async fn pieces(&self, id: &LetterId, count: usize) -> anyhow::Result<String> {
        let mut body = String::new();
        for n in 0..count {
            let part = self.table.get(row::part_key(id, n)).await?;
            let part = part.with_context(|| {
                let number = &id.sequence_number;
                format!("part {n} of {count} of the dead letter {number} is missing")
            })?;
            body.push_str(RowReader(&part).text("piece")?);
        }
        Ok(body)
    }

    /// Removes the parts of a closed letter with it, unless the letter was written again since.
    pub(super) async fn expire_parts(
        &self,
        row: &Item,
        letter: &Envelope,
        deed: &Deed,
    ) -> anyhow::Result<()> {
        let StoredBody::Parts(count) = row::body(row)? else {
            return Ok(());
        };
        for n in 0..count {
            let expire = RowExpression::default()
                .when("written", Some(time(letter.written)))
                .write(vec![("expires", Some(row::expiry(deed)))]);
            self.table
                .update(row::part_key(&letter.id, n), &expire)
                .await?;
        }
        Ok(())
    }
}
