//! What is wrong with the records of an item, or with what the handler depends on.

use std::collections::BTreeMap;

use crate::core::hash::hash;
use crate::core::record::ItemKey;
use crate::engine::handler::Failure;

/// Items whose records fail are one of so many.
const ITEMS: u64 = 8;

/// How the records of an item fail until that is cured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poison {
    Rejects,
    Fails,
    Panics,
    Hangs,
}

/// How the dependency of the handler fails until it is well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spell {
    Down,
    Overloaded,
}

/// All that is wrong now.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    poisoned: BTreeMap<u64, Poison>,
    outage: Option<Spell>,
}

impl Trouble {
    /// The records of some item fail from now on. Answers which.
    pub fn poison(&mut self, rng: &mut fastrand::Rng) -> (u64, Poison) {
        let kinds = [
            Poison::Rejects,
            Poison::Rejects,
            Poison::Fails,
            Poison::Panics,
            Poison::Hangs,
        ];
        let (item, how) = (rng.u64(..ITEMS), kinds[rng.usize(..kinds.len())]);
        self.poisoned.insert(item, how);
        (item, how)
    }

    pub fn cure(&mut self, item: u64) {
        self.poisoned.remove(&item);
    }

    /// What the handler depends on fails, or is well again.
    pub fn depend(&mut self, outage: Option<Spell>) {
        self.outage = outage;
    }

    /// Nothing is wrong any more.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// What is wrong with a record of this item.
    pub fn of(&self, key: &ItemKey) -> Option<Poison> {
        self.poisoned.get(&(hash(key.as_str()) % ITEMS)).copied()
    }

    /// What is wrong with the dependency for a call with this luck, of a thousand.
    pub fn failure(&self, luck: u32) -> Option<Failure> {
        match self.outage? {
            Spell::Down => Some(Failure::unavailable("down, by the simulation")),
            Spell::Overloaded if luck < 700 => {
                Some(Failure::overloaded("overloaded, by the simulation"))
            }
            Spell::Overloaded => None,
        }
    }
}
