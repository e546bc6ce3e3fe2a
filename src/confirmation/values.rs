//! An order as templates see it: plain values without DynamoDB's type letters.

use std::collections::{BTreeMap, HashMap};

use minijinja::value::Value;
use serde_dynamo::AttributeValue;

use super::decimal::Decimal;
use super::money::Money;
use super::order::{Order, OrderLine};

/// How many lines the mail lists. It shows the number of the others.
const LISTED_LINES: usize = 100;

/// What templates see only as the mapping read it, even if an attribute has the same name.
const READ: [&str; 7] = [
    "id", "email", "name", "total", "currency", "lines", "language",
];

/// The order for templates: every attribute of the item, overridden by what the mapping read. A value
/// that could not be read is missing, even if an attribute has its name.
pub(super) fn order(order: &Order) -> Value {
    let mut merged = attributes(order);
    for read in READ {
        merged.remove(read);
    }
    merged.extend(known(order));
    Value::from(merged)
}

/// The item for templates, as in the table.
pub(super) fn item(order: &Order) -> Value {
    match &order.item {
        Some(_) => Value::from(attributes(order)),
        None => Value::from(known(order)),
    }
}

fn attributes(order: &Order) -> BTreeMap<String, Value> {
    let item = order.item.as_ref();
    item.map(|item| plain_map(item.inner())).unwrap_or_default()
}

/// What the mapping read, under the names for templates.
fn known(order: &Order) -> BTreeMap<String, Value> {
    let money = |money: Option<Money>| money.map_or(Value::from(()), Value::from_object);
    let line = |line: &OrderLine| {
        Value::from(BTreeMap::from([
            ("name", Value::from(line.name.as_str())),
            ("quantity", line.quantity.map_or(Value::from(()), quantity)),
            ("unit_price", money(line.unit_price)),
            ("price", money(line.price)),
        ]))
    };
    let listed: Vec<_> = order.lines.iter().take(LISTED_LINES).map(line).collect();
    let more = match order.lines.len() {
        0 => 0,
        lines => lines.saturating_sub(LISTED_LINES) + order.lines_left_out,
    };
    let optional = [
        ("name", order.name.as_deref().map(Value::from)),
        ("total", order.total.map(Value::from_object)),
        (
            "currency",
            order.currency.map(|currency| Value::from(currency.code())),
        ),
        ("language", order.language.as_deref().map(Value::from)),
    ];
    let there = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let required = [
        ("id", Value::from(order.id.as_str())),
        ("email", Value::from(order.email.to_string())),
        ("lines", Value::from(listed)),
        ("more_lines", Value::from(more)),
    ];
    let all = required.into_iter().chain(there);
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A whole number as a number, any other number as text with all its digits.
fn quantity(quantity: Decimal) -> Value {
    match quantity.in_units(0) {
        Some(whole) => Value::from(whole),
        None => Value::from(quantity.to_string()),
    }
}

pub(super) fn plain_map(map: &HashMap<String, AttributeValue>) -> BTreeMap<String, Value> {
    map.iter()
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect()
}

/// An attribute without its type letter. A number that is not whole stays text, so that no digit is
/// lost. Sets are sorted, because they have no order and a mail must always render the same.
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
