//! A shard's name, and a shard in the stream's listing.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A shard of one of the table's streams: `<stream label>#<shard id>`.
///
/// Labels are times of equal length, so shards sort by the age of their stream. A source with a single
/// stream can leave out the label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// Wraps a text that names a shard, with or without a label.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The shard with this id of the stream with this label.
    pub fn of_stream(label: &str, id: &str) -> Self {
        Self(format!("{label}#{id}").into())
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label of the shard's stream, if it has one.
    pub fn label(&self) -> Option<&str> {
        self.0.split_once('#').map(|(label, _)| label)
    }

    /// The id that the stream gave to the shard.
    pub fn id(&self) -> &str {
        self.0.split_once('#').map_or(&*self.0, |(_, id)| id)
    }
}

impl From<String> for ShardId {
    fn from(id: String) -> Self {
        Self::new(id)
    }
}

impl From<ShardId> for String {
    fn from(id: ShardId) -> Self {
        id.as_str().to_owned()
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

/// A shard in the stream's listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The parent shard. It may have left the listing already.
    pub parent: Option<ShardId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "2026-01-01T00:00:00.000";
    const SECOND: &str = "2026-01-02T00:00:00.000";

    #[test]
    fn a_shard_names_its_stream_and_sorts_by_it() {
        let shard = ShardId::of_stream(FIRST, "shardId-2");
        assert_eq!((shard.label(), shard.id()), (Some(FIRST), "shardId-2"));
        assert!(shard < ShardId::of_stream(SECOND, "shardId-1"));
        let plain = ShardId::new("shardId-2");
        assert_eq!((plain.label(), plain.id()), (None, "shardId-2"));
    }
}
