//! How an effect ended.

use std::sync::atomic::{AtomicU64, Ordering};

use super::window::Ending;
use crate::core::claim::{ClaimRule, Happened};
use crate::engine::handler::Failure;

/// How an effect ended.
#[derive(Debug)]
pub enum Outcome {
    /// It took place, with this receipt.
    Done(String),
    /// The other side refused it for good, with this answer.
    Refused(String, Failure),
    /// The other side did not perform it this time, with this answer.
    Deferred(String, Failure),
    /// It certainly did not begin, for this reason.
    NotBegun(String, Failure),
    /// It is unknown whether it took place, for this reason.
    Unknown(String),
}

/// The consequences of an outcome.
pub(super) struct Meaning {
    pub(super) happened: Happened,
    pub(super) counted: Counted,
    pub(super) answer: Ending,
    pub(super) result: Result<(), Failure>,
}

impl Outcome {
    /// The consequences for the ledger, the counters, the window and the caller, under the claim with
    /// this fence.
    pub(super) fn meaning(self, fence: u64, left_out: Option<ClaimRule>) -> Meaning {
        let of = |happened, counted, answer, result| Meaning {
            happened,
            counted,
            answer,
            result,
        };
        match self {
            Self::Done(reply) => {
                let happened = Happened::Accepted { fence, reply };
                of(happened, Counted::Accepted, Ending::Definite, Ok(()))
            }
            Self::Refused(reply, failure) => {
                let happened = Happened::Refused { fence, reply };
                of(happened, Counted::Refused, Ending::Definite, Err(failure))
            }
            Self::Deferred(reply, failure) => {
                let happened = Happened::NotAccepted { fence, reply };
                of(happened, Counted::Deferred, Ending::Definite, Err(failure))
            }
            Self::NotBegun(reply, failure) => {
                let happened = Happened::NotAccepted { fence, reply };
                of(happened, Counted::Deferred, Ending::None, Err(failure))
            }
            Self::Unknown(reply) => {
                let result = Err(Failure::retry(reply.clone()));
                let happened = match left_out {
                    Some(ClaimRule::NoAnswerIsNotNo) => Happened::NotAccepted { fence, reply },
                    Some(ClaimRule::NoAnswerIsNotYes) => Happened::Accepted { fence, reply },
                    _ => Happened::NoReply { fence, reply },
                };
                of(happened, Counted::Ambiguous, Ending::Doubt, result)
            }
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Effects that took place.
    Accepted,
    /// Effects that the other side refused for good.
    Refused,
    /// Attempts that the other side deferred, or that certainly did not reach it, at any step.
    Deferred,
    /// Effects that became AMBIGUOUS.
    Ambiguous,
    /// Records that were finished while their effect waits for an operator.
    Parked,
    /// Effects that were deliberately not performed.
    Suppressed,
    /// Records that were rejected because another item has their effect key.
    Collisions,
    /// Effects that took place more than once.
    SecondAcceptances,
    /// Doubts that ended because the provider recognised a repeat.
    Closed,
}

/// How many effects had which outcome, in this process.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; 9]);

impl Tally {
    /// The number of this kind.
    pub fn of(&self, what: Counted) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, what: Counted) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }
}
