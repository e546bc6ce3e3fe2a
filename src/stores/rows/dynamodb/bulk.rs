//! Consistent reads of single rows, of which those of about the same time share a call.
//!
//! Source: [BatchGetItem](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html).

use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::types::KeysAndAttributes;
use futures_util::FutureExt as _;
use serde_dynamo::Item;

use super::{SdkItem, Table};
use crate::core::record::ItemKey;
use crate::stores::gather::{Callers, Gather, GatherLimits, GatherRequest};

/// The most keys in a call.
const MOST: usize = 100;

/// How many calls are made at a time.
const AT_ONCE: usize = 8;

/// What a call says about a row.
#[derive(Debug, Clone, PartialEq)]
enum BulkAnswer {
    /// The row, if there is one.
    Row(Option<Item>),
    /// Nothing: the row has to be read by itself.
    Unprocessed,
}

/// Reads single rows of a table. Clones share their calls.
#[derive(Clone)]
pub(crate) struct BulkReads {
    table: Table,
    gather: Gather<Item, BulkAnswer>,
}

impl BulkReads {
    /// A read waits so long for others to share its call.
    pub(crate) fn new(table: Table, wait: Duration) -> Self {
        let limits = GatherLimits {
            most: MOST,
            bytes: u64::MAX,
            wait,
            at_once: AT_ONCE,
        };
        let reading = table.clone();
        let serve = move |keys: Vec<Item>, callers: Callers<BulkAnswer>| {
            let table = reading.clone();
            async move { callers.answer(rows(&table, &keys).await) }.boxed()
        };
        Self {
            table,
            gather: Gather::new(limits, serve),
        }
    }

    /// Reads a row consistently. If the shared call fails, or leaves the row out, it is read by itself:
    /// one bad key must not fail the others, and an error is about its own row.
    pub(crate) async fn get_together(&self, key: Item) -> anyhow::Result<Option<Item>> {
        let request = GatherRequest {
            order: ItemKey::of(&key).as_str().into(),
            bytes: 0,
            what: key.clone(),
        };
        let answer = match self.gather.join(request).await {
            Some(answer) => answer.await.ok(),
            None => None,
        };
        match answer {
            Some(BulkAnswer::Row(row)) => Ok(row),
            Some(BulkAnswer::Unprocessed) | None => self.table.get_by(key).await,
        }
    }
}

impl fmt::Debug for BulkReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkReads")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// Reads the rows with these keys, which are sorted, in one call.
async fn rows(table: &Table, keys: &[Item]) -> Vec<BulkAnswer> {
    let all_unprocessed = || vec![BulkAnswer::Unprocessed; keys.len()];
    // DynamoDB rejects a call that names a key twice.
    let mut distinct = keys.to_vec();
    distinct.dedup();
    if distinct.len() == 1 {
        return all_unprocessed();
    }
    let asked = distinct.into_iter().map(SdkItem::from).collect();
    let asked = KeysAndAttributes::builder().set_keys(Some(asked));
    let Ok(asked) = asked.consistent_read(true).build() else {
        return all_unprocessed();
    };
    let call = table.client.batch_get_item();
    let Ok(answer) = call.request_items(&*table.name, asked).send().await else {
        return all_unprocessed();
    };
    let found = answer.responses.unwrap_or_default().into_values().flatten();
    let left_out = answer.unprocessed_keys.unwrap_or_default().into_values();
    let left_out = left_out.flat_map(|keys| keys.keys);
    answers(
        keys,
        &found.map(Item::from).collect::<Vec<_>>(),
        &left_out.map(Item::from).collect::<Vec<_>>(),
    )
}

/// What these rows say about each key. A row that no key leads to would make another key look as if it
/// had no row: then a key without a row is not trusted.
fn answers(keys: &[Item], found: &[Item], left_out: &[Item]) -> Vec<BulkAnswer> {
    let all_known = found.iter().all(|row| keys.iter().any(|key| has(row, key)));
    let answer = |key: &Item| match found.iter().find(|row| has(row, key)) {
        Some(row) => BulkAnswer::Row(Some(row.clone())),
        None if all_known && !left_out.contains(key) => BulkAnswer::Row(None),
        None => BulkAnswer::Unprocessed,
    };
    keys.iter().map(answer).collect()
}

/// Whether the row has these key attributes.
fn has(row: &Item, key: &Item) -> bool {
    let mut key = key.inner().iter();
    key.all(|(name, value)| row.inner().get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::HashMap;

    use serde_dynamo::AttributeValue;

    use super::*;

    fn item(number: &str) -> Item {
        let id = ("id".to_owned(), AttributeValue::N(number.to_owned()));
        HashMap::from([id]).into()
    }

    #[test]
    fn a_key_without_a_row_has_none_unless_it_was_left_out_or_a_row_is_of_no_key() {
        let keys = [item("1"), item("2"), item("3")];
        let row = |number| BulkAnswer::Row(Some(item(number)));
        let all = answers(&keys, &[item("3"), item("1")], &[]);
        assert_eq!(all, [row("1"), BulkAnswer::Row(None), row("3")]);
        let part = answers(&keys, &[item("3"), item("1")], &[item("2")]);
        assert_eq!(part, [row("1"), BulkAnswer::Unprocessed, row("3")]);
        let odd = answers(&keys, &[item("3"), item("1.0")], &[]);
        assert_eq!(
            odd,
            [BulkAnswer::Unprocessed, BulkAnswer::Unprocessed, row("3")]
        );
    }
}
