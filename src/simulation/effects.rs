//! The effects of a simulated group, by their number. The first one is there from the start.

use crate::core::group::{EffectName, EffectTable, Group, GroupTable};

/// The most effects of a group.
pub(super) const MOST: usize = NAMES.len();

const NAMES: [&str; 3] = ["confirmation", "index", "audit"];

/// The group of the simulated fleet, on its table.
pub(super) fn place() -> GroupTable {
    GroupTable::new(Group::default(), "simulated")
}

/// The place of an effect's dead letters.
pub(super) fn letters_of(effect: usize) -> EffectTable {
    EffectTable::new(place(), name(effect))
}

/// The name of an effect.
pub(super) fn name(effect: usize) -> EffectName {
    EffectName::new(NAMES[effect]).unwrap_or_default()
}

/// The number of an effect.
pub(super) fn number(name: &EffectName) -> usize {
    let known = NAMES.iter().position(|known| *known == name.as_str());
    known.unwrap_or(0)
}
