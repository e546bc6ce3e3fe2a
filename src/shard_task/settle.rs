//! How work on a record ended, and what becomes of the record then.

use std::sync::atomic::AtomicU64;

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{Order, ShardTask};
use crate::decide::blame::Blame;
use crate::decide::frontier::Ticket;
use crate::decide::retry::Verdict;
use crate::engine::Buried;
use crate::handler::{Failure, RecordHandler};
use crate::leases::LeaseStore;
use crate::progress::Counters;
use crate::record::ItemKey;
use crate::source::StreamSource;

/// Work on the first record of a key has ended.
pub(super) struct Done {
    pub key: ItemKey,
    pub outcome: Outcome,
}

pub(super) enum Outcome {
    /// The handler was called.
    Handled(Result<(), Failure>, Blame),
    /// The record is a dead letter now, or it is found that it cannot be one.
    Buried(Buried),
    /// Whether the key is parked.
    Asked(bool),
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> ShardTask<S, L, H> {
    /// Takes in how work on a record ended.
    pub(super) fn take_in(&mut self, done: Done) {
        let Done { key, outcome } = done;
        let counters = self.engine.progress.counters.clone();
        match outcome {
            Outcome::Handled(Ok(()), _) => self.leave(&key, &counters.handled),
            Outcome::Handled(Err(failure), blame) => {
                if let Some(queued) = self.lanes.first(&key) {
                    queued.blame = blame;
                }
                self.failed(key, &failure);
            }
            Outcome::Buried(Buried::As(reason)) => {
                self.leave(&key, counters.of(reason));
                self.parked.learn(key, true);
            }
            // The record is handled as any other.
            Outcome::Buried(Buried::KeyFree) => self.learn(key, false),
            Outcome::Buried(Buried::LeaseLost) => {
                warn!(shard = %self.shard(), epoch = self.assignment.hold.epoch,
                    "a dead letter was refused: the lease is somebody else's now");
                self.lanes.put_back(&key);
                self.refused = true;
                self.stop(Order::Abandon);
            }
            Outcome::Asked(parked) => self.learn(key, parked),
        }
    }

    /// It is known now whether a running key is parked: its first record starts again.
    fn learn(&mut self, key: ItemKey, parked: bool) {
        self.lanes.put_back(&key);
        self.parked.learn(key, parked);
    }

    /// The first record of a running key is settled.
    fn leave(&mut self, key: &ItemKey, counter: &AtomicU64) {
        if let Some(queued) = self.lanes.settle(key) {
            let _of_trace = queued.record.span().entered();
            self.settle(queued.ticket);
            Counters::add(counter);
            let took = self
                .engine
                .clock
                .now()
                .duration_since(queued.record.created);
            let took = took.unwrap_or_default();
            self.engine.progress.settling.add(took);
            debug!(shard = %self.shard(), sequence = %queued.record.sequence_number, "settled");
        }
    }

    pub(super) fn settle(&mut self, ticket: Ticket) {
        self.frontier.settle(ticket);
        self.report.settled += 1;
        self.rate.add(self.began.elapsed(), 1);
        if let Some((_, created)) = self.frontier.reached() {
            self.report.frontier_time = Some(*created);
        }
    }

    /// A record that failed stays first of its key until it is settled; the others go on.
    fn failed(&mut self, key: ItemKey, failure: &Failure) {
        let now = (Instant::now(), self.engine.clock.now());
        let has_letters = self.engine.letters.is_some();
        let Some(queued) = self.lanes.first(&key) else {
            return;
        };
        let _of_trace = queued.record.span().entered();
        let burned = failure.burns();
        if burned {
            Counters::add(&self.engine.progress.counters.failed_attempts);
            queued.attempts.push(now.1, &failure.to_string());
            queued.failing_since.get_or_insert(now.0);
        }
        let failing_for = queued.failing_since.map(|since| now.0 - since);
        let attempt = queued.attempts.made();
        let tried = (attempt, failing_for.unwrap_or_default());
        let settings = &self.engine.settings;
        let verdict = settings.verdict(failure, tried, has_letters, &mut self.rng);
        let sequence = queued.record.sequence_number.clone();
        let shard = &self.assignment.hold.shard;
        match verdict {
            Verdict::Bury(reason) => {
                error!(%shard, %sequence, %reason, attempt, error = %failure,
                    "a record becomes a dead letter, and its key is parked");
                self.report.last_error = Some(format!("record {sequence}: {failure}"));
                self.bury(key, reason);
            }
            Verdict::Again(wait) => {
                if let Failure::Reject(_) = failure {
                    error!(%shard, %sequence, error = %failure, again_in = ?wait,
                        "the record is bad, and there is no table for dead letters: the shard's \
                         checkpoint holds at it until it can be handled");
                } else if burned {
                    warn!(%shard, %sequence, attempt, error = %failure, again_in = ?wait,
                        "an attempt failed");
                } else {
                    debug!(%shard, %sequence, error = %failure, again_in = ?wait, "put off");
                }
                if !matches!(failure, Failure::Busy(_)) {
                    self.report.last_error = Some(format!("record {sequence}: {failure}"));
                }
                self.lanes.suspend(&key);
                self.wait(key, now.0 + wait);
            }
        }
    }

    /// A suspended key starts again then.
    pub(super) fn wait(&mut self, key: ItemKey, until: Instant) {
        self.waiting.push(until, key);
    }

    pub(super) fn wake(&mut self) {
        while let Some(key) = self.waiting.due(Instant::now()) {
            self.lanes.resume(&key);
        }
    }
}
