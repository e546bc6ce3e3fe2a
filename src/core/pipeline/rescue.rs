//! Records that cannot wait where they are become dead letters, which are redriven automatically: those
//! about to leave the stream, those that keep failing at the end of their shard, and those that an
//! effect cannot keep up with while others wait for it.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::{
    Admit, AfterFailure, DeadLetter, Defer, FailureKind, Item, Now, Pipeline, Reason, Rules,
};

/// A record that is about to leave the stream is handled, not rescued, if it gets its turn within this
/// time.
const TURN: Duration = Duration::from_mins(1);

/// The time between two checks for records that are about to leave the stream.
const LOOK: Duration = Duration::from_secs(1);

/// How long failing records are tried again after the end of their source.
pub(super) const DEFER_AFTER: Duration = Duration::from_secs(1);

/// How much longer others wait for records that only need their turn.
const SLOW: Duration = Duration::from_secs(9);

/// How many letters are written at a time when records are rescued.
const AT_ONCE: usize = 16;

/// Keys whose first record becomes a dead letter, and why.
#[derive(Debug)]
pub(super) struct Rescue<K> {
    keys: VecDeque<(K, Reason)>,
    looked: Option<Duration>,
}

impl<K> Default for Rescue<K> {
    fn default() -> Self {
        Self {
            keys: VecDeque::new(),
            looked: None,
        }
    }
}

impl Rules {
    fn rescue_age(&self) -> Option<Duration> {
        self.dead_letters?.rescue_age
    }

    /// No more records are handled: why a waiting record becomes a dead letter anyway.
    pub(super) fn last_look<R>(&self, item: &Item<R>, now: Now) -> Option<Reason> {
        let rules = self.dead_letters?;
        let age = now.time.duration_since(item.created).unwrap_or_default();
        if item.attempts.made() > 0 && age >= rules.limits.age {
            return Some(Reason::TooOld);
        }
        let late = rules.rescue_age.is_some_and(|late| age >= late);
        late.then_some(Reason::Rescued)
    }
}

impl<K: Ord + Clone, P, R: Clone> Pipeline<K, P, R> {
    /// When to check whether a record is about to leave the stream. `None`: not before some work has
    /// ended, as the dead letters of those that the last check found are not all begun.
    pub(super) fn next_rescue_look(&self, now: Now) -> Option<Duration> {
        let age = self.rules.rescue_age()?;
        if self.closed.is_some() || self.waiting() == 0 || !self.rescue.keys.is_empty() {
            return None;
        }
        let due = (self.oldest_unfinished()? + age).duration_since(now.time);
        let due = now.elapsed + due.unwrap_or_default();
        Some(self.rescue.looked.map_or(due, |at| due.max(at + LOOK)))
    }

    /// The next record to rescue.
    pub(super) fn next_rescue(
        &mut self,
        now: Now,
        breaker: &impl Admit,
    ) -> Option<DeadLetter<K, R>> {
        let look = self.next_rescue_look(now);
        if look.is_some_and(|at| at <= now.elapsed) {
            self.look(now, breaker.is_down());
        }
        match self.defers(now) {
            Some(Defer::Waiting) if breaker.is_down() || self.is_slow(now) => self.overflow(0),
            Some(Defer::Failing) if breaker.is_down() => {}
            Some(_) => {
                let failing = std::mem::take(&mut self.timers).into_keys();
                let failing = failing.map(|key| (key, Reason::Deferred));
                self.rescue.keys.extend(failing);
            }
            None => {}
        }
        while self.queues.running() < AT_ONCE.min(self.rules.concurrency) {
            let (key, reason) = self.rescue.keys.pop_front()?;
            if self.queues.start_key(&key) {
                return self.dead_letter(key, reason);
            }
        }
        None
    }

    /// Which records are deferred now, because the source has ended.
    fn defers(&self, now: Now) -> Option<Defer> {
        let (at, which) = self
            .defer_at
            .filter(|_| self.rules.dead_letters.is_some())?;
        (at <= now.elapsed).then_some(which)
    }

    /// Whether the source ended so long ago that nothing else may wait for these records.
    fn is_slow(&self, now: Now) -> bool {
        self.defer_at
            .is_some_and(|(at, _)| at + SLOW <= now.elapsed)
    }

    /// When records will be deferred, if some wait.
    pub(super) fn next_defer(&self, now: Now) -> Option<Duration> {
        let (at, which) = self.defer_at?;
        if self.closed.is_some() || self.rules.dead_letters.is_none() {
            return None;
        }
        let failing = self.timers.next().map(|_| at);
        let waiting = (which == Defer::Waiting && self.waiting() > 0).then_some(at + SLOW);
        let dues = failing.into_iter().chain(waiting);
        dues.filter(|due| *due > now.elapsed).min()
    }

    /// Defers the records that have waited for the longest, until about `keep` are left: those of a key
    /// follow its first one. Others share the source, and have no room. Without dead letters, nothing
    /// happens.
    pub fn overflow(&mut self, keep: usize) {
        if self.rules.dead_letters.is_none()
            || self.closed.is_some()
            || !self.rescue.keys.is_empty()
        {
            return;
        }
        let mut oldest = self.queues.waiting_by(|item| item.ticket);
        oldest.sort_unstable_by_key(|(_, ticket, _)| *ticket);
        let mut left = self.waiting();
        for (key, _, records) in oldest {
            if left <= keep {
                return;
            }
            left -= records.min(left);
            self.rescue.keys.push_back((key, Reason::Deferred));
        }
    }

    /// A record whose next attempt would be too long after the end of its source is deferred. If its
    /// dependency is down it is not, because the records behind it could not be served either.
    pub(super) fn unless_deferred(
        &self,
        verdict: AfterFailure,
        kind: FailureKind,
        now: Now,
    ) -> AfterFailure {
        match verdict {
            AfterFailure::Again(wait) => {
                let again = Now {
                    elapsed: now.elapsed + wait,
                    ..now
                };
                match self.defers(again) {
                    Some(Defer::Failing) if kind == FailureKind::Unavailable => verdict,
                    Some(_) => AfterFailure::DeadLetter(Reason::Deferred),
                    None => verdict,
                }
            }
            _ => verdict,
        }
    }

    /// Notes which records are about to leave the stream without getting their turn.
    fn look(&mut self, now: Now, down: bool) {
        self.rescue.looked = Some(now.elapsed);
        let age = self.rules.rescue_age().unwrap_or_default();
        let late = now.time.checked_sub(age);
        let late = late.unwrap_or(SystemTime::UNIX_EPOCH);
        let due = |item: &mut Item<R>| {
            if item.created > late {
                return false;
            }
            let since = *item.due_since.get_or_insert(now.elapsed);
            down || item.attempts.made() > 0 || now.elapsed.saturating_sub(since) >= TURN
        };
        let due = self.queues.waiting(due).into_iter();
        self.rescue.keys = due.map(|key| (key, Reason::Rescued)).collect();
    }
}
