//! What templates see of an order: plain values without DynamoDB's type letters.

use std::collections::{BTreeMap, HashMap};

use lettre::Address;
use minijinja::value::Value;
use serde_dynamo::AttributeValue;

use super::money::Money;
use super::order::Line;

/// How many lines the mail lists; the rest is told as a number.
const LISTED_LINES: usize = 100;

/// What was checked, under the names that templates use.
pub(super) fn known(
    id: &str,
    email: &Address,
    name: Option<&str>,
    total: Money,
    lines: &[Line],
) -> BTreeMap<String, Value> {
    let money = |money: Option<Money>| money.map_or(Value::from(()), Value::from_object);
    let line = |line: &Line| {
        Value::from(BTreeMap::from([
            ("name", Value::from(line.name.as_str())),
            ("quantity", Value::from(line.quantity)),
            ("unit_price", money(line.unit_price)),
            ("price", money(line.price)),
        ]))
    };
    let listed: Vec<_> = lines.iter().take(LISTED_LINES).map(line).collect();
    let more = lines.len().saturating_sub(LISTED_LINES);
    BTreeMap::from([
        ("id".to_owned(), Value::from(id)),
        ("email".to_owned(), Value::from(email.to_string())),
        ("name".to_owned(), name.map_or(Value::from(()), Value::from)),
        ("total".to_owned(), Value::from_object(total)),
        ("lines".to_owned(), Value::from(listed)),
        ("more_lines".to_owned(), Value::from(more)),
    ])
}

pub(super) fn plain_map(map: &HashMap<String, AttributeValue>) -> BTreeMap<String, Value> {
    map.iter()
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect()
}

/// An attribute without its type letter. A number that is no whole one stays text, so that no
/// digit is lost; sets are sorted, because they have no order and a mail must render the same
/// again.
fn plain(value: &AttributeValue) -> Value {
    let number = |digits: &String| match digits.parse::<i128>() {
        Ok(whole) => Value::from(whole),
        Err(_) => Value::from(digits),
    };
    match value {
        AttributeValue::S(text) => Value::from(text),
        AttributeValue::N(digits) => number(digits),
        AttributeValue::Bool(truth) => Value::from(*truth),
        AttributeValue::Null(_) => Value::from(()),
        AttributeValue::B(bytes) => Value::from_bytes(bytes.clone()),
        AttributeValue::M(map) => Value::from(plain_map(map)),
        AttributeValue::L(list) => Value::from(list.iter().map(plain).collect::<Vec<_>>()),
        AttributeValue::Ss(set) => {
            let mut set = set.clone();
            set.sort();
            Value::from(set)
        }
        AttributeValue::Ns(set) => {
            let mut set = set.clone();
            set.sort_by(|a, b| (a.parse::<i128>().ok(), a).cmp(&(b.parse::<i128>().ok(), b)));
            Value::from(set.iter().map(number).collect::<Vec<_>>())
        }
        AttributeValue::Bs(set) => {
            let mut set = set.clone();
            set.sort();
            Value::from(set.into_iter().map(Value::from_bytes).collect::<Vec<_>>())
        }
    }
}
