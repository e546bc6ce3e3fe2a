//! Reads and writes the attributes of a row, for the lease table and the ledger.
//!
//! Times are stored as milliseconds since 1970.

use std::time::SystemTime;

use serde_dynamo::{AttributeValue, Item};

use crate::core::millis::since_1970;

/// The attributes of a row to write; `None`: the row has no such attribute.
pub(crate) type Fields = Vec<(&'static str, Option<AttributeValue>)>;

/// The row with these attributes.
pub(crate) fn to_item<N: Into<String>>(
    fields: impl IntoIterator<Item = (N, Option<AttributeValue>)>,
) -> Item {
    let present = fields.into_iter();
    let present = present.filter_map(|(name, value)| Some((name.into(), value?)));
    present.collect::<std::collections::HashMap<_, _>>().into()
}

/// A text.
pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// The longest text in a row, in bytes. An item is limited to 400 KB, and the price of a write depends
/// on the size of the row.
pub(crate) const LONGEST: usize = 1000;

/// The beginning of a text of any length, such as an error, a name or a note: at most [`LONGEST`]
/// bytes. Every text from people or other programs passes through here into a row, so that no write can
/// fail because of its length.
pub(crate) fn cut(words: &str) -> &str {
    &words[..words.floor_char_boundary(LONGEST)]
}

/// A number.
pub(crate) fn number(value: impl Into<u128>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

/// A time in milliseconds. Times before 1970 are stored as 1970.
pub(crate) fn time(value: SystemTime) -> AttributeValue {
    number(since_1970(value).as_millis())
}

/// A time as a whole number of seconds, for DynamoDB's time to live.
pub(crate) fn seconds(value: SystemTime) -> AttributeValue {
    number(since_1970(value).as_secs())
}

/// A wrong attribute: its name, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not {expected}")]
pub(crate) struct Unexpected {
    name: &'static str,
    expected: &'static str,
}

/// Takes a row apart. An attribute of the wrong type is an error even if it is optional.
pub(crate) struct RowReader<'a>(pub(crate) &'a Item);

impl<'a> RowReader<'a> {
    fn attribute(&self, name: &str) -> Option<&'a AttributeValue> {
        self.0.inner().get(name)
    }

    /// A required text.
    pub(crate) fn text(&self, name: &'static str) -> Result<&'a str, Unexpected> {
        self.text_if_any(name)?.ok_or(Unexpected {
            name,
            expected: "there",
        })
    }

    /// An optional text.
    pub(crate) fn text_if_any(&self, name: &'static str) -> Result<Option<&'a str>, Unexpected> {
        match self.attribute(name) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(Unexpected {
                name,
                expected: "a text",
            }),
        }
    }

    /// A required whole number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Unexpected> {
        self.number_if_any(name)?.ok_or(Unexpected {
            name,
            expected: "there",
        })
    }

    /// An optional whole number.
    pub(crate) fn number_if_any<T: std::str::FromStr>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, Unexpected> {
        let wrong = Unexpected {
            name,
            expected: "a whole number in range",
        };
        match self.attribute(name) {
            None => Ok(None),
            Some(AttributeValue::N(digits)) => digits.parse().map(Some).map_err(|_| wrong),
            Some(_) => Err(wrong),
        }
    }

    /// A list, empty if missing.
    pub(crate) fn list(&self, name: &'static str) -> Result<&'a [AttributeValue], Unexpected> {
        match self.attribute(name) {
            None => Ok(&[]),
            Some(AttributeValue::L(list)) => Ok(list),
            Some(_) => Err(Unexpected {
                name,
                expected: "a list",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_between_two_characters() {
        assert_eq!(cut("short"), "short");
        // Three bytes each, so that byte 1,000 is inside of one.
        assert_eq!(cut(&"\u{20ac}".repeat(500)), "\u{20ac}".repeat(333));
    }
}
