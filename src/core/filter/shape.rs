//! The fields that a stream record can have.

use super::subject::{CHANGE_FIELDS, EVENT_FIELDS};

/// What a stream's records can contain.
const VIEWS: [&str; 4] = ["KEYS_ONLY", "OLD_IMAGE", "NEW_IMAGE", "NEW_AND_OLD_IMAGES"];

/// The kind of value at a place in the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Event,
    Change,
    Identity,
    /// Attributes by name.
    Attributes,
    /// A value under its type letter.
    Typed,
    /// A plain value.
    Leaf,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text, or several.
    Text,
    /// True or false.
    Truth,
    /// A DynamoDB number.
    Digits,
}

impl Shape {
    /// What this field contains, or `None` if it never exists.
    pub(super) fn field(self, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::Event, "dynamodb") => Some(Self::Change),
            (Self::Event, "userIdentity") => Some(Self::Identity),
            (Self::Event, "eventName") => Some(Self::Word(&["INSERT", "MODIFY", "REMOVE"])),
            (Self::Event, "eventSource") => Some(Self::Word(&["aws:dynamodb"])),
            (Self::Event, name) => EVENT_FIELDS.contains(&name).then_some(Self::Leaf),
            (Self::Change, "Keys" | "NewImage" | "OldImage") | (Self::Typed, "M") => {
                Some(Self::Attributes)
            }
            (Self::Change, "StreamViewType") => Some(Self::Word(&VIEWS)),
            (Self::Change, name) => CHANGE_FIELDS.contains(&name).then_some(Self::Leaf),
            (Self::Identity, "type" | "principalId") => Some(Self::Leaf),
            (Self::Typed, "S" | "B" | "SS" | "BS") => Some(Self::Text),
            (Self::Typed, "BOOL" | "NULL") => Some(Self::Truth),
            (Self::Attributes, _) | (Self::Typed, "L") => Some(Self::Typed),
            (Self::Typed, "N" | "NS") => Some(Self::Digits),
            _ => None,
        }
    }

    pub(super) fn is_leaf(self) -> bool {
        matches!(
            self,
            Self::Leaf | Self::Word(_) | Self::Text | Self::Truth | Self::Digits
        )
    }

    /// Its fields, in words.
    pub(super) fn fields(self) -> String {
        match self {
            Self::Event => EVENT_FIELDS.join(", "),
            Self::Change => CHANGE_FIELDS.join(", "),
            Self::Identity => "type, principalId".to_owned(),
            Self::Attributes => "the item's attributes by name".to_owned(),
            Self::Typed => "a type letter: one of S, N, B, BOOL, NULL, M, L, SS, NS, BS".to_owned(),
            Self::Leaf | Self::Word(_) | Self::Text | Self::Truth | Self::Digits => {
                "no fields".to_owned()
            }
        }
    }
}
