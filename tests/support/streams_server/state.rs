//! What the server knows: the table's streams, and how their calls are answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use dynoxide::Database;
use tokio::sync::watch;

use super::shards::Shards;
use super::{Children, Fault, Operation};

/// One stream of the table.
#[derive(Debug)]
pub struct Stream {
    pub arn: String,
    pub view: String,
    pub shards: Shards,
}

impl Stream {
    pub fn is_on(&self) -> bool {
        self.shards.all.values().any(|shard| !shard.closed)
    }
}

/// All that the server knows.
#[derive(Debug)]
pub struct Server {
    pub source: Source,
    /// The table's streams, oldest first. Only the newest can be enabled.
    pub streams: Vec<Stream>,
    /// What `ListStreams` answers beside them.
    pub strangers: Vec<String>,
    /// What `ListStreams` leaves out.
    pub unlisted: BTreeSet<String>,
    pub streams_per_page: usize,
    pub children: Children,
    /// How many more queries for children get an empty answer.
    pub empty_children: usize,
    /// Raised when all iterators expire.
    pub iterators_of: u32,
    pub page_size: usize,
    pub batch_size: usize,
    pub faults: BTreeMap<Operation, VecDeque<Fault>>,
    pub calls: Vec<(Operation, Instant)>,
    /// How often who called met what, errors by their type.
    pub met: watch::Sender<BTreeMap<String, usize>>,
    /// The shards that were read with an iterator that has not expired.
    pub read: watch::Sender<BTreeSet<String>>,
}

/// The embedded stream, and how far it is read.
pub struct Source {
    pub database: Database,
    pub iterator: String,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Makes a request of the embedded server from JSON.
macro_rules! request {
    ($($json:tt)*) => {
        serde_json::from_value(serde_json::json!($($json)*)).expect("a request")
    };
}
pub(super) use request;

impl Server {
    pub fn new(database: Database, arn: &str, shards: u16) -> Self {
        let described = database.describe_stream(request!({ "StreamArn": arn }));
        let described = described.expect("a stream").stream_description;
        let iterator = database.get_shard_iterator(request!({
            "StreamArn": arn,
            "ShardId": described.shards[0].shard_id,
            "ShardIteratorType": "TRIM_HORIZON",
        }));
        let iterator = iterator.expect("a shard").shard_iterator;
        Self {
            source: Source {
                database,
                iterator: iterator.expect("an iterator"),
            },
            streams: vec![Stream {
                arn: arn.to_owned(),
                view: described.stream_view_type,
                shards: Shards::new(shards),
            }],
            strangers: Vec::new(),
            unlisted: BTreeSet::new(),
            streams_per_page: 100,
            children: Children::Filtered,
            empty_children: 0,
            iterators_of: 0,
            page_size: 100,
            batch_size: 1000,
            faults: BTreeMap::new(),
            calls: Vec::new(),
            met: watch::Sender::default(),
            read: watch::Sender::default(),
        }
    }

    pub fn newest(&self) -> &Stream {
        self.streams.last().expect("a stream")
    }

    pub fn newest_mut(&mut self) -> &mut Stream {
        self.streams.last_mut().expect("a stream")
    }

    pub fn stream(&self, arn: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.arn == arn)
    }

    pub fn place_of(&self, arn: &serde_json::Value) -> Option<usize> {
        let mut streams = self.streams.iter();
        streams.position(|stream| *arn == stream.arn.as_str())
    }

    pub fn met(&mut self, what: &str) {
        self.met
            .send_modify(|met| *met.entry(what.to_owned()).or_default() += 1);
    }

    /// Deals out what was committed since the last time.
    pub fn pull(&mut self) {
        loop {
            let request = request!({ "ShardIterator": self.source.iterator });
            let batch = self.source.database.get_records(request);
            let batch = batch.expect("the embedded stream");
            self.source.iterator = batch.next_shard_iterator.expect("an open shard");
            if batch.records.is_empty() {
                return;
            }
            for record in batch.records {
                let record = serde_json::to_value(record).expect("a record");
                self.newest_mut().shards.deal(record);
            }
        }
    }
}
