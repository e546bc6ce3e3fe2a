//! The records of one source in flight: a shard, a Lambda event, a parked key.
//!
//! The caller pushes records and asks what to do ([`Pipeline::next`]). It does that, and reports how it
//! ended ([`Pipeline::done`]). All decisions in between are made here:
//!
//! - **Order.** Records of one key run one after another. Different keys run in parallel, up to a
//!   limit.
//! - **Retries.** A failed record stays the first of its key. It takes up no place while it waits.
//! - **The circuit breaker.** Each attempt needs a permit. An outage of the dependency costs no
//!   attempts.
//! - **Dead letters.** A record that is given up becomes a dead letter and parks its key. Later records
//!   of the key follow it.
//! - **Rescue.** A waiting record that is about to leave the stream becomes a dead letter too.
//! - **The source's end.** What follows the source waits until everything here has ended. So a record
//!   that still fails soon after the end is deferred: it becomes a dead letter that is redriven.
//! - **Overflow.** Records for which other effects of the source would wait are deferred, too.
//! - **The watermark.** Everything up to it has ended. Nothing beyond it can be reported to the source.
//! - **Closing.** No more records are handled. The reason decides what happens to the rest
//!   ([`Closing`]).
//!
//! ```text
//!  push --> waiting --next--> Handle --done--> ended --> watermark
//!              ^                 |
//!              |   Again         | DeadLetter --done--> ended, key parked
//!              +-----------------+
//! ```

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

pub use super::Now;
use super::{Attempts, Reason};
use crate::core::breaker::blame::Blame;

mod events;
mod item;
mod parked;
mod queues;
mod rescue;
mod timers;
mod verdict;
mod watermark;

pub use events::{
    Admission, Admit, Change, Closing, DeadLetter, DeadLetterRules, Defer, Ended, Handle, Next,
    Rule, Rules, Try,
};
use item::{ClosedUntil, Item, RecordPlace};
use parked::Parked;
use queues::Queues;
use rescue::{DEFER_AFTER, Rescue};
use timers::Timers;
pub use verdict::{AfterFailure, FailureKind, Tried};
use watermark::Watermark;

/// The records of one source in flight.
#[derive(Debug)]
pub struct Pipeline<K, P, R> {
    rules: Rules,
    queues: Queues<K, Item<R>>,
    watermark: Watermark<RecordPlace<P>>,
    timers: Timers<Duration, K>,
    parked: Parked<K>,
    /// Running keys whose record becomes a dead letter.
    given_up: VecDeque<(K, Reason)>,
    rescue: Rescue<K>,
    /// When records are deferred, and which, once the source has ended.
    defer_at: Option<(Duration, Defer)>,
    held: Option<ClosedUntil>,
    /// How long the dependency has been down.
    downtime: Duration,
    closed: Option<Closing>,
}

impl<K: Ord + Clone, P, R: Clone> Pipeline<K, P, R> {
    /// An empty pipeline.
    pub fn new(rules: Rules) -> Self {
        Self {
            queues: Queues::new(rules.concurrency),
            watermark: Watermark::default(),
            timers: Timers::default(),
            parked: Parked::none(),
            given_up: VecDeque::new(),
            rescue: Rescue::default(),
            defer_at: None,
            held: None,
            downtime: Duration::ZERO,
            closed: None,
            rules,
        }
    }

    /// Adds a record to handle, behind all that were pushed before.
    pub fn push(&mut self, position: P, created: SystemTime, key: K, record: R) {
        let ticket = self.watermark.begin((position, Some(created)));
        let item = Item {
            record,
            created,
            ticket,
            attempts: Attempts::default(),
            blame: Blame::default(),
            crashes: 0,
            failing_since: None,
            due_since: None,
        };
        self.queues.push(key, item);
    }

    /// Adds a record that is not handled: it was filtered out, or is older than the start.
    pub fn skip(&mut self, position: P, created: SystemTime) {
        let ticket = self.watermark.begin((position, Some(created)));
        self.watermark.finish(ticket);
    }

    /// Adds a record that cannot be handled here, such as one that cannot be read. The watermark stays
    /// before it.
    pub fn block(&mut self, position: P, created: Option<SystemTime>) {
        self.watermark.begin((position, created));
    }

    /// These keys have dead letters, and their records follow them. With `all`, no other keys have any.
    /// Otherwise the pipeline asks about a key before its first record is handled.
    pub fn know_parked(&mut self, keys: impl IntoIterator<Item = K>, all: bool) {
        self.parked = Parked::new(keys, all);
    }

    /// What to do now. Ask until the answer is to wait, and again whenever something was pushed or
    /// ended.
    pub fn next<B: Admit>(&mut self, now: Now, breaker: &mut B) -> Next<K, R, B::Permit> {
        self.downtime = breaker.downtime();
        while let Some(key) = self.timers.due(now.elapsed) {
            self.queues.resume(&key);
        }
        if self.closed != Some(Closing::LeaseLost)
            && let Some((key, reason)) = self.given_up.pop_front()
            && let Some(letter) = self.dead_letter(key, reason)
        {
            return Next::DeadLetter(letter);
        }
        if self.closed.is_some_and(|why| !why.has_last_look()) {
            breaker.leave();
            return Next::Idle;
        }
        if self.closed.is_none()
            && let Some(letter) = self.next_rescue(now, breaker)
        {
            return Next::DeadLetter(letter);
        }
        let over =
            |held: &ClosedUntil| held.until <= now.elapsed || (held.down && !breaker.is_down());
        if self.held.as_ref().is_some_and(over) {
            self.held = None;
        }
        self.start(now, breaker)
    }

    /// Starts the next key whose turn it is.
    fn start<B: Admit>(&mut self, now: Now, breaker: &mut B) -> Next<K, R, B::Permit> {
        while self.held.is_none() {
            let Some((key, item)) = self.queues.start() else {
                breaker.leave();
                break;
            };
            match self.parked.is_parked(&key) {
                Some(true) => match self.dead_letter(key, Reason::Followed) {
                    Some(letter) => return Next::DeadLetter(letter),
                    None => continue,
                },
                None if self.closed.is_none() => return Next::AskParked(key),
                Some(false) | None => {}
            }
            if self.closed.is_some() {
                match self.rules.last_look(item, now) {
                    Some(reason) => {
                        if let Some(letter) = self.dead_letter(key, reason) {
                            return Next::DeadLetter(letter);
                        }
                    }
                    None => self.queues.suspend(&key),
                }
                continue;
            }
            let attempt = item.attempts.made() + 1;
            match breaker.admit(Try::of(attempt)) {
                Admission::Go(permit) => {
                    return Next::Handle(Handle {
                        record: item.record.clone(),
                        blame: item.blame,
                        key,
                        attempt,
                        permit,
                    });
                }
                Admission::Wait(wait) => {
                    self.queues.put_back(&key);
                    let until = now.elapsed + wait;
                    let down = breaker.is_down();
                    self.held = Some(ClosedUntil { until, down });
                }
                Admission::Later(wait) => {
                    self.queues.suspend(&key);
                    self.timers.push(now.elapsed + wait, key);
                }
            }
        }
        self.wait(now)
    }

    fn wait<A>(&self, now: Now) -> Next<K, R, A> {
        let retry = self.timers.next();
        let defer = self.next_defer(now);
        let wakes = [retry, defer, self.held.map(|held| held.until)];
        let rescue = self.next_rescue_look(now);
        let first = wakes.into_iter().flatten().chain(rescue).min();
        first.map_or(Next::Idle, Next::WaitUntil)
    }

    /// Reports that work on the first record of a key has ended.
    pub fn done(
        &mut self,
        key: &K,
        ended: Ended,
        now: Now,
        rng: &mut fastrand::Rng,
    ) -> Option<Change<R>> {
        // If a probe ended without an answer, the next one can be made at once.
        if matches!(ended, Ended::Handled | Ended::Failed { .. }) {
            self.held = self.held.filter(|held| !held.down);
        }
        match ended {
            Ended::Handled => self.finish(key, None),
            Ended::Failed { kind, error, blame } => {
                let up = self.up(now);
                let item = self.queues.first(key)?;
                item.blame = blame;
                if kind.burns() {
                    item.attempts.push(now.time, &error);
                    item.failing_since.get_or_insert(up);
                    item.crashes += u32::from(kind == FailureKind::Crash);
                }
                self.failed(key, kind, now, rng)
            }
            Ended::Written(reason) => {
                self.parked.learn(key.clone(), true);
                self.finish(key, Some(reason))
            }
            Ended::Unparked => Some(self.learn(key, false)),
            Ended::Asked(parked) => Some(self.learn(key, parked)),
            Ended::LeaseLost => {
                self.queues.put_back(key);
                self.close(Closing::LeaseLost);
                Some(Change::LeaseLost)
            }
        }
    }

    /// The elapsed time without outages of the dependency: an outage does not age a record.
    fn up(&self, now: Now) -> Duration {
        now.elapsed.saturating_sub(self.downtime)
    }

    fn learn(&mut self, key: &K, parked: bool) -> Change<R> {
        self.parked.learn(key.clone(), parked);
        self.queues.put_back(key);
        Change::Known
    }

    fn finish(&mut self, key: &K, reason: Option<Reason>) -> Option<Change<R>> {
        let item = self.queues.finish(key)?;
        self.watermark.finish(item.ticket);
        Some(Change::Ended(item.record, reason))
    }

    /// A failed record stays the first of its key until it ends. The other keys continue.
    fn failed(
        &mut self,
        key: &K,
        kind: FailureKind,
        now: Now,
        rng: &mut fastrand::Rng,
    ) -> Option<Change<R>> {
        let up = self.up(now);
        let item = self.queues.first(key)?;
        let since = item.failing_since.unwrap_or(up);
        let attempts = item.attempts.made();
        let tried = Tried {
            attempts,
            crashes: item.crashes,
            failing_for: up.saturating_sub(since),
        };
        let record = item.record.clone();
        let verdict = self.rules.verdict(kind, tried, rng);
        let verdict = self.unless_deferred(verdict, kind, now);
        match verdict {
            AfterFailure::DeadLetter(reason) => self.given_up.push_back((key.clone(), reason)),
            AfterFailure::Leave => self.queues.suspend(key),
            AfterFailure::Again(wait) => {
                if self.rules.left_out == Some(Rule::Order) {
                    self.queues.lose_turn(key);
                }
                self.queues.suspend(key);
                if self.closed.is_some_and(Closing::has_last_look) {
                    self.queues.resume(key);
                } else {
                    self.timers.push(now.elapsed + wait, key.clone());
                }
            }
        }
        Some(Change::Failed {
            record,
            attempts,
            verdict,
        })
    }

    /// The source has no more records. What follows it soon waits no more for these records.
    pub fn source_ended(&mut self, now: Now, which: Defer) {
        self.defer_at
            .get_or_insert((now.elapsed + DEFER_AFTER, which));
    }

    /// Stops handling records. The first reason counts, except that a lost lease overrides all others.
    pub fn close(&mut self, why: Closing) {
        if self.closed.is_some() && why != Closing::LeaseLost {
            return;
        }
        self.closed = Some(why);
        self.held = None;
        self.rescue = Rescue::default();
        let last_look = why.has_last_look();
        for key in std::mem::take(&mut self.timers).into_keys() {
            if last_look {
                self.queues.resume(&key);
            }
        }
    }

    /// Why no more records are handled.
    pub fn closed(&self) -> Option<Closing> {
        self.closed
    }

    /// The breaker may have changed: ask it again before the time that it named.
    pub fn ask_again(&mut self) {
        self.held = None;
    }

    /// The last record up to which all have ended, and when it was committed.
    pub fn watermark(&self) -> Option<&RecordPlace<P>> {
        if self.rules.left_out == Some(Rule::Contiguous) {
            return self.watermark.first().or(self.watermark.reached());
        }
        self.watermark.reached()
    }

    /// The first record that has not ended, and when it was committed, if that is known.
    pub fn first_unfinished(&self) -> Option<&RecordPlace<P>> {
        self.watermark.first()
    }

    /// When the oldest record that has not ended was committed.
    pub fn oldest_unfinished(&self) -> Option<SystemTime> {
        self.watermark.first().and_then(|(_, created)| *created)
    }

    /// Whether everything that was pushed has ended.
    pub fn is_finished(&self) -> bool {
        self.watermark.is_empty()
    }

    pub fn in_hand(&self) -> usize {
        self.queues.running()
    }

    pub fn waiting(&self) -> usize {
        self.queues.len() - self.queues.running()
    }

    /// Whether a record is waiting only for a place or for the breaker.
    pub fn is_held_back(&self) -> bool {
        self.queues.any_ready()
    }

    /// The dead letter of a running key's first record.
    fn dead_letter(&mut self, key: K, reason: Reason) -> Option<DeadLetter<K, R>> {
        let parked = self.parked.is_parked(&key) == Some(true);
        let item = self.queues.first(&key)?;
        Some(DeadLetter {
            record: item.record.clone(),
            attempts: item.attempts.clone(),
            reason: if parked { Reason::Followed } else { reason },
            key,
        })
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod properties;
