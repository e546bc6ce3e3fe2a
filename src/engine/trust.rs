//! The fleet member's trust in its leases, as its shard tasks see it.
//!
//! The member decides ([`crate::core::fleet::validity`]) and publishes its decision here, so that a
//! task can check at any moment whether it may begin something, without asking the member.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::core::fleet::validity::Generation;

/// The trust of one worker process, shared by everything that acts in its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Arc<Mutex<Published>>);

/// A stretch of trust, and when it ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Published {
    pub generation: Generation,
    pub until: Option<Instant>,
}

impl Trust {
    /// Publishes what `decide` returns. `decide` reads the time while nobody can look here, so nobody
    /// sees a lapse that `decide` does not see.
    pub fn publish(&self, decide: impl FnOnce() -> Published) {
        let mut published = self.published();
        *published = decide();
    }

    /// The right to act on one shard during this stretch of trust.
    pub fn tenure(&self, generation: Generation) -> Tenure {
        Tenure {
            trust: self.clone(),
            generation,
            revoked: Arc::default(),
        }
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to act on one shard during one unbroken stretch of trust. Once it has ended, it never
/// holds again.
#[derive(Debug, Clone)]
pub(crate) struct Tenure {
    trust: Trust,
    generation: Generation,
    revoked: Arc<AtomicBool>,
}

impl Tenure {
    /// Whether an effect may begin now.
    pub fn holds(&self) -> bool {
        self.until().is_some()
    }

    /// When the tenure ends if nothing renews it; `None` if it has ended.
    pub fn until(&self) -> Option<Instant> {
        let published = *self.trust.published();
        let mine = published.generation == self.generation;
        let mine = mine && !self.revoked.load(Ordering::Acquire);
        let until = published.until.filter(|_| mine);
        until.filter(|until| Instant::now() < *until)
    }

    /// Whether both are the same tenure.
    #[cfg(feature = "simulation")]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.revoked, &other.revoked)
    }

    /// Ends only this tenure: another worker has its shard now.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// A tenure that holds until `deadline`, without a fleet (a Lambda invocation).
    pub fn until_deadline(deadline: Instant) -> Self {
        let trust = Trust::default();
        trust.publish(|| Published {
            generation: 0,
            until: Some(deadline),
        });
        trust.tenure(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(8);

    fn publish(trust: &Trust, generation: Generation) {
        let until = Some(Instant::now() + WINDOW);
        trust.publish(|| Published { generation, until });
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenure_ends_by_itself_when_nothing_renews_it() {
        let trust = Trust::default();
        publish(&trust, 1);
        let tenure = trust.tenure(1);
        tokio::time::advance(WINDOW / 2).await;
        publish(&trust, 1);
        tokio::time::advance(WINDOW / 2).await;
        assert!(tenure.holds(), "it was renewed");
        tokio::time::advance(WINDOW / 2).await;
        assert!(!tenure.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenure_of_an_earlier_stretch_of_trust_never_holds_again() {
        let trust = Trust::default();
        publish(&trust, 1);
        let (old, new) = (trust.tenure(1), trust.tenure(2));
        assert!(old.holds() && !new.holds());
        publish(&trust, 2);
        assert!(!old.holds() && new.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_tenure_ends_alone() {
        let trust = Trust::default();
        publish(&trust, 1);
        let (one, other) = (trust.tenure(1), trust.tenure(1));
        one.revoke();
        assert!(!one.holds());
        assert!(other.holds());
    }
}
