//! The lease table in memory, for tests, simulations and single-process use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::bail;

use super::format::Formats;
use super::row::{GROUP_ROW, lease_key, worker_key};
use super::{
    Checkpoint, Consistency, Fence, GapRow, GroupRow, Hold, Incarnation, LeaseRow, LeaseStore,
    Reach, Report, Sighting, StreamRow, Take, Unfit, Unreadable, View, WorkerRow,
};
use crate::core::effects::GroupEffects;
use crate::core::record::Position;
use crate::core::shard::ShardId;
use crate::stores::clock::Clock;

/// A lease table that exists until its last clone is dropped.
#[derive(Debug, Clone, Default)]
pub struct MemoryLeases {
    rows: Arc<Mutex<View>>,
    formats: Formats,
    /// The service's time, as the store reports it.
    clock: Option<Clock>,
}

impl MemoryLeases {
    /// An empty table without a clock: its workers use their own.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the clock of the service that it simulates.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self {
            clock: Some(clock),
            ..self
        }
    }

    /// A store of a build that reads rows up to this format, to run two versions side by side.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn of_build(&self, reads: u32) -> Self {
        Self {
            rows: self.rows.clone(),
            formats: Formats::of_build(reads),
            clock: self.clock.clone(),
        }
    }

    /// A store of a build that writes rows that others may not be able to read.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub(crate) fn careless(self) -> Self {
        Self {
            formats: self.formats.careless(),
            ..self
        }
    }

    /// The present rows.
    pub fn snapshot(&self) -> View {
        self.rows().clone()
    }

    /// What this build sees of these rows.
    pub(crate) fn seeing(&self, view: &View, reach: Reach) -> View {
        let mut view = view.within(reach);
        let newer = |_: &ShardId, row: &mut LeaseRow| row.format > self.formats.reads();
        let newer: Vec<_> = view.leases.extract_if(.., newer).collect();
        view.unreadable
            .extend(newer.into_iter().map(|(shard, row)| Unreadable {
                row: lease_key(&shard),
                why: Unfit::Newer { format: row.format },
            }));
        self.formats.saw(&view);
        view
    }

    /// Whether a worker may be given a lease: it stays, and reads the rows that this build writes.
    pub(crate) fn may_get(&self, view: &View, worker: &Incarnation) -> bool {
        let fits = |row: &WorkerRow| !row.draining && row.reads >= self.formats.writes();
        view.workers.get(worker).is_some_and(fits)
    }

    /// The lease under the fence `hold`.
    fn held<'a>(&self, table: &'a mut View, hold: &Hold) -> Option<&'a mut LeaseRow> {
        table.leases.get_mut(&hold.shard).filter(|row| {
            row.owner.as_ref() == Some(&hold.owner)
                && row.epoch == hold.epoch
                && !row.ended()
                && row.format <= self.formats.reads()
        })
    }

    fn is_ended(&self, table: &View, shard: &ShardId) -> bool {
        let row = table.leases.get(shard);
        row.is_some_and(|row| row.ended() && row.format <= self.formats.reads())
    }

    /// Rewrites a row, in the format that everybody reads.
    fn write(&self, row: &mut LeaseRow, checkpoint: Checkpoint, report: &Report) {
        row.format = self.formats.writes();
        row.checkpoint = checkpoint;
        row.report = report.clone();
    }

    fn insert_missing(&self, table: &mut View, row: &LeaseRow) {
        if !table.is_unreadable(&lease_key(&row.shard)) {
            let format = self.formats.writes();
            let new = || LeaseRow {
                format,
                ..row.clone()
            };
            if !table.leases.contains_key(&row.shard) {
                table.archived.remove(&row.shard);
                table.leases.insert(row.shard.clone(), new());
            }
        }
    }

    /// Removes a malformed row under this key. `false`: there is none.
    fn cleared(table: &mut View, key: &str) -> bool {
        let malformed = |unreadable: &Unreadable| {
            unreadable.row == key && matches!(unreadable.why, Unfit::Malformed { .. })
        };
        let place = table.unreadable.iter().position(malformed);
        place.map(|place| table.unreadable.remove(place)).is_some()
    }

    /// Changes rows as an operator would, without the fleet's knowledge.
    pub fn tamper(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.rows());
    }

    fn rows(&self) -> MutexGuard<'_, View> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn is_still(&self, name: &Incarnation, sighting: Sighting) -> bool {
        match (sighting, self.workers.get(name)) {
            (Sighting::Beat(beat), Some(row)) => row.beat == beat,
            (Sighting::Missing, None) => !self.is_unreadable(&worker_key(name)),
            _ => false,
        }
    }

    fn is_unreadable(&self, key: &str) -> bool {
        self.unreadable.iter().any(|row| row.row == key)
    }
}

impl LeaseStore for MemoryLeases {
    fn reads(&self) -> u32 {
        self.formats.reads()
    }

    fn service_time(&self) -> Option<SystemTime> {
        self.clock.as_ref().map(Clock::now)
    }

    async fn look_at(&self, reach: Reach, _: Consistency) -> anyhow::Result<View> {
        Ok(self.seeing(&self.rows(), reach))
    }

    async fn bootstrap(&self, row: GroupRow) -> anyhow::Result<GroupRow> {
        let mut table = self.rows();
        if !Self::cleared(&mut table, GROUP_ROW) && table.is_unreadable(GROUP_ROW) {
            bail!("the group's row was written by a newer version: update this worker");
        }
        Ok(table.group.get_or_insert(row).clone())
    }

    async fn change_effects(
        &self,
        seen: &GroupEffects,
        new: &GroupEffects,
    ) -> anyhow::Result<Option<()>> {
        let mut table = self.rows();
        let row = table.group.as_mut();
        let row = row.filter(|row| row.effects == *seen || row.effects == *new);
        Ok(row.map(|row| row.effects = new.clone()))
    }

    async fn note_stream(&self, row: &StreamRow) -> anyhow::Result<()> {
        let mut table = self.rows();
        let standing = table
            .streams
            .entry(row.label.clone())
            .or_insert_with(|| row.clone());
        standing.stage = standing.stage.max(row.stage);
        standing.newest_at = row.newest_at;
        Ok(())
    }

    async fn register(&self, row: &WorkerRow) -> anyhow::Result<()> {
        let mut table = self.rows();
        if table.is_unreadable(&worker_key(&row.incarnation)) {
            bail!("the row of worker {} cannot be read", row.incarnation);
        }
        let standing = table
            .workers
            .entry(row.incarnation.clone())
            .or_insert_with(|| row.clone());
        if standing.beat < row.beat {
            *standing = row.clone();
        }
        Ok(())
    }

    async fn heartbeat(&self, row: &WorkerRow) -> anyhow::Result<Option<()>> {
        Ok(self.rows().workers.get_mut(&row.incarnation).map(|mine| {
            if mine.beat < row.beat {
                *mine = row.clone();
            }
        }))
    }

    async fn remove_worker(
        &self,
        incarnation: &Incarnation,
        still_at: Option<u64>,
    ) -> anyhow::Result<()> {
        let mut table = self.rows();
        if still_at.is_none() {
            Self::cleared(&mut table, &worker_key(incarnation));
        }
        table
            .workers
            .retain(|name, row| name != incarnation || still_at.is_some_and(|at| at != row.beat));
        Ok(())
    }

    async fn create(&self, rows: &[LeaseRow]) -> anyhow::Result<()> {
        let mut table = self.rows();
        for row in rows {
            self.insert_missing(&mut table, row);
        }
        Ok(())
    }

    async fn heal(&self, row: &LeaseRow) -> anyhow::Result<()> {
        let mut table = self.rows();
        if Self::cleared(&mut table, &lease_key(&row.shard)) {
            self.insert_missing(&mut table, row);
        }
        Ok(())
    }

    async fn take(&self, take: &Take) -> anyhow::Result<Option<LeaseRow>> {
        let mut table = self.rows();
        let row = table.leases.get(&take.shard);
        let Some(row) = row.filter(|row| row.format <= self.formats.reads()) else {
            return Ok(None);
        };
        if row.owner.as_ref() == Some(&take.owner) && row.epoch == take.epoch {
            return Ok(Some(row.clone()));
        }
        let (owner, evidence) = match &take.from {
            None => (None, None),
            Some((owner, evidence)) => (Some(owner), evidence.map(|seen| (owner, seen))),
        };
        let quiet = evidence.is_none_or(|(owner, seen)| table.is_still(owner, seen));
        if row.owner.as_ref() != owner || row.epoch != take.seen_epoch || row.ended() || !quiet {
            return Ok(None);
        }
        let row = table.leases.get_mut(&take.shard).map(|row| {
            row.owner = Some(take.owner.clone());
            row.epoch = take.epoch;
            row.clone()
        });
        Ok(row)
    }

    async fn hand_over(
        &self,
        hold: &Hold,
        to: Option<&Incarnation>,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let mut table = self.rows();
        let checkpoint = Checkpoint::At(checkpoint.clone());
        let taker = to.filter(|to| self.may_get(&table, to)).cloned();
        if let Some(row) = self.held(&mut table, hold) {
            row.owner = taker;
            row.epoch += 1;
            self.write(row, checkpoint, report);
            return Ok(Some(()));
        }
        let given = |row: &LeaseRow| {
            (row.owner.is_none() || row.owner.as_ref() == to)
                && row.epoch == hold.epoch + 1
                && row.checkpoint == checkpoint
        };
        let repeated = table.leases.get(&hold.shard).is_some_and(given);
        Ok(repeated.then_some(()))
    }

    async fn checkpoint(
        &self,
        hold: &Hold,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        Ok(self.held(&mut self.rows(), hold).map(|row| {
            self.write(row, Checkpoint::At(checkpoint.clone()), report);
        }))
    }

    async fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let mut table = self.rows();
        let end = Checkpoint::End {
            children: children.iter().map(|child| child.shard.clone()).collect(),
        };
        if let Some(row) = self.held(&mut table, hold) {
            row.owner = None;
            row.epoch += 1;
            self.write(row, end, report);
            for child in children {
                self.insert_missing(&mut table, child);
            }
            return Ok(Some(()));
        }
        let ended = |row: &LeaseRow| row.checkpoint == end && row.epoch == hold.epoch + 1;
        let repeated = table.leases.get(&hold.shard).is_some_and(ended);
        Ok(repeated.then_some(()))
    }

    async fn archive(&self, shard: &ShardId) -> anyhow::Result<()> {
        let mut table = self.rows();
        if self.is_ended(&table, shard) {
            table.archived.insert(shard.clone());
        }
        Ok(())
    }

    async fn remove_ended(&self, shard: &ShardId) -> anyhow::Result<()> {
        let mut table = self.rows();
        if self.is_ended(&table, shard) {
            table.archived.remove(shard);
            table.leases.remove(shard);
        }
        Ok(())
    }

    async fn record_gap(&self, gap: &GapRow, hold: Option<&Hold>) -> anyhow::Result<Option<()>> {
        let mut table = self.rows();
        if hold.is_some_and(|hold| self.held(&mut table, hold).is_none()) {
            return Ok(None);
        }
        let same = |other: &&mut GapRow| {
            other.shard == gap.shard && other.last_handled == gap.last_handled
        };
        match table.gaps.iter_mut().find(same) {
            Some(known) => {
                // A late write must not move back an end that was found after it.
                known.first_after = match gap.first_after.clone() {
                    None => None,
                    end => end.max(known.first_after.take()),
                };
                known.resolved = None;
            }
            None => table.gaps.push(gap.clone()),
        }
        Ok(Some(()))
    }

    fn fence(&self, hold: &Hold) -> Fence {
        let (leases, hold) = (self.clone(), hold.clone());
        Fence::asked(move || leases.held(&mut leases.rows(), &hold).is_some())
    }
}
