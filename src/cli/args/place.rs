//! Where to find an order's item: its table and its key.

use crate::confirmation::expression::key_parts;
use crate::confirmation::mapping::Mapping;
use crate::core::claim::Entry;
use crate::stores::ledger::item_keys;
use crate::stores::tables::dynamodb::table_key;
use crate::stores::tables::key::TableKey;
use anyhow::Context as _;
use clap::Args;
use serde_dynamo::Item;

use crate::cli::args::item::item_of_json;
use crate::cli::fault::Fault;
use crate::cli::host::aws::Clients;

/// Where to find an order's item.
#[derive(Debug, Args)]
#[command(next_help_heading = "Orders")]
pub struct PlaceArgs {
    /// Table of the order (name or ARN). Not needed if the ledger knows the order
    #[arg(
        long,
        value_name = "TABLE",
        env = "AFTERCOMMIT_TABLE",
        value_delimiter = ','
    )]
    table: Vec<String>,
    /// Key of the order's item, such as PK=CUST#7,SK=ORDER#1042. Not needed if the order id alone is
    /// the key, or if the ledger knows the order
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// An item of a table.
#[derive(Debug, Clone)]
pub struct ItemLocation {
    /// The table's ARN.
    pub arn: String,
    /// The table's name in calls.
    pub table: String,
    /// The item's key.
    pub keys: Item,
}

impl PlaceArgs {
    /// The table from the flag, if it is set.
    pub fn table(&self) -> Option<&str> {
        match &*self.table {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The place of an order's item, or `None` if its table is unknown.
    ///
    /// `id` is the expression for an order's id, if known.
    pub async fn find(
        &self,
        clients: &Clients,
        (order, entry): (&str, Option<&Entry>),
        id: Option<&str>,
    ) -> Result<Option<ItemLocation>, Fault> {
        let known = entry.and_then(|entry| entry.item.as_ref());
        let known = known.filter(|item| self.key.is_none() && !item.table.is_empty());
        if let Some((item, keys)) = known.and_then(|item| Some((item, item_keys(item)?))) {
            return Ok(Some(ItemLocation {
                arn: item.table.clone(),
                table: self.name_of(&item.table),
                keys,
            }));
        }
        let table = match &*self.table {
            [] => return Ok(None),
            [one] => one,
            several => {
                return Err(Fault::wrong(format!(
                    "order {order} is not in the ledger, and it may be in any of the tables {}: name one \
                     with --table",
                    several.join(", ")
                )));
            }
        };
        let described = table_key(&clients.dynamodb, table).await;
        let described = described.map_err(Fault::setting)?;
        let keys = match &self.key {
            Some(text) => keys_of(&described, text)?,
            None => by_id(&described, order, id)?,
        };
        Ok(Some(ItemLocation {
            arn: described.arn,
            table: table.clone(),
            keys,
        }))
    }

    /// The table as the flags name it if they do, else its name from the ARN.
    fn name_of(&self, arn: &str) -> String {
        let name = arn.split_once(":table/").map_or(arn, |(_, name)| name);
        let named = self
            .table
            .iter()
            .find(|named| *named == arn || *named == name);
        named.map_or_else(|| name.to_owned(), Clone::clone)
    }
}

/// The key in a text: JSON or `PK=...,SK=...`.
pub fn keys_of(table: &TableKey, text: &str) -> Result<Item, Fault> {
    if text.starts_with('{') {
        let value = serde_json::from_str(text).context("not valid JSON");
        let item = value.and_then(item_of_json).context("--key");
        return item.map_err(Fault::Setting);
    }
    let item = table.item(text).context("--key");
    item.map_err(Fault::Setting)
}

/// The key of an order whose id is its complete key.
fn by_id(table: &TableKey, order: &str, id: Option<&str>) -> Result<Item, Fault> {
    let sort = table.sort.as_ref().map(|sort| &*sort.name);
    let partition = &table.partition.name;
    let whole = Mapping::key_expression(partition, sort);
    let parts = match sort {
        _ if id.is_some_and(|id| id != whole) => None,
        None => Some(vec![order.to_owned()]),
        Some(_) => key_parts(order),
    };
    let item = match (parts.as_deref(), sort) {
        (Some([value]), None) => Some(format!("{partition}={value}")),
        (Some([first, second]), Some(sort)) => Some(format!("{partition}={first},{sort}={second}")),
        _ => None,
    };
    if let Some(item) = item {
        return keys_of(table, &item);
    }
    let sort = sort.map_or_else(String::new, |sort| format!(",{sort}=VALUE"));
    Err(Fault::wrong(format!(
        "the order id is not the key of its item, and the ledger does not know the order: give \
         the key of its item as --key {partition}=VALUE{sort}"
    )))
}
