//! One key's letters, oldest first.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{How, Key, Step};
use crate::dead_letter::{Attempt, Claim, DeadLetters, Deed, Letter, Reason, Settled};
use crate::decide::blame::Blame;
use crate::decide::claim::Liveness;
use crate::decide::retry::Backoff;
use crate::dependency::{Admission, Try, Turn};
use crate::handler::{Context, Failure, RecordHandler, attempt};

/// A claim outlives what it is made for by this, as clocks differ.
const SPARE: Duration = Duration::from_mins(1);

/// So many letters in a row find the dependency down before it counts as down for all others: one
/// that it hangs up on alone holds nobody else up.
const DOWN_AFTER: u32 = 3;

/// Why a key went no further.
enum Halt {
    /// Its letter failed. `Some`: it waits for an operator now, because of this.
    Failed(String, Option<Reason>),
    /// It is in somebody else's hands.
    Taken,
    /// Its letter found the dependency down, or nothing is gone on with.
    Down(String),
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"), None)
    }
}

/// What is redriven, by whom, and whether it goes on.
pub(super) struct Redrive<'a, H> {
    pub letters: &'a dyn DeadLetters,
    pub handler: &'a H,
    pub how: &'a How,
    /// How many letters in a row found the dependency down.
    pub down: AtomicU32,
}

pub(super) type Steps = tokio::sync::mpsc::UnboundedSender<Step>;

impl<H: RecordHandler> Redrive<'_, H> {
    /// Redrives a key until it is free or stops.
    pub async fn key(&self, key: &Key, steps: &Steps, mut rng: fastrand::Rng) -> Step {
        if self.is_over() {
            return Step::Untried(key.clone());
        }
        let (why, because) = match self.all_letters(key, steps, &mut rng).await {
            Ok(()) => return Step::Free(key.clone()),
            Err(Halt::Taken) => return Step::Taken(key.clone()),
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
            tracing::warn!(%error, "a key stays claimed until its claim is over");
        }
        let key = key.clone();
        // Where that could not be written, the key is tried again.
        let because = because.filter(|_| released.is_ok());
        Step::Stopped { key, why, because }
    }

    /// The claim on a key, from now on for as long as one letter may take.
    fn claim(&self) -> Claim {
        let at = self.how.clock.now();
        let until = at + self.how.handler_timeout + self.how.patience + SPARE;
        let by = self.how.incarnation.clone();
        Claim { by, at, until }
    }

    async fn all_letters(
        &self,
        key: &Key,
        steps: &Steps,
        rng: &mut fastrand::Rng,
    ) -> Result<(), Halt> {
        // Only the first look begins at the first letter.
        let mut settled = None;
        loop {
            let next = || match &settled {
                Some(last) => self.letters.next_after(last),
                None => self.letters.next_of(&key.at, &key.key),
            };
            let Some(letter) = repeated(next, rng).await? else {
                let unpark = || self.letters.unpark_if_empty(&key.at, &key.key);
                if repeated(unpark, rng).await? {
                    return Ok(());
                }
                // One has come just now; or late, before those that are settled.
                settled = None;
                continue;
            };
            let turn = self.turn().await?;
            let claim = self.claim();
            let claim = || self.letters.claim(&key.at, &key.key, &claim);
            if repeated(claim, rng).await?.is_none() {
                return Err(Halt::Taken);
            }
            // Somebody may have settled it before the key was mine.
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
                what: Settled::Redriven,
                why: None,
            };
            let id = letter.envelope.id;
            let settle = || self.letters.settle(&id, &deed);
            // `None`: somebody else settled it meanwhile. It is settled.
            repeated(settle, rng).await?;
            let _ = steps.send(Step::Redriven(id.clone()));
            settled = Some(id);
        }
    }

    /// Handles a letter's record; waits a while for others who are at it.
    async fn letter(
        &self,
        letter: &Letter,
        mut turn: Turn,
        rng: &mut fastrand::Rng,
    ) -> Result<(), Halt> {
        let began = Instant::now();
        let failure = loop {
            let Err(failure) = self.attempt(letter, turn).await else {
                return Ok(());
            };
            let Failure::Busy(wait) = failure else {
                break failure;
            };
            let wait = wait.max(Duration::from_millis(100));
            tokio::time::sleep(wait.min(self.how.patience / 10)).await;
            turn = self.turn().await?;
            if began.elapsed() > self.how.patience {
                break failure;
            }
        };
        let because = match failure {
            Failure::Busy(_) => return Err(Halt::Failed(failure.to_string(), None)),
            Failure::Unavailable(_) | Failure::Overloaded(_) => {
                return Err(Halt::Down(failure.to_string()));
            }
            Failure::Reject(_) => Some(Reason::Rejected),
            Failure::Retry(_) => {
                let made = letter.envelope.attempts.made().saturating_add(1);
                (made >= self.how.max_attempts).then_some(Reason::Exhausted)
            }
        };
        let attempt = Attempt {
            at: self.how.clock.now(),
            error: failure.to_string(),
        };
        let id = &letter.envelope.id;
        let note = || self.letters.note(id, &attempt);
        repeated(note, rng).await?;
        Err(Halt::Failed(attempt.error, because))
    }

    /// Waits for the right to call the handler. Whatever was tried before, this is a first try: a
    /// redrive tries no letter twice, so that it cannot multiply what is asked.
    async fn turn(&self) -> Result<Turn, Halt> {
        let mut asker = self.how.dependency.asker();
        loop {
            if self.is_over() {
                return Err(Halt::Down("it is not gone on with".to_owned()));
            }
            match asker.ask(Try::First) {
                Admission::Go(turn) => return Ok(turn),
                Admission::Wait(wait) | Admission::Later(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = asker.freed() => {}
                    () = self.how.stop.cancelled() => {}
                },
            }
        }
    }

    async fn attempt(&self, letter: &Letter, turn: Turn) -> Result<(), Failure> {
        let limit = self.how.handler_timeout;
        let envelope = &letter.envelope;
        let context = Context::detached()
            .of_worker(&self.how.incarnation, Liveness::Unknown)
            .of_shard(&envelope.id.stream(), &envelope.shard)
            .of_attempt(envelope.attempts.made().saturating_add(1))
            .until(Instant::now() + limit);
        let result = attempt(self.handler, &letter.record, &context, limit).await;
        turn.end(result, &context, &mut Blame::default())
    }

    /// Whether no other letter is begun.
    fn is_over(&self) -> bool {
        self.down.load(Ordering::Relaxed) >= DOWN_AFTER || self.how.stop.is_cancelled()
    }
}

/// Calls the store up to five times.
async fn repeated<'a, T>(
    call: impl Fn() -> BoxFuture<'a, anyhow::Result<T>>,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<T> {
    for attempt in 1..5 {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(_) => tokio::time::sleep(Backoff::default().wait(attempt, rng)).await,
        }
    }
    call().await
}
