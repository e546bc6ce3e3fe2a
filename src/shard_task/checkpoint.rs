//! What a shard task writes down of how far it came, and when.

use std::sync::atomic::Ordering;

use tracing::warn;

use super::{Boxed, Order, ShardTask};
use crate::engine::Counters;
use crate::handler::RecordHandler;
use crate::leases::LeaseStore;
use crate::record::Position;
use crate::source::StreamSource;

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> ShardTask<S, L, H> {
    /// The last record below which everything is settled.
    pub(super) fn reached(&self) -> Position {
        match self.frontier.reached() {
            Some((number, _)) => Position::After(number.clone()),
            None => self.assignment.start.clone(),
        }
    }

    /// Whether a checkpoint is worth a write: it moved, or for a twenty-fourth of the stream's
    /// retention it has only been known that there was nothing to do.
    pub(super) fn has_news(&self) -> bool {
        let refresh = self.engine.settings.timing.retention / 24;
        let (now, then) = (self.report.caught_up_at, self.written_report.caught_up_at);
        let stale = match (now, then) {
            (Some(now), Some(then)) => now.duration_since(then).is_ok_and(|age| age >= refresh),
            (now, then) => now != then,
        };
        stale || self.reached() != self.written
    }

    /// Whether the stream may have trimmed something that is not settled. It has not if everything
    /// was settled at a time from which on it still keeps everything.
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

    pub(super) fn checkpoint(&mut self) -> Boxed<anyhow::Result<Option<()>>> {
        let (engine, hold) = (self.engine.clone(), self.assignment.hold.clone());
        let (position, report) = (self.reached(), self.report.clone());
        self.written = position.clone();
        self.written_report = report.clone();
        let limit = engine.settings.timing.call_timeout();
        Box::pin(async move {
            let write = engine.leases.checkpoint(&hold, &position, &report);
            tokio::time::timeout(limit, write).await?
        })
    }

    pub(super) fn checkpointed(&mut self, answer: anyhow::Result<Option<()>>) {
        match answer {
            Ok(Some(())) => Counters::add(&self.engine.counters.checkpoints),
            Ok(None) => {
                warn!(shard = %self.shard(), epoch = self.assignment.hold.epoch,
                    "the checkpoint was refused: the lease is somebody else's now");
                self.engine.counters.refused.fetch_add(1, Ordering::Relaxed);
                self.refused = true;
                self.stop(Order::Abandon);
            }
            Err(error) => {
                warn!(shard = %self.shard(), error = format!("{error:#}"),
                    "the checkpoint may not have been written; the next one will tell");
                // Written again with the next one, even if nothing moves until then.
                self.written = Position::Horizon;
            }
        }
    }
}
