//! The shard tree: which shards a fleet should be reading.
//!
//! One rule carries the lineage: **a lease row exists for a shard only once its parent needs no
//! more reading.** So a child that is read before its parent is finished cannot be written down at
//! all, and a row that is missing can be told from one that is not due yet.
//!
//! A shard of DynamoDB Streams has at most one parent: shards split and roll over, they never
//! merge.

use std::fmt;
use std::sync::Arc;

/// The id that the stream gave to a shard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// Wraps the stream's id.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The stream's id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The shard that it continues. The parent may be gone from the listing already.
    pub parent: Option<ShardId>,
}
