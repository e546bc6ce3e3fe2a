//! Redriving dead letters: each key's letters are handled again, oldest first, by the handler that
//! would have handled them in time.
//!
//! A key whose letters are all handled is free again: its next records are handled as they come. A
//! key stops at its first letter that fails, which stays the first of its key, with this attempt
//! written down. A crash in between leaves letters where they were; one that was handled but not
//! yet settled is handled again, as any record may be.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::dead_letter::{DeadLetters, LetterId, Reason};
use crate::decide::retry::AttemptLimits;
use crate::dependency::{Dependency, Limits};
use crate::group::GroupTable;
use crate::handler::{OUTSIDE, RecordHandler};
use crate::record::ItemKey;

mod key;

use key::Redrive;

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
    /// A letter that has failed so often, and for so long, is no longer redriven by itself.
    pub limits: AttemptLimits,
    /// How long to wait for somebody else who is at the same effect.
    pub patience: Duration,
    /// What the handler depends on.
    pub dependency: Dependency,
    /// When it is cancelled, letters in hand are finished and no other is begun.
    pub stop: CancellationToken,
    /// The time of day.
    pub clock: Clock,
}

impl How {
    /// The usual way: 8 keys at a time, the handler's 15 minutes, a minute of patience.
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
pub struct Key {
    /// The group, and the item's table.
    pub at: GroupTable,
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
        /// `Some`: its letter failed for good, and it waits for an operator from now on.
        because: Option<Reason>,
    },
    /// A key was not tried, because a dependency is down or it was stopped.
    Untried(Key),
    /// Somebody else redrives the key.
    Taken(Key),
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
    /// Keys that were not tried, because a dependency is down or it was stopped.
    pub untried: u64,
    /// Keys that somebody else redrives.
    pub taken: u64,
}

/// Redrives all letters of these keys, also those that come while it runs. `told` hears each step.
/// `rng` spreads waits.
///
/// A key stops at the first letter that fails; all others go on. If the handler says that a
/// dependency is unavailable, no attempt is written down; if it says so of three letters in a row, no
/// other key is begun.
pub async fn redrive<H: RecordHandler>(
    letters: &dyn DeadLetters,
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
            Step::Taken(_) => self.taken += 1,
        }
    }
}
