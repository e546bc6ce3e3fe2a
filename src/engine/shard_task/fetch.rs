//! Reads a shard continuously: pauses while it is idle, backs off when reading fails, gets a new
//! iterator when the old one expires.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::core::backoff::Backoff;
use crate::core::record::{Position, Record};
use crate::core::shard::ShardId;
use crate::engine::Engine;
use crate::engine::budget::{Room, Share};
use crate::engine::progress::Counters;
use crate::stores::source::{ShardIterator, SourceError, StreamSource};

/// The memory of a waiting record besides the record itself: its place in its queue and in the
/// watermark, three copies of its key, and its attempts. `bench -- memory` compares it with the
/// process.
const PLACE: usize = 900;

/// The memory of a waiting record.
pub(super) fn record_memory(record: &Record) -> usize {
    record.memory() + PLACE
}

/// One empty read proves nothing: there may be records further on. This many in a row count as the end.
///
/// Source: [GetRecords](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const EMPTY_READS: u32 = 5;

/// A reader of one shard. It remembers what it has returned.
pub(super) struct Fetcher<S, L> {
    engine: Arc<Engine<S, L>>,
    share: Share,
    shard: ShardId,
    pub position: Position,
    iterator: Option<ShardIterator>,
    pause: Duration,
    failures: u32,
    /// How many reads in a row were empty, and when the first of them began.
    empty: Option<(u32, SystemTime)>,
    rng: fastrand::Rng,
}

/// The result of reading on.
pub(super) enum Fetched {
    /// The next records (at least one), with their room in memory.
    Records(Vec<Record>, Room),
    /// The end of the shard, with its last records.
    End(Vec<Record>, Room),
    /// The records after the position were trimmed. Reading continues at the horizon.
    Trimmed,
    /// The shard does not exist any more.
    Gone,
    /// Nothing new. `at_end`: enough reads in a row were empty, the first of them at this time, so that
    /// nothing was left to read then.
    Nothing { at_end: Option<SystemTime> },
    /// Reading failed; the next call tries again.
    Failed(String),
}

impl Fetched {
    /// Whether the stream answered with what follows the position, which can be nothing.
    pub fn has_read(&self) -> bool {
        matches!(
            self,
            Self::Records(..) | Self::End(..) | Self::Nothing { .. }
        )
    }
}

impl<S: StreamSource, L> Fetcher<S, L> {
    pub fn new(
        engine: Arc<Engine<S, L>>,
        shard: ShardId,
        position: Position,
        memory: Share,
    ) -> Self {
        let seed = engine.settings.seed ^ crate::core::hash::hash(shard.as_str());
        Self {
            share: memory,
            engine,
            shard,
            position,
            iterator: None,
            pause: Duration::ZERO,
            failures: 0,
            empty: None,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Reads on, after the due pause.
    pub async fn next(mut self) -> (Self, Fetched) {
        tokio::time::sleep(self.pause).await;
        let fetched = match self.read().await {
            Ok(fetched) => {
                self.failures = 0;
                self.engine.progress.stream_answered();
                fetched
            }
            Err(SourceError::Expired) => {
                self.restart();
                Fetched::Nothing { at_end: None }
            }
            Err(SourceError::Trimmed) => {
                self.position = Position::Horizon;
                self.restart();
                Fetched::Trimmed
            }
            Err(SourceError::Gone) => {
                self.iterator = None;
                self.back_off();
                Fetched::Gone
            }
            Err(error @ (SourceError::Throttled(_) | SourceError::Other(_))) => {
                self.iterator = None;
                self.back_off();
                let counters = &self.engine.progress.counters;
                Counters::add(match &error {
                    SourceError::Throttled(_) => &counters.reads_throttled,
                    _ => &counters.reads_failed,
                });
                warn!(shard = %self.shard, error = %error, again_in = ?self.pause, "reading failed");
                self.engine.progress.stream_failed(error.to_string());
                Fetched::Failed(error.to_string())
            }
        };
        (self, fetched)
    }

    async fn read(&mut self) -> Result<Fetched, SourceError> {
        let source = &self.engine.source;
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => source.iterator(&self.shard, &self.position).await?,
        };
        let mut room = self.share.room_for_a_read().await;
        let began = self.engine.clock.now();
        let batch = source.read(&iterator).await?;
        let bytes = batch.records.iter().map(record_memory).sum();
        // Room that the batch does not need is returned at once.
        room = room.take(bytes);
        if let Some(last) = batch.records.last() {
            self.position = Position::After(last.sequence_number.clone());
        }
        self.iterator = batch.next;
        self.pace(batch.records.is_empty());
        if !batch.records.is_empty() {
            self.empty = None;
        }
        Ok(match (self.iterator.is_some(), batch.records.is_empty()) {
            (false, _) => Fetched::End(batch.records, room),
            (true, true) => Fetched::Nothing {
                at_end: self.note_empty(began),
            },
            (true, false) => Fetched::Records(batch.records, room),
        })
    }

    fn note_empty(&mut self, began: SystemTime) -> Option<SystemTime> {
        let (count, first) = self.empty.unwrap_or((0, began));
        let enough = count + 1 >= EMPTY_READS;
        self.empty = (!enough).then_some((count + 1, first));
        enough.then_some(first)
    }

    /// No pause while records come; from `idle_min` up to `idle_max` while none do.
    fn pace(&mut self, idle: bool) {
        let timing = &self.engine.settings.timing;
        self.pause = if idle {
            (self.pause * 2).clamp(timing.idle_min, timing.idle_max)
        } else {
            Duration::ZERO
        };
    }

    /// The position needs a new cursor: at once the first time. A stream that keeps giving this answer
    /// is asked less and less often.
    fn restart(&mut self) {
        self.iterator = None;
        if self.failures == 0 {
            (self.failures, self.pause) = (1, Duration::ZERO);
        } else {
            self.back_off();
        }
    }

    fn back_off(&mut self) {
        self.failures += 1;
        let backoff = Backoff {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(10),
        };
        let least = self.engine.settings.timing.idle_min;
        self.pause = backoff.wait(self.failures, &mut self.rng).max(least);
    }
}
