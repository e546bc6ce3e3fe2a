//! The key of a table, and an item's key in readable form.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_dynamo::{AttributeValue, Item};

/// A table's ARN and the attributes of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableKey {
    /// The table's ARN.
    pub arn: String,
    /// The partition key.
    pub partition: KeyAttribute,
    /// The sort key, if the table has one.
    pub sort: Option<KeyAttribute>,
}

/// An attribute of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: KeyKind,
}

/// The types that an attribute of a key can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// `S`
    Text,
    /// `N`
    Number,
    /// `B`, written in base64.
    Binary,
}

/// A text that is not the key of an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrongKey {
    /// The table has a sort key, and the text does not name both attributes.
    #[error(
        "{text:?} does not name an item: the table's key is {partition} and {sort}, so write {example}"
    )]
    Incomplete {
        /// What was written.
        text: String,
        /// The partition key's name.
        partition: String,
        /// The sort key's name.
        sort: String,
        /// What to write.
        example: String,
    },
    /// The value has another type than the attribute.
    #[error("{value:?} is not {wanted}, which the key attribute {name} holds")]
    Type {
        /// The attribute.
        name: String,
        /// What was written.
        value: String,
        /// What it must be.
        wanted: &'static str,
    },
}

impl KeyAttribute {
    fn value(&self, text: &str) -> Result<AttributeValue, WrongKey> {
        let wrong = |wanted| WrongKey::Type {
            name: self.name.clone(),
            value: text.to_owned(),
            wanted,
        };
        match self.kind {
            KeyKind::Text => Ok(AttributeValue::S(text.to_owned())),
            KeyKind::Number if text.parse::<f64>().is_ok_and(f64::is_finite) => {
                Ok(AttributeValue::N(text.to_owned()))
            }
            KeyKind::Number => Err(wrong("a number")),
            KeyKind::Binary => match STANDARD.decode(text) {
                Ok(bytes) => Ok(AttributeValue::B(bytes)),
                Err(_) => Err(wrong("base64")),
            },
        }
    }

    /// The text behind `<name>=`.
    fn behind<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix(&*self.name)?.strip_prefix('=')
    }
}

impl TableKey {
    /// Parses an item's key: `1042` or `id=1042` if the key is one attribute, else
    /// `PK=CUST#7,SK=ORDER#1` in either order.
    ///
    /// # Errors
    ///
    /// [`WrongKey`] says what to write.
    pub fn item(&self, text: &str) -> Result<Item, WrongKey> {
        let first = &self.partition;
        let Some(second) = &self.sort else {
            let value = first.behind(text).unwrap_or(text);
            return Ok(item([(first, first.value(value)?)]));
        };
        let split = |a: &KeyAttribute, b: &KeyAttribute| {
            let (a, b) = a.behind(text)?.split_once(&format!(",{}=", b.name))?;
            Some((a.to_owned(), b.to_owned()))
        };
        let swapped = || split(second, first).map(|(sort, partition)| (partition, sort));
        let Some((partition, sort)) = split(first, second).or_else(swapped) else {
            let value = first.behind(text).unwrap_or(text);
            return Err(WrongKey::Incomplete {
                text: text.to_owned(),
                partition: first.name.clone(),
                sort: second.name.clone(),
                example: format!("{}={value},{}=VALUE", first.name, second.name),
            });
        };
        Ok(item([
            (first, first.value(&partition)?),
            (second, second.value(&sort)?),
        ]))
    }
}

fn item<const N: usize>(parts: [(&KeyAttribute, AttributeValue); N]) -> Item {
    let parts = parts.map(|(attribute, value)| (attribute.name.clone(), value));
    Item::from(HashMap::from(parts))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::stores::dead_letter::key_in_words;

    fn attribute(name: &str, kind: KeyKind) -> KeyAttribute {
        KeyAttribute {
            name: name.to_owned(),
            kind,
        }
    }

    fn table(partition: KeyAttribute, sort: Option<KeyAttribute>) -> TableKey {
        TableKey {
            arn: "arn:aws:dynamodb:eu-central-1:1:table/orders".to_owned(),
            partition,
            sort,
        }
    }

    #[test]
    fn a_key_of_one_attribute_is_its_value_with_or_without_the_name() {
        let by_text = table(attribute("id", KeyKind::Text), None);
        let by_number = table(attribute("no", KeyKind::Number), None);
        for (table, text, value) in [
            (&by_text, "1042", AttributeValue::S("1042".to_owned())),
            (&by_text, "id=a=b", AttributeValue::S("a=b".to_owned())),
            (&by_number, "no=7", AttributeValue::N("7".to_owned())),
        ] {
            let keys = table.item(text).unwrap();
            assert_eq!(keys.inner().values().collect::<Vec<_>>(), [&value]);
        }
        let reported = by_number.item("seven").unwrap_err().to_string();
        assert_eq!(
            reported,
            "\"seven\" is not a number, which the key attribute no holds"
        );
    }

    #[test]
    fn a_key_of_two_attributes_names_both_and_an_incomplete_one_says_what_to_write() {
        let sort = attribute("SK", KeyKind::Text);
        let table = table(attribute("PK", KeyKind::Text), Some(sort));
        for text in ["PK=CUST#7,SK=ORDER#1", "SK=ORDER#1,PK=CUST#7"] {
            assert_eq!(
                key_in_words(&table.item(text).unwrap()),
                "PK=CUST#7,SK=ORDER#1"
            );
        }
        for text in ["CUST#7", "PK=CUST#7"] {
            let reported = table.item(text).unwrap_err().to_string();
            let expected = "the table's key is PK and SK, so write PK=CUST#7,SK=VALUE";
            assert!(reported.ends_with(expected), "{reported}");
        }
    }
}
