//! The result of a read, and which of its records are handled.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::fetch::{Fetched, record_memory};
use super::{Ahead, ShardTask, Stopped};
use crate::core::record::Record;
use crate::engine::budget::Room;
use crate::engine::handler::span_of;
use crate::engine::progress::Counters;
use crate::engine::run_pipeline::Carried;
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;

/// A read takes seconds at worst. A shard that was not read for this long cannot be read.
const SILENCE: Duration = Duration::from_mins(1);

impl<S: StreamSource, L: LeaseStore> ShardTask<S, L> {
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
                self.effects.at_end(at_end);
                if self.effects.are_finished() {
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
            self.distribute(record, &mut room);
        }
        if let Some((last, _)) = self
            .last_read
            .as_ref()
            .filter(|_| self.effects.are_several())
        {
            self.effects.have_read(last);
        }
        None
    }

    /// Gives a record to each effect that has not finished it yet.
    fn distribute(&mut self, record: Record, room: &mut Room) {
        let older = self.assignment.starts_at;
        let older = older.is_some_and(|start| record.created < start);
        let mut wanted_by = Vec::new();
        let mut ended = 0;
        for (index, run) in self.effects.iter_mut().enumerate() {
            if run.has_done(&record.sequence_number) {
                continue;
            }
            let effect = &run.active().effect;
            let counters = &effect.progress.counters;
            let (counter, why) = if older || run.is_older(&record) {
                (&counters.skipped, "skipped: older than the start")
            } else if effect.wants(&record, &self.stream, self.engine.home.as_ref()) {
                wanted_by.push(index);
                continue;
            } else {
                (&counters.filtered, "filtered")
            };
            Counters::add(counter);
            let _of_trace = span_of(&record).entered();
            let (shard, sequence) = (&self.assignment.hold.shard, &record.sequence_number);
            debug!(%shard, %sequence, effect = %effect.name(), why, "finished");
            run.skip(&record);
            ended += 1;
        }
        if !wanted_by.is_empty() {
            let room = room.take(record_memory(&record));
            let carried = Carried::new(record, Some(room));
            for index in wanted_by {
                self.effects.push(index, carried.clone());
            }
        }
        for _ in 0..ended {
            self.ended();
        }
    }
}
