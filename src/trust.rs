//! The trust window: how long a worker may believe that it still holds its leases.
//!
//! Others take a worker's leases once they have seen its heartbeat stand still for
//! `lease_duration`. So the worker itself stops earlier. It trusts its leases for a while (a
//! margin less than `lease_duration`) after it *began* its last successful heartbeat, and for as
//! long after it *began* its last consistent look at the lease rows: the first keeps out those who
//! would take over, the second those who would replace a row that was deleted.
//!
//! A lapse of either, however short, ends the tenure for good. The next one opens with a
//! consistent look that began after the answer to a heartbeat that restored trust.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::gate::left_out;

/// The window of one worker process, shared by all that act in its name.
#[derive(Debug, Clone, Default)]
pub struct Trust(Arc<Mutex<Window>>);

/// Which stretch of trust; a later one has a higher number.
pub type Generation = u64;

#[derive(Debug, Default)]
struct Window {
    beat_until: Option<Instant>,
    seen_until: Option<Instant>,
    generation: Generation,
}

impl Window {
    /// Lapses are noticed whenever anybody asks, so that none is too short to count.
    fn at(mut window: MutexGuard<'_, Self>, now: Instant) -> MutexGuard<'_, Self> {
        let over = |until: Option<Instant>| until.is_some_and(|until| now >= until);
        if over(window.beat_until) {
            window.beat_until = None;
            window.lapse();
        } else if over(window.seen_until) {
            window.lapse();
        }
        window
    }

    fn lapse(&mut self) {
        if left_out!(NoReread) {
            let ever = Instant::now() + std::time::Duration::from_hours(1);
            self.seen_until = self.seen_until.map(|_| ever);
            return;
        }
        self.seen_until = None;
        self.generation += 1;
    }
}

impl Trust {
    /// A closed window: a start counts as a lapse.
    pub fn new() -> Self {
        Self::default()
    }

    /// A heartbeat succeeded that vouches until `until`.
    pub fn beat(&self, until: Instant) {
        let mut window = self.now();
        window.beat_until = window.beat_until.max(Some(until));
    }

    /// The generation in which a look would begin now, if a heartbeat vouches for it.
    pub fn beating(&self) -> Option<Generation> {
        let window = self.now();
        window.beat_until.map(|_| window.generation)
    }

    /// A consistent look that began in `generation` vouches until `until`. Void (`false`) if there
    /// was a lapse since.
    pub fn seen(&self, generation: Generation, until: Instant) -> bool {
        let mut window = self.now();
        let valid = window.beat_until.is_some() && window.generation == generation;
        if valid {
            window.seen_until = window.seen_until.max(Some(until));
        }
        valid
    }

    /// Ends the window now.
    pub fn revoke(&self) {
        let mut window = self.now();
        window.beat_until = None;
        window.lapse();
    }

    /// The tenure that is valid now, if the window is open.
    pub fn tenure(&self) -> Option<Tenure> {
        let window = self.now();
        window.beat_until.and(window.seen_until).map(|_| Tenure {
            trust: self.clone(),
            generation: window.generation,
            revoked: Arc::default(),
        })
    }

    /// The generation now.
    pub fn generation(&self) -> Generation {
        self.now().generation
    }

    fn now(&self) -> MutexGuard<'_, Window> {
        Window::at(
            self.0.lock().unwrap_or_else(PoisonError::into_inner),
            Instant::now(),
        )
    }
}

/// The right to act on one shard during one unbroken stretch of trust. Once it has ended it never
/// holds again.
#[derive(Debug, Clone)]
pub struct Tenure {
    trust: Trust,
    generation: Generation,
    revoked: Arc<AtomicBool>,
}

impl Tenure {
    /// Whether an effect may begin now.
    pub fn holds(&self) -> bool {
        self.until().is_some()
    }

    /// When the tenure ends if nothing renews it; `None` when it has ended.
    pub fn until(&self) -> Option<Instant> {
        let window = self.trust.now();
        let until = window.beat_until.min(window.seen_until);
        let mine = window.generation == self.generation && !self.revoked.load(Ordering::Acquire);
        until.filter(|_| mine)
    }

    /// Whether both are one and the same.
    #[cfg(feature = "simulation")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.revoked, &other.revoked)
    }

    /// Ends this tenure alone: its shard is somebody else's now.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// A tenure that holds until `deadline`, where there is no fleet (a Lambda invocation).
    pub fn until_deadline(deadline: Instant) -> Self {
        let trust = Trust::new();
        trust.beat(deadline);
        let generation = trust.generation();
        trust.seen(generation, deadline);
        Self {
            trust,
            generation,
            revoked: Arc::default(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    const WINDOW: Duration = Duration::from_secs(8);

    fn open(trust: &Trust) -> Tenure {
        trust.beat(Instant::now() + WINDOW);
        assert!(trust.seen(trust.beating().unwrap(), Instant::now() + WINDOW));
        trust.tenure().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_alone_opens_nothing() {
        let trust = Trust::new();
        trust.beat(Instant::now() + WINDOW);
        assert!(trust.tenure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lapse_however_short_ends_the_tenure_for_good() {
        let trust = Trust::new();
        let old = open(&trust);
        tokio::time::advance(WINDOW).await;
        let new = open(&trust);
        assert!(
            !old.holds(),
            "nobody looked during the lapse, and still it counts"
        );
        assert!(new.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_began_before_a_lapse_is_void() {
        let trust = Trust::new();
        open(&trust);
        let began = trust.beating().unwrap();
        tokio::time::advance(WINDOW).await;
        trust.beat(Instant::now() + WINDOW);
        assert!(!trust.seen(began, Instant::now() + WINDOW));
        assert!(trust.tenure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn without_consistent_looks_heartbeats_do_not_keep_trust() {
        let trust = Trust::new();
        let tenure = open(&trust);
        tokio::time::advance(WINDOW / 2).await;
        trust.beat(Instant::now() + WINDOW);
        assert!(tenure.holds());
        tokio::time::advance(WINDOW / 2).await;
        assert!(!tenure.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_tenure_ends_alone() {
        let trust = Trust::new();
        let (one, other) = (open(&trust), trust.tenure().unwrap());
        one.revoke();
        assert!(!one.holds());
        assert!(other.holds());
    }
}
