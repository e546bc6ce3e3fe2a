//! The rules of a pipeline, its commands, and the events that it takes in.

use std::time::Duration;

use super::super::{Attempts, Reason};
use super::{FailureKind, Verdict};
use crate::core::backoff::{AttemptLimits, Backoff};
use crate::core::breaker::blame::Blame;

/// What a pipeline goes by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How many keys are worked on at once.
    pub concurrency: usize,
    /// Between two attempts.
    pub backoff: Backoff,
    /// When records become dead letters; `None`: there is no table for them.
    pub dead_letters: Option<DeadLetterRules>,
    /// The source brings records again that have not ended, as Lambda does.
    pub comes_again: bool,
    /// The rule that a simulation leaves out.
    pub left_out: Option<Rule>,
}

/// Rules that a simulation leaves out, one at a time, to see that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The watermark waits for the records below it.
    Contiguous,
    /// A record that failed stays the first of its key.
    Order,
}

/// When records become dead letters.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterRules {
    /// How often and for how long a record is tried.
    pub limits: AttemptLimits,
    /// How long after its commit a record that waits is rescued; `None`: never.
    pub rescue_age: Option<Duration>,
}

/// Which try of its record an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// The first one, or one after a failure that burned no attempt.
    First,
    /// One after a failed attempt.
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

/// What asking the circuit breaker came to.
#[derive(Debug)]
pub enum Admission<P> {
    /// Go, and hand the permit back with how it ended.
    Go(P),
    /// Nobody may: ask again after this long.
    Wait(Duration),
    /// This record's retry may not, others may: ask again after this long.
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

    /// How long it has been down altogether.
    fn downtime(&self) -> Duration;

    /// There is nothing to ask for: a place in line is given up.
    fn leave(&mut self);
}

/// Why a pipeline was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Work in flight ends, dead letters are still written. The next owner does the rest.
    Drain,
    /// Nothing may be written any more.
    LeaseLost,
    /// No time is left. What waits is looked at once more: it becomes a dead letter where it must,
    /// and comes again otherwise.
    OutOfTime,
    /// The dependency is down, and waiting for it is not worth the time. Otherwise the same.
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
    /// Nothing before then, on the clock of [`Now::elapsed`], or before something ends.
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
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// What the record has seen of the dependency. Hand it back with [`Ended::Failed`].
    pub blame: Blame,
    /// The right to make it.
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
    /// What was tried.
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
        /// In words.
        error: String,
        /// What the record has seen of the dependency.
        blame: Blame,
    },
    /// The record is a dead letter now.
    Written(Reason),
    /// It was to follow others of its key, and the key is not parked any more.
    Unparked,
    /// It was to become a dead letter, and the lease is somebody else's.
    LeaseLost,
    /// Whether the key has dead letters.
    Asked(bool),
}

/// What a report changed, for those who log and count.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<R> {
    /// The record has ended: it was handled, or is a dead letter for this reason.
    Ended(R, Option<Reason>),
    /// The record failed.
    Failed {
        /// The record.
        record: R,
        /// Attempts so far that failed.
        attempts: u32,
        /// What becomes of it.
        verdict: Verdict,
    },
    /// It is known now whether the key is parked; its first record has its turn again.
    Known,
    /// The lease is somebody else's: the pipeline is closed.
    LeaseLost,
}
