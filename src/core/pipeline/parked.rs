//! What a pipeline knows about parked keys.

use std::collections::BTreeMap;

/// How many keys are remembered. A forgotten key is asked about again.
const MOST: usize = 2_000;

/// Which keys are parked. Usually there are few, and one query at the start finds them all. If there
/// are many, each key is asked about when its first record comes: a mail outage of a day can park
/// 100,000 keys, and reading them all would delay every start.
///
/// No other worker parks a key of this shard while the lease is the reader's, so an answer stays true
/// until the reader itself changes it. If an operator frees a key, the reader finds out when the next
/// record of the key is to follow.
#[derive(Debug)]
pub struct Parked<K> {
    /// Every parked key is remembered: all other keys are free.
    all: bool,
    keys: BTreeMap<K, bool>,
}

impl<K: Ord> Parked<K> {
    /// There are no dead letters.
    pub fn none() -> Self {
        Self {
            all: true,
            keys: BTreeMap::new(),
        }
    }

    /// These keys are parked. With `all`, no others are.
    pub fn new(keys: impl IntoIterator<Item = K>, all: bool) -> Self {
        let keys = keys.into_iter().map(|key| (key, true));
        Self {
            all,
            keys: keys.collect(),
        }
    }

    /// Whether a key is parked, or `None` if it must be asked about.
    pub fn is_parked(&self, key: &K) -> Option<bool> {
        let known = self.keys.get(key).copied();
        known.or(self.all.then_some(false))
    }

    /// Remembers the answer, or what the reader itself did.
    pub fn learn(&mut self, key: K, parked: bool) {
        if self.all && !parked {
            self.keys.remove(&key);
            return;
        }
        if self.keys.len() >= MOST {
            self.all = false;
            self.keys.clear();
        }
        self.keys.insert(key, parked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_few_keys_are_parked_nobody_is_asked() {
        let mut known = Parked::none();
        assert_eq!(known.is_parked(&1), Some(false));
        known.learn(1, true);
        assert_eq!(known.is_parked(&1), Some(true));
        known.learn(1, false);
        assert_eq!(known.is_parked(&1), Some(false));
    }

    #[test]
    fn where_not_all_are_known_a_key_is_asked_for_once() {
        let mut known = Parked::new([3], false);
        assert_eq!(known.is_parked(&1), None);
        assert_eq!(known.is_parked(&3), Some(true));
        known.learn(1, false);
        known.learn(2, true);
        assert_eq!(known.is_parked(&1), Some(false));
        assert_eq!(known.is_parked(&2), Some(true));
    }

    #[test]
    fn the_memory_is_bounded_and_what_is_forgotten_is_asked_for_again() {
        let mut known = Parked::none();
        for n in 0..10 * MOST {
            known.learn(n, true);
            assert!(known.keys.len() <= MOST);
            assert_eq!(known.is_parked(&n), Some(true));
        }
        assert_eq!(known.is_parked(&0), None);
    }
}
