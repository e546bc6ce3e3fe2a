//! When a worker looks at the lease table, and at which rows.
//!
//! A look at a small table reads all current rows, every `look_interval`. A look at a large one is
//! expensive, and most of the time only heartbeats change. So while the plan has nothing to do, a
//! worker reads only the heartbeats every `look_interval`, and the leases once in a lease duration, or
//! as soon as a worker joins, leaves or dies.

use std::collections::BTreeSet;
use std::time::Duration;

use super::events::{Note, Outbox};
use super::rules::FleetRules;
use super::snapshot::{Consistency, Reach, Unfit, View};
use super::validity::{Generation, LOOKS_LAST};

/// This many rows are read every `look_interval` while there is something to do: about 50 read units.
const MANY_ROWS: usize = 1_000;

/// After this many lease durations without a look at the lease table a worker stops beating.
const BLIND_AFTER: u32 = 2;

/// A look in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub at: Duration,
    pub reach: Reach,
    pub consistent: bool,
    /// The generation in which it began, if a heartbeat vouched for it then.
    pub generation: Option<Generation>,
}

impl Begun {
    pub fn consistency(self) -> Consistency {
        if self.consistent {
            Consistency::Strong
        } else {
            Consistency::Eventual
        }
    }
}

/// When to look.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    in_flight: Option<Begun>,
    /// When to look at the leases, and when at the heartbeats alone.
    due: Duration,
    workers_due: Duration,
    consistent_due: Duration,
    /// When the next worker dies, unless it beats before.
    death: Option<Duration>,
    /// When the last look at the leases began.
    began: Duration,
    /// When the last answered consistent look began.
    seen_at: Duration,
    /// How many rows it saw.
    rows: usize,
    /// Whether it found nothing to do, and when one last did.
    done: bool,
    done_at: Duration,
    /// How many looks in a row failed.
    failures: u32,
    /// The rows of a newer version that were reported.
    newer: BTreeSet<String>,
}

impl Looks {
    pub fn new(now: Duration) -> Self {
        Self {
            in_flight: None,
            due: now,
            workers_due: now,
            consistent_due: now,
            death: None,
            began: now,
            seen_at: now,
            rows: 0,
            done: false,
            done_at: now,
            failures: 0,
            newer: BTreeSet::new(),
        }
    }

    /// When the next look begins, if nothing else happens. `None`: not before the present one has
    /// ended.
    pub fn due(&self, rules: &FleetRules) -> Option<Duration> {
        let workers = self.is_large(rules).then_some(self.workers_due);
        let dues = [Some(self.due), self.death, workers].into_iter().flatten();
        dues.min().filter(|_| self.in_flight.is_none())
    }

    /// Whether the next look is at the leases, not at the heartbeats alone.
    pub fn are_leases_due(&self, now: Duration) -> bool {
        self.due <= now || self.death.is_some_and(|death| death <= now)
    }

    /// Whether the next look has to be consistent.
    pub fn is_consistent_due(&self, now: Duration) -> bool {
        self.consistent_due <= now
    }

    /// Makes the next look consistent and due now, or once the present one has ended.
    pub fn hurry(&mut self, now: Duration) {
        self.due = now;
        self.consistent_due = now;
    }

    /// Makes the next consistent look begin soon: only frequent looks prove that a row has been missing
    /// all the time.
    pub fn prove_absences(&mut self, begun: Begun, rules: &FleetRules) {
        let at = begun.at + rules.lease_duration / 5;
        self.due = self.due.min(at);
        self.consistent_due = self.consistent_due.min(at);
    }

    /// Sets the time of the next death according to the last look: the leases are looked at then.
    pub fn expect_death(&mut self, at: Option<Duration>) {
        self.death = at;
    }

    /// Whether everything is as the plan wants it.
    pub fn plan_is_done(&mut self, done: bool, now: Duration, rules: &FleetRules) {
        if done {
            self.done_at = now;
        } else if self.done {
            self.due = self.due.min(self.began + self.interval(rules));
        }
        self.done = done;
    }

    /// Whether every worker has looked at the leases since everything was as the plan wants it, and so
    /// waits for the shards that it will get. Workers see a change among themselves sooner.
    pub fn all_have_looked(&self, now: Duration, rules: &FleetRules) -> bool {
        !self.is_large(rules) || now.saturating_sub(self.done_at) > rules.lease_duration
    }

    pub fn begin(&mut self, begun: Begun, rules: &FleetRules) {
        self.in_flight = Some(begun);
        self.workers_due = begun.at + rules.look_interval;
        if begun.reach != Reach::Workers {
            let pause = if self.done && self.is_large(rules) {
                rules.lease_duration
            } else {
                self.interval(rules)
            };
            (self.began, self.due) = (begun.at, begun.at + pause);
            self.death = None;
        }
    }

    /// A look ended, successfully or not.
    pub fn end(&mut self) -> Option<Begun> {
        self.in_flight.take()
    }

    /// Returns how many in a row failed.
    pub fn failed(&mut self) -> u32 {
        self.failures += 1;
        self.failures
    }

    /// A look with this reach failed: the next one begins at this time.
    pub fn again_at(&mut self, reach: Reach, at: Duration) {
        if reach == Reach::Workers {
            self.workers_due = at;
        } else {
            self.due = at;
        }
    }

    pub fn succeeded(&mut self, begun: Begun, view: &View) {
        self.failures = 0;
        if begun.reach != Reach::Workers {
            self.rows = view.rows();
        }
        if begun.consistent {
            self.seen_at = begun.at;
        }
    }

    /// Consistent looks keep trust alive: there is time for several attempts before it ends.
    pub fn renew(&mut self, begun: Begun, rules: &FleetRules) {
        self.consistent_due = begun.at + rules.lease_duration * LOOKS_LAST / 3;
    }

    /// Whether this worker could not see the lease table for so long that others should take over.
    pub fn is_blind(&self, now: Duration, rules: &FleetRules) -> bool {
        now.saturating_sub(self.seen_at) > rules.lease_duration * BLIND_AFTER
    }

    /// How often the leases are read while there is something to do. Less often if there are very many.
    fn interval(&self, rules: &FleetRules) -> Duration {
        let many = u32::try_from(self.rows / MANY_ROWS).unwrap_or(u32::MAX);
        let interval = rules.look_interval.saturating_mul(many.max(1));
        interval.min(rules.lease_duration / 4)
    }

    fn is_large(&self, rules: &FleetRules) -> bool {
        self.rows > rules.few_rows
    }

    /// Rows that a newer version wrote, with their formats. Each is reported once.
    pub fn report_newer(&mut self, view: &View, out: &mut Outbox) {
        let rows = view.unreadable.iter();
        let newer = rows.filter_map(|row| match row.why {
            Unfit::Newer { format } => Some((row.row.clone(), format)),
            Unfit::Malformed { .. } => None,
        });
        let newer: Vec<_> = newer.collect();
        let names = newer.iter().map(|(row, _)| row.clone()).collect();
        let before = std::mem::replace(&mut self.newer, names);
        for (row, format) in newer {
            if !before.contains(&row) {
                out.note(Note::NewerRow(row, format));
            }
        }
    }
}
