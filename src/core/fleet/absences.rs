//! Shards whose row should exist and does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::snapshot::View;
use crate::core::shard::{Shard, ShardId};

/// Since when shards have had no row. Only consistent looks count. Once a deleted row has been missing
/// for longer than a look keeps trust alive, nobody can still be acting on it.
#[derive(Debug, Clone, Default)]
pub struct Absences {
    shards: BTreeMap<ShardId, Absent>,
    patience: Duration,
}

/// Since when a shard has had no row, and when that was last seen.
#[derive(Debug, Clone, Copy)]
struct Absent {
    since: Duration,
    seen: Duration,
}

impl Absent {
    /// The row is still absent. If nobody looked for a while, it may have existed in between.
    fn still(&mut self, now: Duration, patience: Duration) {
        if now.saturating_sub(self.seen) > patience / 2 {
            self.since = now;
        }
        self.seen = now;
    }
}

impl Absences {
    /// Whether every shard has its row.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Rows count as missing after `patience`.
    pub fn new(patience: Duration) -> Self {
        Self {
            shards: BTreeMap::new(),
            patience,
        }
    }

    /// Records a consistent look. Listing a large stream takes long; looks in between show whether a
    /// row is still absent.
    pub fn see(&mut self, view: &View, now: Duration) {
        let patience = self.patience;
        self.shards.retain(|id, absent| {
            absent.still(now, patience);
            !view.leases.contains_key(id)
        });
    }

    /// A listing and a consistent look show that these shards have no row. Returns those that have had
    /// none for long enough.
    pub fn missing(&mut self, due: &[Shard], now: Duration) -> Vec<Shard> {
        let ids: BTreeSet<_> = due.iter().map(|shard| &shard.id).collect();
        self.shards.retain(|id, _| ids.contains(id));
        let patience = self.patience;
        let long_enough = |shard: &&Shard| {
            let absent = self.shards.entry(shard.id.clone()).or_insert(Absent {
                since: now,
                seen: now,
            });
            absent.still(now, patience);
            now.saturating_sub(absent.since) >= patience
        };
        due.iter().filter(long_enough).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fleet::rows::LeaseRow;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn due() -> Vec<Shard> {
        vec![Shard {
            id: ShardId::new("a"),
            parent: None,
        }]
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_row_is_missing_only_once_looks_have_not_seen_it_for_a_lease_duration() {
        let mut absences = Absences::new(PATIENCE);
        assert_eq!(absences.missing(&due(), seconds(0)), []);
        absences.see(&View::default(), seconds(5));
        assert_eq!(absences.missing(&due(), seconds(9)), []);
        assert_eq!(absences.missing(&due(), seconds(10)), due());
    }

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let mut absences = Absences::new(PATIENCE);
        absences.missing(&due(), seconds(0));
        assert_eq!(absences.missing(&due(), seconds(60)), []);
    }

    #[test]
    fn a_row_that_was_there_in_between_was_not_missing() {
        let mut absences = Absences::new(PATIENCE);
        absences.missing(&due(), seconds(0));
        absences.see(&View::default(), seconds(4));
        let mut there = View::default();
        let row = LeaseRow::new(ShardId::new("a"), None, 1);
        there.leases.insert(row.shard.clone(), row);
        absences.see(&there, seconds(8));
        assert_eq!(absences.missing(&due(), seconds(12)), []);
    }
}
