//! How work on a record ended, and what becomes of the record then.

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{Batch, Done, Outcome, Over};
use crate::decide::retry::Verdict;
use crate::engine::Buried;
use crate::handler::{Failure, RecordHandler};
use crate::progress::Counters;
use crate::record::ItemKey;

impl<H: RecordHandler> Batch<'_, H> {
    pub(super) fn take_in(&mut self, done: Done) {
        let Done { key, outcome } = done;
        let counters = &self.function.counters;
        // It may be known now that the dependency is back.
        self.held_until = None;
        match outcome {
            Outcome::Handled(Ok(()), _) => {
                Counters::add(&counters.handled);
                self.settle(&key);
            }
            Outcome::Handled(Err(failure), blame) => {
                if let Some(queued) = self.lanes.first(&key) {
                    queued.blame = blame;
                }
                self.failed(key, &failure);
            }
            Outcome::Buried(Buried::As(reason)) => {
                Counters::add(counters.of(reason));
                self.settle(&key);
                self.parked.learn(key, true);
            }
            Outcome::Buried(Buried::KeyFree | Buried::LeaseLost) => self.learn(key, false),
            Outcome::Asked(parked) => self.learn(key, parked),
        }
    }

    /// It is known now whether a running key is parked: its first record starts again.
    fn learn(&mut self, key: ItemKey, parked: bool) {
        self.lanes.put_back(&key);
        self.parked.learn(key, parked);
    }

    fn settle(&mut self, key: &ItemKey) {
        if let Some(queued) = self.lanes.settle(key) {
            self.frontier.settle(queued.ticket);
            self.settled += 1;
            let _of_trace = queued.record.span().entered();
            debug!(stream = %self.stream, sequence = %queued.record.sequence_number, "settled");
        }
    }

    /// A record that failed stays first of its key until it is settled; the others go on.
    fn failed(&mut self, key: ItemKey, failure: &Failure) {
        let function = self.function;
        let has_letters = function.letters.is_some();
        let Some(queued) = self.lanes.first(&key) else {
            return;
        };
        if failure.burns() {
            Counters::add(&function.counters.failed_attempts);
            let now = function.clock.now();
            queued.attempts.push(now, &failure.to_string());
            queued.failing_since.get_or_insert_with(Instant::now);
        }
        let failing_for = queued.failing_since.map(|since| since.elapsed());
        let (record, attempts) = (queued.record.clone(), queued.attempts.clone());
        let _of_trace = record.span().entered();
        let (stream, sequence) = (&self.stream, &record.sequence_number);
        let attempt = attempts.made();
        let tried = (attempt, failing_for.unwrap_or_default());
        let settings = &function.settings;
        match settings.verdict(failure, tried, has_letters, &mut self.rng) {
            Verdict::Bury(reason) => {
                error!(%stream, %sequence, %reason, attempt, error = %failure,
                    "a record becomes a dead letter, and its key is parked");
                self.bury(key, &record, attempts, reason);
            }
            Verdict::Again(_) if matches!(failure, Failure::Reject(_)) => {
                error!(%stream, %sequence, error = %failure,
                    "the record is bad, and there is no table for dead letters: it holds its shard \
                     until it can be handled");
                self.lanes.suspend(&key);
            }
            Verdict::Again(wait) => {
                if failure.burns() {
                    warn!(%stream, %sequence, attempt, error = %failure, again_in = ?wait,
                        "an attempt failed");
                } else {
                    debug!(%stream, %sequence, error = %failure, again_in = ?wait, "put off");
                }
                self.lanes.suspend(&key);
                self.wait(key, Instant::now() + wait);
            }
        }
    }

    /// A suspended key starts again then; at once, to be looked at for the last time, if nothing
    /// more is begun.
    pub(super) fn wait(&mut self, key: ItemKey, until: Instant) {
        if self.over.is_some() {
            return self.lanes.resume(&key);
        }
        self.waiting.push(until, key);
    }

    /// Those whose time has come start again.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(key) = self.waiting.due(now) {
            self.lanes.resume(&key);
        }
    }

    /// Says what comes again.
    pub(super) fn tell(&self) {
        let Some((first, _)) = self.frontier.first() else {
            return;
        };
        let why = match self.over {
            Some(Over::Time) => "the time is over",
            Some(Over::Down) => "what the handler depends on is down",
            None => "a record failed",
        };
        warn!(
            stream = %self.stream,
            from = %first,
            settled = self.settled,
            given_up = self.running.len(),
            not_settled = self.wanted - self.settled,
            "{why}: what is not settled comes again"
        );
    }
}
