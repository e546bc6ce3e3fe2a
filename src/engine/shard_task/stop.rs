//! How a shard task stops: by an order, at the end of its tenure, or because a write was refused.

use tokio::time::Instant;
use tracing::warn;

use super::{ShardTask, Stopped, TaskOrder};
use crate::core::pipeline::Closing;
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;

impl<S: StreamSource, L: LeaseStore> ShardTask<S, L> {
    /// When the tenure ends if no heartbeat renews it.
    pub(super) fn expiry(&self) -> Option<Instant> {
        if self.stopping.is_some() {
            None
        } else {
            self.assignment.tenure.until()
        }
    }

    /// When stopping has taken too long.
    pub(super) fn patience(&self) -> Option<Instant> {
        self.stopping.map(|(_, limit)| limit)
    }

    pub(super) fn check_tenure(&mut self) {
        if !self.assignment.tenure.holds() {
            self.stop(TaskOrder::Abandon);
        }
    }

    pub(super) fn abandoned(&self) -> bool {
        matches!(self.stopping, Some((TaskOrder::Abandon, _)))
    }

    /// Begins to stop. An abandoned shard stays abandoned.
    pub(super) fn stop(&mut self, order: TaskOrder) {
        if order == TaskOrder::Run || self.abandoned() {
            return;
        }
        let limit = Instant::now() + self.engine.settings.timing.handover_timeout;
        let limit = self.stopping.map_or(limit, |(_, limit)| limit);
        self.stopping = Some((order, limit));
        self.effects.close(match order {
            TaskOrder::Abandon => Closing::LeaseLost,
            TaskOrder::Drain | TaskOrder::Run => Closing::Drain,
        });
        self.cancel.cancel();
    }

    /// Whether stopping is complete: nothing is in flight any more, or it took too long.
    pub(super) fn stopped(&mut self) -> Option<Stopped> {
        if self.stopping.is_none() && !self.assignment.tenure.holds() {
            self.stop(TaskOrder::Abandon);
        }
        let (order, limit) = self.stopping?;
        let running = self.effects.running();
        if running > 0 && Instant::now() < limit {
            return None;
        }
        if running > 0 {
            warn!(shard = %self.shard(), dropped = running, "records in flight took too long");
        }
        Some(match order {
            TaskOrder::Drain => {
                Stopped::Drained(self.effects.reached().least, self.present_report())
            }
            _ if self.refused => Stopped::Refused,
            _ => Stopped::Abandoned,
        })
    }
}
