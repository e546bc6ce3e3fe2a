//! One committed change, as the stream reports it.

pub mod lambda_event;
mod memory;
mod trace;

pub use crate::core::{InvalidSequenceNumber, Position, SequenceNumber};
pub use trace::TRACEPARENT;

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_dynamo::{AttributeValue, Item};

/// What happened to the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Event {
    /// The item is new. Deleting and putting it again is a second `Insert`.
    Insert,
    /// The item changed. A write that changes nothing produces no record.
    Modify,
    /// The item was deleted, by a caller or by its time to live ([`Record::by_ttl`]).
    Remove,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
        })
    }
}

/// Which images the stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamView {
    /// Only the key attributes.
    KeysOnly,
    /// The item as it was before.
    OldImage,
    /// The item as it is now.
    NewImage,
    /// Both.
    NewAndOldImages,
}

impl StreamView {
    /// Parses the word in the stream's description, such as `NEW_AND_OLD_IMAGES`.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::KeysOnly,
            Self::OldImage,
            Self::NewImage,
            Self::NewAndOldImages,
        ]
        .into_iter()
        .find(|view| view.to_string() == word)
    }

    /// Whether records carry the item as it is after the change.
    pub fn has_new_image(self) -> bool {
        matches!(self, Self::NewImage | Self::NewAndOldImages)
    }
}

impl fmt::Display for StreamView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeysOnly => "KEYS_ONLY",
            Self::OldImage => "OLD_IMAGE",
            Self::NewImage => "NEW_IMAGE",
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        })
    }
}

/// One committed change to one item.
///
/// The stream holds each change once, and in commit order per item. This engine delivers it at least
/// once, and one record at a time per item.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The stream's own id for this record, unique within the stream.
    pub event_id: String,
    /// What happened.
    pub event: Event,
    /// The item's key attributes.
    pub keys: Item,
    /// The item after the change, if the view includes it.
    pub new_image: Option<Item>,
    /// The item before the change, if the view includes it.
    pub old_image: Option<Item>,
    /// The record's position in its shard.
    pub sequence_number: SequenceNumber,
    /// When the change was committed, by the server's clock, rounded down to the second. Not an
    /// order: use the sequence number.
    pub created: SystemTime,
    /// Which images the stream carries.
    pub view: StreamView,
    /// The record's size as the stream counts it, in bytes. [`Record::memory`] is its size in memory.
    pub size_bytes: u64,
    /// Whether this is a [`Event::Remove`] by DynamoDB's time to live. It is known only in the
    /// Region that performed the removal.
    ///
    /// Source: [TTL and streams](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-streams.html).
    pub by_ttl: bool,
}

impl Record {
    /// The item after the change, deserialised into your type.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the stream's view carries no new image, when the change is a removal,
    /// or when an attribute does not fit `T`.
    pub fn new_image<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.decode("new image", self.new_image.as_ref())
    }

    /// The item before the change, deserialised into your type.
    ///
    /// # Errors
    ///
    /// As [`Record::new_image`].
    pub fn old_image<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.decode("old image", self.old_image.as_ref())
    }

    fn decode<T: DeserializeOwned>(
        &self,
        what: &'static str,
        image: Option<&Item>,
    ) -> Result<T, DecodeError> {
        let Some(image) = image else {
            return Err(DecodeError::NoImage {
                what,
                event: self.event,
                view: self.view,
            });
        };
        let image = AttributeValue::M(image.inner().clone());
        let image = serde_dynamo::Deserializer::from_attribute_value(image);
        serde_path_to_error::deserialize(image).map_err(|error| DecodeError::Mismatch {
            what,
            item: key_in_words(&self.keys),
            field: error.path().to_string(),
            message: error.inner().to_string(),
        })
    }

    /// The item's key in one canonical form. It is equal for two records exactly if they are about the
    /// same item of the table. Records with the same key are handled one after another.
    pub fn key(&self) -> ItemKey {
        ItemKey::of(&self.keys)
    }
}

/// Key attributes in readable form: `id=1042`, or `id=1042,shop=7`. Only text, numbers and binary
/// values are shown.
pub fn key_in_words(keys: &Item) -> String {
    let mut parts: Vec<_> = keys.inner().iter().collect();
    parts.sort_by_key(|(name, _)| name.as_str());
    let parts = parts.into_iter().map(|(name, value)| match value {
        AttributeValue::S(text) | AttributeValue::N(text) => format!("{name}={text}"),
        AttributeValue::B(bytes) => format!("{name}={}", STANDARD.encode(bytes)),
        _ => format!("{name}=?"),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// Length-prefixed, so that two keys never result in the same text.
fn push_part(text: &mut String, part: &str) {
    text.push_str(&part.len().to_string());
    text.push(':');
    text.push_str(part);
}

/// The primary key of an item in one canonical form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ItemKey(std::sync::Arc<str>);

impl ItemKey {
    /// The key with these attributes.
    pub fn of(keys: &Item) -> Self {
        let mut attributes: Vec<_> = keys.inner().iter().collect();
        attributes.sort_by_key(|(name, _)| name.as_str());
        let mut text = String::new();
        for (name, value) in attributes {
            push_part(&mut text, name);
            match value {
                AttributeValue::S(s) => push_part(&mut text, &format!("S{s}")),
                AttributeValue::N(n) => push_part(&mut text, &format!("N{n}")),
                other => push_part(&mut text, &format!("{other:?}")),
            }
        }
        Self(text.into())
    }

    /// Parses what [`ItemKey::as_str`] returned.
    pub fn from_row(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// The canonical text. Stable across versions, because dead letters are keyed by it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for ItemKey {
    fn from(text: String) -> Self {
        Self::from_row(text)
    }
}

impl From<ItemKey> for String {
    fn from(key: ItemKey) -> Self {
        key.as_str().to_owned()
    }
}

/// Why an image could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The record has no such image.
    #[error("a {event} record of a {view} stream has no {what}")]
    NoImage {
        /// Which image was asked for.
        what: &'static str,
        /// The event of the record.
        event: Event,
        /// The view of the stream.
        view: StreamView,
    },
    /// An attribute does not fit the type.
    #[error("the {what} of {item} does not fit at {field}: {message}")]
    Mismatch {
        /// Which image was asked for.
        what: &'static str,
        /// The item's key, such as `id=1042`.
        item: String,
        /// Where, such as `lines[0].price`; `.` is the item itself.
        field: String,
        /// What did not fit, from the decoder.
        message: String,
    },
}
