//! The result of a read, and which of its records are handled.

use std::time::Duration;

use tokio::time::Instant;

use super::fetch::{Fetched, record_memory};
use super::{Ahead, ShardTask, Stopped};
use crate::core::record::Record;
use crate::engine::budget::Room;
use crate::engine::handler::RecordHandler;
use crate::engine::progress::Counters;
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;

/// A read takes seconds at worst. A shard that was not read for this long cannot be read.
const SILENCE: Duration = Duration::from_mins(1);

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> ShardTask<S, L, H> {
    /// Handles the result of a read.
    pub(super) async fn fetched(&mut self, fetched: Fetched) -> Option<Stopped> {
        // Nothing else shows that the horizon moved before the first read.
        let late = self.at_horizon && self.open_gap.is_none() && self.may_have_lost();
        if late
            && fetched.has_read()
            && let Some(ended) = self.gap().await
        {
            return Some(ended);
        }
        if fetched.has_read() {
            self.read_at = Instant::now();
        }
        if self.ahead == Ahead::Gap {
            // It is after the gap.
            return None;
        }
        match fetched {
            Fetched::Records(records, room) => self.queue(records, room).await,
            Fetched::End(records, room) => {
                self.ahead = Ahead::End;
                self.queue(records, room).await
            }
            Fetched::Nothing { at_end } => {
                if self.in_flight.pipeline.is_finished() {
                    // Whatever the failure was, it no longer matters.
                    self.report.last_error = None;
                    self.report.caught_up_at = self.report.caught_up_at.max(at_end);
                }
                None
            }
            Fetched::Failed(error) => {
                self.report.last_error = Some(error);
                None
            }
            Fetched::Trimmed => {
                self.at_horizon = true;
                // A gap without an end covers everything that is trimmed until a record is read.
                if self.open_gap.is_none() && !self.was_at_end() {
                    self.gap().await
                } else {
                    None
                }
            }
            Fetched::Gone => self.gone().await,
        }
    }

    /// Monitoring must know that nothing is read, or silence would look like an idle shard. The loop
    /// runs at least once in a lease duration.
    pub(super) fn note_silence(&mut self) {
        if self.wants_more()
            && self.report.last_error.is_none()
            && self.read_at.elapsed() >= SILENCE
        {
            let what = "nothing was read for a minute: the memory budget is full, or the stream does \
                        not answer";
            self.report.last_error = Some(what.to_owned());
        }
    }

    async fn queue(&mut self, records: Vec<Record>, mut room: Room) -> Option<Stopped> {
        for record in records {
            let place = (record.sequence_number.clone(), record.created);
            if self
                .last_read
                .as_ref()
                .is_some_and(|(last, _)| place.0 <= *last)
            {
                continue;
            }
            if let Some(ended) = self.close_gap(&place.0).await {
                return Some(ended);
            }
            self.last_read = Some((place.0.clone(), Some(place.1)));
            self.at_horizon = false;
            if self
                .assignment
                .starts_at
                .is_some_and(|start| record.created < start)
            {
                Counters::add(&self.engine.progress.counters.skipped);
                self.skip(&record, "skipped: older than the start");
                continue;
            }
            if !self.engine.wants(&record, &self.stream) {
                Counters::add(&self.engine.progress.counters.filtered);
                self.skip(&record, "filtered");
                continue;
            }
            let room = room.take(record_memory(&record));
            self.in_flight.push(record, Some(room));
        }
        None
    }
}
