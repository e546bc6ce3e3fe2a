//! Reading maps in the order of their keys.

use std::iter::Peekable;

/// A map that is read by ascending keys. Each step takes a comparison or two, where a lookup would
/// compare a dozen long names.
pub(super) struct InStep<I: Iterator>(Peekable<I>);

impl<'a, K: Ord + 'a, V, I: Iterator<Item = (&'a K, V)>> InStep<I> {
    /// From a map's entries in their order.
    pub fn new(entries: impl IntoIterator<IntoIter = I>) -> Self {
        Self(entries.into_iter().peekable())
    }

    /// The value of this key, which must be greater than every key that was asked for before.
    pub fn at(&mut self, key: &K) -> Option<V> {
        while self.0.next_if(|(other, _)| *other < key).is_some() {}
        let (_, value) = self.0.next_if(|(other, _)| *other == key)?;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_key_has_its_value_or_none_with_any_keys_in_between() {
        let map = BTreeMap::from([(1, "a"), (3, "c"), (4, "d"), (7, "g")]);
        let mut in_step = InStep::new(&map);
        let found = [0, 2, 3, 4, 5, 8].map(|key| in_step.at(&key).copied());
        assert_eq!(found, [None, None, Some("c"), Some("d"), None, None]);
    }
}
