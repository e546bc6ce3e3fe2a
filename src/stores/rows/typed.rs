//! A row as one struct, written and read by serde.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_dynamo::{AttributeValue, Item};

use super::fields::to_item;

/// The attributes of a row by name; `None`: the row has no such attribute.
pub(crate) type Attributes = BTreeMap<String, Option<AttributeValue>>;

/// The attributes for this struct, with those that it leaves out.
///
/// # Errors
///
/// The struct is not a map of attributes.
pub(crate) fn attributes<T: Serialize>(row: &T) -> anyhow::Result<Attributes> {
    let item: Item = serde_dynamo::to_item(row).context("a row cannot be written")?;
    Ok(item.into_inner().into_iter().map(present).collect())
}

/// The row for this struct. A field that is `None` or an empty list has no attribute, so it must be an
/// `Option` or have a default.
///
/// # Errors
///
/// The struct is not a map of attributes.
pub(crate) fn to_row<T: Serialize>(row: &T) -> anyhow::Result<Item> {
    Ok(to_item(attributes(row)?))
}

/// The attribute for this struct, as a map.
///
/// # Errors
///
/// The struct is not a map of attributes.
pub(crate) fn to_map<T: Serialize>(part: &T) -> anyhow::Result<AttributeValue> {
    Ok(AttributeValue::M(to_row(part)?.into_inner()))
}

/// The struct in a row.
///
/// # Errors
///
/// An error that names the attribute that does not fit.
pub(crate) fn from_row<T: DeserializeOwned>(row: Item) -> anyhow::Result<T> {
    let row = AttributeValue::M(row.into_inner());
    serde_path_to_error::deserialize(serde_dynamo::Deserializer::from_attribute_value(row))
        .map_err(anyhow::Error::from)
}

fn present((name, value): (String, AttributeValue)) -> (String, Option<AttributeValue>) {
    let value = match value {
        AttributeValue::Null(_) => None,
        AttributeValue::L(list) if list.is_empty() => None,
        AttributeValue::L(list) => Some(AttributeValue::L(list.into_iter().map(inner).collect())),
        other => Some(inner(other)),
    };
    (name, value)
}

/// A map within a row leaves out absent attributes, too.
fn inner(value: AttributeValue) -> AttributeValue {
    let AttributeValue::M(map) = value else {
        return value;
    };
    AttributeValue::M(to_item(map.into_iter().map(present)).into_inner())
}

/// Bytes. Without this type, serde would write a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(OfBytes)
    }
}

struct OfBytes;

impl Visitor<'_> for OfBytes {
    type Value = Bytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::core::millis::Millis;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        name: String,
        note: Option<String>,
        at: Option<Millis>,
        mail: Option<Bytes>,
        #[serde(default)]
        steps: Vec<Step>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Step {
        fence: u64,
        by: Option<String>,
    }

    fn row() -> Row {
        Row {
            name: "one".to_owned(),
            note: None,
            at: Some(Millis::try_from(1_780_000_000_123).unwrap()),
            mail: Some(Bytes(vec![0, 255])),
            steps: vec![Step {
                fence: u64::MAX,
                by: None,
            }],
        }
    }

    #[test]
    fn a_struct_is_read_back_as_it_was_written() {
        let item = to_row(&row()).unwrap();
        assert_eq!(item.get("note"), None);
        assert_eq!(
            item.get("at"),
            Some(&AttributeValue::N("1780000000123".to_owned()))
        );
        assert_eq!(item.get("mail"), Some(&AttributeValue::B(vec![0, 255])));
        assert_eq!(from_row::<Row>(item).unwrap(), row());
        let bare = Row {
            at: None,
            mail: None,
            steps: Vec::new(),
            ..row()
        };
        let item = to_row(&bare).unwrap();
        assert_eq!(item.inner().len(), 1);
        assert_eq!(from_row::<Row>(item).unwrap(), bare);
    }

    #[test]
    fn an_attribute_that_does_not_fit_is_named() {
        let mut item = to_row(&row()).unwrap().into_inner();
        let step = std::collections::HashMap::from([(
            "fence".to_owned(),
            AttributeValue::S("seven".to_owned()),
        )]);
        item.insert(
            "steps".to_owned(),
            AttributeValue::L(vec![AttributeValue::M(step)]),
        );
        let error = from_row::<Row>(item.into()).unwrap_err().to_string();
        assert!(error.starts_with("steps[0].fence: "), "{error}");
    }
}
