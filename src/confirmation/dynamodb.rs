//! Reads orders again from their table, and addresses from the suppression list, in DynamoDB.

use std::time::{Duration, SystemTime};

use anyhow::bail;
use aws_sdk_dynamodb::Client;
use lettre::Address;
use serde::{Deserialize, Serialize};
use serde_dynamo::Item;

use super::lookup::{Current, Lookup, address_hash};
use crate::core::millis;
use crate::stores::rows::dynamodb::{BulkReads, Table, Write};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::{RowReader, cut, text};
use crate::stores::rows::typed::{from_row, to_row};
use crate::stores::tables::dynamodb::ADDRESS;

/// How long a read waits for others to share its call: little beside the email that follows.
const TOGETHER: Duration = Duration::from_millis(5);

/// Reads the current order and the suppression list from DynamoDB.
#[derive(Debug, Clone, Default)]
pub struct DynamoDbLookup {
    orders: Option<BulkReads>,
    list: Option<SuppressionList>,
}

impl DynamoDbLookup {
    /// No look-ups yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads each order again from this table, with a consistent read: one read unit for each 4 KB. Orders
    /// that are wanted within 5 ms share a call.
    ///
    /// Source: [Read consistency](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.ReadConsistency.html).
    #[must_use]
    pub fn refetching(self, client: Client, table: &str) -> Self {
        let orders = Some(BulkReads::new(Table::new(client, table), TOGETHER));
        Self { orders, ..self }
    }

    /// Suppresses mail to the addresses on this list.
    #[must_use]
    pub fn sparing(self, list: SuppressionList) -> Self {
        let list = Some(list);
        Self { list, ..self }
    }
}

impl Lookup for DynamoDbLookup {
    async fn order(&self, keys: &Item) -> anyhow::Result<Current> {
        let Some(orders) = &self.orders else {
            return Ok(Current::AsRecorded);
        };
        let item = orders.get_together(keys.clone()).await?;
        Ok(item.map_or(Current::Gone, Current::Item))
    }

    async fn is_suppressed(&self, hash: &str) -> anyhow::Result<bool> {
        match &self.list {
            Some(list) => Ok(list.find(hash).await?.is_some()),
            None => Ok(false),
        }
    }
}

/// Addresses that must not be mailed, each by its [`address_hash`], in a table with the partition key
/// `address`.
#[derive(Debug, Clone)]
pub struct SuppressionList {
    table: Table,
}

/// An address on the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// The hash of the address.
    #[serde(rename = "address")]
    pub hash: String,
    /// Why it is on the list.
    pub reason: String,
    /// Since when. Rows store milliseconds.
    #[serde(with = "millis")]
    pub since: SystemTime,
}

impl SuppressionList {
    /// The list in `table`, which must exist
    /// ([`crate::stores::tables::dynamodb::create_suppression_table`]).
    pub fn new(client: Client, table: &str) -> Self {
        let table = Table::new(client, table);
        Self { table }
    }

    /// Adds an address to the list. `false`: it was on the list already, and its entry is unchanged.
    ///
    /// # Errors
    ///
    /// The table does not answer; repeating is safe.
    pub async fn add(
        &self,
        address: &Address,
        reason: &str,
        since: SystemTime,
    ) -> anyhow::Result<bool> {
        let item = to_row(&Suppressed {
            hash: address_hash(address),
            reason: cut(reason).to_owned(),
            since,
        })?;
        let write = self
            .table
            .put(item, &RowExpression::on_none(ADDRESS))
            .await?;
        Ok(matches!(write, Write::Applied(_)))
    }

    /// Removes an address from the list. Does nothing if it is not on it.
    ///
    /// # Errors
    ///
    /// The table does not answer; repeating is safe.
    pub async fn remove(&self, address: &Address) -> anyhow::Result<()> {
        let key = vec![(ADDRESS, Some(text(address_hash(address))))];
        match self.table.delete(key, &RowExpression::default()).await? {
            Write::Applied(_) => Ok(()),
            Write::Refused(_) => {
                bail!("the suppression list keeps changing: the address is still on it; try again")
            }
        }
    }

    /// A page of the list in no particular order, and where the next page begins. A damaged row is
    /// logged and left out; its address is still not mailed.
    ///
    /// # Errors
    ///
    /// The table does not answer.
    pub async fn page(
        &self,
        from: Option<&str>,
    ) -> anyhow::Result<(Vec<Suppressed>, Option<String>)> {
        let after = from.map(|hash| vec![(ADDRESS, Some(text(hash)))]);
        let (items, last) = self.table.scan(&RowExpression::default(), after).await?;
        let all = items.iter().filter_map(|item| {
            let read = from_row::<Suppressed>(item.clone());
            if let Err(error) = &read {
                // A value that is not a hash may be an address that a person typed.
                let row = RowReader(item).text(ADDRESS).unwrap_or_default();
                let is_hash = row.bytes().all(|byte| byte.is_ascii_hexdigit());
                let row = if is_hash { row } else { "no hash" };
                tracing::warn!(row, %error, "skipping a row of the suppression list that cannot \
                 be read");
            }
            read.ok()
        });
        let all = all.collect();
        let next = last.map(|key| RowReader(&key).text(ADDRESS).map(str::to_owned));
        Ok((all, next.transpose()?))
    }

    async fn find(&self, hash: &str) -> anyhow::Result<Option<Item>> {
        self.table.get(vec![(ADDRESS, Some(text(hash)))]).await
    }
}
