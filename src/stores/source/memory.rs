//! A stream in memory with events that no emulator produces: splits, rollovers, trims, late children,
//! expired iterators.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_dynamo::Item;
use tokio::time::Instant;

mod shards;

use shards::MemoryShards;

use super::{Batch, Description, ShardIterator, SourceError, StreamSource};
use crate::core::record::{Event, Position, Record, SequenceNumber};
use crate::core::shard::{Shard, ShardId};

/// How long an iterator is valid.
///
/// Source: [GetShardIterator](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetShardIterator.html).
pub const ITERATOR_LIFE: Duration = Duration::from_mins(15);

/// A stream that exists until its last clone is dropped.
#[derive(Debug, Clone)]
pub struct MemoryStream {
    state: Arc<Mutex<MemoryShards>>,
    started: Instant,
    batch: usize,
}

/// A change that is committed to the stream.
#[derive(Debug, Clone)]
pub struct Commit {
    /// What happened.
    pub event: Event,
    /// The item's key.
    pub keys: Item,
    /// The item before.
    pub old_image: Option<Item>,
    /// The item after.
    pub new_image: Option<Item>,
    /// When.
    pub created: SystemTime,
}

impl MemoryStream {
    /// A stream of `shards` open shards that returns at most `batch` records per read.
    pub fn new(shards: u64, batch: usize) -> Self {
        let stream = Self {
            state: Arc::default(),
            started: Instant::now(),
            batch: batch.max(1),
        };
        stream.state().open_stream("", None, shards);
        stream
    }

    /// A table's first stream, with this label, enabled at this time.
    pub fn labelled(label: &str, created: SystemTime, shards: u64, batch: usize) -> Self {
        let stream = Self {
            state: Arc::default(),
            started: Instant::now(),
            batch: batch.max(1),
        };
        stream.state().open_stream(label, Some(created), shards);
        stream
    }

    /// Disables the stream: its shards end without children, and changes are not recorded.
    pub fn switch_off(&self) {
        let mut state = self.state();
        state.off = true;
        for held in state.by_id.values_mut() {
            held.closed = true;
            held.hidden = false;
        }
    }

    /// Enables another stream with this label and this many shards. The previous one ends.
    pub fn switch_on(&self, label: &str, created: SystemTime, shards: u64) {
        self.switch_off();
        self.state().open_stream(label, Some(created), shards);
    }

    /// Drops a stream that is not the newest, as the service does 24 hours after its end. Returns the
    /// records that were dropped just now.
    pub fn forget_stream(&self, label: &str) -> Vec<Record> {
        let mut state = self.state();
        let newest = state.streams.last().map(|stream| stream.label.clone());
        if !state.off && newest.as_deref() == Some(label) {
            return Vec::new();
        }
        state.streams.retain(|stream| *stream.label != *label);
        let of_stream = |id: &ShardId| id.label() == Some(label);
        let shards = state.by_id.iter_mut().filter(|(id, _)| of_stream(id));
        let mut dropped = Vec::new();
        for (_, held) in shards {
            dropped.extend_from_slice(&held.records[held.trimmed..]);
            held.trimmed = held.records.len();
            held.forgotten = true;
        }
        dropped
    }

    /// Commits a change: appends it to the open shard of its key, if the stream is enabled.
    pub fn commit(&self, commit: Commit) -> (Record, Option<ShardId>) {
        self.state().append(commit)
    }

    /// Closes a shard and opens one child in its place, or two if it is split.
    pub fn end(&self, shard: &ShardId, split: bool) -> Vec<ShardId> {
        self.state().end(shard, split)
    }

    /// Closes a shard without a child, as a disabled stream does.
    pub fn close(&self, shard: &ShardId) {
        self.state().change(shard, |held| held.closed = true);
    }

    /// Drops the records of a shard that were committed before `time`, as the stream does after 24
    /// hours. Returns those that were dropped just now.
    pub fn trim(&self, shard: &ShardId, time: SystemTime) -> Vec<Record> {
        let mut state = self.state();
        let Some(held) = state.by_id.get_mut(shard) else {
            return Vec::new();
        };
        let end = held
            .records
            .partition_point(|record| record.created < time)
            .max(held.trimmed);
        let dropped = held.records[held.trimmed..end].to_vec();
        held.trimmed = end;
        dropped
    }

    /// Drops a closed shard if all its records were committed before `time`. MemoryShards are dropped in the
    /// order in which they ended.
    pub fn forget(&self, shard: &ShardId, time: SystemTime) -> Vec<Record> {
        let old = self.state().is_forgettable(shard, time);
        if !old {
            return Vec::new();
        }
        let dropped = self.trim(shard, time);
        self.state().change(shard, |held| held.forgotten = true);
        dropped
    }

    /// Hides a shard from listings and look-ups, as happens to a new child for a while, or shows it
    /// again.
    pub fn hide(&self, shard: &ShardId, hidden: bool) {
        self.state().change(shard, |held| held.hidden = hidden);
    }

    /// The open shards.
    pub fn open_shards(&self) -> Vec<ShardId> {
        let state = self.state();
        state
            .by_id
            .iter()
            .filter(|(_, held)| !held.closed)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// All shards that the stream ever had, with how many of their records are trimmed and how many
    /// there were.
    pub fn census(&self) -> Vec<(Shard, usize, usize)> {
        let state = self.state();
        let census = state.by_id.iter().map(|(id, held)| {
            let shard = Shard {
                id: id.clone(),
                parent: held.parent.clone(),
            };
            (shard, held.trimmed, held.records.len())
        });
        census.collect()
    }

    fn state(&self) -> MutexGuard<'_, MemoryShards> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursor(&self, shard: &ShardId, index: usize) -> ShardIterator {
        ShardIterator(format!(
            "{}|{index}|{shard}",
            self.started.elapsed().as_millis()
        ))
    }
}

impl StreamSource for MemoryStream {
    async fn describe(&self, from: Option<&str>) -> Result<Description, SourceError> {
        let state = self.state();
        let shards = state.listed().filter(|shard| shard.id.label() >= from);
        let off = "the table has no stream: enable one";
        Ok(Description {
            streams: state.streams.clone(),
            shards: shards.collect(),
            trouble: state.off.then(|| off.to_owned()),
        })
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let state = self.state();
        // As the service does, for a shard that it no longer has.
        state.held(parent)?;
        let children = state.listed();
        let children = children.filter(|shard| shard.parent.as_ref() == Some(parent));
        Ok(children.collect())
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &Position,
    ) -> Result<ShardIterator, SourceError> {
        let state = self.state();
        let held = state.held(shard)?;
        let index = match position {
            Position::Horizon => held.trimmed,
            Position::After(number) => held
                .records
                .partition_point(|record| record.sequence_number <= *number),
        };
        let trimmed = |number: &SequenceNumber| {
            let last = held
                .trimmed
                .checked_sub(1)
                .and_then(|i| held.records.get(i));
            last.is_some_and(|last| *number <= last.sequence_number)
        };
        if matches!(position, Position::After(number) if trimmed(number)) {
            return Err(SourceError::Trimmed);
        }
        Ok(self.cursor(shard, index))
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<Batch, SourceError> {
        let mut parts = iterator.0.splitn(3, '|');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (Some(made), Some(index)) = (number(), number()) else {
            return Err(SourceError::Other(anyhow::anyhow!(
                "no iterator: {iterator:?}"
            )));
        };
        let shard = ShardId::new(parts.next().unwrap_or_default());
        if self
            .started
            .elapsed()
            .saturating_sub(Duration::from_millis(made))
            > ITERATOR_LIFE
        {
            return Err(SourceError::Expired);
        }
        let state = self.state();
        let held = state.held(&shard)?;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index < held.trimmed {
            return Err(SourceError::Trimmed);
        }
        let end = (index + self.batch).min(held.records.len());
        let records = held.records.get(index..end).unwrap_or_default().to_vec();
        let over = held.closed && end == held.records.len();
        let next = (!over).then(|| self.cursor(&shard, end.max(index)));
        Ok(Batch { records, next })
    }
}
