//! One table, with conditional writes that return the row when they are refused.
//!
//! Source: [ReturnValuesOnConditionCheckFailure](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html#DDB-UpdateItem-request-ReturnValuesOnConditionCheckFailure).

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure, Select,
};
use serde_dynamo::Item;

use super::again::{PASSING, Passing, repeated};
use super::expression::RowExpression;
use super::fields::{Fields, to_item};
use super::transaction::{Part, Transaction};
use crate::stores::aws_error::AwsError;

mod bulk;
mod parts;

pub(crate) use bulk::BulkReads;
use parts::in_sdk;

type SdkItem = HashMap<String, AttributeValue>;

#[derive(Debug, Clone)]
pub(crate) struct Table {
    client: Client,
    name: Arc<str>,
}

#[derive(Debug, Clone, Copy, Default)]
struct QueryOf<'a> {
    /// An index of the table; `None`: the table itself.
    index: Option<&'a str>,
    limit: Option<i32>,
    /// Whether the read is consistent, which an index cannot do.
    strong: bool,
}

/// How a conditional write ended. An error means that it is unknown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// It was applied. The row as it is now; a put or a delete does not return it.
    Applied(Option<Item>),
    /// The condition failed. The row as it is, if there is one.
    Refused(Option<Item>),
}

impl Table {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        let name = name.into();
        Self { client, name }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> anyhow::Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.failed_on(None, error)
    }

    fn failed_on<E>(&self, index: Option<&str>, error: &SdkError<E, HttpResponse>) -> anyhow::Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let index = index.map_or_else(String::new, |index| format!(", index {index}"));
        let at = format!("table {}{index}", self.name);
        AwsError::new(error).on(at).into()
    }

    /// A failed write of one row: refused by its condition, with the row as it is, or an error. A
    /// transaction in progress on the row refuses it as well, temporarily.
    fn refusal<E>(
        &self,
        error: &SdkError<E, HttpResponse>,
        refused: impl FnOnce(&E) -> Option<&ConditionalCheckFailedException>,
    ) -> anyhow::Result<Write>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        if let Some(refused) = error.as_service_error().and_then(refused) {
            let row = refused.item().cloned();
            return Ok(Write::Refused(row.map(Item::from)));
        }
        Err(match error.code() {
            Some("TransactionConflictException") => self.failed(error).context(Passing),
            _ => self.failed(error),
        })
    }

    /// Reads a row consistently.
    pub(crate) async fn get(&self, key: Fields) -> anyhow::Result<Option<Item>> {
        self.get_by(to_item(key)).await
    }

    /// Reads a row consistently, by a key whose attributes can have any names.
    pub(crate) async fn get_by(&self, key: Item) -> anyhow::Result<Option<Item>> {
        let get = self.client.get_item().table_name(&*self.name);
        let get = get.set_key(Some(key.into())).consistent_read(true);
        let answer = get.send().await.map_err(|error| self.failed(&error))?;
        Ok(answer.item.map(Item::from))
    }

    /// Reads all rows that match the key condition, over all pages.
    pub(crate) async fn query(
        &self,
        of: &RowExpression,
        strong: bool,
    ) -> anyhow::Result<Vec<Item>> {
        let from = QueryOf {
            strong,
            ..QueryOf::default()
        };
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self.page(of, from, after).await?;
            items.extend(page);
            after = next;
            if after.is_none() {
                return Ok(items);
            }
        }
    }

    /// Reads one page of at most `limit` rows that match the key condition, consistently. Also returns
    /// where the next page begins.
    pub(crate) async fn query_page(
        &self,
        of: &RowExpression,
        limit: i32,
        after: Option<Item>,
    ) -> anyhow::Result<(Vec<Item>, Option<Item>)> {
        let from = QueryOf {
            limit: Some(limit),
            strong: true,
            ..QueryOf::default()
        };
        self.page(of, from, after).await
    }

    /// Reads one page of an index, of the rows that match the key condition. Also returns where the
    /// next page begins. An index lags behind its table.
    pub(crate) async fn index_page(
        &self,
        index: &str,
        of: &RowExpression,
        after: Option<Item>,
    ) -> anyhow::Result<(Vec<Item>, Option<Item>)> {
        let from = QueryOf {
            index: Some(index),
            ..QueryOf::default()
        };
        self.page(of, from, after).await
    }

    async fn page(
        &self,
        of: &RowExpression,
        from: QueryOf<'_>,
        after: Option<Item>,
    ) -> anyhow::Result<(Vec<Item>, Option<Item>)> {
        let query = self.client.query().table_name(&*self.name);
        let page = query
            .set_index_name(from.index.map(str::to_owned))
            .set_limit(from.limit)
            .consistent_read(from.strong)
            .set_key_condition_expression(of.condition())
            .set_projection_expression(of.projection())
            .set_expression_attribute_names(names(of))
            .set_expression_attribute_values(values(of))
            .set_exclusive_start_key(after.map(SdkItem::from))
            .send()
            .await
            .map_err(|error| self.failed_on(from.index, &error))?;
        Ok(read(page.items, page.last_evaluated_key))
    }

    /// Counts the rows of an index that match the key condition, over all pages.
    pub(crate) async fn count(&self, index: &str, of: &RowExpression) -> anyhow::Result<u64> {
        let (mut count, mut after) = (0, None);
        loop {
            let query = self.client.query().table_name(&*self.name);
            let page = query
                .index_name(index)
                .select(Select::Count)
                .set_key_condition_expression(of.condition())
                .set_expression_attribute_names(names(of))
                .set_expression_attribute_values(values(of))
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| self.failed_on(Some(index), &error))?;
            count += u64::try_from(page.count).unwrap_or(0);
            after = page.last_evaluated_key;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Reads one page of the whole table, of the rows that match the expression. Also returns where the
    /// next page begins.
    pub(crate) async fn scan(
        &self,
        filter: &RowExpression,
        after: Option<Fields>,
    ) -> anyhow::Result<(Vec<Item>, Option<Item>)> {
        let scan = self.client.scan().table_name(&*self.name);
        let page = scan
            .set_filter_expression(filter.condition())
            .set_projection_expression(filter.projection())
            .set_expression_attribute_names(names(filter))
            .set_expression_attribute_values(values(filter))
            .set_exclusive_start_key(after.map(attributes))
            .send()
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(read(page.items, page.last_evaluated_key))
    }

    pub(crate) async fn update(&self, key: Fields, how: &RowExpression) -> anyhow::Result<Write> {
        repeated(|| self.try_update(key.clone(), how)).await
    }

    async fn try_update(&self, key: Fields, how: &RowExpression) -> anyhow::Result<Write> {
        let update = self.client.update_item().table_name(&*self.name);
        let answer = update
            .set_key(Some(attributes(key)))
            .set_update_expression(how.update())
            .set_condition_expression(how.condition())
            .set_expression_attribute_names(names(how))
            .set_expression_attribute_values(values(how))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let error = match answer {
            Ok(answer) => return Ok(Write::Applied(answer.attributes.map(Item::from))),
            Err(error) => error,
        };
        self.refusal(&error, |error| match error {
            UpdateItemError::ConditionalCheckFailedException(refused) => Some(refused),
            _ => None,
        })
    }

    pub(crate) async fn put(&self, item: Item, when: &RowExpression) -> anyhow::Result<Write> {
        repeated(|| self.try_put(item.clone(), when)).await
    }

    async fn try_put(&self, item: Item, when: &RowExpression) -> anyhow::Result<Write> {
        let put = self.client.put_item().table_name(&*self.name);
        let answer = put
            .set_item(Some(item.into()))
            .set_condition_expression(when.condition())
            .set_expression_attribute_names(names(when))
            .set_expression_attribute_values(values(when))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = answer else {
            return Ok(Write::Applied(None));
        };
        self.refusal(&error, |error| match error {
            PutItemError::ConditionalCheckFailedException(refused) => Some(refused),
            _ => None,
        })
    }

    pub(crate) async fn delete(&self, key: Fields, when: &RowExpression) -> anyhow::Result<Write> {
        repeated(|| self.try_delete(key.clone(), when)).await
    }

    async fn try_delete(&self, key: Fields, when: &RowExpression) -> anyhow::Result<Write> {
        let delete = self.client.delete_item().table_name(&*self.name);
        let answer = delete
            .set_key(Some(attributes(key)))
            .set_condition_expression(when.condition())
            .set_expression_attribute_names(names(when))
            .set_expression_attribute_values(values(when))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = answer else {
            return Ok(Write::Applied(None));
        };
        self.refusal(&error, |error| match error {
            DeleteItemError::ConditionalCheckFailedException(refused) => Some(refused),
            _ => None,
        })
    }

    /// Applies all parts or none; at most 100 parts.
    ///
    /// Source: [TransactWriteItems](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html).
    pub(crate) async fn transact(&self, parts: Vec<Part>) -> anyhow::Result<Transaction> {
        repeated(|| self.try_transact(parts.clone())).await
    }

    async fn try_transact(&self, parts: Vec<Part>) -> anyhow::Result<Transaction> {
        let parts = parts.into_iter().map(|part| in_sdk(part, &self.name));
        let parts: Result<Vec<_>, _> = parts.collect();
        let call = self.client.transact_write_items();
        let Err(error) = call.set_transact_items(Some(parts?)).send().await else {
            return Ok(Transaction::Applied);
        };
        if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        {
            let reasons = cancelled.cancellation_reasons().iter();
            let failed = reasons.map(|reason| reason.code() == Some("ConditionalCheckFailed"));
            let failed: Vec<_> = failed.collect();
            if failed.contains(&true) {
                return Ok(Transaction::Refused(failed));
            }
            let mut reasons = cancelled.cancellation_reasons().iter();
            if reasons.any(|reason| reason.code().is_some_and(|code| PASSING.contains(&code))) {
                return Err(self.failed(&error).context(Passing));
            }
        }
        Err(self.failed(&error))
    }
}

/// A page of rows, and where the next page begins.
fn read(page: Option<Vec<SdkItem>>, last: Option<SdkItem>) -> (Vec<Item>, Option<Item>) {
    let items = page.unwrap_or_default().into_iter();
    (items.map(Item::from).collect(), last.map(Item::from))
}

fn attributes(fields: Fields) -> SdkItem {
    to_item(fields).into()
}

/// DynamoDB rejects an empty map where the map can be left out.
fn names(expression: &RowExpression) -> Option<HashMap<String, String>> {
    let names = expression.names.clone();
    (!names.is_empty()).then(|| names.into_iter().collect())
}

fn values(expression: &RowExpression) -> Option<SdkItem> {
    let values = expression.values.clone().into_iter();
    let values: SdkItem = values.map(|(name, value)| (name, value.into())).collect();
    (!values.is_empty()).then_some(values)
}
