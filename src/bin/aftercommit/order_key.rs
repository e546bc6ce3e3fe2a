//! Where an order stands in its table.

use aftercommit::confirmation::order::OrderFields;
use aftercommit::tables::dynamodb::TableStream;
use anyhow::Context as _;
use serde_dynamo::Item;

use crate::args::OrderArgs;
use crate::aws::Clients;
use crate::fault::Fault;
use crate::preview::item_of_json;

/// The key of the order's item in a table, and where it keeps what. The key as JSON is needed where it
/// is not the order's id alone.
pub async fn find(
    clients: &Clients,
    order: &str,
    (table, key): (&str, Option<&str>),
    names: &OrderArgs,
) -> Result<(Item, OrderFields), Fault> {
    if let (Some(text), Some(fields)) = (key, names.named()) {
        return Ok((key_of(text)?, fields));
    }
    let found = TableStream::resolve(&clients.dynamodb, table).await;
    let found = found.map_err(Fault::setting)?;
    let fields = names.with_default_id(&found.partition_key);
    if let Some(text) = key {
        return Ok((key_of(text)?, fields));
    }
    if found.sort_key.is_some() || fields.id_attribute != found.partition_key {
        return Err(Fault::wrong(format!(
            "the key of table {table} is not the order's id alone: give the key of the order's item \
             with --key, as JSON"
        )));
    }
    let id = serde_json::json!({ found.partition_key: order });
    let keys = serde_dynamo::to_item(id).map_err(Fault::setting)?;
    Ok((keys, fields))
}

fn key_of(text: &str) -> Result<Item, Fault> {
    let value = serde_json::from_str(text).context("this is no JSON");
    let item = value.and_then(item_of_json).context("--key");
    item.map_err(Fault::Setting)
}
