//! The rules of a pipeline, its commands, and the events that it takes in.

use std::time::Duration;

use super::super::{Attempts, Reason};
use super::{AfterFailure, FailureKind};
use crate::core::backoff::{AttemptLimits, Backoff};
use crate::core::breaker::blame::Blame;

/// The settings of a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How many keys run at once.
    pub concurrency: usize,
    /// The time between two attempts.
    pub backoff: Backoff,
    /// When records become dead letters, or `None` if there is no table for them.
    pub dead_letters: Option<DeadLetterRules>,
    /// Whether the source delivers records again that have not ended, as Lambda does.
    pub comes_again: bool,
    /// The rule that a simulation leaves out.
    pub left_out: Option<Rule>,
}

/// Rules that a simulation leaves out, one at a time, to check that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The watermark waits for the records below it.
    Contiguous,
    /// A failed record stays the first of its key.
    Order,
}

/// When records become dead letters.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterRules {
    /// How often and for how long a record is tried.
    pub limits: AttemptLimits,
    /// How long after its commit a waiting record is rescued; `None`: never.
    pub rescue_age: Option<Duration>,
}

/// Which records are deferred soon after the source's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defer {
    /// Those that fail while their dependency is up: the records behind them could be served.
    Failing,
    /// Those that fail; and all that do not run, at once if their dependency is down, else some seconds
    /// later: other effects share the source and wait for it.
    Waiting,
}

/// Whether an attempt is a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// The first attempt, or one after a failure that did not count as an attempt.
    First,
    /// An attempt after a failed one.
    Again,
}

impl Try {
    pub(super) fn of(attempt: u32) -> Self {
        match attempt {
            ..=1 => Self::First,
            _ => Self::Again,
        }
    }
}

/// The circuit breaker's answer.
#[derive(Debug)]
pub enum Admission<P> {
    /// Go. Return the permit with the result.
    Go(P),
    /// No call is allowed: ask again after this long.
    Wait(Duration),
    /// This record cannot retry yet, but others can go: ask again after this long.
    Later(Duration),
}

/// The circuit breaker, as a pipeline sees it.
pub trait Admit {
    /// The right to one attempt.
    type Permit;

    /// Asks for one attempt.
    fn admit(&mut self, which: Try) -> Admission<Self::Permit>;

    /// Whether the dependency is down.
    fn is_down(&self) -> bool;

    /// How long it has been down in total.
    fn downtime(&self) -> Duration;

    /// There is nothing to ask for: gives up the place in the line.
    fn leave(&mut self);
}

/// Why a pipeline was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Running work ends, and dead letters are still written. The next owner does the rest.
    Drain,
    /// Nothing may be written any more.
    LeaseLost,
    /// No time is left. Waiting records are checked once more: they become dead letters if they must,
    /// and are otherwise delivered again.
    OutOfTime,
    /// The dependency is down, and waiting is not worth the time. Otherwise the same.
    DependencyDown,
}

impl Closing {
    pub(super) fn has_last_look(self) -> bool {
        matches!(self, Self::OutOfTime | Self::DependencyDown)
    }
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<K, R, P> {
    /// Call the handler.
    Handle(Handle<K, R, P>),
    /// Write a dead letter.
    DeadLetter(DeadLetter<K, R>),
    /// Ask whether this key has dead letters.
    AskParked(K),
    /// Nothing before this time, on the clock of [`Now::elapsed`], or before something ends.
    WaitUntil(Duration),
    /// Nothing before something ends or is pushed.
    Idle,
}

/// An attempt to make.
#[derive(Debug, PartialEq, Eq)]
pub struct Handle<K, R, P> {
    /// The record's key.
    pub key: K,
    /// The record.
    pub record: R,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// What the record has seen of the dependency. Return it with [`Ended::Failed`].
    pub blame: Blame,
    /// The permit.
    pub permit: P,
}

/// A dead letter to write.
#[derive(Debug, PartialEq, Eq)]
pub struct DeadLetter<K, R> {
    /// The record's key.
    pub key: K,
    /// The record.
    pub record: R,
    /// Why.
    pub reason: Reason,
    /// The failed attempts.
    pub attempts: Attempts,
}

/// How work on the first record of a key ended.
#[derive(Debug)]
pub enum Ended {
    /// The handler succeeded.
    Handled,
    /// The handler failed.
    Failed {
        /// How.
        kind: FailureKind,
        /// The error, in words.
        error: String,
        /// What the record has seen of the dependency.
        blame: Blame,
    },
    /// The record is a dead letter now.
    Written(Reason),
    /// It was to follow others of its key, but the key is not parked any more.
    Unparked,
    /// It was to become a dead letter, but the lease is another worker's.
    LeaseLost,
    /// Whether the key has dead letters.
    Asked(bool),
}

/// What a report changed, for logs and counters.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<R> {
    /// The record has ended: it was handled, or became a dead letter for this reason.
    Ended(R, Option<Reason>),
    /// The record failed.
    Failed {
        /// The record.
        record: R,
        /// The number of failed attempts so far.
        attempts: u32,
        /// What happens to it now.
        verdict: AfterFailure,
    },
    /// Whether the key is parked is known now. Its first record gets its turn again.
    Known,
    /// The lease is another worker's: the pipeline is closed.
    LeaseLost,
}
