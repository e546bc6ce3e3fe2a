//! Redriving dead letters: each key's letters are handled again, oldest first, by the handler that
//! would have handled them in time.
//!
//! A key whose letters are all handled is free again: its next records are handled as they arrive. A
//! key stops at its first letter that fails; this attempt is recorded on the letter. A crash leaves the
//! letters where they were; a letter that was handled but not yet finished is handled again, as any
//! record may be.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::core::backoff::AttemptLimits;
use crate::core::group::EffectTable;
use crate::core::record::ItemKey;
use crate::engine::dependency::{Dependency, Limits};
use crate::engine::handler::{OUTSIDE, RecordHandler};
use crate::stores::clock::Clock;
use crate::stores::dead_letter::{DeadLetters, LetterId, Reason};

mod key;

use key::Redrive;

/// How letters are redriven.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct How {
    /// The operator or worker; recorded on each letter.
    pub by: String,
    /// The name of this process, under which it claims keys. It is never reused.
    pub incarnation: String,
    /// How many keys are redriven at a time.
    pub parallel: usize,
    /// How long the handler may take for a record.
    pub handler_timeout: Duration,
    /// Limits after which a letter is no longer redriven automatically.
    pub limits: AttemptLimits,
    /// How long to wait for another process that is processing the same effect.
    pub patience: Duration,
    /// The handler's dependency.
    pub dependency: Dependency,
    /// When it is cancelled, running letters are finished and no others are started.
    pub stop: CancellationToken,
    /// The time of day.
    pub clock: Clock,
}

impl How {
    /// The defaults: 8 keys at a time, 15 minutes per record, 1 minute of waiting for another process.
    pub fn new(by: &str, incarnation: &str, clock: Clock) -> Self {
        Self {
            by: by.to_owned(),
            incarnation: format!("{OUTSIDE}{incarnation}"),
            parallel: 8,
            handler_timeout: Duration::from_mins(15),
            limits: AttemptLimits::default(),
            patience: Duration::from_mins(1),
            dependency: Dependency::new(&Limits::default(), fastrand::Rng::new()),
            stop: CancellationToken::new(),
            clock,
        }
    }
}

/// A key whose letters are redriven.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RedrivenKey {
    /// The effect, its group, and the item's table.
    pub at: EffectTable,
    /// The item's key.
    pub key: ItemKey,
}

/// What happened to a letter or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveStep {
    /// A letter was handled and finished.
    Redriven(LetterId),
    /// A key has no more letters and is free.
    Free(RedrivenKey),
    /// A key stopped.
    Stopped {
        /// The key.
        key: RedrivenKey,
        /// The reason. It may quote the record's content.
        why: String,
        /// `Some`: its letter failed for good, and the key waits for an operator.
        because: Option<Reason>,
    },
    /// A key was not tried, because a dependency is down or the redrive was stopped.
    Untried(RedrivenKey),
    /// Another process is redriving the key.
    Taken(RedrivenKey),
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
    /// Keys that were not tried, because a dependency is down or the redrive was stopped.
    pub untried: u64,
    /// Keys that another process is redriving.
    pub taken: u64,
}

/// Redrives all letters of these keys, including those that arrive while it runs. `report` is called for
/// each step. `rng` spreads waits.
///
/// A key stops at its first letter that fails; the others continue. If the handler answers that a
/// dependency is unavailable, no attempt is recorded; after three such letters in a row, no other key is
/// started.
pub async fn redrive<H: RecordHandler>(
    letters: &dyn DeadLetters,
    handler: &H,
    keys: Vec<RedrivenKey>,
    how: (&How, &mut fastrand::Rng),
    mut report: impl FnMut(&RedriveStep),
) -> Summary {
    let (how, rng) = how;
    let redrive = Redrive {
        letters,
        handler,
        how,
        down: AtomicU32::new(0),
    };
    let (steps, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let of_keys = keys.into_iter().map(|key| {
        let (redrive, steps, rng) = (&redrive, steps.clone(), rng.fork());
        let of_key = async move {
            let last = redrive.key(&key, &steps, rng).await;
            // The listener below outlives every sender.
            let _ = steps.send(last);
        };
        of_key.boxed()
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
                report(&step);
            }
            () = &mut all, if running => running = false,
        }
        if !running && heard.is_empty() {
            return summary;
        }
    }
}

impl Summary {
    fn count(&mut self, step: &RedriveStep) {
        match step {
            RedriveStep::Redriven(_) => self.redriven += 1,
            RedriveStep::Free(_) => self.free += 1,
            RedriveStep::Stopped { .. } => self.stopped += 1,
            RedriveStep::Untried(_) => self.untried += 1,
            RedriveStep::Taken(_) => self.taken += 1,
        }
    }
}
