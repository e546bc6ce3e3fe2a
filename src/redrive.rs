//! Redriving dead letters: each key's letters are handled again, oldest first, by the handler that
//! would have handled them in time.
//!
//! A key whose letters are all handled is free again: its next records are handled as they come. A
//! key stops at its first letter that fails, which stays the first of its key, with this attempt
//! written down. A crash in between leaves letters where they were; one that was handled but not
//! yet settled is handled again, as any record may be.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::dead_letter::{Attempt, DeadLetters, Deed, Letter, LetterId, Settled};
use crate::decide::claim::Liveness;
use crate::decide::retry::Backoff;
use crate::handler::{Context, Failure, RecordHandler};
use crate::record::ItemKey;

/// How letters are redriven.
#[derive(Debug, Clone)]
pub struct How {
    /// Who does it: written down with each letter.
    pub by: String,
    /// This process, unique for all times: claims are made in its name.
    pub incarnation: String,
    /// How many keys at a time.
    pub parallel: usize,
    /// How long the handler may take for a record.
    pub handler_timeout: Duration,
    /// How long to wait for somebody else who is at the same effect.
    pub patience: Duration,
    /// The time of day.
    pub clock: Clock,
}

impl How {
    /// The usual way: 8 keys at a time, the handler's 15 minutes, a minute of patience.
    pub fn new(by: &str, incarnation: &str, clock: Clock) -> Self {
        Self {
            by: by.to_owned(),
            incarnation: incarnation.to_owned(),
            parallel: 8,
            handler_timeout: Duration::from_mins(15),
            patience: Duration::from_mins(1),
            clock,
        }
    }
}

/// A key whose letters are redriven.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The stream's ARN.
    pub stream: Arc<str>,
    /// The item's key.
    pub key: ItemKey,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A letter was handled and settled.
    Redriven(LetterId),
    /// A key has no letters any more, and is free.
    Free(Key),
    /// A key stopped.
    Stopped {
        /// The key.
        key: Key,
        /// Why. May name the record's content.
        why: String,
    },
    /// A key was not tried, because a dependency is down.
    Untried(Key),
}

/// What was done, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Letters that were handled.
    pub redriven: u64,
    /// Keys that are free again.
    pub free: u64,
    /// Keys that stopped at a letter that failed.
    pub stopped: u64,
    /// Keys that were not tried, because a dependency is down.
    pub untried: u64,
}

/// Why a key went no further.
enum Halt {
    /// Its letter failed.
    Failed(String),
    /// So will all others.
    Down(String),
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

struct Redrive<'a, D, H> {
    letters: &'a D,
    handler: &'a H,
    how: &'a How,
    down: AtomicBool,
}

/// Redrives all letters of these keys, also those that come while it runs. `told` hears each step.
/// `rng` spreads waits.
///
/// A key stops at the first letter that fails; all others go on. If the handler says that a
/// dependency is unavailable, no attempt is written down and no other key is begun.
pub async fn redrive<D: DeadLetters, H: RecordHandler>(
    letters: &D,
    handler: &H,
    keys: Vec<Key>,
    how: (&How, &mut fastrand::Rng),
    mut told: impl FnMut(&Step),
) -> Summary {
    let (how, rng) = how;
    let redrive = Redrive {
        letters,
        handler,
        how,
        down: AtomicBool::new(false),
    };
    let (steps, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let of_keys = keys.into_iter().map(|key| {
        let (redrive, steps, rng) = (&redrive, steps.clone(), rng.fork());
        async move {
            let last = redrive.key(&key, &steps, rng).await;
            // The listener below outlives every sender.
            let _ = steps.send(last);
        }
    });
    let all = futures_util::stream::iter(of_keys);
    let mut all = std::pin::pin!(all.buffer_unordered(how.parallel.max(1)).collect::<()>());
    let mut summary = Summary::default();
    let mut running = true;
    loop {
        tokio::select! {
            biased;
            Some(step) = heard.recv() => {
                summary.count(&step);
                told(&step);
            }
            () = &mut all, if running => running = false,
        }
        if !running && heard.is_empty() {
            return summary;
        }
    }
}

impl Summary {
    fn count(&mut self, step: &Step) {
        match step {
            Step::Redriven(_) => self.redriven += 1,
            Step::Free(_) => self.free += 1,
            Step::Stopped { .. } => self.stopped += 1,
            Step::Untried(_) => self.untried += 1,
        }
    }
}

type Steps = tokio::sync::mpsc::UnboundedSender<Step>;

impl<D: DeadLetters, H: RecordHandler> Redrive<'_, D, H> {
    /// Redrives a key until it is free or stops.
    async fn key(&self, key: &Key, steps: &Steps, mut rng: fastrand::Rng) -> Step {
        if self.down.load(Ordering::Relaxed) {
            return Step::Untried(key.clone());
        }
        let why = match self.all_letters(key, steps, &mut rng).await {
            Ok(()) => return Step::Free(key.clone()),
            Err(Halt::Failed(why)) => why,
            Err(Halt::Down(why)) => {
                self.down.store(true, Ordering::Relaxed);
                why
            }
        };
        let key = key.clone();
        Step::Stopped { key, why }
    }

    async fn all_letters(
        &self,
        key: &Key,
        steps: &Steps,
        rng: &mut fastrand::Rng,
    ) -> Result<(), Halt> {
        loop {
            let next = async || self.letters.next_of(&key.stream, &key.key).await;
            let Some(letter) = repeated(next, rng).await? else {
                let unpark = async || self.letters.unpark_if_empty(&key.stream, &key.key).await;
                if repeated(unpark, rng).await? {
                    return Ok(());
                }
                // One has come just now.
                continue;
            };
            self.letter(&letter, rng).await?;
            let deed = Deed {
                at: self.how.clock.now(),
                by: self.how.by.clone(),
                what: Settled::Redriven,
                why: None,
            };
            let id = letter.envelope.id;
            let settle = async || self.letters.settle(&id, &deed).await;
            // `None`: somebody else settled it meanwhile. It is settled.
            repeated(settle, rng).await?;
            let _ = steps.send(Step::Redriven(id));
        }
    }

    /// Handles a letter's record; waits a while for others who are at it.
    async fn letter(&self, letter: &Letter, rng: &mut fastrand::Rng) -> Result<(), Halt> {
        let began = Instant::now();
        loop {
            let failure = match self.attempt(letter).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            match &failure {
                Failure::Busy(wait) if began.elapsed() < self.how.patience => {
                    let wait = (*wait)
                        .max(Duration::from_millis(100))
                        .min(self.how.patience / 10);
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Failure::Busy(_) => return Err(Halt::Failed(failure.to_string())),
                Failure::Unavailable(_) => return Err(Halt::Down(failure.to_string())),
                Failure::Retry(_) | Failure::Reject(_) => {}
            }
            let attempt = Attempt {
                at: self.how.clock.now(),
                error: failure.to_string(),
            };
            let id = &letter.envelope.id;
            let note = async || self.letters.note(id, &attempt).await;
            repeated(note, rng).await?;
            return Err(Halt::Failed(attempt.error));
        }
    }

    /// Runs the handler once. A panic and an overrun are failures.
    async fn attempt(&self, letter: &Letter) -> Result<(), Failure> {
        let limit = self.how.handler_timeout;
        let envelope = &letter.envelope;
        let context = Context::detached()
            .of_worker(&self.how.incarnation, Liveness::Unknown)
            .of_shard(&envelope.id.stream, &envelope.shard)
            .of_attempt(envelope.attempts.made().saturating_add(1))
            .until(Instant::now() + limit);
        let handling = AssertUnwindSafe(self.handler.handle(&letter.record, &context));
        match tokio::time::timeout(limit, handling.catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                let words = words(&*panic);
                Err(Failure::Retry(anyhow::anyhow!(
                    "the handler panicked: {words}"
                )))
            }
            Err(_) => Err(Failure::Retry(anyhow::anyhow!(
                "the handler took longer than {limit:?}"
            ))),
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// Calls the store up to five times.
async fn repeated<T>(
    call: impl AsyncFn() -> anyhow::Result<T>,
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
