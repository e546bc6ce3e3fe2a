//! What a shard task writes about its progress, and when.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::warn;

use super::{Boxed, ShardTask, TaskOrder};
use crate::engine::progress::Counters;
use crate::stores::leases::{LeaseStore, Report};
use crate::stores::source::StreamSource;

/// A record that has waited for this long is stuck. This is also the time between two writes that
/// report nothing else.
const STUCK: Duration = Duration::from_secs(10);

impl<S: StreamSource, L: LeaseStore> ShardTask<S, L> {
    /// The shard's present report.
    pub(super) fn present_report(&self) -> Report {
        Report {
            waiting_since: self.waiting_since(),
            per_minute: self.rate.per_minute(self.began.elapsed()),
            reported_at: Some(self.engine.clock.now()),
            ahead: self.effects.reached().ahead,
            ..self.report.clone()
        }
    }

    pub(super) fn waiting_since(&self) -> Option<SystemTime> {
        self.effects.oldest_unfinished()
    }

    /// Whether a stuck record is not in the row's report yet. It is reported again at growing
    /// intervals.
    fn has_trouble(&self) -> bool {
        let stuck = |since: &SystemTime| {
            let age = self.engine.clock.now().duration_since(*since);
            age.is_ok_and(|age| age >= STUCK)
        };
        let waits = self.waiting_since().filter(stuck);
        let written = &self.written_report;
        let unreported = waits.is_some() && waits != written.waiting_since
            || self.report.last_error != written.last_error;
        unreported && self.written_at.elapsed() >= STUCK
    }

    /// Whether a checkpoint is worth a write: it moved; it did not move and should have; or for a
    /// twenty-fourth of the stream's retention nothing was written because there was nothing to do.
    pub(super) fn has_news(&self) -> bool {
        let refresh = self.engine.settings.timing.retention / 24;
        let (now, then) = (self.report.caught_up_at, self.written_report.caught_up_at);
        let stale = match (now, then) {
            (Some(now), Some(then)) => now.duration_since(then).is_ok_and(|age| age >= refresh),
            (now, then) => now != then,
        };
        stale || self.written.as_ref() != Some(&self.effects.reached()) || self.has_trouble()
    }

    /// Whether the stream may have trimmed an unfinished record. It has not if everything was finished
    /// at a time from which the stream still holds all records.
    pub(super) fn may_have_lost(&self) -> bool {
        let kept = self.engine.settings.timing.retention.mul_f64(0.99);
        let age = |time| {
            self.engine
                .clock
                .now()
                .duration_since(time)
                .unwrap_or_default()
        };
        self.report
            .complete_until()
            .is_none_or(|time| age(time) >= kept)
    }

    /// Whether no record followed the last finished one, as far back as the stream may have trimmed. If
    /// the stream says trimmed, that counts, however new the last record seems.
    pub(super) fn was_at_end(&self) -> bool {
        let Report {
            caught_up_at,
            frontier_time,
            ..
        } = &self.report;
        caught_up_at.is_some() && caught_up_at >= frontier_time && !self.may_have_lost()
    }

    pub(super) fn checkpoint(&mut self) -> Boxed<'static, anyhow::Result<Option<()>>> {
        let (engine, hold) = (self.engine.clone(), self.assignment.hold.clone());
        let (reached, report) = (self.effects.reached(), self.present_report());
        let position = reached.least.clone();
        self.written = Some(reached);
        self.written_report = report.clone();
        self.written_at = Instant::now();
        let limit = engine.settings.timing.call_timeout();
        Box::pin(async move {
            let write = engine.leases.checkpoint(&hold, &position, &report);
            tokio::time::timeout(limit, write).await?
        })
    }

    pub(super) fn checkpointed(&mut self, answer: anyhow::Result<Option<()>>) {
        match answer {
            Ok(Some(())) => Counters::add(&self.engine.progress.counters.checkpoints),
            Ok(None) => {
                warn!(shard = %self.shard(), epoch = self.assignment.hold.epoch,
                    "the checkpoint was refused: another worker holds the lease");
                self.refused = true;
                self.stop(TaskOrder::Abandon);
            }
            Err(error) => {
                warn!(shard = %self.shard(), error = format!("{error:#}"),
                    "the checkpoint may not have been written; it is written again with the next one");
                // Written again with the next one, even if nothing moves until then.
                self.written = None;
            }
        }
    }
}
