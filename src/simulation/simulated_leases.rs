//! The lease table, as a simulated worker reaches it.

use std::time::SystemTime;

use futures_util::future::try_join_all;

use super::clocks::Clocks;
use super::flaw::Flaw;
use super::letters::is_held;
use super::link::{Link, delay};
use super::pages::Pages;
use crate::core::effects::GroupEffects;
use crate::core::record::{Position, SequenceNumber};
use crate::core::shard::ShardId;
use crate::engine::settings::Timing;
use crate::engine::shard_task::HALTED;
use crate::stores::leases::memory::MemoryLeases;
use crate::stores::leases::{
    Checkpoint, Consistency, Fence, GapRow, GroupRow, Hold, Incarnation, LeaseRow, LeaseStore,
    Reach, Report, StreamRow, Take, Unfit, Unreadable, View, WorkerRow,
};

/// The lease table at the other end of a worker's link.
#[derive(Clone)]
pub(super) struct SimulatedLeases {
    link: Link,
    /// The table, as the worker's build reads it.
    table: MemoryLeases,
    clocks: Clocks,
}

/// What a conditional write did.
enum WriteResult {
    Written,
    /// The lease belongs to another worker.
    LeaseLost,
    /// The lease is held, but another condition does not hold.
    Refused,
}

/// The end of a gap in the table.
fn present_end(table: &MemoryLeases, gap: &GapRow) -> Option<SequenceNumber> {
    let gaps = table.snapshot().gaps;
    let is_same =
        |other: &&GapRow| other.shard == gap.shard && other.last_handled == gap.last_handled;
    gaps.iter().find(is_same)?.first_after.clone()
}

impl SimulatedLeases {
    /// That of a worker whose build reads rows up to this format.
    pub fn new(link: Link, reads: u32, clocks: Clocks) -> Self {
        let mut table = link.world().table.of_build(reads);
        if link.world().has(Flaw::FormatIgnored) {
            table = table.careless();
        }
        Self {
            link,
            table,
            clocks,
        }
    }

    /// The transaction that hands a lease over: it demands the lease, and that the taker stays.
    async fn give(
        &self,
        hold: &Hold,
        taker: &Incarnation,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<WriteResult> {
        let (table, hold, taker) = (self.table.clone(), hold.clone(), taker.clone());
        let (checkpoint, report) = (checkpoint.clone(), report.clone());
        let apply = async move {
            if !is_held(Some(&table.fence(&hold))) {
                return Ok(WriteResult::LeaseLost);
            }
            if !table.may_get(&table.snapshot(), &taker) {
                return Ok(WriteResult::Refused);
            }
            let given = table.hand_over(&hold, Some(&taker), &checkpoint, &report);
            given.await.map(|_| WriteResult::Written)
        };
        self.link.write("hand over", apply).await
    }

    /// Whether an earlier attempt, whose answer was lost, handed the lease over.
    async fn was_given(
        &self,
        hold: &Hold,
        taker: &Incarnation,
        checkpoint: &Position,
    ) -> anyhow::Result<Option<()>> {
        let (table, hold, taker) = (self.table.clone(), hold.clone(), taker.clone());
        let checkpoint = Checkpoint::At(checkpoint.clone());
        let read = async move {
            let row = table.snapshot().leases.remove(&hold.shard);
            let given = row.filter(|row| {
                row.owner.as_ref().is_none_or(|owner| *owner == taker)
                    && row.epoch == hold.epoch + 1
                    && row.checkpoint == checkpoint
            });
            Ok(given.map(|_| ()))
        };
        self.link.write("read", read).await
    }

    /// The present end of a gap, if the write of this one depends on it.
    async fn end_of(&self, gap: &GapRow) -> anyhow::Result<Option<SequenceNumber>> {
        if gap.first_after.is_none() {
            return Ok(None);
        }
        let (table, gap) = (self.table.clone(), gap.clone());
        let read = async move { Ok(present_end(&table, &gap)) };
        self.link.write("read", read).await
    }

    /// The transaction that records a gap: it demands the lease, and the end that was seen.
    async fn try_gap(
        &self,
        gap: &GapRow,
        seen: Option<SequenceNumber>,
        hold: Option<&Hold>,
    ) -> anyhow::Result<WriteResult> {
        let (table, gap, hold) = (self.table.clone(), gap.clone(), hold.cloned());
        let apply = async move {
            let is_mine = hold
                .as_ref()
                .is_none_or(|hold| is_held(Some(&table.fence(hold))));
            if is_mine && gap.first_after.is_some() && present_end(&table, &gap) != seen {
                return Ok(WriteResult::Refused);
            }
            let written = table.record_gap(&gap, hold.as_ref()).await?;
            Ok(written.map_or(WriteResult::LeaseLost, |()| WriteResult::Written))
        };
        self.link.write("gap", apply).await
    }

    /// A worker writes down what its settings say, whatever its clock makes of that.
    fn written(row: &WorkerRow) -> WorkerRow {
        WorkerRow {
            lease_duration: Timing::default().lease_duration,
            ..row.clone()
        }
    }
}

impl LeaseStore for SimulatedLeases {
    fn reads(&self) -> u32 {
        self.table.reads()
    }

    fn service_time(&self) -> Option<SystemTime> {
        let world = self.link.world();
        let known = self.link.was_answered() && !world.has(Flaw::OwnClock);
        known.then(|| world.now())
    }

    async fn look_at(&self, reach: Reach, consistency: Consistency) -> anyhow::Result<View> {
        let (world, table, clocks) = (self.link.world().clone(), self.table.clone(), self.clocks);
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
        self.link.call("look", apply).await
    }

    async fn bootstrap(&self, row: GroupRow) -> anyhow::Result<GroupRow> {
        let table = self.table.clone();
        self.link
            .write("bootstrap", async move { table.bootstrap(row).await })
            .await
    }

    async fn change_effects(
        &self,
        seen: &GroupEffects,
        new: &GroupEffects,
    ) -> anyhow::Result<Option<()>> {
        let (table, seen, new) = (self.table.clone(), seen.clone(), new.clone());
        let change = async move { table.change_effects(&seen, &new).await };
        self.link.write("change effects", change).await
    }

    async fn note_stream(&self, row: &StreamRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), row.clone());
        self.link
            .write("note stream", async move { table.note_stream(&row).await })
            .await
    }

    async fn register(&self, row: &WorkerRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), Self::written(row));
        self.link
            .write("register", async move { table.register(&row).await })
            .await
    }

    async fn heartbeat(&self, row: &WorkerRow) -> anyhow::Result<Option<()>> {
        let (table, row) = (self.table.clone(), Self::written(row));
        self.link
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
        self.link.write("remove worker", removal).await
    }

    async fn create(&self, rows: &[LeaseRow]) -> anyhow::Result<()> {
        // Each row is a separate write, and the first failure stops the rest.
        let each = rows.iter().cloned().map(|row| {
            let table = self.table.clone();
            self.link
                .write("create", async move { table.create(&[row]).await })
        });
        try_join_all(each).await.map(|_| ())
    }

    async fn heal(&self, row: &LeaseRow) -> anyhow::Result<()> {
        let (table, row) = (self.table.clone(), row.clone());
        self.link
            .write("heal", async move { table.heal(&row).await })
            .await
    }

    async fn take(&self, take: &Take) -> anyhow::Result<Option<LeaseRow>> {
        let (world, table, mut take) =
            (self.link.world().clone(), self.table.clone(), take.clone());
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
        let take = self.link.write("take", apply).await?;
        // A transaction shows no row: it is read by another call, and may have changed meanwhile.
        let table = self.table.clone();
        let read =
            async move {
                let row = table.snapshot().leases.remove(&take.shard);
                Ok(row.filter(|row| {
                    row.owner.as_ref() == Some(&take.owner) && row.epoch == take.epoch
                }))
            };
        self.link.write("read", read).await
    }

    async fn hand_over(
        &self,
        hold: &Hold,
        to: Option<&Incarnation>,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        if let Some(taker) = to {
            match self.give(hold, taker, checkpoint, report).await? {
                WriteResult::Written => return Ok(Some(())),
                WriteResult::LeaseLost => return self.was_given(hold, taker, checkpoint).await,
                WriteResult::Refused => self.link.world().count("hand-overs to nobody"),
            }
        }
        let (table, hold) = (self.table.clone(), hold.clone());
        let (checkpoint, report) = (checkpoint.clone(), report.clone());
        let apply = async move { table.hand_over(&hold, None, &checkpoint, &report).await };
        self.link.write("hand over to nobody", apply).await
    }

    async fn checkpoint(
        &self,
        hold: &Hold,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let (world, table) = (self.link.world().clone(), self.table.clone());
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
        self.link.write("checkpoint", apply).await
    }

    async fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let (table, hold) = (self.table.clone(), hold.clone());
        let (children, report) = (children.to_vec(), report.clone());
        self.link
            .write("finish", async move {
                table.finish(&hold, &children, &report).await
            })
            .await
    }

    async fn archive(&self, shard: &ShardId) -> anyhow::Result<()> {
        let (table, shard) = (self.table.clone(), shard.clone());
        self.link
            .write("archive", async move { table.archive(&shard).await })
            .await
    }

    async fn remove_ended(&self, shard: &ShardId) -> anyhow::Result<()> {
        let (table, shard) = (self.table.clone(), shard.clone());
        self.link
            .write(
                "remove ended",
                async move { table.remove_ended(&shard).await },
            )
            .await
    }

    async fn record_gap(&self, gap: &GapRow, hold: Option<&Hold>) -> anyhow::Result<Option<()>> {
        if self.link.world().has(Flaw::SilentGap) {
            return Ok(Some(()));
        }
        loop {
            let seen = self.end_of(gap).await?;
            match self.try_gap(gap, seen, hold).await? {
                WriteResult::Written => return Ok(Some(())),
                WriteResult::LeaseLost => return Ok(None),
                WriteResult::Refused => self.link.world().count("gaps that another worker moved"),
            }
        }
    }

    fn fence(&self, hold: &Hold) -> Fence {
        self.table.fence(hold)
    }
}
