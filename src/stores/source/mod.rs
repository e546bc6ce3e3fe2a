//! Where records come from: a stream of shards, each read in order.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use crate::core::record::{Position, Record, StreamView};
pub use crate::core::shard::{Shard, ShardId};

pub mod dynamodb;
pub mod memory;

/// A stream of records, divided into shards.
///
/// Reading changes nothing: a crash before, during or after any call loses nothing. Positions are
/// stored elsewhere (in the lease table). An iterator is only a cursor and can expire at any time.
pub trait StreamSource: Clone + Send + Sync + 'static {
    /// The service's time, like
    /// [`LeaseStore::service_time`](crate::stores::leases::LeaseStore::service_time): the later of the
    /// two counts. `None` if no answer contains it.
    fn service_time(&self) -> Option<SystemTime> {
        None
    }

    /// The table's streams, and every shard that they still list, over all pages. Streams with a label
    /// below `from` are named without their shards: they are read to their end.
    ///
    /// Expensive on a large stream: `DescribeStream` can be called 10 times a second per account, with
    /// 100 shards a call. Implementations pace their pages.
    fn describe(
        &self,
        from: Option<&str>,
    ) -> impl Future<Output = Result<Description, SourceError>> + Send;

    /// The shards that name `parent` as their parent. Only such shards are returned, whatever the
    /// server answers. An empty answer does not prove that there are none: children become visible
    /// late.
    fn children(
        &self,
        parent: &ShardId,
    ) -> impl Future<Output = Result<Vec<Shard>, SourceError>> + Send;

    /// A cursor into `shard` at `position`.
    ///
    /// # Errors
    ///
    /// [`SourceError::Trimmed`] when `position` is older than the stream keeps,
    /// [`SourceError::Gone`] when the shard or the stream does not exist, or no longer does.
    fn iterator(
        &self,
        shard: &ShardId,
        position: &Position,
    ) -> impl Future<Output = Result<ShardIterator, SourceError>> + Send;

    /// The next records at the cursor: at most 1,000 and 1 MB. An empty batch with a next cursor
    /// means "nothing yet", one without means the shard has ended.
    ///
    /// # Errors
    ///
    /// [`SourceError::Expired`] when the cursor is older than 15 minutes: make a new one.
    fn read(
        &self,
        iterator: &ShardIterator,
    ) -> impl Future<Output = Result<Batch, SourceError>> + Send;
}

/// A table's streams and their shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The streams, oldest first. A disabled stream is listed for 24 hours.
    pub streams: Vec<ListedStream>,
    /// All shards that they list.
    pub shards: Vec<Shard>,
    /// Why changes that are committed from now on cannot be read, and what to do.
    pub trouble: Option<String>,
}

/// One of a table's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedStream {
    /// The label; empty if the source has only one stream, without a label.
    pub label: Arc<str>,
    /// When it was enabled. Nothing in it is older.
    pub created: Option<SystemTime>,
    /// Which images its records have; `None`: it was not described.
    pub view: Option<StreamView>,
}

/// An opaque cursor into a shard. It expires 15 minutes after it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIterator(pub String);

/// Some records, and where the next read begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// In the shard's order.
    pub records: Vec<Record>,
    /// Where the next read begins; `None` if the shard has ended and was read to its end.
    pub next: Option<ShardIterator>,
}

/// Errors of a stream, by what the caller does about them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The cursor is too old: get a new one for the position.
    #[error("the shard iterator expired")]
    Expired,
    /// The position is older than the stream's retention (24 hours): records are lost.
    #[error("the stream no longer holds this position (it keeps 24 hours)")]
    Trimmed,
    /// The shard or the stream does not exist.
    #[error("the stream or the shard does not exist, or no longer does")]
    Gone,
    /// Throttled: wait and try again.
    #[error("the stream throttles: {0}")]
    Throttled(String),
    /// Anything else: wait and try again.
    #[error("{0:#}")]
    Other(anyhow::Error),
}
