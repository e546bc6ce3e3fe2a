//! How the shard reports what the pipeline says about its records.

use tracing::debug;

use super::{ShardTask, TaskOrder};
use crate::core::pipeline::Change;
use crate::core::record::Record;
use crate::engine::handler::{Failure, RecordHandler, span_of};
use crate::engine::run_pipeline::Reported;
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> ShardTask<S, L, H> {
    /// Work on a record has ended.
    pub(super) fn happened(&mut self, happened: Option<Reported>) {
        let Some(happened) = happened else {
            return;
        };
        let progress = self.engine.progress.clone();
        self.in_flight.report(&happened, &progress.counters);
        match happened {
            (Change::Ended(record, _), _) => {
                let took = self.engine.clock.now().duration_since(record.created);
                progress.settling.add(took.unwrap_or_default());
                self.ended();
            }
            (Change::Failed { record, .. }, Some(failure)) => {
                if !matches!(failure, Failure::Busy(_)) {
                    let sequence = &record.sequence_number;
                    self.report.last_error = Some(format!("record {sequence}: {failure}"));
                }
            }
            (Change::LeaseLost, _) => {
                self.refused = true;
                self.stop(TaskOrder::Abandon);
            }
            (Change::Failed { .. } | Change::Known, _) => {}
        }
    }

    /// A record ends without being handled.
    pub(super) fn skip(&mut self, record: &Record, why: &'static str) {
        let _of_trace = span_of(record).entered();
        debug!(shard = %self.shard(), sequence = %record.sequence_number, why, "settled");
        let pipeline = &mut self.in_flight.pipeline;
        pipeline.skip(record.sequence_number.clone(), record.created);
        self.ended();
    }

    /// A record has ended, in any way.
    fn ended(&mut self) {
        self.report.settled += 1;
        self.rate.add(self.began.elapsed(), 1);
        if let Some((_, created)) = self.in_flight.pipeline.watermark() {
            self.report.frontier_time = *created;
        }
    }
}
