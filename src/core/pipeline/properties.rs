//! What holds for every history.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::{
    Admission, Admit, Change, Closing, DeadLetterRules, Defer, Ended, FailureKind, Next, Now,
    Pipeline, Reason, Rules, Try,
};
use crate::core::backoff::{AttemptLimits, Backoff};
use crate::core::breaker::blame::Blame;

/// Lets an attempt pass with the drawn probability.
struct Weather {
    rng: fastrand::Rng,
    down: bool,
}

impl Admit for Weather {
    type Permit = ();

    fn admit(&mut self, _: Try) -> Admission<()> {
        match self.rng.u8(..10) {
            _ if self.down => Admission::Wait(Duration::from_secs(1)),
            0 => Admission::Wait(Duration::from_millis(50)),
            1 => Admission::Later(Duration::from_millis(50)),
            _ => Admission::Go(()),
        }
    }

    fn is_down(&self) -> bool {
        self.down
    }

    fn downtime(&self) -> Duration {
        Duration::ZERO
    }

    fn leave(&mut self) {}
}

/// The running work of one key: a record, and `None` for a call or the reason of a dead letter.
type InHand = BTreeMap<u8, (usize, Option<Reason>)>;

/// Plays a history, and checks it on the way.
struct Play {
    pipeline: Pipeline<u8, usize, usize>,
    weather: Weather,
    elapsed: Duration,
    /// The key of each record, in their order; `None` if it is skipped.
    keys: Vec<Option<u8>>,
    ended: BTreeSet<usize>,
    in_hand: InHand,
    parked: BTreeSet<u8>,
    closed: bool,
    concurrency: usize,
}

impl Play {
    fn new(concurrency: usize, seed: u64) -> Self {
        let limits = AttemptLimits {
            attempts: 3,
            age: Duration::from_mins(1),
        };
        let rescue_age = Some(Duration::from_mins(2));
        let rules = Rules {
            concurrency,
            backoff: Backoff::default(),
            dead_letters: Some(DeadLetterRules { limits, rescue_age }),
            comes_again: true,
            left_out: None,
        };
        let rng = fastrand::Rng::with_seed(seed);
        let mut pipeline = Pipeline::new(rules);
        pipeline.know_parked([], seed.is_multiple_of(2));
        Self {
            pipeline,
            weather: Weather { rng, down: false },
            elapsed: Duration::ZERO,
            keys: Vec::new(),
            ended: BTreeSet::new(),
            in_hand: BTreeMap::new(),
            parked: BTreeSet::new(),
            closed: false,
            concurrency,
        }
    }

    fn now(&self) -> Now {
        Now {
            elapsed: self.elapsed,
            time: SystemTime::UNIX_EPOCH + self.elapsed,
        }
    }

    fn push(&mut self, key: Option<u8>) {
        let (position, created) = (self.keys.len(), self.now().time);
        self.keys.push(key);
        if let Some(key) = key {
            self.pipeline.push(position, created, key, position);
        } else {
            self.pipeline.skip(position, created);
            self.ended.insert(position);
        }
    }

    /// The first record of a key that has not ended.
    fn first(&self, key: u8) -> Option<usize> {
        let of_key = |at: &usize| self.keys[*at] == Some(key) && !self.ended.contains(at);
        (0..self.keys.len()).find(of_key)
    }

    fn begin(&mut self, key: u8, record: usize, letter: Option<Reason>) {
        assert_eq!(self.first(key), Some(record), "the first of its key");
        let before = self.in_hand.insert(key, (record, letter));
        assert_eq!(before, None, "one at a time");
        assert!(self.in_hand.len() <= self.concurrency);
        if letter.is_none() {
            assert!(!self.closed, "nothing is handled after the close");
            assert!(!self.parked.contains(&key), "it follows its dead letters");
        } else {
            let follows = letter == Some(Reason::Followed);
            assert_eq!(follows, self.parked.contains(&key));
        }
    }

    /// Does what the pipeline asks for, and returns how long it wants to wait.
    fn work(&mut self) -> Option<Duration> {
        loop {
            match self.pipeline.next(self.now(), &mut self.weather) {
                Next::Handle(what) => self.begin(what.key, what.record, None),
                Next::DeadLetter(what) => self.begin(what.key, what.record, Some(what.reason)),
                Next::AskParked(key) => {
                    let asked = Ended::Asked(self.parked.contains(&key));
                    let now = self.now();
                    self.pipeline.done(&key, asked, now, &mut self.weather.rng);
                }
                Next::WaitUntil(at) => return Some(at.saturating_sub(self.elapsed)),
                Next::Idle => return None,
            }
        }
    }

    /// Ends one piece of running work, as `how` says.
    fn end(&mut self, which: usize, how: u8) {
        let Some((&key, &(record, letter))) = self.in_hand.iter().nth(which) else {
            return;
        };
        let failed = |kind| Ended::Failed {
            kind,
            error: String::new(),
            blame: Blame::default(),
        };
        let ended = match (letter, how % 8) {
            (Some(Reason::Followed), 0) => Ended::Unparked,
            (Some(reason), _) => Ended::Written(reason),
            (None, 0) => failed(FailureKind::Reject),
            (None, 1) => failed(FailureKind::Retry),
            (None, 2) => failed(FailureKind::Crash),
            (None, 3) => failed(FailureKind::Unavailable),
            (None, 4) => failed(FailureKind::Overloaded),
            (None, 5) => failed(FailureKind::Busy(Duration::from_secs(9))),
            (None, _) => Ended::Handled,
        };
        self.in_hand.remove(&key);
        let now = self.now();
        let change = self.pipeline.done(&key, ended, now, &mut self.weather.rng);
        match change.unwrap() {
            Change::Ended(ended, reason) => {
                assert_eq!((ended, reason), (record, letter));
                assert!(self.ended.insert(record), "each record ends once");
                if reason.is_some() {
                    self.parked.insert(key);
                }
            }
            Change::Known => {
                self.parked.remove(&key);
            }
            Change::Failed { .. } => {}
            Change::LeaseLost => panic!("nobody took it"),
        }
    }

    fn check(&self) {
        let contiguous = (0..self.keys.len()).take_while(|at| self.ended.contains(at));
        let reached = contiguous.last();
        let watermark = self.pipeline.watermark().map(|(position, _)| *position);
        assert_eq!(watermark, reached, "the watermark is where all have ended");
        let unfinished = (0..self.keys.len()).find(|at| !self.ended.contains(at));
        let first = self.pipeline.first_unfinished();
        assert_eq!(first.map(|(position, _)| *position), unfinished);
        assert_eq!(self.pipeline.is_finished(), unfinished.is_none());
    }
}

#[derive(Debug, Clone)]
enum Act {
    Push(Option<u8>),
    End(usize, u8),
    Pass(u16),
    Down(bool),
    SourceEnds(Defer),
    Overflow(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::option::weighted(0.8, 0..5u8).prop_map(Act::Push),
        5 => (0..4usize, any::<u8>()).prop_map(|(which, how)| Act::End(which, how)),
        2 => (1..2000u16).prop_map(Act::Pass),
        1 => any::<bool>().prop_map(Act::Down),
        1 => any::<bool>().prop_map(|all| {
            let which = if all { Defer::Waiting } else { Defer::Failing };
            Act::SourceEnds(which)
        }),
        1 => (0..8u8).prop_map(Act::Overflow),
    ]
}

fn play(acts: &[Act], concurrency: usize, seed: u64) -> Play {
    let mut play = Play::new(concurrency, seed);
    for act in acts {
        match *act {
            Act::Push(key) => play.push(key),
            Act::End(which, how) => play.end(which, how),
            Act::Pass(tenths) => play.elapsed += Duration::from_millis(100) * tenths.into(),
            Act::Down(down) => play.weather.down = down,
            Act::SourceEnds(which) => play.pipeline.source_ended(play.now(), which),
            Act::Overflow(keep) => play.pipeline.overflow(keep.into()),
        }
        play.work();
        play.check();
    }
    play
}

proptest! {
    #[test]
    fn every_record_ends_once_in_the_order_of_its_key_and_the_watermark_is_contiguous(
        acts in prop::collection::vec(act(), 0..120),
        concurrency in 1..4usize,
        seed in any::<u64>(),
    ) {
        let mut play = play(&acts, concurrency, seed);
        play.weather.down = false;
        // From now on every attempt succeeds.
        for _ in 0..10_000 {
            if play.pipeline.is_finished() {
                break;
            }
            if let Some(wait) = play.work() {
                play.elapsed += wait;
            }
            play.end(0, 7);
            play.check();
        }
        prop_assert_eq!(play.ended.len(), play.keys.len());
    }

    #[test]
    fn after_it_was_closed_nothing_is_handled_and_all_running_work_ends(
        acts in prop::collection::vec(act(), 0..60),
        concurrency in 1..4usize,
        seed in any::<u64>(),
        why in prop::sample::select(vec![
            Closing::Drain, Closing::LeaseLost, Closing::OutOfTime, Closing::DependencyDown,
        ]),
    ) {
        let mut play = play(&acts, concurrency, seed);
        play.pipeline.close(why);
        play.closed = true;
        let letters = |play: &Play| play.in_hand.values().filter(|(_, letter)| letter.is_some()).count();
        for how in 0..200u8 {
            let before = letters(&play);
            prop_assert_eq!(play.work(), None, "there is nothing to wait for");
            prop_assert!(why != Closing::LeaseLost || letters(&play) == before);
            play.end(0, how);
            play.check();
        }
        prop_assert_eq!(play.in_hand.len(), 0);
        prop_assert_eq!(play.work(), None);
    }
}
