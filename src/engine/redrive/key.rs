//! One key's letters, oldest first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{How, RedriveStep, RedrivenKey};
use crate::core::backoff::{AttemptLimits, Backoff};
use crate::core::claim::Liveness;
use crate::core::pipeline::{AfterFailure, Change, Closing, DeadLetterRules, Rules};
use crate::engine::dependency::{Try, Turn};
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::engine::run_pipeline::{Buried, Bury, Carried, InFlight, Work};
use crate::stores::dead_letter::{
    Claim, DeadLetters, Deed, Letter, LetterId, LetterOutcome, Reason,
};
use crate::stores::retry::REDRIVE;

/// How much longer a claim lasts than the work that it is for, because clocks differ.
const SPARE: Duration = Duration::from_mins(1);

/// How many letters in a row must find the dependency down before it counts as down for all others. A
/// letter that alone makes it hang up does not stop the others.
const DOWN_AFTER: u32 = 3;

/// How often a wait for the dependency checks whether to continue.
const LOOK: Duration = Duration::from_secs(1);

/// Why a key stopped.
enum Halt {
    /// Its letter failed. `Some`: it waits for an operator now, for this reason.
    Failed(String, Option<Reason>),
    /// Another process has claimed it.
    Taken,
    /// Its letter found the dependency down, or the redrive was stopped.
    Down(String),
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"), None)
    }
}

/// What is redriven, by whom, and whether to continue.
pub(super) struct Redrive<'a, H> {
    pub letters: &'a dyn DeadLetters,
    pub handler: &'a H,
    pub how: &'a How,
    /// How many letters in a row found the dependency down.
    pub down: AtomicU32,
}

pub(super) type Steps = tokio::sync::mpsc::UnboundedSender<RedriveStep>;

impl<H: RecordHandler> Redrive<'_, H> {
    /// Redrives a key until it is free or stops.
    pub async fn key(
        &self,
        key: &RedrivenKey,
        steps: &Steps,
        mut rng: fastrand::Rng,
    ) -> RedriveStep {
        if self.is_over() {
            return RedriveStep::Untried(key.clone());
        }
        let (why, because) = match self.all_letters(key, steps, &mut rng).await {
            Ok(()) => return RedriveStep::Free(key.clone()),
            Err(Halt::Taken) => return RedriveStep::Taken(key.clone()),
            Err(Halt::Failed(why, because)) => (why, because),
            Err(Halt::Down(why)) => {
                self.down.fetch_add(1, Ordering::Relaxed);
                (why, None)
            }
        };
        let claim = self.claim();
        let (at, of) = (&key.at, &key.key);
        let release = || self.letters.release(at, of, &claim, because);
        let released = repeated(release, &mut rng).await;
        if let Err(error) = &released {
            let error = format!("{error:#}");
            tracing::warn!(%error, "cannot release a key: it stays claimed until its claim ends");
        }
        let key = key.clone();
        // If that could not be recorded, the key is tried again.
        let because = because.filter(|_| released.is_ok());
        RedriveStep::Stopped { key, why, because }
    }

    /// The claim on a key, from now on for as long as one letter can take.
    fn claim(&self) -> Claim {
        let at = self.how.clock.now();
        let until = at + self.how.handler_timeout + self.how.patience + SPARE;
        let by = self.how.incarnation.clone();
        Claim { by, at, until }
    }

    async fn all_letters(
        &self,
        key: &RedrivenKey,
        steps: &Steps,
        rng: &mut fastrand::Rng,
    ) -> Result<(), Halt> {
        // Only the first look begins at the first letter.
        let mut closed = None;
        loop {
            let next = || match &closed {
                Some(last) => self.letters.next_after(last),
                None => self.letters.next_of(&key.at, &key.key),
            };
            let Some(letter) = repeated(next, rng).await? else {
                let unpark = || self.letters.unpark_if_empty(&key.at, &key.key);
                if repeated(unpark, rng).await? {
                    return Ok(());
                }
                // A letter arrived just now, or arrived late and sorts before finished letters.
                closed = None;
                continue;
            };
            let turn = self.turn().await?;
            let claim = self.claim();
            let claim = || self.letters.claim(&key.at, &key.key, &claim);
            if repeated(claim, rng).await?.is_none() {
                return Err(Halt::Taken);
            }
            // Another process may have finished it before this process claimed the key.
            let now = repeated(next, rng).await?;
            let is_it = |now: &Letter| now.envelope.id == letter.envelope.id;
            let Some(letter) = now.filter(is_it) else {
                continue;
            };
            self.letter(&letter, turn, rng).await?;
            self.down.store(0, Ordering::Relaxed);
            let deed = Deed {
                at: self.how.clock.now(),
                by: self.how.by.clone(),
                what: LetterOutcome::Redriven,
                why: None,
            };
            let id = letter.envelope.id;
            let close = || self.letters.close(&id, &deed);
            // `None`: another process finished it meanwhile.
            repeated(close, rng).await?;
            let _ = steps.send(RedriveStep::Redriven(id.clone()));
            closed = Some(id);
        }
    }

    /// Handles a letter's record. Waits a while if another worker is processing it.
    async fn letter(
        &self,
        letter: &Letter,
        turn: Turn,
        rng: &mut fastrand::Rng,
    ) -> Result<(), Halt> {
        let mut in_flight = self.in_flight(letter, turn, rng);
        let began = Instant::now();
        let mut why = String::new();
        loop {
            in_flight.start();
            if in_flight.running() == 0 && self.is_over() {
                return Err(Halt::Down("the redrive stopped before this key".to_owned()));
            }
            // The time of its claim is over.
            if in_flight.running() == 0 && in_flight.wakes().is_none() {
                return Err(Halt::Failed(why, None));
            }
            let happened = tokio::select! {
                happened = in_flight.turn() => happened,
                () = self.how.stop.cancelled(), if in_flight.running() == 0 => None,
            };
            match happened {
                Some((Change::Ended(_, None), _)) => return Ok(()),
                Some((Change::Ended(_, Some(reason)), _)) => {
                    return Err(Halt::Failed(why, self.because(letter, reason)));
                }
                Some((Change::Failed { verdict, .. }, Some(failure))) => {
                    why = failure.to_string();
                    self.goes_on(&failure, verdict, began)?;
                }
                Some(_) | None => {}
            }
        }
    }

    /// Whether a failed letter is still worked on, if only to record the failure.
    fn goes_on(
        &self,
        failure: &Failure,
        verdict: AfterFailure,
        began: Instant,
    ) -> Result<(), Halt> {
        match (failure, verdict) {
            (Failure::Unavailable(_) | Failure::Overloaded(_), _) => {
                Err(Halt::Down(failure.to_string()))
            }
            (Failure::Busy(_), AfterFailure::Again(wait))
                if began.elapsed() + wait > self.how.patience =>
            {
                Err(Halt::Failed(failure.to_string(), None))
            }
            _ => Ok(()),
        }
    }

    /// Why a failed letter waits for an operator from now on; `None`: it does not.
    fn because(&self, letter: &Letter, reason: Reason) -> Option<Reason> {
        let (limits, envelope) = (self.how.limits, &letter.envelope);
        let often = envelope.attempts.made().saturating_add(1) >= limits.attempts;
        let is_over = match reason {
            Reason::Exhausted => often,
            // Time spent waiting for the dependency counts as well, so the age alone does not decide.
            Reason::TooOld => {
                let age = self.how.clock.now().duration_since(envelope.written);
                often && age.is_ok_and(|age| age >= limits.age)
            }
            _ => true,
        };
        is_over.then_some(reason)
    }

    /// A pipeline for one letter. A failed attempt is recorded on the letter.
    fn in_flight<'s>(
        &'s self,
        letter: &Letter,
        turn: Turn,
        rng: &mut fastrand::Rng,
    ) -> InFlight<'s, &'s H> {
        let (how, envelope) = (self.how, &letter.envelope);
        let limits = AttemptLimits {
            attempts: 1,
            age: Duration::ZERO,
        };
        let rescue_age = None;
        let rules = Rules {
            concurrency: 1,
            backoff: Backoff {
                // How often a busy effect is tried again.
                cap: how.patience * 3,
                ..Backoff::default()
            },
            dead_letters: Some(DeadLetterRules { limits, rescue_age }),
            comes_again: false,
            left_out: None,
        };
        let context = Context::detached()
            .of_worker(&how.incarnation, Liveness::Unknown)
            .of_shard(&envelope.id.stream(), &envelope.shard)
            .of_attempt(envelope.attempts.made().saturating_add(1))
            .until(Instant::now() + how.handler_timeout + how.patience);
        let work = Work {
            at: envelope.id.at.clone(),
            handler: self.handler,
            context,
            at_expiry: Closing::OutOfTime,
            limit: how.handler_timeout,
            bury: Some(self.note(&envelope.id)),
            ask: None,
            handling: Arc::default(),
            clock: how.clock.clone(),
        };
        let mut asker = how.dependency.asker();
        asker.keep(turn);
        let mut in_flight = InFlight::new(rules, work, asker, rng.fork());
        in_flight.push(Carried::new(letter.record.clone(), None));
        in_flight
    }

    /// Adds the last attempt to the letter, which is a dead letter already.
    fn note<'s>(&'s self, id: &LetterId) -> Bury<'s> {
        let (letters, id) = (self.letters, id.clone());
        Arc::new(move |failed, mut rng| {
            let id = id.clone();
            Box::pin(async move {
                let envelope = failed.envelope;
                if let Some(attempt) = envelope.attempts.last().next_back() {
                    let note = || letters.note(&id, attempt);
                    if let Err(error) = repeated(note, &mut rng).await {
                        let error = format!("{error:#}");
                        tracing::warn!(%error, "cannot record a failed redrive on its dead letter");
                    }
                }
                Buried::As(envelope.reason)
            })
        })
    }

    /// Waits for the right to call the handler. Whatever was tried before, this counts as a first
    /// attempt: a redrive tries no letter twice, so it cannot multiply calls.
    async fn turn(&self) -> Result<Turn, Halt> {
        let mut asker = self.how.dependency.asker();
        loop {
            if self.is_over() {
                return Err(Halt::Down("the redrive stopped before this key".to_owned()));
            }
            tokio::select! {
                biased;
                turn = asker.turn(Try::First) => return Ok(turn),
                () = self.how.stop.cancelled() => {}
                // Another key's letter may have found it down meanwhile.
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Whether no more letters are started.
    fn is_over(&self) -> bool {
        self.down.load(Ordering::Relaxed) >= DOWN_AFTER || self.how.stop.is_cancelled()
    }
}

/// Repeats a call to the store.
async fn repeated<'a, T>(
    call: impl Fn() -> BoxFuture<'a, anyhow::Result<T>>,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<T> {
    REDRIVE.call(rng, |_| true, call).await
}
