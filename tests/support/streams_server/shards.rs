//! The virtual shards: which there are, who continues whom, and which records are in them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::RangeInclusive;

use serde_json::Value;

/// One virtual shard.
#[derive(Debug)]
pub struct Shard {
    pub parent: Option<String>,
    /// The hashes of the item keys that it takes while it is open.
    slots: RangeInclusive<u16>,
    /// All records that it ever had, the trimmed ones too.
    pub records: Vec<Value>,
    /// How many of them are trimmed.
    pub trimmed: usize,
    pub closed: bool,
    /// Not listed yet, although its parent is closed.
    pub hidden: bool,
}

/// The shards by id. Ids sort in the order of creation.
#[derive(Debug, Default)]
pub struct Shards {
    pub all: BTreeMap<String, Shard>,
    created: u32,
    /// Shards that are created from now on are not listed.
    pub hide_new: bool,
}

impl Shards {
    /// `count` open shards without parents, which share the keys evenly.
    pub fn new(count: u16) -> Self {
        let mut shards = Self::default();
        let width = u16::MAX / count;
        for n in 0..count {
            let first = n * width;
            let last = if n + 1 == count {
                u16::MAX
            } else {
                first + width - 1
            };
            shards.add(None, first..=last);
        }
        shards
    }

    fn add(&mut self, parent: Option<&str>, slots: RangeInclusive<u16>) -> String {
        self.created += 1;
        let id = format!("shardId-00000001795000000000-{:08x}", self.created);
        let shard = Shard {
            parent: parent.map(str::to_owned),
            slots,
            records: Vec::new(),
            trimmed: 0,
            closed: false,
            hidden: self.hide_new,
        };
        self.all.insert(id.clone(), shard);
        id
    }

    /// Puts a record into the open shard of its key.
    pub fn deal(&mut self, record: Value) {
        let mut hasher = DefaultHasher::new();
        record["dynamodb"]["Keys"].to_string().hash(&mut hasher);
        let slot = u16::try_from(hasher.finish() >> 48).expect("16 bits");
        let mut open = self.all.values_mut().filter(|shard| !shard.closed);
        let shard = open.find(|shard| shard.slots.contains(&slot));
        let shard = shard.expect("the open shards take all keys");
        shard.records.push(record);
    }

    fn close(&mut self, id: &str) -> RangeInclusive<u16> {
        let shard = self.all.get_mut(id).expect("a shard of this id");
        assert!(!shard.closed, "{id} is closed already");
        shard.closed = true;
        shard.slots.clone()
    }

    /// Closes every shard without a child.
    pub fn close_all(&mut self) {
        for shard in self.all.values_mut() {
            shard.closed = true;
        }
    }

    /// Closes a shard and continues it by two, each with half of its keys.
    pub fn split(&mut self, id: &str) -> [String; 2] {
        let slots = self.close(id);
        let (first, last) = slots.into_inner();
        assert!(first < last, "{id} is too narrow to split");
        let middle = first + (last - first) / 2;
        [
            self.add(Some(id), first..=middle),
            self.add(Some(id), middle + 1..=last),
        ]
    }

    /// Closes a shard and continues it by one.
    pub fn roll_over(&mut self, id: &str) -> String {
        let slots = self.close(id);
        self.add(Some(id), slots)
    }

    /// Trims the oldest `count` records that the shard still holds.
    pub fn trim(&mut self, id: &str, count: usize) {
        let shard = self.all.get_mut(id).expect("a shard of this id");
        let trimmed = shard.trimmed + count;
        assert!(trimmed <= shard.records.len(), "{id} holds fewer records");
        shard.trimmed = trimmed;
    }

    /// Lists every shard from now on.
    pub fn reveal(&mut self) {
        self.hide_new = false;
        for shard in self.all.values_mut() {
            shard.hidden = false;
        }
    }
}

impl Shard {
    /// How many records exist up to and including this sequence number.
    pub fn place_after(&self, sequence_number: u128) -> usize {
        self.records
            .partition_point(|record| number(record) <= sequence_number)
    }

    /// Whether records after this sequence number may be gone.
    pub fn is_trimmed_at(&self, sequence_number: u128) -> bool {
        let trimmed = self.records[..self.trimmed].last();
        trimmed.is_some_and(|last| sequence_number <= number(last))
    }

    /// The sequence numbers of the first and the last record.
    pub fn range(&self) -> Option<(&str, &str)> {
        Some((text(self.records.first()?), text(self.records.last()?)))
    }
}

fn text(record: &Value) -> &str {
    let text = record["dynamodb"]["SequenceNumber"].as_str();
    text.expect("a sequence number")
}

fn number(record: &Value) -> u128 {
    text(record).parse().expect("digits")
}
