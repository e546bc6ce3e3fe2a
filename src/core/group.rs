//! Groups, effects, and the settings that decide which record becomes which effect.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name of a group or an effect, in bytes.
const LONGEST_NAME: usize = 64;

/// The default name of a group and of an effect.
pub const DEFAULT_NAME: &str = "confirmation";

/// A name that cannot be part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid name: use 1 to {LONGEST_NAME} ASCII letters, digits, dots, hyphens and \
     underscores"
)]
pub struct InvalidName(String);

/// Names are joined with `#` and `|` in keys, so neither may contain them.
fn checked(name: &str) -> Result<Arc<str>, InvalidName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name.into());
    }
    Err(InvalidName(name.to_owned()))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the name: 1 to 64 ASCII letters, digits, dots, hyphens and underscores.
            ///
            /// # Errors
            ///
            /// [`InvalidName`].
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                checked(name).map(Self)
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self(DEFAULT_NAME.into())
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// One application's place on a table's streams. Two groups on one table never see each other's
    /// leases, dead letters or effects. `confirmation` by default.
    Group
}

name! {
    /// The name of an effect, the first part of every effect key. `confirmation` by default.
    EffectName
}

impl Serialize for EffectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EffectName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// A group on a table: the partition of its leases and dead letters, `<group>#<table ARN>`.
///
/// The table is named by its ARN, so that tables of one name in two accounts or Regions never
/// collide. A stream's ARN is accepted as well: its label is cut off, because a group outlives the
/// streams of its table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupTable {
    group: Group,
    table: Arc<str>,
}

impl GroupTable {
    /// The group on the table with this ARN, or on the table of the stream with this ARN.
    pub fn new(group: Group, arn: &str) -> Self {
        let table = arn.split_once("/stream/").map_or(arn, |(table, _)| table);
        Self {
            group,
            table: table.into(),
        }
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The table's ARN.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The table's name, if the ARN contains one.
    pub fn table_name(&self) -> &str {
        let named = self.table.split_once(":table/");
        named.map_or(&*self.table, |(_, name)| name)
    }

    /// The ARN of the table's stream with this label, or of the table itself without a label.
    pub fn stream(&self, label: Option<&str>) -> Arc<str> {
        match label {
            Some(label) => format!("{}/stream/{label}", self.table).into(),
            None => self.table.clone(),
        }
    }

    /// Parses what [`fmt::Display`] wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (group, table) = text.split_once('#')?;
        Some(Self::new(Group::new(group).ok()?, table))
    }
}

impl TryFrom<String> for GroupTable {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a group and a table"))
    }
}

impl From<GroupTable> for String {
    fn from(at: GroupTable) -> Self {
        at.to_string()
    }
}

impl fmt::Display for GroupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.group, self.table)
    }
}

/// An effect of a group on a table: the place of its dead letters, `<group>/<effect>#<table ARN>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectTable {
    /// The group, and the table.
    pub at: GroupTable,
    /// The effect.
    pub effect: EffectName,
}

impl EffectTable {
    /// The effect of this group on its table.
    pub fn new(at: GroupTable, effect: EffectName) -> Self {
        Self { at, effect }
    }
}

impl fmt::Display for EffectTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, table) = (self.at.group(), self.at.table());
        write!(f, "{group}/{}#{table}", self.effect)
    }
}

/// The settings that decide which record becomes which effect, by name: how the id is derived, filters.
/// Written once, in the group's row, for each effect. Two workers with different identities of one
/// effect would perform it under two keys, so the second worker is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(BTreeMap<String, String>);

impl Identity {
    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, setting: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(setting.into(), value.into());
        self
    }

    /// The value of a setting.
    pub fn get(&self, setting: &str) -> Option<&str> {
        self.0.get(setting).map(String::as_str)
    }

    /// All settings with their values, by name.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether nothing is set. Such an identity agrees with every other.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How these settings differ from those of the group, in words; `None` if they do not.
    pub fn differs_from(&self, group: &Self) -> Option<String> {
        if self.is_empty() || group.is_empty() {
            return None;
        }
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(group.0.keys()).collect();
        let shown = |value: Option<&String>| {
            value.map_or_else(|| "not set".to_owned(), |value| format!("{value:?}"))
        };
        let differences: Vec<_> = names
            .into_iter()
            .filter(|name| self.0.get(*name) != group.0.get(*name))
            .map(|name| {
                let (ours, theirs) = (shown(self.0.get(name)), shown(group.0.get(name)));
                format!("{name} is {ours} here and {theirs} in the group")
            })
            .collect();
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

impl FromIterator<(String, String)> for Identity {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TABLE: &str = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders";

    #[test]
    fn a_name_cannot_contain_what_joins_keys() {
        assert_eq!(Group::new("placed-v2").unwrap().as_str(), "placed-v2");
        for wrong in ["", "a#b", "a|b", "a b", "größe", &"x".repeat(65)] {
            let refused = EffectName::new(wrong).unwrap_err();
            assert!(refused.to_string().contains("not a valid name"), "{wrong}");
        }
    }

    #[test]
    fn a_group_outlives_the_streams_of_its_table() {
        let of_table = GroupTable::new(Group::default(), TABLE);
        let stream = format!("{TABLE}/stream/2026-01-01T00:00:00.000");
        assert_eq!(GroupTable::new(Group::default(), &stream), of_table);
        assert_eq!(of_table.to_string(), format!("confirmation#{TABLE}"));
        assert_eq!(GroupTable::parse(&of_table.to_string()), Some(of_table));
    }

    #[test]
    fn a_difference_of_identity_is_named() {
        let group = Identity::default().with("handler", "mail").with("id", "SK");
        let same = Identity::default().with("id", "SK").with("handler", "mail");
        assert_eq!(same.differs_from(&group), None);
        assert_eq!(Identity::default().differs_from(&group), None);
        let other = Identity::default()
            .with("handler", "mail")
            .with("id", "PK")
            .with("only", "paid");
        assert_eq!(
            other.differs_from(&group).unwrap(),
            "id is \"PK\" here and \"SK\" in the group; only is \"paid\" here and not set in the group"
        );
    }
}
