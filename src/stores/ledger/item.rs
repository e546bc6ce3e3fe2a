//! How a row of the ledger names its item.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_dynamo::{AttributeValue, Item};
use serde_json::{Value, json};

use crate::core::claim::ItemRef;

/// The item with these key attributes in a table. `arn` is the ARN of the table or of one of its
/// streams.
pub fn item_ref(arn: &str, keys: &Item, recipient: Option<String>) -> ItemRef {
    let table = arn.split_once("/stream/").map_or(arn, |(table, _)| table);
    ItemRef {
        table: table.to_owned(),
        key: key_text(keys),
        recipient,
    }
}

/// Key attributes as DynamoDB JSON, sorted by name: equal for two items exactly if they are the same
/// item.
fn key_text(keys: &Item) -> String {
    let attributes = keys.inner().iter().map(|(name, value)| {
        let value = match value {
            AttributeValue::S(text) => json!({ "S": text }),
            AttributeValue::N(digits) => json!({ "N": digits }),
            AttributeValue::B(bytes) => json!({ "B": STANDARD.encode(bytes) }),
            // DynamoDB has no keys of other types.
            other => json!(format!("{other:?}")),
        };
        (name, value)
    });
    json!(attributes.collect::<BTreeMap<_, _>>()).to_string()
}

/// The key attributes that [`item_ref`] wrote; `None` for any other text.
pub fn item_keys(item: &ItemRef) -> Option<Item> {
    let attributes: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_str(&item.key).ok()?;
    let read = |value: BTreeMap<String, Value>| {
        let (kind, value) = value.into_iter().next()?;
        let text = value.as_str()?;
        match kind.as_str() {
            "S" => Some(AttributeValue::S(text.to_owned())),
            "N" => Some(AttributeValue::N(text.to_owned())),
            "B" => STANDARD.decode(text).ok().map(AttributeValue::B),
            _ => None,
        }
    };
    let keys: Option<std::collections::HashMap<_, _>> = attributes
        .into_iter()
        .map(|(name, value)| Some((name, read(value)?)))
        .collect();
    keys.map(Item::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_is_read_back_as_it_was() {
        let keys = std::collections::HashMap::from([
            ("sk".to_owned(), AttributeValue::N("7".to_owned())),
            ("pk".to_owned(), AttributeValue::S("CUST#\"1\"".to_owned())),
            ("raw".to_owned(), AttributeValue::B(vec![0, 255])),
        ]);
        let keys = Item::from(keys);
        let stream = "arn:aws:dynamodb:us-east-1:0:table/orders/stream/2026-01-01T00:00:00.000";
        let item = item_ref(stream, &keys, None);
        assert_eq!(item.table, "arn:aws:dynamodb:us-east-1:0:table/orders");
        assert!(
            item.key.starts_with(r#"{"pk":{"S":"CUST#\"1\""}"#),
            "{item}"
        );
        assert_eq!(item_keys(&item), Some(keys));
        let other = ItemRef {
            key: "no JSON".to_owned(),
            ..item
        };
        assert_eq!(item_keys(&other), None);
    }
}
