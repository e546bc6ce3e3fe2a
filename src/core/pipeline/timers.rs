//! Who waits until when.

use std::collections::BTreeMap;

/// The waiting keys, each until its own time. Of two with the same time, the first to come is first.
#[derive(Debug, Clone)]
pub struct Timers<T, K> {
    by_time: BTreeMap<(T, u64), K>,
    made: u64,
}

impl<T, K> Default for Timers<T, K> {
    fn default() -> Self {
        Self {
            by_time: BTreeMap::new(),
            made: 0,
        }
    }
}

impl<T: Ord + Copy, K> Timers<T, K> {
    /// All that wait, in the order of their times.
    pub fn into_keys(self) -> impl Iterator<Item = K> {
        self.by_time.into_values()
    }

    /// Adds a timer.
    pub fn push(&mut self, until: T, who: K) {
        self.made += 1;
        self.by_time.insert((until, self.made), who);
    }

    /// When the first timer is due.
    pub fn next(&self) -> Option<T> {
        self.by_time.keys().next().map(|(until, _)| *until)
    }

    /// The first timer, if it is due.
    pub fn due(&mut self, now: T) -> Option<K> {
        let first = self.by_time.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_due_at_its_time_and_the_first_come_first() {
        let mut timers = Timers::default();
        for (until, who) in [(3, "c"), (1, "a"), (3, "d"), (2, "b")] {
            timers.push(until, who);
        }
        assert_eq!((timers.next(), timers.due(0)), (Some(1), None));
        let due: Vec<_> = std::iter::from_fn(|| timers.due(3)).collect();
        assert_eq!(due, ["a", "b", "c", "d"]);
        assert_eq!(timers.next(), None);
    }
}
