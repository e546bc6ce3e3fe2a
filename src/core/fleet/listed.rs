//! What the stream says of itself.

use std::sync::Arc;
use std::time::SystemTime;

use crate::core::shard::Shard;

/// What the stream says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// All shards of the streams.
    pub shards: Vec<Shard>,
    /// The streams, oldest first.
    pub streams: Vec<FoundStream>,
    /// Why nothing that is committed from now on can be read.
    pub trouble: Option<String>,
}

/// One of the table's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStream {
    /// The label; empty where the source has one stream only and knows no label.
    pub label: Arc<str>,
    /// When it was switched on; nothing in it is older.
    pub created: Option<SystemTime>,
}
