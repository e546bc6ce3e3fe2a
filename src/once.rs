//! Effects that take place once, even if processes die in between.
//!
//! ```text
//! preparation -> claim in the ledger -> effect -> outcome in the ledger
//! ```
//!
//! An effect that ends before its claim certainly did not take place. After the claim every outcome is
//! recorded: SENT, FAILED, RETRY, or AMBIGUOUS if no definite answer came. A crash between the two
//! writes leaves a claim in the ledger. Other workers wait for as long as its claimant may live, and
//! then record AMBIGUOUS. Nothing is performed a second time unless the ledger allows it, and
//! [`OnAmbiguous`] decides whether it is.
//!
//! A caller can disappear at any time: its shard moves, or its handler times out. From the claim on,
//! the effect runs in a task of its own, which outlives the caller until the outcome is recorded. An
//! effect that has not begun is dropped and recorded as not performed; one that has begun is completed.
//! Other workers treat its claim as that of a live worker.
//!
//! The caller decides what the effect is, how it is prepared and what it answers:
//!
//! ```text
//! once.perform(&key, &item, context, |attempt| async move {
//!     let card = find_card().await?;                         // may be done again
//!     attempt.point_of_no_return().await?;                   // claimed
//!     let receipt = charge(card).await?;                     // `Err`: it is in doubt
//!     Ok(Outcome::Done(receipt))
//! }).await
//! ```

mod attempt;
mod claims;
mod job;
mod outcome;
mod past;
pub(crate) mod payload;
mod performance;
mod rows;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;

pub use attempt::{Claimed, EffectAttempt};
pub(crate) use claims::LOOK_AGAIN;
use claims::{Claims, ROUNDS};
use job::{Basis, Job};
pub use outcome::{Counted, Outcome, Tally};
use payload::unpack;
use performance::{Action, AttemptReport, Performance};
use window::Window;

use crate::core::claim::{ClaimRule, ItemRef, OnAmbiguous};
use crate::engine::handler::{Context, Failure};
use crate::stores::clock::Clock;
use crate::stores::ledger::{EffectKey, Ledger};

/// How effects are performed.
#[derive(Debug, Clone)]
pub struct OnceSettings {
    /// What to do if it is unknown whether an effect took place.
    pub on_ambiguous: OnAmbiguous,
    /// The time of day.
    pub clock: Clock,
    /// The longest time from the claim to the moment at which the effect begins.
    pub longest_start: Duration,
    /// The longest time from the claim to the last moment at which an answer is still accepted.
    pub longest_effect: Duration,
    /// How many effects the other side accepts at a time.
    pub at_a_time: usize,
    /// The rule that a simulation leaves out.
    pub left_out: Option<ClaimRule>,
}

/// Performs effects once each.
pub struct Once<L> {
    claims: Arc<Claims<L>>,
    window: Window,
    nonces: Mutex<fastrand::Rng>,
    /// The effects whose claim is in the ledger. Dropping this drops them.
    running: Mutex<JoinSet<()>>,
}

impl<L: Ledger> Once<L> {
    /// Claims in `ledger`. `rng` makes the nonces of claims: seed it differently in every process.
    pub fn new(ledger: L, settings: OnceSettings, rng: fastrand::Rng) -> Self {
        Self {
            window: Window::new(settings.at_a_time),
            claims: Arc::new(Claims::new(ledger, settings)),
            nonces: Mutex::new(rng),
            running: Mutex::default(),
        }
    }

    /// Performs the effect of `key`, which is about `item`, unless the ledger says that it is done.
    ///
    /// `effect` prepares and performs it. It can be called more than once, and its future can be
    /// dropped, before it claims ([`EffectAttempt::point_of_no_return`]). An `Err` after the effect has
    /// begun is a doubt; before that, the effect certainly did not take place.
    ///
    /// # Errors
    ///
    /// The effect's own failure, and [`Failure::Busy`] while another worker performs it. The ledger may
    /// be down, or two items may have the same key.
    pub async fn perform<F, E>(
        &self,
        key: &EffectKey,
        item: &ItemRef,
        context: &Context,
        effect: F,
    ) -> Result<(), Failure>
    where
        F: Fn(EffectAttempt) -> E,
        E: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let result = match self.claims.job(key, item, context).await {
            Ok(job) => Box::pin(self.rounds(job, effect)).await,
            Err(error) => Err(Failure::Unavailable(error)),
        };
        self.claims.memory.ended(key, &result);
        result
    }

    /// Records that the effect is deliberately not performed, for this reason. An effect that has
    /// already begun stays as it is.
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`] while another worker performs it. The ledger may be down.
    pub async fn suppress(
        &self,
        key: &EffectKey,
        item: &ItemRef,
        context: &Context,
        reason: String,
    ) -> Result<(), Failure> {
        let result = match self.claims.job(key, item, context).await {
            Ok(job) => self.claims.suppress(job, reason).await,
            Err(error) => Err(Failure::Unavailable(error)),
        };
        self.claims.memory.ended(key, &result);
        result
    }

    async fn rounds<F, E>(&self, mut job: Job, effect: F) -> Result<(), Failure>
    where
        F: Fn(EffectAttempt) -> E,
        E: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        if job.row.is_some()
            && let Err(stop) = self.claims.next(&job, None)
        {
            job.context.did_not_ask();
            return self.claims.stopped(&job, stop);
        }
        for _ in 0..ROUNDS {
            let Some(turn) = self.window.begin() else {
                break;
            };
            let Basis { date, to_repeat } = self.claims.basis(&job);
            let to_repeat = to_repeat.as_ref().map(unpack).transpose();
            let (attempt, mut requests) =
                EffectAttempt::new(date, to_repeat.map_err(Failure::Reject)?);
            let mut effect: Action = Box::pin(effect(attempt));
            let request = tokio::select! {
                biased;
                ended = &mut effect => return self.claims.unclaimed(job, ended).await,
                Ok(request) = &mut requests => request,
            };
            let pass = self.window.pass(turn).await;
            let (true, Some(pass)) = (job.context.may_act(), pass) else {
                break;
            };
            let (report, reported) = oneshot::channel();
            self.run(Performance {
                claims: self.claims.clone(),
                nonce: self.nonce(),
                job,
                effect,
                request,
                pass,
                report,
            });
            match reported.await {
                Ok(AttemptReport::Ended(result)) => return result,
                // The row has changed what to perform.
                Ok(AttemptReport::Again(changed)) => job = *changed,
                Ok(AttemptReport::Panicked(panic)) => resume_unwind(panic),
                Err(_) => break,
            }
        }
        Err(Failure::Busy(LOOK_AGAIN))
    }

    /// Runs a performance in a task of its own, because it must not end with its caller.
    fn run(&self, performance: Performance<L>) {
        let task = crate::gate::gated(performance.run().in_current_span());
        let mut running = self.running();
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }

    /// Waits, at most this long, for effects whose outcome is not recorded yet. Returns how many are
    /// left. Call it before the process ends: those become AMBIGUOUS.
    pub async fn finish(&self, limit: Duration) -> usize {
        let mut running = std::mem::take(&mut *self.running());
        let all = async { while running.join_next().await.is_some() {} };
        // The others are counted, and dropped.
        let _ = timeout(limit, all).await;
        running.len()
    }

    /// The outcomes so far, in this process.
    pub fn tally(&self) -> &Tally {
        &self.claims.tally
    }

    /// The ledger of the effects.
    pub fn ledger(&self) -> &L {
        &self.claims.rows.ledger
    }

    fn nonce(&self) -> u64 {
        let mut rng = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        rng.u64(..)
    }

    fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> fmt::Debug for Once<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once")
            .field("settings", &self.claims.settings)
            .field("tally", &self.claims.tally)
            .finish_non_exhaustive()
    }
}
