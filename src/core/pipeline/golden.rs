//! Scripts of events and the commands that they lead to, in `golden/*.txt`. A line that begins with
//! `>` is an event; the lines below it are what the pipeline says. `UPDATE_GOLDEN=1` writes them
//! again: read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::{
    Admission, Admit, AfterFailure, Change, Closing, DeadLetterRules, Defer, Ended, FailureKind,
    Next, Now, Pipeline, Rules, Try,
};
use crate::core::backoff::{AttemptLimits, Backoff};
use crate::core::breaker::blame::Blame;
use crate::core::golden;

/// A breaker that gives the answer that was set last.
#[derive(Debug, Default)]
struct Breaker {
    says: Says,
    downtime: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
enum Says {
    #[default]
    Closed,
    /// The dependency is down. Ask again after this long.
    Open(Duration),
    /// There is no room.
    Full(Duration),
    /// Retries have to wait.
    Later(Duration),
}

impl Admit for Breaker {
    type Permit = ();

    fn admit(&mut self, which: Try) -> Admission<()> {
        match self.says {
            Says::Open(wait) | Says::Full(wait) => Admission::Wait(wait),
            Says::Later(wait) if which == Try::Again => Admission::Later(wait),
            Says::Closed | Says::Later(_) => Admission::Go(()),
        }
    }

    fn is_down(&self) -> bool {
        matches!(self.says, Says::Open(_))
    }

    fn downtime(&self) -> Duration {
        self.downtime
    }

    fn leave(&mut self) {}
}

struct Script {
    pipeline: Pipeline<String, u64, u64>,
    breaker: Breaker,
    elapsed: Duration,
    rng: fastrand::Rng,
}

/// 90s, 15m, 20h, 250ms.
fn duration(text: &str) -> Duration {
    let at = text.find(char::is_alphabetic).unwrap();
    let (number, unit) = (text[..at].parse().unwrap(), &text[at..]);
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_mins(number),
        "h" => Duration::from_hours(number),
        _ => panic!("{text}"),
    }
}

/// The value of `name=value`.
fn value<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let pair = |word: &&'a str| word.split_once('=').filter(|(n, _)| *n == name);
    words.iter().find_map(pair).map(|(_, value)| value)
}

fn rules(words: &[&str]) -> Rules {
    let number = |name, otherwise: u32| {
        let given = value(words, name).map(|text| text.parse().unwrap());
        given.unwrap_or(otherwise)
    };
    let limits = AttemptLimits {
        attempts: number("attempts", 3),
        age: value(words, "age").map_or(Duration::from_hours(6), duration),
    };
    let rescue_age = value(words, "rescue").map(duration);
    let dead_letters = DeadLetterRules { limits, rescue_age };
    Rules {
        concurrency: number("concurrency", 16) as usize,
        backoff: Backoff::default(),
        dead_letters: (!words.contains(&"no-dead-letters")).then_some(dead_letters),
        comes_again: words.contains(&"comes-again"),
        left_out: None,
    }
}

impl Script {
    fn new(rules: Rules) -> Self {
        Self {
            pipeline: Pipeline::new(rules),
            breaker: Breaker::default(),
            elapsed: Duration::ZERO,
            rng: fastrand::Rng::with_seed(1),
        }
    }

    fn now(&self) -> Now {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        Now {
            elapsed: self.elapsed,
            time: start + self.elapsed,
        }
    }

    fn event(&mut self, line: &str, said: &mut String) {
        let words: Vec<_> = line.split_whitespace().collect();
        let aged = value(&words, "aged").map_or(Duration::ZERO, duration);
        let created = self.now().time - aged;
        let before = self.pipeline.watermark().copied();
        match words[..] {
            ["rules", ..] => *self = Self::new(rules(&words)),
            ["push", key, number, ..] => {
                let number = number.parse().unwrap();
                self.pipeline.push(number, created, key.to_owned(), number);
            }
            ["skip", number] => self.pipeline.skip(number.parse().unwrap(), created),
            ["block", number] => self.pipeline.block(number.parse().unwrap(), None),
            ["parked", ref keys @ .., "all"] => self.know(keys, true),
            ["parked", ref keys @ .., "and-others"] => self.know(keys, false),
            ["breaker", "closed"] => self.breaker.says = Says::Closed,
            ["breaker", "open", wait] => self.breaker.says = Says::Open(duration(wait)),
            ["breaker", "full", wait] => self.breaker.says = Says::Full(duration(wait)),
            ["breaker", "later", wait] => self.breaker.says = Says::Later(duration(wait)),
            ["end"] => self.pipeline.source_ended(self.now(), Defer::Failing),
            ["end", "for-others"] => self.pipeline.source_ended(self.now(), Defer::Waiting),
            ["overflow", keep] => self.pipeline.overflow(keep.parse().unwrap()),
            ["room"] => self.pipeline.ask_again(),
            ["wait", time] => self.wait(duration(time)),
            ["close", why] => self.pipeline.close(closing(why)),
            ["done", key, how, ..] => self.done(key, how, words.get(3).copied(), said),
            ["next"] => self.next(said),
            _ => panic!("{line}"),
        }
        let after = self.pipeline.watermark().copied();
        if let Some((number, _)) = after.filter(|_| after != before) {
            writeln!(said, "watermark {number}").unwrap();
        }
    }

    fn wait(&mut self, time: Duration) {
        self.elapsed += time;
        if self.breaker.is_down() {
            self.breaker.downtime += time;
        }
    }

    fn know(&mut self, keys: &[&str], all: bool) {
        let keys = keys.iter().map(|key| (*key).to_owned());
        self.pipeline.know_parked(keys, all);
    }

    fn next(&mut self, said: &mut String) {
        loop {
            match self.pipeline.next(self.now(), &mut self.breaker) {
                Next::Handle(what) => {
                    let (key, record, attempt) = (what.key, what.record, what.attempt);
                    writeln!(said, "handle {key} {record}, attempt {attempt}").unwrap();
                }
                Next::DeadLetter(what) => {
                    let made = what.attempts.made();
                    let (key, record, reason) = (what.key, what.record, what.reason);
                    let line = format!("write dead letter {key} {record}: {reason}");
                    writeln!(said, "{line}, {made} attempts").unwrap();
                }
                Next::AskParked(key) => writeln!(said, "ask about {key}").unwrap(),
                Next::WaitUntil(at) => {
                    let wait = at.saturating_sub(self.elapsed);
                    writeln!(said, "wait {wait:?}").unwrap();
                    return;
                }
                Next::Idle => {
                    said.push_str("idle\n");
                    return;
                }
            }
        }
    }

    fn done(&mut self, key: &str, how: &str, with: Option<&str>, said: &mut String) {
        let failed = |kind| Ended::Failed {
            kind,
            error: how.to_owned(),
            blame: Blame::default(),
        };
        let ended = match how {
            "ok" => Ended::Handled,
            "retry" => failed(FailureKind::Retry),
            "crash" => failed(FailureKind::Crash),
            "in-doubt" => failed(FailureKind::InDoubt),
            "reject" => failed(FailureKind::Reject),
            "unavailable" => failed(FailureKind::Unavailable),
            "overloaded" => failed(FailureKind::Overloaded),
            "busy" => failed(FailureKind::Busy(duration(with.unwrap()))),
            "written" => {
                let reason = super::Reason::from_word(with.unwrap());
                Ended::Written(reason.unwrap())
            }
            "unparked" => Ended::Unparked,
            "parked" => Ended::Asked(true),
            "free" => Ended::Asked(false),
            "lease-lost" => Ended::LeaseLost,
            _ => panic!("{how}"),
        };
        let now = self.now();
        let change = self
            .pipeline
            .done(&key.to_owned(), ended, now, &mut self.rng);
        let line = match change.unwrap() {
            Change::Ended(record, None) => format!("{record} is handled"),
            Change::Ended(record, Some(reason)) => format!("{record} is a dead letter: {reason}"),
            Change::Known => format!("{key} is known"),
            Change::LeaseLost => "the lease is lost".to_owned(),
            Change::Failed {
                record,
                attempts,
                verdict,
            } => match verdict {
                AfterFailure::Again(Duration::ZERO) => format!("{record} is put off"),
                AfterFailure::Again(wait) => {
                    format!("{record} failed, {attempts} attempts, again in {wait:.1?}")
                }
                AfterFailure::DeadLetter(reason) => format!("{record} is given up: {reason}"),
                AfterFailure::Leave => format!("{record} is left to its source"),
            },
        };
        writeln!(said, "{line}").unwrap();
    }
}

fn closing(word: &str) -> Closing {
    match word {
        "drain" => Closing::Drain,
        "lease-lost" => Closing::LeaseLost,
        "out-of-time" => Closing::OutOfTime,
        "dependency-down" => Closing::DependencyDown,
        _ => panic!("{word}"),
    }
}

#[test]
fn every_script_leads_to_the_commands_that_are_written_in_it() {
    golden::check(
        "pipeline/golden",
        8,
        || Script::new(rules(&[])),
        Script::event,
    );
}
