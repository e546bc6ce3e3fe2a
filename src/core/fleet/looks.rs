//! When a worker looks at the lease table, and at which rows.
//!
//! A look at a small table reads all that is current, every `look_interval`. A look at a large one is
//! dear, and nothing in it changes most of the time: only heartbeats do. So while the plan leaves
//! nothing to do, a worker reads the heartbeats alone every `look_interval`, and the leases once in a
//! lease duration, or as soon as somebody joins, leaves or dies.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rules::Rules;
use super::snapshot::{Consistency, Reach, Unfit, View};
use super::validity::{Generation, LOOKS_LAST};

/// So many rows are read every `look_interval` while there is something to do: some 50 read units.
const MANY_ROWS: usize = 1_000;

/// After so many lease durations without a look at the lease table a worker stops beating.
const BLIND_AFTER: u32 = 2;

/// A look that is not answered yet.
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
    /// When a worker dies, unless it beats until then.
    death: Option<Duration>,
    /// When the last look at the leases began.
    began: Duration,
    /// When the last consistent one began that was answered.
    seen_at: Duration,
    /// How many rows that one saw.
    rows: usize,
    /// Whether it left nothing to do, and when one did.
    settled: bool,
    settled_at: Duration,
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
            workers_due: now,
            consistent_due: now,
            death: None,
            began: now,
            seen_at: now,
            rows: 0,
            settled: false,
            settled_at: now,
            failures: 0,
            newer: BTreeSet::new(),
        }
    }

    /// When the next one begins, if nothing else happens. `None`: not before this one has ended.
    pub fn due(&self, rules: &Rules) -> Option<Duration> {
        let workers = self.is_large(rules).then_some(self.workers_due);
        let dues = [Some(self.due), self.death, workers].into_iter().flatten();
        dues.min().filter(|_| self.in_flight.is_none())
    }

    /// Whether the leases are to be looked at now, not the heartbeats alone.
    pub fn are_leases_due(&self, now: Duration) -> bool {
        self.due <= now || self.death.is_some_and(|death| death <= now)
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

    /// The next consistent one begins no later than then.
    pub fn consistent_by(&mut self, at: Duration) {
        self.due = self.due.min(at);
        self.consistent_due = self.consistent_due.min(at);
    }

    /// The next death, as the last look tells it: the leases are to be looked at then.
    pub fn expect_death(&mut self, at: Option<Duration>) {
        self.death = at;
    }

    /// Whether everything is as the plan has it now.
    pub fn settle(&mut self, settled: bool, now: Duration, rules: &Rules) {
        if settled {
            self.settled_at = now;
        } else if self.settled {
            self.due = self.due.min(self.began + self.interval(rules));
        }
        self.settled = settled;
    }

    /// Whether every worker has looked at the leases since everything was as the plan had it, and so
    /// waits for what it is to get. A change among the workers they see sooner.
    pub fn all_have_looked(&self, now: Duration, rules: &Rules) -> bool {
        !self.is_large(rules) || now.saturating_sub(self.settled_at) > rules.lease_duration
    }

    pub fn begin(&mut self, begun: Begun, rules: &Rules) {
        self.in_flight = Some(begun);
        self.workers_due = begun.at + rules.look_interval;
        if begun.reach != Reach::Workers {
            let pause = if self.settled && self.is_large(rules) {
                rules.lease_duration
            } else {
                self.interval(rules)
            };
            (self.began, self.due) = (begun.at, begun.at + pause);
            self.death = None;
        }
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

    /// One of this reach failed: the next one begins then.
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

    /// Consistent ones keep trust alive: there is time for several tries before it ends.
    pub fn renew(&mut self, begun: Begun, rules: &Rules) {
        self.consistent_due = begun.at + rules.lease_duration * LOOKS_LAST / 3;
    }

    /// Whether the lease table could not be seen for so long that others had better go on.
    pub fn is_blind(&self, now: Duration, rules: &Rules) -> bool {
        now.saturating_sub(self.seen_at) > rules.lease_duration * BLIND_AFTER
    }

    /// How often the leases are read while there is something to do: of very many, less often.
    fn interval(&self, rules: &Rules) -> Duration {
        let many = u32::try_from(self.rows / MANY_ROWS).unwrap_or(u32::MAX);
        let interval = rules.look_interval.saturating_mul(many.max(1));
        interval.min(rules.lease_duration / 4)
    }

    fn is_large(&self, rules: &Rules) -> bool {
        self.rows > rules.few_rows
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
