//! Records end in any order. The watermark says how far all of them have ended.

use std::collections::BTreeMap;

/// Identifies one record between [`Watermark::begin`] and [`Watermark::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordTicket(u64);

/// How far all records of a source have ended.
///
/// Memory grows with the records that have not ended. Of a run of ended records behind them, only the
/// last position is kept.
#[derive(Debug, Clone)]
pub struct Watermark<P> {
    unfinished: BTreeMap<RecordTicket, Unfinished<P>>,
    next: u64,
    reached: Option<P>,
}

#[derive(Debug, Clone)]
struct Unfinished<P> {
    position: P,
    /// The last of the ended records between this one and the next that has not ended.
    finished_after: Option<P>,
}

impl<P> Default for Watermark<P> {
    fn default() -> Self {
        Self {
            unfinished: BTreeMap::new(),
            next: 0,
            reached: None,
        }
    }
}

impl<P> Watermark<P> {
    /// Adds the next record. Records are added in the order of their source.
    pub fn begin(&mut self, position: P) -> RecordTicket {
        let ticket = RecordTicket(self.next);
        self.next += 1;
        let unfinished = Unfinished {
            position,
            finished_after: None,
        };
        self.unfinished.insert(ticket, unfinished);
        ticket
    }

    /// Records that a record has ended. Ending it twice changes nothing.
    pub fn finish(&mut self, ticket: RecordTicket) {
        let Some(finished) = self.unfinished.remove(&ticket) else {
            return;
        };
        let last = finished.finished_after.unwrap_or(finished.position);
        match self.unfinished.range_mut(..ticket).next_back() {
            Some((_, before)) => before.finished_after = Some(last),
            None => self.reached = Some(last),
        }
    }

    /// The last record up to which all have ended; `None` before the first.
    pub fn reached(&self) -> Option<&P> {
        self.reached.as_ref()
    }

    /// The first record that has not ended.
    pub fn first(&self) -> Option<&P> {
        let first = self.unfinished.values().next();
        first.map(|first| &first.position)
    }

    /// Whether all records have ended.
    pub fn is_empty(&self) -> bool {
        self.unfinished.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_never_passes_an_unfinished_record_ends_at_the_last_and_stays_small(
            order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut watermark = Watermark::default();
            let tickets: Vec<_> = (0..40usize).map(|p| watermark.begin(p)).collect();
            let mut finished = [false; 40];
            for place in order {
                watermark.finish(tickets[place]);
                finished[place] = true;
                let contiguous = finished.iter().take_while(|s| **s).count();
                prop_assert_eq!(watermark.reached().copied(), contiguous.checked_sub(1));
                let first = finished.iter().position(|s| !s);
                prop_assert_eq!(watermark.first().copied(), first);
                let unfinished = finished.iter().filter(|s| !**s).count();
                prop_assert_eq!(watermark.unfinished.len(), unfinished);
            }
            prop_assert!(watermark.is_empty());
        }
    }

    #[test]
    fn a_million_filtered_records_behind_a_stuck_one_take_no_room() {
        let mut watermark = Watermark::default();
        let stuck = watermark.begin(0);
        for position in 1..=1_000_000 {
            let filtered = watermark.begin(position);
            watermark.finish(filtered);
        }
        assert_eq!((watermark.unfinished.len(), watermark.reached()), (1, None));
        watermark.finish(stuck);
        assert_eq!(watermark.reached(), Some(&1_000_000));
    }

    #[test]
    fn finishing_twice_changes_nothing() {
        let mut watermark = Watermark::default();
        let (a, b) = (watermark.begin("a"), watermark.begin("b"));
        watermark.finish(a);
        watermark.finish(a);
        assert_eq!(watermark.reached(), Some(&"a"));
        watermark.finish(b);
        assert_eq!(watermark.reached(), Some(&"b"));
    }
}
