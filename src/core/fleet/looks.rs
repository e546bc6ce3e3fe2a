//! When a worker looks at the lease table.

use std::collections::BTreeSet;
use std::time::Duration;

use super::events::Rules;
use super::snapshot::{Unfit, View};
use super::validity::Generation;

/// So many rows are looked at every `look_interval`; more rows, less often, so that looks cost no
/// more than heartbeats (a write costs as much as five reads, and rows are some 250 bytes).
const ROWS_PER_LOOK: usize = 80;

/// After so many lease durations without a look at the lease table a worker stops beating.
const BLIND_AFTER: u32 = 2;

/// A look that is not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub at: Duration,
    pub consistent: bool,
    /// The generation in which it began, if a heartbeat vouched for it then.
    pub generation: Option<Generation>,
}

/// When to look.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    in_flight: Option<Begun>,
    due: Duration,
    consistent_due: Duration,
    /// When the last consistent one began that was answered.
    seen_at: Duration,
    /// How many in a row failed.
    failures: u32,
    /// The rows of a newer version that were reported.
    newer: BTreeSet<String>,
}

impl Looks {
    pub fn new(now: Duration) -> Self {
        Self {
            in_flight: None,
            due: now,
            consistent_due: now,
            seen_at: now,
            failures: 0,
            newer: BTreeSet::new(),
        }
    }

    /// When the next one begins, if nothing else happens. `None`: not before this one has ended.
    pub fn due(&self) -> Option<Duration> {
        self.in_flight.is_none().then_some(self.due)
    }

    /// Whether the next one is consistent in any case.
    pub fn is_consistent_due(&self, now: Duration) -> bool {
        self.consistent_due <= now
    }

    /// The next one is consistent, and begins now, or once this one has ended.
    pub fn hurry(&mut self, now: Duration) {
        self.due = now;
        self.consistent_due = now;
    }

    /// The next one begins no later than then.
    pub fn no_later_than(&mut self, at: Option<Duration>) {
        self.due = at.map_or(self.due, |at| self.due.min(at));
    }

    /// Begins one; `view` is what the last one saw.
    pub fn begin(&mut self, begun: Begun, view: &View, rules: &Rules) {
        let rows = view.leases.len() + view.workers.len() + view.newer_workers().count();
        self.in_flight = Some(begun);
        self.due = begun.at + interval(rules, rows);
    }

    /// It is answered, somehow.
    pub fn end(&mut self) -> Option<Begun> {
        self.in_flight.take()
    }

    /// Answers how many in a row failed.
    pub fn failed(&mut self) -> u32 {
        self.failures += 1;
        self.failures
    }

    /// The next one begins then.
    pub fn again_at(&mut self, at: Duration) {
        self.due = at;
    }

    pub fn succeeded(&mut self, begun: Begun) {
        self.failures = 0;
        if begun.consistent {
            self.seen_at = begun.at;
        }
    }

    /// Consistent ones keep trust alive: the next is due a fifth of a lease after this one.
    pub fn renew(&mut self, begun: Begun, rules: &Rules) {
        self.consistent_due = begun.at + rules.lease_duration / 5;
    }

    /// Whether the lease table could not be seen for so long that others had better go on.
    pub fn is_blind(&self, now: Duration, rules: &Rules) -> bool {
        now.saturating_sub(self.seen_at) > rules.lease_duration * BLIND_AFTER
    }

    /// Rows that a newer version wrote, with their formats: each is reported once.
    pub fn report_newer(&mut self, view: &View) -> Vec<(String, u32)> {
        let rows = view.unreadable.iter();
        let newer = rows.filter_map(|row| match row.why {
            Unfit::Newer { format } => Some((row.row.clone(), format)),
            Unfit::Malformed { .. } => None,
        });
        let newer: Vec<_> = newer.collect();
        let names = newer.iter().map(|(row, _)| row.clone()).collect();
        let before = std::mem::replace(&mut self.newer, names);
        let is_new = |(row, _): &(String, u32)| !before.contains(row);
        newer.into_iter().filter(is_new).collect()
    }
}

/// How often the lease table is read while it has so many rows. Trust lives on looks, too: they must
/// come several times in its window.
fn interval(rules: &Rules, rows: usize) -> Duration {
    let many = u32::try_from(rows / ROWS_PER_LOOK).unwrap_or(u32::MAX);
    let interval = rules.look_interval.saturating_mul(many.max(1));
    interval.min(rules.lease_duration / 4)
}
