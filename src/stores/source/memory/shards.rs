//! The shards of a stream in memory.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Commit;
use crate::core::hash::hash;
use crate::core::record::{Record, SequenceNumber, StreamView};
use crate::core::shard::{Shard, ShardId};
use crate::stores::source::{ListedStream, SourceError};

#[derive(Debug, Default)]
pub(super) struct MemoryShards {
    pub(super) by_id: BTreeMap<ShardId, MemoryShard>,
    /// The table's streams, oldest first. A stream that was never replaced has no label.
    pub(super) streams: Vec<ListedStream>,
    /// Whether the newest stream is enabled.
    pub(super) off: bool,
    pub(super) records: u64,
    pub(super) made: u64,
}

#[derive(Debug, Clone)]
pub(super) struct MemoryShard {
    pub(super) parent: Option<ShardId>,
    /// The range of key hashes that it takes, inclusive.
    pub(super) range: (u64, u64),
    pub(super) records: Vec<Record>,
    pub(super) trimmed: usize,
    pub(super) closed: bool,
    pub(super) hidden: bool,
    pub(super) forgotten: bool,
}

impl MemoryShards {
    pub(super) fn open_stream(&mut self, label: &str, created: Option<SystemTime>, shards: u64) {
        self.off = false;
        self.streams.push(ListedStream {
            label: label.into(),
            created,
            view: Some(StreamView::NewAndOldImages),
        });
        let count = shards.max(1);
        let width = u64::MAX / count;
        for i in 0..count {
            let end = if i + 1 == count {
                u64::MAX
            } else {
                (i + 1) * width - 1
            };
            self.open(None, (i * width, end));
        }
    }

    pub(super) fn open(&mut self, parent: Option<ShardId>, range: (u64, u64)) -> ShardId {
        self.made += 1;
        let id = format!("shardId-{:020}-{:08x}", self.made, self.made);
        let label = self.streams.last().map(|stream| stream.label.clone());
        let id = match label.filter(|label| !label.is_empty()) {
            Some(label) => ShardId::of_stream(&label, &id),
            None => ShardId::new(id),
        };
        let held = MemoryShard {
            parent,
            range,
            records: Vec::new(),
            trimmed: 0,
            closed: false,
            hidden: false,
            forgotten: false,
        };
        self.by_id.insert(id.clone(), held);
        id
    }

    pub(super) fn change(&mut self, shard: &ShardId, change: impl FnOnce(&mut MemoryShard)) {
        if let Some(held) = self.by_id.get_mut(shard) {
            change(held);
        }
    }

    pub(super) fn append(&mut self, commit: Commit) -> (Record, Option<ShardId>) {
        self.records += 1;
        let record = Record {
            event_id: format!("event-{}", self.records),
            event: commit.event,
            keys: commit.keys,
            new_image: commit.new_image,
            old_image: commit.old_image,
            sequence_number: sequence_number(self.records),
            created: commit.created,
            view: StreamView::NewAndOldImages,
            size_bytes: 256,
            by_ttl: false,
        };
        let place = spread(hash(record.key().as_str()));
        let taker = self
            .by_id
            .iter_mut()
            .find(|(_, held)| !held.closed && (held.range.0..=held.range.1).contains(&place));
        let shard = taker.map(|(id, held)| {
            held.records.push(record.clone());
            id.clone()
        });
        (record, shard)
    }

    pub(super) fn end(&mut self, shard: &ShardId, split: bool) -> Vec<ShardId> {
        let Some(held) = self.by_id.get_mut(shard).filter(|held| !held.closed) else {
            return Vec::new();
        };
        held.closed = true;
        let (from, to) = held.range;
        let middle = from + (to - from) / 2;
        let ranges = if split {
            vec![(from, middle), (middle + 1, to)]
        } else {
            vec![(from, to)]
        };
        ranges
            .into_iter()
            .map(|range| self.open(Some(shard.clone()), range))
            .collect()
    }

    pub(super) fn is_forgettable(&self, shard: &ShardId, time: SystemTime) -> bool {
        let there = |id: &ShardId| self.by_id.get(id).is_some_and(|held| !held.forgotten);
        self.by_id.get(shard).is_some_and(|held| {
            held.closed
                && held
                    .records
                    .last()
                    .is_some_and(|record| record.created < time)
                && !held.parent.as_ref().is_some_and(there)
        })
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = Shard> {
        let seen = self.by_id.iter().filter(|(id, _)| self.is_visible(id));
        seen.map(|(id, held)| Shard {
            id: id.clone(),
            parent: held.parent.clone(),
        })
    }

    /// No shard is listed before its parent.
    pub(super) fn is_visible(&self, shard: &ShardId) -> bool {
        let mut at = Some(shard);
        while let Some((id, held)) = at.and_then(|id| self.by_id.get_key_value(id)) {
            if held.forgotten {
                return id != shard;
            }
            if held.hidden {
                return false;
            }
            at = held.parent.as_ref();
        }
        true
    }

    pub(super) fn held(&self, shard: &ShardId) -> Result<&MemoryShard, SourceError> {
        self.by_id
            .get(shard)
            .filter(|held| !held.forgotten)
            .ok_or(SourceError::Gone)
    }
}

/// Spreads keys that differ only at their end over all bits.
fn spread(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// 21 digits, the minimum of the service.
fn sequence_number(count: u64) -> SequenceNumber {
    match SequenceNumber::parse(format!("{:021}", u128::from(count) * 100)) {
        Ok(number) => number,
        Err(_) => unreachable!("21 digits are a sequence number"),
    }
}
