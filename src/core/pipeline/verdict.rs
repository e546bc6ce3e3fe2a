//! What happens to a failed record.

use std::time::Duration;

use super::super::Reason;
use super::Rules;

/// The shortest wait before looking again at a record that another worker is processing.
const BUSY: Duration = Duration::from_millis(100);

/// The longest wait before looking again, however long the other worker may take.
const BUSY_MOST: Duration = Duration::from_mins(1);

/// The shortest wait before an effect in doubt is tried again, and half of the longest, so that the
/// dependency does not get a second chance to break at once.
const DOUBT: Duration = Duration::from_mins(1);

/// How an attempt failed, which decides whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It may succeed next time.
    Retry,
    /// The handler panicked or timed out.
    Crash,
    /// It may have succeeded, and must be tried again.
    InDoubt,
    /// The record is bad.
    Reject,
    /// A dependency is down.
    Unavailable,
    /// A dependency asks for fewer calls.
    Overloaded,
    /// Another worker is performing the same effect. Look again after this long.
    Busy(Duration),
}

impl FailureKind {
    /// Whether this counts as an attempt at the record, and is not the fault of others.
    pub fn burns(self) -> bool {
        matches!(
            self,
            Self::Retry | Self::Crash | Self::InDoubt | Self::Reject
        )
    }

    /// The same, for a call whose effect may be in doubt.
    pub fn in_doubt(self, doubtful: bool) -> Self {
        match self {
            Self::Retry if doubtful => Self::InDoubt,
            other => other,
        }
    }
}

/// What happens to a failed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// It is tried again after this long.
    Again(Duration),
    /// It becomes a dead letter.
    DeadLetter(Reason),
    /// It is not tried again here and holds the watermark: the source delivers it again.
    Leave,
}

/// How often and for how long a record has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// The number of failed attempts.
    pub attempts: u32,
    /// Those in which the handler panicked or timed out.
    pub crashes: u32,
    /// The time since the first of them.
    pub failing_for: Duration,
}

impl Rules {
    /// What happens to a record that failed like this.
    pub fn verdict(
        &self,
        kind: FailureKind,
        tried: Tried,
        rng: &mut fastrand::Rng,
    ) -> AfterFailure {
        let backoff = &self.backoff;
        match kind {
            FailureKind::Reject if self.dead_letters.is_some() => {
                AfterFailure::DeadLetter(Reason::Rejected)
            }
            FailureKind::Reject if self.comes_again => AfterFailure::Leave,
            FailureKind::Reject => AfterFailure::Again(backoff.cap),
            FailureKind::Retry | FailureKind::Crash | FailureKind::InDoubt => {
                match self.used_up(tried) {
                    Some(reason) => AfterFailure::DeadLetter(reason),
                    None if kind == FailureKind::InDoubt => {
                        AfterFailure::Again(DOUBT.mul_f64(1.0 + rng.f64()))
                    }
                    None => AfterFailure::Again(backoff.wait(tried.attempts, rng)),
                }
            }
            FailureKind::Overloaded => AfterFailure::Again(backoff.wait(4, rng)),
            // The circuit breaker decides when.
            FailureKind::Unavailable => AfterFailure::Again(Duration::ZERO),
            FailureKind::Busy(wait) => AfterFailure::Again(wait.clamp(BUSY, BUSY_MOST)),
        }
    }

    /// Why a record can not be tried again. Without dead letters it is tried forever.
    fn used_up(&self, tried: Tried) -> Option<Reason> {
        let limits = self.dead_letters?.limits;
        if tried.crashes >= limits.attempts {
            return Some(Reason::Exhausted);
        }
        (tried.failing_for >= limits.age).then_some(Reason::TooOld)
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeadLetterRules;
    use super::*;
    use crate::core::backoff::{AttemptLimits, Backoff};

    const LIMITS: AttemptLimits = AttemptLimits {
        attempts: 3,
        age: Duration::from_mins(10),
    };

    fn rules(dead_letters: bool, comes_again: bool) -> Rules {
        let limits = LIMITS;
        let rescue_age = None;
        Rules {
            concurrency: 1,
            backoff: Backoff::default(),
            dead_letters: dead_letters.then_some(DeadLetterRules { limits, rescue_age }),
            comes_again,
            left_out: None,
        }
    }

    /// After this many attempts in which the handler crashed, or that failed otherwise.
    fn verdict(rules: &Rules, kind: FailureKind, attempts: u32, seconds: u64) -> AfterFailure {
        let failing_for = Duration::from_secs(seconds);
        let tried = Tried {
            attempts,
            crashes: if kind == FailureKind::Crash {
                attempts
            } else {
                0
            },
            failing_for,
        };
        rules.verdict(kind, tried, &mut fastrand::Rng::with_seed(7))
    }

    #[test]
    fn a_record_is_given_up_when_its_crashes_or_its_time_are_used_up() {
        let cases = [
            (1, 0, None, None),
            (2, 599, None, None),
            (2, 600, Some(Reason::TooOld), Some(Reason::TooOld)),
            (3, 0, Some(Reason::Exhausted), None),
            (3, 600, Some(Reason::Exhausted), Some(Reason::TooOld)),
        ];
        for (attempts, seconds, crashed, otherwise) in cases {
            let of = |rules: &Rules, kind| match verdict(rules, kind, attempts, seconds) {
                AfterFailure::DeadLetter(reason) => Some(reason),
                AfterFailure::Again(wait) => {
                    assert!(wait <= rules.backoff.cap);
                    None
                }
                AfterFailure::Leave => panic!("left"),
            };
            let letters = rules(true, false);
            assert_eq!(
                of(&letters, FailureKind::Crash),
                crashed,
                "{attempts} {seconds}"
            );
            for kind in [FailureKind::Retry, FailureKind::InDoubt] {
                assert_eq!(of(&letters, kind), otherwise, "{attempts} {seconds}");
            }
            assert_eq!(
                of(&rules(false, false), FailureKind::Crash),
                None,
                "without dead letters"
            );
        }
    }

    #[test]
    fn an_effect_in_doubt_is_tried_again_minutes_later() {
        let AfterFailure::Again(wait) = verdict(&rules(true, false), FailureKind::InDoubt, 1, 0)
        else {
            panic!("given up");
        };
        assert!((DOUBT..DOUBT * 2).contains(&wait), "{wait:?}");
    }

    #[test]
    fn a_rejected_record_is_a_dead_letter_or_waits_or_is_left_to_its_source() {
        let of = |rules: &Rules| verdict(rules, FailureKind::Reject, 1, 0);
        let rejected = AfterFailure::DeadLetter(Reason::Rejected);
        assert_eq!(of(&rules(true, true)), rejected);
        assert_eq!(of(&rules(false, true)), AfterFailure::Leave);
        let cap = Backoff::default().cap;
        assert_eq!(of(&rules(false, false)), AfterFailure::Again(cap));
    }

    #[test]
    fn a_busy_effect_is_retried_neither_at_once_nor_after_long() {
        let of = |wait| {
            let kind = FailureKind::Busy(Duration::from_millis(wait));
            verdict(&rules(true, false), kind, 0, 0)
        };
        let again = |wait| AfterFailure::Again(Duration::from_millis(wait));
        let waits = [100, 400, 60_000].map(again);
        assert_eq!([0, 400, 3_600_000].map(of), waits);
    }
}
