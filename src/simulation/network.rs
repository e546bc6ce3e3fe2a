//! The calls of a simulated worker: each may be slow, lost, refused, or applied without an answer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use futures_util::future::try_join_all;
use tokio::sync::oneshot;

use super::clocks::Clocks;
use super::flaw::Flaw;
use super::pages::Pages;
use super::world::World;
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
use crate::stores::source::{Batch, Description, ShardIterator, SourceError, StreamSource};

/// One worker's way to the table and the stream.
#[derive(Clone)]
pub(super) struct Network {
    world: Arc<World>,
    worker: usize,
    /// The table, as the worker's build reads it.
    table: MemoryLeases,
    clocks: Clocks,
    /// While set, no look at the table gets there.
    blind: Arc<AtomicBool>,
    /// Whether any call was answered, which tells the time.
    answered: Arc<AtomicBool>,
}

/// What becomes of a call.
enum Fate {
    Answered,
    /// Applied, and then an error or nothing at all.
    ReplyLost,
    /// Never applied.
    RequestLost,
    /// Refused at once.
    Throttled,
}

impl Network {
    /// That of a worker whose build reads rows up to this format.
    pub fn new(
        world: Arc<World>,
        worker: usize,
        reads: u32,
        clocks: Clocks,
        blind: Arc<AtomicBool>,
    ) -> Self {
        let mut table = world.table.of_build(reads);
        if world.has(Flaw::FormatIgnored) {
            table = table.careless();
        }
        Self {
            world,
            worker,
            table,
            clocks,
            blind,
            answered: Arc::default(),
        }
    }

    /// A worker writes down what its settings say, whatever its clock makes of that.
    fn written(row: &WorkerRow) -> WorkerRow {
        WorkerRow {
            lease_duration: Timing::default().lease_duration,
            ..row.clone()
        }
    }

    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Lets `apply` happen at some time, or not, and its answer come back at some time, or not. A
    /// packet under way goes on when its worker is frozen or crashes.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        apply: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let climate = self.world.climate;
        let blind = what == "look" && self.blind.load(Ordering::Relaxed);
        let (fate, there, back) = self.world.with_rng(|rng, fair| {
            let luck = if fair { u32::MAX } else { rng.u32(..1000) };
            let fate = match luck.checked_div(climate.lost.div_ceil(4)) {
                _ if blind => Fate::RequestLost,
                Some(0 | 1) => Fate::ReplyLost,
                Some(2) => Fate::RequestLost,
                Some(3) => Fate::Throttled,
                _ => Fate::Answered,
            };
            (
                fate,
                delay(rng, fair, climate.slow),
                delay(rng, fair, climate.slow),
            )
        });
        let (answer, answered) = oneshot::channel();
        let (world, worker) = (self.world.clone(), self.worker);
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let result = match fate {
                Fate::Throttled => {
                    world.count("throttles");
                    Err(anyhow!("throttled"))
                }
                Fate::RequestLost => {
                    world.count("lost requests");
                    world.note(worker, what, "request lost");
                    Err(anyhow!("the connection broke"))
                }
                Fate::ReplyLost => {
                    world.count("lost replies");
                    apply.await;
                    world.note(worker, what, "applied, reply lost");
                    world.applied(what);
                    Err(anyhow!("the connection broke"))
                }
                Fate::Answered => {
                    let result = apply.await;
                    world.applied(what);
                    Ok(result)
                }
            };
            tokio::time::sleep(back).await;
            // The worker may have crashed meanwhile.
            let _ = answer.send(result);
        });
        let result = answered
            .await
            .unwrap_or_else(|_| Err(anyhow!("the connection broke")));
        self.answered.fetch_or(result.is_ok(), Ordering::Relaxed);
        result
    }

    pub async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        apply: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.call(what, apply).await?
    }

    async fn read_stream<T: Send + 'static>(
        &self,
        what: &'static str,
        apply: impl Future<Output = Result<T, SourceError>> + Send + 'static,
    ) -> Result<T, SourceError> {
        match self.call(what, apply).await {
            Ok(answer) => answer,
            Err(error) if error.to_string() == "throttled" => {
                Err(SourceError::Throttled("by the simulation".to_owned()))
            }
            Err(error) => Err(SourceError::Other(error)),
        }
    }
}

/// Mostly milliseconds, sometimes seconds, now and then longer than trust lasts.
fn delay(rng: &mut fastrand::Rng, fair: bool, slow: u32) -> Duration {
    let luck = if fair { u32::MAX } else { rng.u32(..1000) };
    let millis = match luck {
        u32::MAX => rng.u64(1..10),
        _ if luck < slow / 4 => rng.u64(3_000..20_000),
        _ if luck < slow => rng.u64(300..3_000),
        _ => rng.u64(1..30),
    };
    Duration::from_millis(millis)
}

impl LeaseStore for Network {
    fn reads(&self) -> u32 {
        self.table.reads()
    }

    fn service_time(&self) -> Option<SystemTime> {
        let told = self.answered.load(Ordering::Relaxed) && !self.world.has(Flaw::OwnClock);
        told.then(|| self.world.now())
    }

    async fn look_at(&self, reach: Reach, consistency: Consistency) -> anyhow::Result<View> {
        let (world, table, clocks) = (self.world.clone(), self.table.clone(), self.clocks);
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
        self.call("look", apply).await
    }

    async fn bootstrap(&self, row: GroupRow) -> anyhow::Result<GroupRow> {
        let table = self.table.clone();
        self.write("bootstrap", async move { table.bootstrap(row).await })
            .await
    }

    async fn change_identity(&self, seen: &Identity, new: &Identity) -> anyhow::Result<Option<()>> {
        let (table, seen, new) = (self.table.clone(), seen.clone(), new.clone());
        let change = async move { table.change_identity(&seen, &new).await };
        self.write("change identity", change).await
    }

    async fn note_stream(&self, row: &StreamRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), row.clone());
        self.write("note stream", async move { table.note_stream(&row).await })
            .await
    }

    async fn register(&self, row: &WorkerRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), Self::written(row));
        self.write("register", async move { table.register(&row).await })
            .await
    }

    async fn heartbeat(&self, row: &WorkerRow) -> anyhow::Result<Option<()>> {
        let (table, row) = (self.table.clone(), Self::written(row));
        self.write("heartbeat", async move { table.heartbeat(&row).await })
            .await
    }

    async fn remove_worker(
        &self,
        incarnation: &Incarnation,
        still_at: Option<u64>,
    ) -> anyhow::Result<()> {
        let (table, name) = (self.table.clone(), incarnation.clone());
        let removal = async move { table.remove_worker(&name, still_at).await };
        self.write("remove worker", removal).await
    }

    async fn create(&self, rows: &[LeaseRow]) -> anyhow::Result<()> {
        // Each row is a write of its own, and the first that fails ends it all.
        let each = rows.iter().cloned().map(|row| {
            let table = self.table.clone();
            self.write("create", async move { table.create(&[row]).await })
        });
        try_join_all(each).await.map(|_| ())
    }

    async fn heal(&self, row: &LeaseRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), row.clone());
        self.write("heal", async move { table.heal(&row).await })
            .await
    }

    async fn take(&self, take: &Take) -> anyhow::Result<Option<LeaseRow>> {
        let (world, table, mut take) = (self.world.clone(), self.table.clone(), take.clone());
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
        let take = self.write("take", apply).await?;
        // A transaction shows no row: it is read by another call, and may have changed meanwhile.
        let table = self.table.clone();
        let read =
            async move {
                let row = table.snapshot().leases.remove(&take.shard);
                Ok(row.filter(|row| {
                    row.owner.as_ref() == Some(&take.owner) && row.epoch == take.epoch
                }))
            };
        self.write("read", read).await
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
        self.write("hand over", apply).await
    }

    async fn checkpoint(
        &self,
        hold: &Hold,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let (world, table) = (self.world.clone(), self.table.clone());
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
        self.write("checkpoint", apply).await
    }

    async fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let (table, hold) = (self.table.clone(), hold.clone());
        let (children, report) = (children.to_vec(), report.clone());
        self.write("finish", async move {
            table.finish(&hold, &children, &report).await
        })
        .await
    }

    async fn archive(&self, shard: &ShardId) -> anyhow::Result<()> {
        let (table, shard) = (self.table.clone(), shard.clone());
        self.write("archive", async move { table.archive(&shard).await })
            .await
    }

    async fn remove_ended(&self, shard: &ShardId) -> anyhow::Result<()> {
        let (table, shard) = (self.table.clone(), shard.clone());
        self.write(
            "remove ended",
            async move { table.remove_ended(&shard).await },
        )
        .await
    }

    async fn record_gap(&self, gap: &GapRow, hold: Option<&Hold>) -> anyhow::Result<Option<()>> {
        let (world, table) = (self.world.clone(), self.table.clone());
        let (gap, hold) = (gap.clone(), hold.cloned());
        let apply = async move {
            if world.has(Flaw::SilentGap) {
                Ok(Some(()))
            } else {
                table.record_gap(&gap, hold.as_ref()).await
            }
        };
        self.write("gap", apply).await
    }

    fn fence(&self, hold: &Hold) -> Fence {
        self.table.fence(hold)
    }
}

impl StreamSource for Network {
    async fn describe(&self, from: Option<&str>) -> Result<Description, SourceError> {
        let (stream, from) = (self.world.stream.clone(), from.map(str::to_owned));
        let describe = async move { stream.describe(from.as_deref()).await };
        self.read_stream("describe", describe).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let (stream, parent) = (self.world.stream.clone(), parent.clone());
        self.read_stream("children", async move { stream.children(&parent).await })
            .await
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &Position,
    ) -> Result<ShardIterator, SourceError> {
        let (stream, shard, position) =
            (self.world.stream.clone(), shard.clone(), position.clone());
        self.read_stream("iterator", async move {
            stream.iterator(&shard, &position).await
        })
        .await
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<Batch, SourceError> {
        let (world, stream, iterator) = (
            self.world.clone(),
            self.world.stream.clone(),
            iterator.clone(),
        );
        let apply = async move {
            let batch = stream.read(&iterator).await?;
            world.distort(iterator, batch)
        };
        self.read_stream("read", apply).await
    }
}
