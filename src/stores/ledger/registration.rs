//! Which group performs which effect. Recorded in the ledger at the start, because a fleet and a Lambda
//! function that share a ledger both read it.
//!
//! | row | holds |
//! |---|---|
//! | `#effect#<effect>` | the groups that perform the effect |
//! | `#group#<group>` | for each table that the group follows, its effects, each with the settings that decide identity |
//!
//! No effect key begins with `#`, because an effect's name is never empty.

use std::collections::{BTreeMap, BTreeSet};

use serde_dynamo::{AttributeValue, Item};

use super::row::EFFECT;
use crate::core::group::{EffectName, Group, GroupTable, Identity};
use crate::stores::rows::fields::{RowReader, Unexpected, number, text, to_item};

/// The prefix of such a row's key.
const RESERVED: char = '#';

/// A group on a table that is about to perform an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The group, and the table that it follows.
    pub of: GroupTable,
    /// The effect's name.
    pub effect: EffectName,
    /// The settings that decide which record becomes which effect.
    pub identity: Identity,
    /// Perform the effect even if another group does, under the same effect keys.
    pub join_effect: bool,
    /// Replace the settings that the group was started with.
    pub accept_new_identity: bool,
}

/// Why a group must not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationRefused {
    /// Another group performs an effect of this name.
    #[error(
        "the effect {effect} belongs to the group {groups} on this ledger, so the group {group} would \
         treat that group's orders as done: give this group's effect another name with --effect, or, \
         if both are to perform the same effect, as in a move between a fleet and Lambda, start it \
         with --join-effect"
    )]
    EffectTaken {
        /// The effect.
        effect: EffectName,
        /// The groups that perform it.
        groups: String,
        /// The group that must not.
        group: Group,
    },
    /// The settings differ from those that the group was started with.
    #[error(
        "{difference} ({of}). Two workers with different settings perform one effect under two keys: \
         use the group's settings, or change them for the whole group with --accept-new-identity"
    )]
    Differs {
        /// The settings that differ.
        difference: String,
        /// The group and its table.
        of: GroupTable,
    },
}

/// The two rows, present or future.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RegistrationRows {
    pub(super) effect: EffectRow,
    pub(super) group: RegistrationRow,
}

/// The groups that perform an effect. Revision 0: no row exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EffectRow {
    pub(super) revision: u64,
    groups: BTreeSet<String>,
}

/// What a group performs, by the table that it follows. Revision 0: no row exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RegistrationRow {
    pub(super) revision: u64,
    pub(super) tables: BTreeMap<String, TableEffects>,
}

/// The effects that a group performs for a table, each with the settings that decide identity.
pub type TableEffects = BTreeMap<EffectName, Identity>;

/// Whether a row of the ledger is about groups, and not about an effect key.
pub(super) fn is_reserved(key: &str) -> bool {
    key.starts_with(RESERVED)
}

pub(super) fn effect_key(effect: &EffectName) -> String {
    format!("#effect#{effect}")
}

pub(super) fn group_key(group: &Group) -> String {
    format!("#group#{group}")
}

impl Registration {
    /// The rows after this registration, unchanged if nothing has to be written.
    pub(super) fn over(
        &self,
        rows: &RegistrationRows,
    ) -> Result<RegistrationRows, RegistrationRefused> {
        let group = self.of.group();
        let mut next = rows.clone();
        let settings = &self.identity;
        let effects = rows.group.tables.get(self.of.table());
        let standing = effects.and_then(|effects| effects.get(&self.effect));
        let difference = standing.and_then(|standing| settings.differs_from(standing));
        if let Some(difference) = difference.filter(|_| !self.accept_new_identity) {
            return Err(RegistrationRefused::Differs {
                difference: format!("effect {}: {difference}", self.effect),
                of: self.of.clone(),
            });
        }
        let others = &rows.effect.groups;
        let joined = others.is_empty() || others.contains(group.as_str()) || self.join_effect;
        if !joined {
            return Err(RegistrationRefused::EffectTaken {
                effect: self.effect.clone(),
                groups: others.iter().cloned().collect::<Vec<_>>().join(", "),
                group: group.clone(),
            });
        }
        if next.effect.groups.insert(group.as_str().to_owned()) {
            next.effect.revision += 1;
        }
        if standing != Some(settings) {
            next.group.revision += 1;
            let of_table = self.of.table().to_owned();
            let effects = next.group.tables.entry(of_table).or_default();
            effects.insert(self.effect.clone(), settings.clone());
        }
        Ok(next)
    }
}

impl EffectRow {
    pub(super) fn item(&self, key: &str, format: u32) -> Item {
        let groups = self.groups.iter().map(|group| text(&**group)).collect();
        to_item(vec![
            (EFFECT, Some(text(key))),
            ("format", Some(number(format))),
            ("revision", Some(number(self.revision))),
            ("groups", Some(AttributeValue::L(groups))),
        ])
    }

    pub(super) fn read(item: &Item) -> Result<Self, Unexpected> {
        let reader = RowReader(item);
        let groups = reader.list("groups")?.iter();
        let groups = groups.filter_map(|group| match group {
            AttributeValue::S(group) => Some(group.clone()),
            _ => None,
        });
        Ok(Self {
            revision: reader.number("revision")?,
            groups: groups.collect(),
        })
    }
}

impl RegistrationRow {
    pub(super) fn item(&self, key: &str, format: u32) -> Item {
        let settings = |identity: &Identity| {
            let settings = identity.settings();
            let settings = settings.map(|(name, value)| (name.to_owned(), text(value)));
            AttributeValue::M(settings.collect())
        };
        let effects = |effects: &TableEffects| {
            let effects = effects.iter();
            let effects = effects.map(|(name, of)| (name.to_string(), settings(of)));
            AttributeValue::M(effects.collect())
        };
        let tables = self.tables.iter();
        let tables = tables.map(|(table, of)| (table.clone(), effects(of)));
        to_item(vec![
            (EFFECT, Some(text(key))),
            ("format", Some(number(format))),
            ("revision", Some(number(self.revision))),
            ("tables", Some(AttributeValue::M(tables.collect()))),
        ])
    }

    pub(super) fn read(item: &Item) -> Result<Self, Unexpected> {
        let reader = RowReader(item);
        let identity = |value: &AttributeValue| {
            let AttributeValue::M(settings) = value else {
                return None;
            };
            let settings = settings.iter().filter_map(|(name, value)| match value {
                AttributeValue::S(value) => Some((name.clone(), value.clone())),
                _ => None,
            });
            Some(settings.collect())
        };
        let effects = |value: &AttributeValue| {
            let AttributeValue::M(effects) = value else {
                return None;
            };
            let effects = effects.iter().filter_map(|(name, settings)| {
                Some((EffectName::new(name).ok()?, identity(settings)?))
            });
            Some(effects.collect())
        };
        let tables = item.inner().get("tables");
        let tables = match tables {
            Some(AttributeValue::M(tables)) => tables
                .iter()
                .filter_map(|(table, value)| Some((table.clone(), effects(value)?)))
                .collect(),
            _ => BTreeMap::new(),
        };
        Ok(Self {
            revision: reader.number("revision")?,
            tables,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TABLE: &str = "arn:aws:dynamodb:us-east-1:0:table/orders";

    fn of(group: &str, effect: &str, id: &str) -> Registration {
        Registration {
            of: GroupTable::new(Group::new(group).unwrap(), TABLE),
            effect: EffectName::new(effect).unwrap(),
            identity: Identity::default().with("id", id),
            join_effect: false,
            accept_new_identity: false,
        }
    }

    fn started(registration: &Registration) -> RegistrationRows {
        registration.over(&RegistrationRows::default()).unwrap()
    }

    #[test]
    fn a_group_starts_again_with_its_own_settings_and_writes_nothing() {
        let rows = started(&of("placed", "placed", "SK"));
        assert_eq!((rows.effect.revision, rows.group.revision), (1, 1));
        assert_eq!(of("placed", "placed", "SK").over(&rows).unwrap(), rows);
    }

    #[test]
    fn a_second_group_with_the_same_effect_is_refused_unless_it_joins() {
        let placed = started(&of("placed", "confirmation", "SK"));
        let rows = RegistrationRows {
            group: RegistrationRow::default(),
            ..placed
        };
        let mut shipped = of("shipped", "confirmation", "SK");
        let refused = shipped.over(&rows).unwrap_err().to_string();
        assert!(refused.contains("the group placed"), "{refused}");
        assert!(
            refused.contains("--effect") && refused.contains("--join-effect"),
            "{refused}"
        );
        assert!(!refused.contains('\n'), "{refused}");
        shipped.join_effect = true;
        let joined = shipped.over(&rows).unwrap();
        assert_eq!(joined.effect.groups.len(), 2);
        shipped.join_effect = false;
        assert!(shipped.over(&joined).is_ok(), "joined once is enough");
    }

    #[test]
    fn other_settings_are_refused_by_name_unless_they_are_accepted() {
        let rows = started(&of("placed", "placed", "SK"));
        let other = of("placed", "placed", "PK");
        let refused = other.over(&rows).unwrap_err().to_string();
        let named = "effect placed: id is \"PK\" here and \"SK\" in the group";
        assert!(refused.starts_with(named), "{refused}");
        let knowingly = Registration {
            accept_new_identity: true,
            ..other.clone()
        };
        let next = knowingly.over(&rows).unwrap();
        assert_eq!(next.group.tables[TABLE][&other.effect], other.identity);
        assert!(other.over(&next).is_ok());
    }

    #[test]
    fn a_group_performs_several_effects_for_a_table() {
        let placed = of("shop", "placed", "SK");
        let search = of("shop", "search-index", "PK");
        let rows = started(&placed);
        let both = RegistrationRows {
            effect: EffectRow::default(),
            ..rows
        };
        let both = search.over(&both).unwrap();
        let effects = &both.group.tables[TABLE];
        assert_eq!(effects[&placed.effect], placed.identity);
        assert_eq!(effects[&search.effect], search.identity);
    }

    #[test]
    fn the_rows_are_read_back_as_they_were_written() {
        let rows = started(&of("placed", "placed", "SK"));
        let effect = rows.effect.item("#effect#placed", 1);
        assert_eq!(EffectRow::read(&effect).unwrap(), rows.effect);
        let group = rows.group.item("#group#placed", 1);
        assert_eq!(RegistrationRow::read(&group).unwrap(), rows.group);
    }
}
