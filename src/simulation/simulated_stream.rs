//! The stream, as a simulated worker reaches it.

use super::link::Link;
use crate::core::record::Position;
use crate::core::shard::{Shard, ShardId};
use crate::stores::source::memory::MemoryStream;
use crate::stores::source::{Batch, Description, ShardIterator, SourceError, StreamSource};

/// The stream at the other end of a worker's link.
#[derive(Clone)]
pub(super) struct SimulatedStream(Link);

impl SimulatedStream {
    pub fn new(link: Link) -> Self {
        Self(link)
    }

    fn stream(&self) -> MemoryStream {
        self.0.world().stream.clone()
    }
}

impl StreamSource for SimulatedStream {
    async fn describe(&self, from: Option<&str>) -> Result<Description, SourceError> {
        let (stream, from) = (self.stream(), from.map(str::to_owned));
        let describe = async move { stream.describe(from.as_deref()).await };
        self.0.read_stream("describe", describe).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let (stream, parent) = (self.stream(), parent.clone());
        self.0
            .read_stream("children", async move { stream.children(&parent).await })
            .await
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &Position,
    ) -> Result<ShardIterator, SourceError> {
        let (stream, shard, position) = (self.stream(), shard.clone(), position.clone());
        self.0
            .read_stream("iterator", async move {
                stream.iterator(&shard, &position).await
            })
            .await
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<Batch, SourceError> {
        let (world, iterator) = (self.0.world().clone(), iterator.clone());
        let stream = world.stream.clone();
        let apply = async move {
            let batch = stream.read(&iterator).await?;
            world.distort(iterator, batch)
        };
        self.0.read_stream("read", apply).await
    }
}
