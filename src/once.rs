//! Effects that take place once per key, even if processes die in between.
//!
//! ```text
//! preparation -> claim in the ledger -> effect -> outcome in the ledger
//! ```
//!
//! | A crash or a lost connection | means |
//! |---|---|
//! | before the claim | the effect certainly did not take place; the next attempt starts afresh |
//! | between the claim and [`EffectAttempt::point_of_no_return`]'s return | other workers wait until the claimant is dead, and then treat it as the next line |
//! | after it, before a definite answer | the row is AMBIGUOUS. [`OnAmbiguous::Resend`] repeats the effect once, with the same payload; [`OnAmbiguous::Park`] never does; then a person decides (`aftercommit ledger resolve`) |
//! | the same, where the provider recognises a repeat ([`OnceSettings::provider_remembers`]) | the effect is repeated with the same payload until an answer comes, and takes place once |
//! | after the answer, before the outcome is in the ledger | the same: AMBIGUOUS. The process retries the write for as long as it lives |
//! | after the outcome is in the ledger | nothing: [`Outcome::Done`] and its receipt are final |
//!
//! So without a crash or a lost connection in that window the effect takes place exactly once; with
//! one, at most twice under `resend` and at most once under `park`, and the ledger says which effects
//! are in doubt.
//!
//! A caller can disappear at any time: its shard moves, or its handler times out. From the claim on,
//! the effect runs in a task of its own, which outlives the caller until the outcome is recorded. An
//! effect that has not begun is dropped and recorded as not performed; one that has begun is completed.
//! Other workers treat its claim as that of a live worker.
//!
//! Two items with one key are a mistake: the second is rejected, with the names of both.
//!
//! ```
//! use aftercommit::once::{EffectAttempt, Once, OnceSettings, Outcome};
//! use aftercommit::stores::ledger::memory::MemoryLedger;
//! use aftercommit::stores::ledger::{EffectKey, item_ref};
//! use aftercommit::{Context, EffectName, Failure, Record, RecordHandler};
//!
//! struct Cashier(Once<MemoryLedger>, EffectName);
//!
//! impl Cashier {
//!     fn new(effect: EffectName) -> Self {
//!         let ledger = MemoryLedger::new(); // In production stores::ledger::dynamodb::DynamoDbLedger.
//!         Self(Once::new(ledger, OnceSettings::default(), fastrand::Rng::new()), effect)
//!     }
//! }
//!
//! impl RecordHandler for Cashier {
//!     async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
//!         let key = EffectKey::new(&self.1, record.key().as_str());
//!         let item = item_ref(context.stream(), &record.keys, None);
//!         let charge = |attempt: EffectAttempt| async move {
//!             let request = b"19.99 EUR".to_vec(); // May be prepared again and again.
//!             let request = attempt.to_repeat().map_or(request, <[u8]>::to_vec);
//!             attempt.keeping(request).point_of_no_return().await?;
//!             Ok(Outcome::Done("charge 4711".to_owned())) // Call the provider here. `Err`: in doubt.
//!         };
//!         self.0.perform(&key, &item, context, charge).await
//!     }
//! }
//! ```
//!
//! `examples/charge.rs` is a whole program.

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

pub use crate::core::claim::OnAmbiguous;
use crate::core::claim::{ClaimRule, ItemRef};
use crate::engine::handler::{Context, Failure};
use crate::stores::clock::Clock;
use crate::stores::ledger::{EffectKey, Ledger};

/// How effects are performed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OnceSettings {
    /// What to do if it is unknown whether an effect took place. By default it is repeated once.
    pub on_ambiguous: OnAmbiguous,
    /// For how long the provider recognises a repeat by the effect key that it gets (an idempotency key),
    /// if it does. A doubt younger than that is repeated under either policy, and ends when the repeat is
    /// accepted: the effect took place once. `None` by default: every repeat may be a second effect. Say
    /// no more than the provider promises, and keep the payload ([`EffectAttempt::keeping`]), because
    /// only the same bytes are repeated.
    pub provider_remembers: Option<Duration>,
    /// The time of day; the system's by default.
    pub clock: Clock,
    /// The longest time from the claim to the moment at which the effect begins; a minute by default.
    pub longest_start: Duration,
    /// The longest time from the claim to the last moment at which an answer is still accepted; 15
    /// minutes by default. An effect that takes longer is dropped, and is in doubt if it has begun.
    pub longest_effect: Duration,
    /// How many effects the other side accepts at a time; 16 by default. About half as many are past
    /// their point of no return at a time, fewer while answers fail to come.
    pub at_a_time: usize,
    /// The rule that a simulation leaves out.
    pub(crate) left_out: Option<ClaimRule>,
}

impl Default for OnceSettings {
    fn default() -> Self {
        Self {
            on_ambiguous: OnAmbiguous::default(),
            provider_remembers: None,
            clock: Clock::system(),
            longest_start: Duration::from_mins(1),
            longest_effect: Duration::from_mins(15),
            at_a_time: 16,
            left_out: None,
        }
    }
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
        let task = crate::hooks::gated(performance.run().in_current_span());
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
