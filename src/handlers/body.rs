//! What a call carries: the event of AWS Lambda, or plain JSON.

use serde_dynamo::{AttributeValue, Item};
use serde_json::{Map, Number, Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::core::millis::since_1970;
use crate::core::record::Record;
use crate::engine::handler::{Context, Failure};
use crate::handlers::event;

/// What the body of a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BodyFormat {
    /// The event that AWS Lambda hands to a function: `{"Records": [...]}`.
    #[default]
    Lambda,
    /// An object with `eventName`, `keys`, `newImage`, `oldImage` and others, whose attributes are plain
    /// JSON; an array of such objects where changes come in batches. A number that a double cannot hold
    /// is a string of its digits, and binary is base64.
    Json,
}

impl BodyFormat {
    /// One change, as the body has it.
    pub(super) fn change(self, record: &Record, context: &Context) -> Result<Value, Failure> {
        match self {
            Self::Lambda => event::record(record, context),
            Self::Json => Ok(plain_change(record, context)),
        }
    }

    /// The body with this change alone.
    pub(super) fn alone(self, change: Value) -> Vec<u8> {
        match self {
            Self::Lambda => self.several(vec![change]),
            Self::Json => change.to_string().into_bytes(),
        }
    }

    /// The body of a batch.
    pub(super) fn several(self, changes: Vec<Value>) -> Vec<u8> {
        let body = match self {
            Self::Lambda => json!({"Records": changes}),
            Self::Json => Value::Array(changes),
        };
        body.to_string().into_bytes()
    }
}

fn plain_change(record: &Record, context: &Context) -> Value {
    let image = |image: &Option<Item>| image.as_ref().map_or(Value::Null, plain_item);
    json!({
        "eventID": record.event_id,
        "eventName": record.event.to_string(),
        "eventSourceARN": context.stream(),
        "approximateCreationDateTime": since_1970(record.created).as_secs(),
        "sequenceNumber": record.sequence_number.as_str(),
        "keys": plain_item(&record.keys),
        "newImage": image(&record.new_image),
        "oldImage": image(&record.old_image),
        "byTimeToLive": record.by_ttl,
    })
}

fn plain_item(item: &Item) -> Value {
    plain_map(item.inner())
}

fn plain_map<'a>(map: impl IntoIterator<Item = (&'a String, &'a AttributeValue)>) -> Value {
    let members = map
        .into_iter()
        .map(|(name, value)| (name.clone(), plain(value)));
    Value::Object(members.collect::<Map<_, _>>())
}

/// An attribute without its type letter.
fn plain(value: &AttributeValue) -> Value {
    let bytes = |bytes: &Vec<u8>| Value::String(STANDARD.encode(bytes));
    match value {
        AttributeValue::S(text) => Value::String(text.clone()),
        AttributeValue::N(digits) => number(digits),
        AttributeValue::Bool(truth) => Value::Bool(*truth),
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::B(value) => bytes(value),
        AttributeValue::M(map) => plain_map(map),
        AttributeValue::L(list) => list.iter().map(plain).collect(),
        AttributeValue::Ss(set) => set.iter().cloned().collect(),
        AttributeValue::Ns(set) => set.iter().map(|digits| number(digits)).collect(),
        AttributeValue::Bs(set) => set.iter().map(bytes).collect(),
    }
}

/// A number, if every reader of JSON reads the same digits; else a string.
fn number(digits: &str) -> Value {
    // Up to here each whole number is a double of its own.
    const WHOLE: u64 = 1 << 53;
    if let Ok(whole) = digits.parse::<i64>() {
        return if whole.unsigned_abs() <= WHOLE {
            Value::from(whole)
        } else {
            Value::from(digits)
        };
    }
    let double = digits.parse::<f64>().ok();
    let exact = double.filter(|double| double.to_string() == digits);
    let number = exact.and_then(Number::from_f64);
    number.map_or_else(|| Value::from(digits), Value::Number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_number_that_a_double_cannot_hold_is_a_string() {
        for (digits, json) in [
            ("0", "0"),
            ("-12", "-12"),
            ("19.99", "19.99"),
            ("0.1", "0.1"),
            ("9007199254740992", "9007199254740992"),
            ("9007199254740993", "\"9007199254740993\""),
            ("1.00000000000000000001", "\"1.00000000000000000001\""),
            ("12345678901234567890123", "\"12345678901234567890123\""),
            ("1E+99", "\"1E+99\""),
        ] {
            assert_eq!(number(digits).to_string(), json);
        }
    }

    #[test]
    fn attributes_become_plain_json() {
        let all = [
            ("s", AttributeValue::S("ä\n".to_owned())),
            ("n", AttributeValue::N("7".to_owned())),
            ("b", AttributeValue::B(b"hi".to_vec())),
            ("none", AttributeValue::Null(true)),
            ("yes", AttributeValue::Bool(true)),
            ("ss", AttributeValue::Ss(vec!["x".to_owned()])),
            ("ns", AttributeValue::Ns(vec!["1.5".to_owned()])),
            ("bs", AttributeValue::Bs(vec![b"hi".to_vec()])),
            ("l", AttributeValue::L(vec![AttributeValue::Bool(false)])),
        ];
        let all = all.map(|(name, value)| (name.to_owned(), value));
        let map = std::collections::HashMap::from(all);
        let nested = std::collections::HashMap::from([("m".to_owned(), AttributeValue::M(map))]);
        let plain = plain_item(&nested.into());
        let expected = json!({"m": {"s": "ä\n", "n": 7, "b": "aGk=", "none": null, "yes": true,
            "ss": ["x"], "ns": [1.5], "bs": ["aGk="], "l": [false]}});
        assert_eq!(plain, expected);
    }
}
