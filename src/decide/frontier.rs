//! Completions in any order become one contiguous checkpoint.

use std::collections::BTreeMap;

use crate::gate::left_out;

/// Names one record between [`Frontier::begin`] and [`Frontier::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The records of a shard that have been read but not all settled, in order.
///
/// Only what [`Frontier::reached`] names may be checkpointed: everything up to it is settled.
/// Memory grows with the records that are not settled: of a run of settled ones behind them only the
/// last position is kept.
#[derive(Debug, Clone)]
pub struct Frontier<P> {
    unsettled: BTreeMap<Ticket, Unsettled<P>>,
    next: u64,
    reached: Option<P>,
}

#[derive(Debug, Clone)]
struct Unsettled<P> {
    position: P,
    /// The last of the settled records between this one and the next that is not settled.
    settled_after: Option<P>,
}

impl<P> Default for Frontier<P> {
    fn default() -> Self {
        Self {
            unsettled: BTreeMap::new(),
            next: 0,
            reached: None,
        }
    }
}

impl<P> Frontier<P> {
    /// Adds the next record of the shard. Records are added in the shard's order.
    pub fn begin(&mut self, position: P) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        let unsettled = Unsettled {
            position,
            settled_after: None,
        };
        self.unsettled.insert(ticket, unsettled);
        ticket
    }

    /// Marks a record as settled. Settling it twice changes nothing.
    pub fn settle(&mut self, ticket: Ticket) {
        let Some(settled) = self.unsettled.remove(&ticket) else {
            return;
        };
        let last = settled.settled_after.unwrap_or(settled.position);
        match self.unsettled.range_mut(..ticket).next_back() {
            Some((_, before)) => before.settled_after = Some(last),
            None => self.reached = Some(last),
        }
    }

    /// The last record below which everything is settled; `None` before the first.
    pub fn reached(&self) -> Option<&P> {
        if left_out!(FrontierOffByOne) {
            return self.first().or(self.reached.as_ref());
        }
        self.reached.as_ref()
    }

    /// The first record that is not settled.
    pub fn first(&self) -> Option<&P> {
        let first = self.unsettled.values().next();
        first.map(|first| &first.position)
    }

    /// How many records are not settled.
    pub fn len(&self) -> usize {
        self.unsettled.len()
    }

    /// Whether everything that was read is settled.
    pub fn is_empty(&self) -> bool {
        self.unsettled.is_empty()
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
                prop_assert_eq!(frontier.len(), settled.iter().filter(|s| !**s).count());
            }
            prop_assert!(frontier.is_empty());
        }
    }

    #[test]
    fn what_is_settled_behind_a_record_takes_no_memory() {
        let mut frontier = Frontier::default();
        let stuck = frontier.begin(0);
        for position in 1..=200_000 {
            let ticket = frontier.begin(position);
            frontier.settle(ticket);
        }
        assert_eq!((frontier.len(), frontier.reached()), (1, None));
        frontier.settle(stuck);
        assert_eq!(frontier.reached(), Some(&200_000));
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
