//! The trust window: how long a worker may believe that it still holds its leases.
//!
//! Others take a worker's leases once they have seen its heartbeat stand still for
//! `lease_duration`. So the worker itself stops earlier: a margin before `lease_duration` has
//! passed since it *began* its last successful heartbeat. A lapse, however short, voids everything
//! that it held until the lease rows have been read again; what began under the old tenure stays
//! void for good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The window of one worker process, shared by all that act in its name.
#[derive(Debug, Clone, Default)]
pub struct Trust(Arc<Mutex<Window>>);

#[derive(Debug, Default)]
struct Window {
    until: Option<Instant>,
    /// Raised by every lapse.
    generation: u64,
}

impl Window {
    /// Lapses are noticed whenever anybody looks, so none is too short to count.
    fn note_lapse(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.until = None;
            self.generation += 1;
        }
    }
}

impl Trust {
    /// A window that is closed: a start counts as a lapse.
    pub fn new() -> Self {
        Self::default()
    }

    /// A successful heartbeat: trust lasts until `until`. Returns the generation that it opens or
    /// goes on with.
    pub fn extend(&self, until: Instant) -> u64 {
        let mut window = self.window();
        window.note_lapse(Instant::now());
        window.until = window.until.max(Some(until));
        window.note_lapse(Instant::now());
        window.generation
    }

    /// Ends the window now.
    pub fn revoke(&self) {
        let mut window = self.window();
        window.until = None;
        window.generation += 1;
    }

    /// The tenure that is valid now, if the window is open.
    pub fn tenure(&self) -> Option<Tenure> {
        let mut window = self.window();
        window.note_lapse(Instant::now());
        window.until.map(|_| Tenure {
            trust: self.clone(),
            generation: window.generation,
        })
    }

    /// The generation, after noticing a lapse if there was one.
    pub fn generation(&self) -> u64 {
        let mut window = self.window();
        window.note_lapse(Instant::now());
        window.generation
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One unbroken stretch of trust. Once it has lapsed it never holds again.
#[derive(Debug, Clone)]
pub struct Tenure {
    trust: Trust,
    generation: u64,
}

impl Tenure {
    /// Whether the worker may start an effect now.
    pub fn holds(&self) -> bool {
        self.until().is_some()
    }

    /// When the tenure ends if no further heartbeat succeeds; `None` when it has lapsed.
    pub fn until(&self) -> Option<Instant> {
        let mut window = self.trust.window();
        window.note_lapse(Instant::now());
        window
            .until
            .filter(|_| window.generation == self.generation)
    }

    /// Which stretch this is; a later one has a higher number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A tenure that holds until `deadline`, where there is no fleet (a Lambda invocation).
    pub fn until_deadline(deadline: Instant) -> Self {
        let trust = Trust::new();
        let generation = trust.extend(deadline);
        Self { trust, generation }
    }
}
