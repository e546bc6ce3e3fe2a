//! When a worker writes its heartbeat.

use std::time::Duration;

/// A worker's own heartbeat.
#[derive(Debug, Clone)]
pub(super) struct Heartbeat {
    count: u64,
    /// Whether the row of this incarnation was written.
    pub registered: bool,
    /// When the heartbeat began that is not answered yet.
    in_flight: Option<Duration>,
    pub due: Duration,
    /// How many heartbeats in a row failed.
    failures: u32,
}

impl Heartbeat {
    /// The heartbeat of a new incarnation.
    pub fn new(now: Duration) -> Self {
        Self {
            count: 0,
            registered: false,
            in_flight: None,
            due: now,
            failures: 0,
        }
    }

    /// When the next heartbeat begins. A worker that cannot see the lease table cannot read its shards.
    /// It stops beating, so that others take them. `None`: not before something else has happened.
    pub fn due(&self, is_blind: bool) -> Option<Duration> {
        let silent = self.in_flight.is_some() || self.registered && is_blind;
        (!silent).then_some(self.due)
    }

    /// Begins a heartbeat; the next is due after `interval`. Returns its number, and whether the row
    /// exists already.
    pub fn begin(&mut self, now: Duration, interval: Duration) -> (u64, bool) {
        self.count += 1;
        self.in_flight = Some(now);
        self.due = now + interval;
        (self.count, self.registered)
    }

    /// A heartbeat ended, successfully or not. Returns when it began.
    pub fn end(&mut self) -> Option<Duration> {
        self.in_flight.take()
    }

    /// The row shows this beat.
    pub fn succeeded(&mut self) {
        self.registered = true;
        self.failures = 0;
    }

    /// Returns how many in a row failed.
    pub fn failed(&mut self) -> u32 {
        self.failures += 1;
        self.failures
    }
}
