//! Completions in any order become one contiguous checkpoint.

use std::collections::VecDeque;

use crate::gate::left_out;

/// Names one record between [`Frontier::begin`] and [`Frontier::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The records of a shard that have been read but not all settled, in order.
///
/// Only what [`Frontier::reached`] names may be checkpointed: everything up to it is settled.
#[derive(Debug, Clone)]
pub struct Frontier<P> {
    window: VecDeque<(P, bool)>,
    first: u64,
    reached: Option<P>,
}

impl<P> Default for Frontier<P> {
    fn default() -> Self {
        Self {
            window: VecDeque::new(),
            first: 0,
            reached: None,
        }
    }
}

impl<P> Frontier<P> {
    /// Adds the next record of the shard. Records are added in the shard's order.
    pub fn begin(&mut self, position: P) -> Ticket {
        self.window.push_back((position, false));
        Ticket(self.first + self.window.len() as u64 - 1)
    }

    /// Marks a record as settled. Settling it twice changes nothing.
    pub fn settle(&mut self, ticket: Ticket) {
        let place = ticket
            .0
            .checked_sub(self.first)
            .and_then(|i| usize::try_from(i).ok());
        if let Some(entry) = place.and_then(|i| self.window.get_mut(i)) {
            entry.1 = true;
        }
        while self.window.front().is_some_and(|(_, settled)| *settled) {
            self.reached = self.window.pop_front().map(|(position, _)| position);
            self.first += 1;
        }
    }

    /// The last record below which everything is settled; `None` before the first.
    pub fn reached(&self) -> Option<&P> {
        if left_out!(FrontierOffByOne) {
            return self
                .window
                .front()
                .map(|(position, _)| position)
                .or(self.reached.as_ref());
        }
        self.reached.as_ref()
    }

    /// The first record that is not settled.
    pub fn first(&self) -> Option<&P> {
        self.window.front().map(|(position, _)| position)
    }

    /// How many records stand between the first unsettled one and the last one read.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether everything that was read is settled.
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_never_passes_an_unsettled_record_and_ends_at_the_last(
            order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut frontier = Frontier::default();
            let tickets: Vec<_> = (0..40usize).map(|p| frontier.begin(p)).collect();
            let mut settled = [false; 40];
            for place in order {
                frontier.settle(tickets[place]);
                settled[place] = true;
                let contiguous = settled.iter().take_while(|s| **s).count();
                prop_assert_eq!(frontier.reached().copied(), contiguous.checked_sub(1));
                prop_assert_eq!(frontier.len(), 40 - contiguous);
            }
            prop_assert!(frontier.is_empty());
        }
    }

    #[test]
    fn settling_twice_changes_nothing() {
        let mut frontier = Frontier::default();
        let (a, b) = (frontier.begin("a"), frontier.begin("b"));
        frontier.settle(a);
        frontier.settle(a);
        assert_eq!(frontier.reached(), Some(&"a"));
        frontier.settle(b);
        assert_eq!(frontier.reached(), Some(&"b"));
    }
}
