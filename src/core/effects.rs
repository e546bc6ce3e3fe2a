//! The effects of a group, as its row in the lease table lists them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::group::{EffectName, Identity};
use super::millis;

/// The effects of a group, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupEffects(BTreeMap<EffectName, GroupEffect>);

/// An effect, as the group's row describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEffect {
    /// The settings that decide which record becomes which effect.
    pub identity: Identity,
    /// The effect joined a running group and begins with the changes committed from then on, by the
    /// service's clock; `None`: it began with the group. To the millisecond.
    #[serde(default, with = "millis::if_any")]
    pub since: Option<SystemTime>,
}

impl GroupEffects {
    /// The effects of a group that begins with these.
    pub fn of(effects: impl IntoIterator<Item = (EffectName, Identity)>) -> Self {
        let began = |(name, identity)| {
            let since = None;
            (name, GroupEffect { identity, since })
        };
        Self(effects.into_iter().map(began).collect())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&EffectName, &GroupEffect)> {
        self.0.iter()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &EffectName> {
        self.0.keys()
    }

    /// An effect of the group.
    pub fn get(&self, name: &EffectName) -> Option<&GroupEffect> {
        self.0.get(name)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, and these effects from the group's start.
    #[must_use]
    pub(crate) fn with<'a>(&self, names: impl Iterator<Item = &'a EffectName>) -> Self {
        let mut with = self.clone();
        for name in names {
            with.0.entry(name.clone()).or_default();
        }
        with
    }

    /// The same without this effect; `None`: the group does not have it.
    pub fn without(&self, name: &EffectName) -> Option<Self> {
        let mut rest = self.clone();
        rest.0.remove(name).map(|_| rest)
    }

    /// How these effects of a worker differ from those of its group, in words; `None` if the worker may
    /// take part. A worker with only some of the group's effects takes part, as an earlier version does.
    /// A worker that adds an effect has to perform all others, too: two workers that each perform a part
    /// would keep each other's shards from their effects.
    pub fn differs_from(&self, group: &Self) -> Option<String> {
        let adds = self.names().find(|name| group.get(name).is_none());
        let lacks = group.names().find(|name| self.get(name).is_none());
        if let (Some(adds), Some(lacks)) = (adds, lacks) {
            return Some(format!(
                "effect {adds} is not in the group, and effect {lacks} of the group is not here: a \
                 worker that adds an effect performs those of its group, too"
            ));
        }
        let differences = self.0.iter().filter_map(|(name, mine)| {
            let theirs = group.get(name)?;
            let difference = mine.identity.differs_from(&theirs.identity)?;
            Some(format!("effect {name}: {difference}"))
        });
        let differences: Vec<_> = differences.collect();
        (!differences.is_empty()).then(|| differences.join("; "))
    }

    /// Whether only the identities differ from the group's.
    pub(crate) fn may_replace(&self, group: &Self) -> bool {
        let has_all = |one: &Self, other: &Self| one.names().all(|name| other.get(name).is_some());
        has_all(self, group) || has_all(group, self)
    }

    /// Whether the group has all of these effects, with settings of their own.
    pub fn are_in(&self, group: &Self) -> bool {
        self.0.iter().all(|(name, mine)| {
            let theirs = group.get(name).map(|theirs| &theirs.identity);
            theirs.is_some_and(|theirs| mine.identity.is_empty() || !theirs.is_empty())
        })
    }

    /// The group's effects once it has these as well, with the identities given here. Those that are
    /// new begin at `since`.
    #[must_use]
    pub fn joined_to(&self, group: &Self, since: SystemTime) -> Self {
        let mut joined = group.clone();
        for (name, mine) in &self.0 {
            let added = GroupEffect {
                since: (!group.is_empty()).then_some(since),
                ..GroupEffect::default()
            };
            let of_group = joined.0.entry(name.clone()).or_insert(added);
            if !mine.identity.is_empty() {
                of_group.identity.clone_from(&mine.identity);
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn effects(names: &[(&str, &str)]) -> GroupEffects {
        let of = |(name, id): &(&str, &str)| {
            let identity = Identity::default();
            let identity = if id.is_empty() {
                identity
            } else {
                identity.with("id", *id)
            };
            (EffectName::new(name).unwrap(), identity)
        };
        GroupEffects::of(names.iter().map(of))
    }

    #[test]
    fn a_worker_may_perform_fewer_effects_than_its_group_or_more_but_not_others() {
        let group = effects(&[("placed", "SK"), ("search", "PK")]);
        assert_eq!(effects(&[("placed", "SK")]).differs_from(&group), None);
        let more = effects(&[("placed", "SK"), ("search", "PK"), ("shipped", "SK")]);
        assert_eq!(more.differs_from(&group), None);
        let others = effects(&[("placed", "SK"), ("shipped", "SK")]);
        let why = others.differs_from(&group).unwrap();
        assert!(why.contains("effect shipped is not in the group"), "{why}");
        assert!(
            why.contains("effect search of the group is not here"),
            "{why}"
        );
        let other = effects(&[("placed", "PK"), ("search", "PK")]);
        assert_eq!(
            other.differs_from(&group).unwrap(),
            "effect placed: id is \"PK\" here and \"SK\" in the group"
        );
    }

    #[test]
    fn an_added_effect_begins_later_and_the_others_keep_their_beginning() {
        let later = SystemTime::UNIX_EPOCH + Duration::from_mins(1);
        let group = effects(&[("placed", "SK")]);
        let both = effects(&[("placed", "SK"), ("search", "PK")]);
        assert!(!both.are_in(&group));
        let joined = both.joined_to(&group, later);
        assert!(both.are_in(&joined));
        let since = |name| joined.get(&EffectName::new(name).unwrap()).unwrap().since;
        assert_eq!((since("placed"), since("search")), (None, Some(later)));
        let search = EffectName::new("search").unwrap();
        assert_eq!(joined.without(&search), Some(group));
    }

    #[test]
    fn a_group_without_effects_takes_them_over_from_its_start() {
        let first = effects(&[("placed", "SK")]);
        let later = SystemTime::UNIX_EPOCH;
        assert_eq!(first.joined_to(&GroupEffects::default(), later), first);
    }
}
