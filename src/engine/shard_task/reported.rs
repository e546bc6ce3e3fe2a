//! How the shard reports what the pipeline says about its records.

use super::{ShardTask, TaskOrder};
use crate::core::pipeline::Change;
use crate::engine::handler::Failure;
use crate::engine::run_pipeline::Reported;
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;

impl<S: StreamSource, L: LeaseStore> ShardTask<S, L> {
    /// Work on a record has ended.
    pub(super) fn happened(&mut self, (effect, happened): (usize, Option<Reported>)) {
        let Some(happened) = happened else {
            return;
        };
        let run = self.effects.get(effect);
        let progress = run.active().effect.progress.clone();
        run.in_flight.report(&happened, &progress.counters);
        match happened {
            (Change::Ended(record, reason), _) => {
                self.effects.has_ended(effect, reason.is_none());
                let took = self.engine.clock.now().duration_since(record.created);
                progress.finishing.add(took.unwrap_or_default());
                self.ended();
            }
            (Change::Failed { record, .. }, Some(failure)) => {
                if !matches!(failure, Failure::Busy(_)) {
                    let sequence = &record.sequence_number;
                    let of_effect = if self.effects.are_several() {
                        format!("effect {}: ", progress.name())
                    } else {
                        String::new()
                    };
                    self.report.last_error =
                        Some(format!("{of_effect}record {sequence}: {failure}"));
                }
            }
            (Change::LeaseLost, _) => {
                self.refused = true;
                self.stop(TaskOrder::Abandon);
            }
            (Change::Failed { .. } | Change::Known, _) => {}
        }
    }

    /// A record has ended for an effect, in any way.
    pub(super) fn ended(&mut self) {
        self.report.finished += 1;
        self.rate.add(self.began.elapsed(), 1);
        let frontier = self.effects.frontier_time();
        self.report.frontier_time = frontier.or(self.report.frontier_time);
    }
}
