//! The ledger in DynamoDB: one row per effect, replaced under its revision.
//!
//! Rows have a time to live. DynamoDB removes them some time after it, typically within a few days, and
//! never before.
//!
//! Source: [Time to Live](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_dynamodb::Client;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_dynamo::Item;

use super::registration::{
    EffectRow, Registration, RegistrationRefused, RegistrationRow, RegistrationRows, TableEffects,
    effect_key, group_key, is_reserved,
};
use super::row::{self, ATTENTION, ATTENTION_INDEX, EFFECT, EXPIRES, FORMAT};
use super::{EffectKey, EntryPage, Ledger, Needed, Swap};
use crate::core::claim::{Attention, Entry, State};
use crate::core::group::Group;
use crate::stores::rows::dynamodb::{BulkReads, Table, Write};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::{RowReader, Unexpected, number, text, to_item};

/// Rows read at a time when the index names them.
const AT_A_TIME: usize = 16;

/// How long a read of an effect's row waits for others to share its call.
const TOGETHER: Duration = Duration::from_millis(1);

/// How often a registration is tried when other writes interfere.
const ROUNDS: u32 = 8;

/// The ledger's table.
#[derive(Debug, Clone)]
pub struct DynamoDbLedger {
    table: Table,
    /// For the rows of effects.
    reads: BulkReads,
    retention: Duration,
}

impl DynamoDbLedger {
    /// The ledger in `table`, which must exist
    /// ([`crate::stores::tables::dynamodb::create_ledger_table`]). A row may be removed `retention`
    /// after its last change: choose it longer than the stream's 24 hours and every replay. If another
    /// process has set a later time for a row, that time is kept.
    pub fn new(client: Client, table: &str, retention: Duration) -> Self {
        let table = Table::new(client, table);
        let reads = BulkReads::new(table.clone(), TOGETHER);
        Self {
            table,
            reads,
            retention,
        }
    }

    /// How many effects need a person's attention for this reason, from an index that contains only
    /// such rows. It may lag by a moment.
    ///
    /// # Errors
    ///
    /// Also if the table has no such index: [`crate::stores::tables::dynamodb::create_ledger_table`]
    /// adds it.
    pub async fn needing(&self, why: Attention) -> anyhow::Result<u64> {
        let these = RowExpression::default().when(ATTENTION, Some(row::attention(why)));
        self.table.count(ATTENTION_INDEX, &these).await
    }

    /// How many effects need a person's attention, by reason.
    ///
    /// # Errors
    ///
    /// As [`DynamoDbLedger::needing`].
    pub async fn attention(&self) -> anyhow::Result<Needed> {
        Ok(Needed {
            ambiguous: self.needing(Attention::Ambiguous).await?,
            resending: self.needing(Attention::Resending).await?,
            released: self.needing(Attention::Released).await?,
        })
    }

    /// A page of the effects that need a person's attention. It reads the index and not the whole
    /// table, and returns each row as it is now.
    ///
    /// # Errors
    ///
    /// As [`DynamoDbLedger::needing`].
    pub async fn list_needing(
        &self,
        why: Attention,
        from: Option<&str>,
    ) -> anyhow::Result<EntryPage> {
        let these = RowExpression::default().when(ATTENTION, Some(row::attention(why)));
        let after = from.map(|effect| {
            to_item(vec![
                (ATTENTION, Some(row::attention(why))),
                (EFFECT, Some(text(effect))),
            ])
        });
        let (keys, last) = self
            .table
            .index_page(ATTENTION_INDEX, &these, after)
            .await?;
        let keys: Result<Vec<_>, _> = keys.iter().map(row::key).collect();
        let rows = keys?.into_iter().map(|key| async move {
            let entry = Ledger::read(self, &key).await?;
            anyhow::Ok(entry.map(|entry| (key, entry)))
        });
        let rows: Vec<_> = futures_util::stream::iter(rows)
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        let last = last.map(|key| row::key(&key)).transpose()?;
        Ok(EntryPage {
            // The index lags behind the rows.
            entries: rows
                .into_iter()
                .flatten()
                .filter(|(_, entry)| entry.attention() == Some(why))
                .collect(),
            next: last.map(|key| key.to_string()),
        })
    }

    /// Registers a group for an effect, before it reads its first record.
    ///
    /// # Errors
    ///
    /// The ledger does not answer: repeat the call. The inner error says why the group must not start.
    pub async fn register(
        &self,
        registration: &Registration,
    ) -> anyhow::Result<Result<(), RegistrationRefused>> {
        let effect = effect_key(&registration.effect);
        let group = group_key(registration.of.group());
        for _ in 0..ROUNDS {
            let rows = RegistrationRows {
                effect: self
                    .row(&effect, EffectRow::read)
                    .await?
                    .unwrap_or_default(),
                group: self
                    .row(&group, RegistrationRow::read)
                    .await?
                    .unwrap_or_default(),
            };
            let next = match registration.over(&rows) {
                Ok(next) => next,
                Err(refused) => return Ok(Err(refused)),
            };
            let written = (rows.effect == next.effect
                || self
                    .replace(rows.effect.revision, next.effect.item(&effect, FORMAT))
                    .await?)
                && (rows.group == next.group
                    || self
                        .replace(rows.group.revision, next.group.item(&group, FORMAT))
                        .await?);
            if written {
                return Ok(Ok(()));
            }
        }
        bail!("the ledger's rows {effect} and {group} keep changing")
    }

    /// The effects that a group was started with, by the ARN of the table that it follows.
    ///
    /// # Errors
    ///
    /// The ledger does not answer.
    pub async fn effects_of(
        &self,
        group: &Group,
    ) -> anyhow::Result<BTreeMap<String, TableEffects>> {
        let row = self.row(&group_key(group), RegistrationRow::read).await?;
        Ok(row.unwrap_or_default().tables)
    }

    /// A row about groups.
    async fn row<T>(
        &self,
        key: &str,
        read: impl Fn(&Item) -> Result<T, Unexpected>,
    ) -> anyhow::Result<Option<T>> {
        let item = self.table.get(vec![(EFFECT, Some(text(key)))]).await?;
        let row = item.map(|item| read(&item)).transpose();
        row.with_context(|| format!("cannot read the ledger's row {key}"))
    }

    /// Replaces the row with this revision (0: no row). `false`: the row has another revision.
    async fn replace(&self, revision: u64, item: Item) -> anyhow::Result<bool> {
        let when = if revision == 0 {
            RowExpression::on_none(EFFECT)
        } else {
            RowExpression::on_readable(FORMAT).when("revision", Some(number(revision)))
        };
        let write = self.table.put(item, &when).await?;
        Ok(matches!(write, Write::Applied(_)))
    }

    /// Writes a row. `None`: it is written.
    async fn put(
        &self,
        key: &EffectKey,
        item: Item,
        when: &RowExpression,
    ) -> anyhow::Result<Option<SwapRefused>> {
        let item = match self.table.put(item, when).await? {
            Write::Applied(_) => return Ok(None),
            Write::Refused(old) => old,
        };
        let standing = item.as_ref().map(|item| read(key, item)).transpose()?;
        Ok(Some(SwapRefused { item, standing }))
    }
}

/// The row that prevented a write.
struct SwapRefused {
    item: Option<Item>,
    standing: Option<Entry>,
}

impl SwapRefused {
    /// The result of a swap that wanted to write this.
    fn against(self, written: &Entry) -> Swap {
        if self.standing.as_ref() == Some(written) {
            // An earlier attempt succeeded.
            return Swap::Written;
        }
        Swap::Lost(self.standing)
    }
}

fn read(key: &EffectKey, item: &Item) -> anyhow::Result<Entry> {
    row::entry(item).with_context(|| format!("cannot read the ledger's row {key}"))
}

impl Ledger for DynamoDbLedger {
    async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        let key_of_row = to_item(vec![(EFFECT, Some(text(key.as_str())))]);
        let item = self.reads.get_together(key_of_row).await?;
        item.map(|item| read(key, &item)).transpose()
    }

    async fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> anyhow::Result<Swap> {
        let item = row::item(key, entry, self.retention)?;
        // As it will be read back: rows store milliseconds.
        let written = read(key, &item)?;
        let Some(revision) = expected else {
            let refused = self.put(key, item, &RowExpression::on_none(EFFECT)).await?;
            return Ok(refused.map_or(Swap::Written, |refused| refused.against(&written)));
        };
        let it = RowExpression::on_readable(FORMAT).when("revision", Some(number(revision)));
        let no_sooner = match item.get(EXPIRES) {
            Some(expires) => it.clone().when_at_most(EXPIRES, expires.clone()),
            None => it.clone(),
        };
        let Some(refused) = self.put(key, item.clone(), &no_sooner).await? else {
            return Ok(Swap::Written);
        };
        let standing = refused.standing.as_ref();
        if standing.is_none_or(|standing| standing.revision != revision) {
            return Ok(refused.against(&written));
        }
        // Another process set a later time.
        let item = row::expiring_as(item, refused.item.as_ref());
        let refused = self.put(key, item, &it).await?;
        Ok(refused.map_or(Swap::Written, |refused| refused.against(&written)))
    }

    async fn list(&self, state: Option<State>, from: Option<&str>) -> anyhow::Result<EntryPage> {
        let filter = RowExpression::default();
        let filter = match state {
            Some(state) => filter.when("state", Some(text(state.word()))),
            None => filter,
        };
        let after = from.map(|effect| vec![(EFFECT, Some(text(effect)))]);
        let (items, last) = self.table.scan(&filter, after).await?;
        let mut page = EntryPage::default();
        for item in items {
            if RowReader(&item).text(EFFECT).is_ok_and(is_reserved) {
                continue;
            }
            match row::key(&item).and_then(|key| Ok((key, row::entry(&item)?))) {
                Ok(entry) => page.entries.push(entry),
                Err(why) => {
                    let effect = row::key(&item).map(|key| key.to_string());
                    let effect = effect.unwrap_or_default();
                    tracing::warn!(%effect, %why, "skipping a row of the ledger that cannot be \
                     read");
                }
            }
        }
        let last = last.map(|key| row::key(&key)).transpose()?;
        page.next = last.map(|key| key.to_string());
        Ok(page)
    }
}
