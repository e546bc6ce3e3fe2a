//! What the stream reports about itself.

use std::sync::Arc;
use std::time::SystemTime;

use crate::core::shard::Shard;

/// What the stream reports about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// All shards of the streams.
    pub shards: Vec<Shard>,
    /// The streams, oldest first.
    pub streams: Vec<FoundStream>,
    /// Why changes that are committed from now on cannot be read.
    pub trouble: Option<String>,
}

/// One of the table's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStream {
    /// The label; empty if the source has only one stream, without a label.
    pub label: Arc<str>,
    /// When it was enabled. Nothing in it is older.
    pub created: Option<SystemTime>,
}
