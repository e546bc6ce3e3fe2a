//! An item in a file or in a flag, as plain JSON or as the AWS tools print it.

use std::path::Path;
use std::{fs, io};

use anyhow::Context as _;
use serde_dynamo::Item;
use serde_json::Value;

/// The text of a file, or of standard input for `-`.
pub fn read_text(path: &Path) -> io::Result<String> {
    if path.as_os_str() == "-" {
        return io::read_to_string(io::stdin());
    }
    fs::read_to_string(path)
}

/// The item in a file, as plain JSON or as the AWS tools print it.
pub fn read_item(path: &Path) -> anyhow::Result<Item> {
    let text = read_text(path)?;
    let value: Value = serde_json::from_str(&text).context("not valid JSON")?;
    item_of_json(unwrapped(value))
}

/// The item inside the JSON that the AWS tools print.
fn unwrapped(mut value: Value) -> Value {
    for path in ["/Item", "/dynamodb/NewImage", "/NewImage"] {
        if let Some(inner) = value.pointer_mut(path).filter(|inner| inner.is_object()) {
            return inner.take();
        }
    }
    value
}

/// An item from DynamoDB's JSON if every attribute has its type letter, else from plain JSON.
pub fn item_of_json(value: Value) -> anyhow::Result<Item> {
    const LETTERS: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"];
    let typed = |value: &Value| {
        value.as_object().is_some_and(|map| {
            map.len() == 1 && map.keys().all(|key| LETTERS.contains(&key.as_str()))
        })
    };
    let map = value
        .as_object()
        .context("not an order: expected a JSON object with the order's attributes")?;
    if !map.is_empty() && map.values().all(typed) {
        return serde_json::from_value(value).context("not valid DynamoDB JSON");
    }
    Ok(serde_dynamo::to_item(value)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_dynamo::AttributeValue as A;
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Item {
        item_of_json(unwrapped(value)).unwrap()
    }

    #[test]
    fn plain_and_dynamodb_json_are_told_apart() {
        let plain = read(json!({"id": "7", "total": 1999, "gift": true, "tags": ["a"]}));
        let typed = json!({"id": {"S": "7"}, "total": {"N": "1999"}, "gift": {"BOOL": true},
            "tags": {"L": [{"S": "a"}]}});
        assert_eq!(plain, read(typed.clone()));
        assert_eq!(plain, read(json!({"Item": typed})));
        assert_eq!(plain, read(json!({"dynamodb": {"NewImage": typed}})));
    }

    #[test]
    fn a_fraction_keeps_its_digits_for_the_message() {
        let item = read(json!({"total": 19.99}));
        assert_eq!(item.get("total"), Some(&A::N("19.99".to_owned())));
    }

    #[test]
    fn an_item_that_is_not_an_object_is_not_an_order() {
        for value in [json!([]), json!("order"), json!(null)] {
            assert!(item_of_json(unwrapped(value)).is_err());
        }
    }
}
