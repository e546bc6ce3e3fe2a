//! Redrives dead letters automatically if nothing is wrong with their records: those that were rescued
//! from leaving the stream while a dependency was down, once it is back, and those that were deferred
//! at the end of their shard.
//!
//! Every worker of the fleet does this, one key at a time. A worker claims a key first
//! ([`crate::stores::dead_letter::DeadLetters::claim`]). If a letter fails, its key waits for an
//! operator, or for the next round while it has attempts left.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::core::filter::HomeRegion;
use crate::core::group::EffectTable;
use crate::core::record::Record;
use crate::engine::Engine;
use crate::engine::effect::ActiveEffect;
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::engine::progress::Counters;
use crate::engine::redrive::{How, RedriveStep, RedrivenKey, redrive};
use crate::stores::dead_letter::{DeadLetters, Reason};
use crate::stores::leases::Incarnation;

/// The longest wait between two rounds. The shortest is half of it.
const ROUND: Duration = Duration::from_mins(1);

/// How many keys are redriven at a time.
const PARALLEL: usize = 4;

/// How many parked keys are read at a time.
const PAGE: usize = 1_000;

/// Redrives the rescued and deferred records of one effect.
pub(super) struct Rescued<S, L> {
    engine: Arc<Engine<S, L>>,
    at: EffectTable,
    wanted: WantedRecords,
    how: How,
    stop: CancellationToken,
    rng: fastrand::Rng,
}

/// The effect's handler, for the records that it wants: workers that do not perform the effect defer
/// all records that it may want.
struct WantedRecords {
    effect: Arc<ActiveEffect>,
    home: Option<HomeRegion>,
}

impl RecordHandler for WantedRecords {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let effect = &self.effect.effect;
        if !effect.wants(record, context.stream(), self.home.as_ref()) {
            return Ok(());
        }
        effect.handler.handle(record, context).await
    }
}

impl<S, L> Rescued<S, L> {
    pub fn new(
        engine: Arc<Engine<S, L>>,
        effect: Arc<ActiveEffect>,
        me: &Incarnation,
        stop: CancellationToken,
        rng: fastrand::Rng,
    ) -> Self {
        let how = How {
            parallel: PARALLEL,
            handler_timeout: engine.settings.timing.handler_timeout,
            limits: effect.effect.attempts.unwrap_or(engine.settings.attempts),
            dependency: effect.dependency.clone(),
            stop: stop.clone(),
            ..How::new(me.as_str(), me.as_str(), engine.clock.clone())
        };
        let home = engine.home.clone();
        Self {
            at: engine.letters_of(&effect.effect.name),
            wanted: WantedRecords { effect, home },
            engine,
            how,
            stop,
            rng,
        }
    }

    /// Works until it is stopped. A letter in progress is finished, within the timeout of a hand-over.
    pub async fn run(mut self) {
        let patience = self.engine.settings.timing.handover_timeout;
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = self.rounds() => {}
            () = async { stop.cancelled().await; tokio::time::sleep(patience).await } => {}
        }
    }

    async fn rounds(&mut self) {
        let Some(letters) = self.engine.letters.clone() else {
            return;
        };
        loop {
            let wait = ROUND.mul_f64(0.5 + self.rng.f64() / 2.0);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if let Err(error) = self.round(&*letters).await {
                let error = format!("{error:#}");
                warn!(%error, "cannot look for rescued and deferred records; retrying");
            }
        }
    }

    /// Redrives page by page: there can be very many parked keys.
    async fn round(&mut self, letters: &dyn DeadLetters) -> anyhow::Result<()> {
        let mut from = None;
        loop {
            let at = &self.at;
            let page = letters.parked_page(at, from.as_deref(), PAGE).await?;
            for error in &page.unreadable {
                warn!(error, "skipping a parked key");
            }
            let rescued = page.keys.into_iter();
            let rescued =
                rescued.filter(|key| key.reason.is_some_and(Reason::is_redriven_by_itself));
            let keys = rescued.map(|parked| RedrivenKey {
                at: at.clone(),
                key: parked.key,
            });
            let keys: Vec<_> = keys.collect();
            let untried = self.redrive(letters, keys).await;
            from = page
                .next
                .filter(|_| untried == 0 && !self.stop.is_cancelled());
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns how many keys were not tried because a dependency is down.
    async fn redrive(&mut self, letters: &dyn DeadLetters, mut keys: Vec<RedrivenKey>) -> u64 {
        if keys.is_empty() {
            return 0;
        }
        // Each worker begins at another key.
        self.rng.shuffle(&mut keys);
        let counters = self.wanted.effect.effect.progress.counters.clone();
        let report = |step: &RedriveStep| match step {
            RedriveStep::Redriven(_) => Counters::add(&counters.redriven),
            RedriveStep::Stopped { why, because, .. } => {
                warn!(
                    error = why,
                    "a rescued or deferred record cannot be redriven"
                );
                if because.is_some() {
                    Counters::add(&counters.dead_letters);
                }
            }
            RedriveStep::Free(_) | RedriveStep::Untried(_) | RedriveStep::Taken(_) => {}
        };
        let with = (&self.how, &mut self.rng);
        let sum = redrive(letters, &self.wanted, keys, with, report).await;
        if sum.redriven > 0 {
            info!(
                redriven = sum.redriven,
                free = sum.free,
                "rescued and deferred records were redriven"
            );
        }
        sum.untried
    }
}
