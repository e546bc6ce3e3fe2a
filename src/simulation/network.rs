//! The lease table and the stream, as a simulated worker reaches them.

use std::time::SystemTime;

use futures_util::future::try_join_all;

use super::clocks::Clocks;
use super::flaw::Flaw;
use super::pages::Pages;
use super::wire::{Wire, delay};
use crate::core::group::Identity;
use crate::core::record::Position;
use crate::core::shard::{Shard, ShardId};
use crate::engine::settings::Timing;
use crate::engine::shard_task::HALTED;
use crate::stores::leases::memory::MemoryLeases;
use crate::stores::leases::{
    Consistency, Fence, GapRow, GroupRow, Hold, Incarnation, LeaseRow, LeaseStore, Reach, Report,
    StreamRow, Take, Unfit, Unreadable, View, WorkerRow,
};
use crate::stores::source::memory::MemoryStream;
use crate::stores::source::{Batch, Description, ShardIterator, SourceError, StreamSource};

/// One worker's lease table and stream.
#[derive(Clone)]
pub(super) struct Network {
    wire: Wire,
    /// The table, as the worker's build reads it.
    table: MemoryLeases,
    clocks: Clocks,
}

impl Network {
    /// That of a worker whose build reads rows up to this format.
    pub fn new(wire: Wire, reads: u32, clocks: Clocks) -> Self {
        let mut table = wire.world().table.of_build(reads);
        if wire.world().has(Flaw::FormatIgnored) {
            table = table.careless();
        }
        Self {
            wire,
            table,
            clocks,
        }
    }

    fn stream(&self) -> MemoryStream {
        self.wire.world().stream.clone()
    }

    /// A worker writes down what its settings say, whatever its clock makes of that.
    fn written(row: &WorkerRow) -> WorkerRow {
        WorkerRow {
            lease_duration: Timing::default().lease_duration,
            ..row.clone()
        }
    }
}

impl LeaseStore for Network {
    fn reads(&self) -> u32 {
        self.table.reads()
    }

    fn service_time(&self) -> Option<SystemTime> {
        let world = self.wire.world();
        let known = self.wire.was_answered() && !world.has(Flaw::OwnClock);
        known.then(|| world.now())
    }

    async fn look_at(&self, reach: Reach, consistency: Consistency) -> anyhow::Result<View> {
        let (world, table, clocks) = (self.wire.world().clone(), self.table.clone(), self.clocks);
        let apply = async move {
            let mut pages = Pages::default();
            let mut next =
                || pages.read(&world.view(consistency).within(reach), world.climate.page);
            while next() {
                world.count("further pages of a look");
                let pause = world.with_rng(|rng, fair| delay(rng, fair, world.climate.slow));
                tokio::time::sleep(pause).await;
            }
            let mut view = table.seeing(pages.seen(), reach);
            for row in view.workers.values_mut() {
                row.lease_duration = clocks.measure(row.lease_duration);
            }
            let newer = |row: &&Unreadable| matches!(row.why, Unfit::Newer { .. });
            let newer = view.unreadable.iter().filter(newer).count();
            world.count_many("rows too new for a look", newer as u64);
            view
        };
        self.wire.call("look", apply).await
    }

    async fn bootstrap(&self, row: GroupRow) -> anyhow::Result<GroupRow> {
        let table = self.table.clone();
        self.wire
            .write("bootstrap", async move { table.bootstrap(row).await })
            .await
    }

    async fn change_identity(&self, seen: &Identity, new: &Identity) -> anyhow::Result<Option<()>> {
        let (table, seen, new) = (self.table.clone(), seen.clone(), new.clone());
        let change = async move { table.change_identity(&seen, &new).await };
        self.wire.write("change identity", change).await
    }

    async fn note_stream(&self, row: &StreamRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), row.clone());
        self.wire
            .write("note stream", async move { table.note_stream(&row).await })
            .await
    }

    async fn register(&self, row: &WorkerRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), Self::written(row));
        self.wire
            .write("register", async move { table.register(&row).await })
            .await
    }

    async fn heartbeat(&self, row: &WorkerRow) -> anyhow::Result<Option<()>> {
        let (table, row) = (self.table.clone(), Self::written(row));
        self.wire
            .write("heartbeat", async move { table.heartbeat(&row).await })
            .await
    }

    async fn remove_worker(
        &self,
        incarnation: &Incarnation,
        still_at: Option<u64>,
    ) -> anyhow::Result<()> {
        let (table, name) = (self.table.clone(), incarnation.clone());
        let removal = async move { table.remove_worker(&name, still_at).await };
        self.wire.write("remove worker", removal).await
    }

    async fn create(&self, rows: &[LeaseRow]) -> anyhow::Result<()> {
        // Each row is a write of its own, and the first that fails ends it all.
        let each = rows.iter().cloned().map(|row| {
            let table = self.table.clone();
            self.wire
                .write("create", async move { table.create(&[row]).await })
        });
        try_join_all(each).await.map(|_| ())
    }

    async fn heal(&self, row: &LeaseRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), row.clone());
        self.wire
            .write("heal", async move { table.heal(&row).await })
            .await
    }

    async fn take(&self, take: &Take) -> anyhow::Result<Option<LeaseRow>> {
        let (world, table, mut take) =
            (self.wire.world().clone(), self.table.clone(), take.clone());
        let apply = async move {
            if world.has(Flaw::TakeWithoutBeat) {
                take.from = take.from.map(|(owner, _)| (owner, None));
            }
            let row = table.snapshot().leases.remove(&take.shard);
            if let Some(row) = row.filter(|_| world.has(Flaw::TakeWithoutEpoch)) {
                take.from = row.owner.map(|owner| (owner, None));
                (take.seen_epoch, take.epoch) = (row.epoch, row.epoch + 1);
            }
            table.take(&take).await.map(|_| take)
        };
        let take = self.wire.write("take", apply).await?;
        // A transaction shows no row: it is read by another call, and may have changed meanwhile.
        let table = self.table.clone();
        let read =
            async move {
                let row = table.snapshot().leases.remove(&take.shard);
                Ok(row.filter(|row| {
                    row.owner.as_ref() == Some(&take.owner) && row.epoch == take.epoch
                }))
            };
        self.wire.write("read", read).await
    }

    async fn hand_over(
        &self,
        hold: &Hold,
        to: Option<&Incarnation>,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let (table, hold, to) = (self.table.clone(), hold.clone(), to.cloned());
        let (checkpoint, report) = (checkpoint.clone(), report.clone());
        let apply = async move {
            table
                .hand_over(&hold, to.as_ref(), &checkpoint, &report)
                .await
        };
        self.wire.write("hand over", apply).await
    }

    async fn checkpoint(
        &self,
        hold: &Hold,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let (world, table) = (self.wire.world().clone(), self.table.clone());
        let (mine, mut hold) = (hold.clone(), hold.clone());
        let (checkpoint, report) = (checkpoint.clone(), report.clone());
        let apply = async move {
            if report.last_error.as_deref() == Some(HALTED) {
                world.count("halts at a gap");
            }
            let row = table.snapshot().leases.remove(&hold.shard);
            if let Some(row) = row.filter(|_| world.has(Flaw::CheckpointWithoutEpoch)) {
                hold.epoch = row.epoch;
                hold.owner = row.owner.unwrap_or(hold.owner);
            }
            let written = table.checkpoint(&hold, &checkpoint, &report).await;
            if matches!(written, Ok(Some(()))) {
                let now = table
                    .snapshot()
                    .leases
                    .get(&mine.shard)
                    .map(|row| row.epoch);
                world.judge_checkpoint(&mine, now);
            }
            written
        };
        self.wire.write("checkpoint", apply).await
    }

    async fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let (table, hold) = (self.table.clone(), hold.clone());
        let (children, report) = (children.to_vec(), report.clone());
        self.wire
            .write("finish", async move {
                table.finish(&hold, &children, &report).await
            })
            .await
    }

    async fn archive(&self, shard: &ShardId) -> anyhow::Result<()> {
        let (table, shard) = (self.table.clone(), shard.clone());
        self.wire
            .write("archive", async move { table.archive(&shard).await })
            .await
    }

    async fn remove_ended(&self, shard: &ShardId) -> anyhow::Result<()> {
        let (table, shard) = (self.table.clone(), shard.clone());
        self.wire
            .write(
                "remove ended",
                async move { table.remove_ended(&shard).await },
            )
            .await
    }

    async fn record_gap(&self, gap: &GapRow, hold: Option<&Hold>) -> anyhow::Result<Option<()>> {
        let (world, table) = (self.wire.world().clone(), self.table.clone());
        let (gap, hold) = (gap.clone(), hold.cloned());
        let apply = async move {
            if world.has(Flaw::SilentGap) {
                Ok(Some(()))
            } else {
                table.record_gap(&gap, hold.as_ref()).await
            }
        };
        self.wire.write("gap", apply).await
    }

    fn fence(&self, hold: &Hold) -> Fence {
        self.table.fence(hold)
    }
}

impl StreamSource for Network {
    async fn describe(&self, from: Option<&str>) -> Result<Description, SourceError> {
        let (stream, from) = (self.stream(), from.map(str::to_owned));
        let describe = async move { stream.describe(from.as_deref()).await };
        self.wire.read_stream("describe", describe).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let (stream, parent) = (self.stream(), parent.clone());
        self.wire
            .read_stream("children", async move { stream.children(&parent).await })
            .await
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &Position,
    ) -> Result<ShardIterator, SourceError> {
        let (stream, shard, position) = (self.stream(), shard.clone(), position.clone());
        self.wire
            .read_stream("iterator", async move {
                stream.iterator(&shard, &position).await
            })
            .await
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<Batch, SourceError> {
        let (world, iterator) = (self.wire.world().clone(), iterator.clone());
        let stream = world.stream.clone();
        let apply = async move {
            let batch = stream.read(&iterator).await?;
            world.distort(iterator, batch)
        };
        self.wire.read_stream("read", apply).await
    }
}
