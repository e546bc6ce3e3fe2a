//! How long a worker can believe that its leases are still its own.
//!
//! Others take a worker's leases once its heartbeat has not moved for `lease_duration`, so the worker
//! itself stops earlier. It trusts its leases for a while (a margin less than `lease_duration`) after
//! it *began* its last successful heartbeat, and for `LOOKS_LAST` times as long after it *began* its
//! last consistent look at the lease rows. The first limit protects from workers that would take over,
//! the second from those that would replace a deleted row. They wait longer too, because a look at a
//! large table costs more than a heartbeat.
//!
//! A lapse of either, however short, ends the generation. The next one opens with a consistent look
//! that began after the answer to a heartbeat that restored trust.

use std::time::Duration;

use super::rules::FleetRule;

/// A deleted row is replaced after this many lease durations, and a look keeps trust alive for this
/// many times longer than a heartbeat.
pub(super) const LOOKS_LAST: u32 = 3;

/// The number of an unbroken stretch of trust. Later ones have higher numbers.
pub type Generation = u64;

/// The trust of one worker in all its leases.
#[derive(Debug, Clone, Default)]
pub struct Validity {
    beat_until: Option<Duration>,
    seen_until: Option<Duration>,
    generation: Generation,
    left_out: Option<FleetRule>,
}

impl Validity {
    /// Closed: a start counts as a lapse.
    pub fn new(left_out: Option<FleetRule>) -> Self {
        Self {
            left_out,
            ..Self::default()
        }
    }

    /// Moves the time on, so that later events are judged after any lapse until now.
    pub fn pass(&mut self, now: Duration) {
        let over = |until: Option<Duration>| until.is_some_and(|until| now >= until);
        if over(self.beat_until) {
            self.revoke(now);
        } else if over(self.seen_until) {
            self.lapse(now);
        }
    }

    fn lapse(&mut self, now: Duration) {
        if self.left_out == Some(FleetRule::RereadAfterLapse) {
            let ever = now + Duration::from_hours(1);
            self.seen_until = self.seen_until.map(|_| ever);
            return;
        }
        self.seen_until = None;
        self.generation += 1;
    }

    /// A heartbeat succeeded, and vouches until `until`.
    pub fn beat(&mut self, until: Duration) {
        self.beat_until = self.beat_until.max(Some(until));
    }

    /// The generation in which a look would begin now, if a heartbeat vouches for it.
    pub fn beating(&self) -> Option<Generation> {
        self.beat_until.map(|_| self.generation)
    }

    /// A consistent look vouches until `until`. It began in the generation that is still
    /// [`beating`](Self::beating).
    pub fn seen(&mut self, until: Duration) {
        self.seen_until = self.seen_until.max(Some(until));
    }

    /// Ends the generation now.
    pub fn revoke(&mut self, now: Duration) {
        self.beat_until = None;
        self.lapse(now);
    }

    /// When trust ends if nothing renews it; `None`: there is none.
    pub fn until(&self) -> Option<Duration> {
        self.beat_until.min(self.seen_until)
    }

    /// Whether my leases are mine.
    pub fn is_open(&self) -> bool {
        self.until().is_some()
    }

    /// The present generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(8);

    fn open(now: Duration) -> Validity {
        let mut validity = Validity::new(None);
        validity.beat(now + WINDOW);
        validity.seen(now + WINDOW);
        validity
    }

    #[test]
    fn a_heartbeat_alone_opens_nothing() {
        let mut validity = Validity::new(None);
        validity.beat(WINDOW);
        assert!(!validity.is_open());
    }

    #[test]
    fn a_lapse_however_short_ends_the_generation_for_good() {
        let mut validity = open(Duration::ZERO);
        let before = validity.beating();
        validity.pass(WINDOW);
        assert_eq!(validity.beating(), None);
        validity.beat(WINDOW * 2);
        assert!(!validity.is_open(), "the look from before is void");
        validity.seen(WINDOW * 2);
        assert!(validity.is_open());
        assert_ne!(validity.beating(), before);
    }

    #[test]
    fn without_consistent_looks_heartbeats_do_not_keep_trust() {
        let mut validity = open(Duration::ZERO);
        let before = validity.beating();
        validity.pass(WINDOW / 2);
        validity.beat(WINDOW * 2);
        assert_eq!(validity.until(), Some(WINDOW));
        validity.pass(WINDOW);
        assert!(!validity.is_open());
        assert_ne!(validity.beating(), before);
    }

    #[test]
    fn an_answer_that_comes_late_shortens_nothing() {
        let mut validity = open(Duration::ZERO);
        validity.beat(WINDOW / 2);
        validity.seen(WINDOW / 2);
        assert_eq!(validity.until(), Some(WINDOW));
    }
}
