//! Which workers are alive, judged by one observer's own clock: a live worker's heartbeat moves.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::stores::leases::{Incarnation, View, WorkerRow};

/// The heartbeats that an observer has seen. It does not use the clocks of other machines.
#[derive(Debug, Clone, Default)]
pub struct Beats(BTreeMap<Incarnation, Pulse>);

#[derive(Debug, Clone, Copy)]
struct Pulse {
    count: u64,
    /// When it was first seen with this count.
    since: Instant,
    /// Whether another count was seen before.
    moved: bool,
}

impl Beats {
    /// Records a look.
    pub fn see(&mut self, view: &View, now: Instant) {
        self.0.retain(|worker, _| view.workers.contains_key(worker));
        for row in view.workers.values() {
            let count = row.beat;
            let beat = self.0.entry(row.incarnation.clone()).or_insert(Pulse {
                count,
                since: now,
                moved: false,
            });
            if beat.count != count {
                *beat = Pulse {
                    count,
                    since: now,
                    moved: true,
                };
            }
        }
    }

    /// How long the worker's heartbeat has not moved; `None`: it was never seen.
    pub fn quiet(&self, worker: &Incarnation, now: Instant) -> Option<Duration> {
        let beat = self.0.get(worker)?;
        Some(now.saturating_duration_since(beat.since))
    }

    /// Whether the worker is alive. `None`: it was not watched long enough to tell.
    ///
    /// A worker says how long it may be silent, and beats several times in that time. A worker whose
    /// heartbeat has moved is alive until it has not moved for that long. A worker whose heartbeat was
    /// never seen to move is dead after half of that time.
    pub fn lives(&self, row: &WorkerRow, now: Instant) -> Option<bool> {
        let beat = self.0.get(&row.incarnation)?;
        let quiet = now.saturating_duration_since(beat.since);
        if beat.moved {
            return Some(quiet <= row.lease_duration);
        }
        (quiet > row.lease_duration / 2).then_some(false)
    }

    /// How long until all of these workers can be judged; `None`: they can be now.
    pub fn undecided(&self, view: &View, now: Instant) -> Option<Duration> {
        let left = view
            .workers
            .values()
            .filter(|row| self.lives(row, now).is_none());
        let left = left.map(|row| {
            let quiet = self.quiet(&row.incarnation, now).unwrap_or_default();
            (row.lease_duration / 2).saturating_sub(quiet)
        });
        left.max()
    }
}
