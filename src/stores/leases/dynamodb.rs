//! The lease table in DynamoDB: one conditional write or one transaction decides every race.
//!
//! A refused write returns the row as it is now. That shows whether the race was lost, or whether the
//! refused write had been applied before and its answer was lost.

mod bootstrap;
mod gaps;
mod taken;
mod workers;

use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_dynamodb::Client;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_dynamo::Item;

use super::fence::stays_and_reads;
use super::format::Formats;
use super::row::{self, GROUP_TABLE, ROW, archive_key, lease_key, worker_key};
use super::{
    Checkpoint, Consistency, Epoch, Fence, GapRow, GroupRow, Hold, Incarnation, LeaseRow,
    LeaseStore, Reach, Report, StreamRow, Take, Unfit, View, WorkerRow,
};
use crate::core::effects::GroupEffects;
use crate::core::group::GroupTable;
use crate::core::record::Position;
use crate::core::shard::ShardId;
use crate::stores::clock::ServiceTime;
use crate::stores::clock::dynamodb::with_service_time;
use crate::stores::rows::dynamodb::{Table, Write};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fence::Demand;
use crate::stores::rows::fields::{Fields, number, text};
use crate::stores::rows::transaction::{MOST_PARTS, Part, Transaction};
use crate::stores::rows::typed::Attributes;

/// Puts in flight while leases are created.
const PUTS_AT_ONCE: usize = 16;

/// How many children fit into the transaction that ends their parent.
const CHILDREN_PER_TRANSACTION: usize = (MOST_PARTS - 1) / 2;

/// The rows of a group on a table.
#[derive(Debug, Clone)]
pub struct DynamoDbLeases {
    table: Table,
    /// The partition key.
    group_table: Arc<str>,
    formats: Formats,
    /// The service's time, from the answers to the table's calls.
    time: ServiceTime,
}

impl DynamoDbLeases {
    /// The rows of this group, in the lease table `table`, which must exist
    /// ([`crate::stores::tables::dynamodb::create_lease_table`]).
    pub fn new(client: Client, table: &str, of: &GroupTable) -> Self {
        let (client, time) = with_service_time(client);
        Self {
            time,
            table: Table::new(client, table),
            group_table: of.to_string().into(),
            formats: Formats::default(),
        }
    }

    /// A store of a build that reads rows up to this format, to run two versions side by side.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn of_build(mut self, reads: u32) -> Self {
        self.formats = Formats::of_build(reads);
        self
    }

    fn key(&self, row: &str) -> Fields {
        vec![
            (GROUP_TABLE, Some(text(&*self.group_table))),
            (ROW, Some(text(row))),
        ]
    }

    fn lease_item(&self, lease: &LeaseRow) -> anyhow::Result<Item> {
        let attributes = row::attributes(lease, self.formats.writes())?;
        Ok(row::item(
            &self.group_table,
            &lease_key(&lease.shard),
            attributes,
        ))
    }

    /// The attributes of a checkpoint and its report, with a new epoch if the lease changes hands.
    fn progress(
        &self,
        checkpoint: &Checkpoint,
        report: &Report,
        given_up: Option<(Epoch, Option<&Incarnation>)>,
    ) -> anyhow::Result<Attributes> {
        let progress = row::LeaseProgress { checkpoint, report };
        let mut attributes = row::attributes(&progress, self.formats.writes())?;
        if let Some((epoch, to)) = given_up {
            let (owner, to) = row::owner(to);
            attributes.insert(owner.to_owned(), to);
            attributes.insert("epoch".to_owned(), Some(number(epoch)));
        }
        Ok(attributes)
    }

    /// Writes a lease that does not exist yet, and was not archived.
    fn put_new(&self, lease: &LeaseRow) -> anyhow::Result<[Part; 2]> {
        let archived = self.key(&archive_key(&lease.shard));
        Ok([
            Part::Put(self.lease_item(lease)?, RowExpression::on_none(ROW)),
            Part::Demand(archived, RowExpression::on_none(ROW)),
        ])
    }

    /// A lease of a shard that has ended.
    fn ended(&self) -> RowExpression {
        let readable = self.formats.readable();
        readable.when("checkpoint", Some(text(row::END)))
    }

    /// The lease as it is now, to see whether my write was applied. An unreadable row shows nobody's
    /// write.
    async fn standing(&self, shard: &ShardId) -> anyhow::Result<Option<LeaseRow>> {
        let item = self.table.get(self.key(&lease_key(shard))).await?;
        Ok(item.and_then(|item| self.read(shard, item)))
    }

    fn read(&self, shard: &ShardId, item: Item) -> Option<LeaseRow> {
        row::lease(shard, item, self.formats.reads()).ok()
    }

    /// Changes a lease under its fence. A refusal counts as success if the row shows my write.
    async fn change(
        &self,
        hold: &Hold,
        fields: Attributes,
        is_mine: impl FnOnce(&LeaseRow) -> bool,
    ) -> anyhow::Result<Option<()>> {
        let key = self.key(&lease_key(&hold.shard));
        let change = self.formats.under(hold).write(fields);
        let refused = match self.table.update(key, &change).await? {
            Write::Applied(_) => return Ok(Some(())),
            Write::Refused(old) => old,
        };
        let lease = refused.and_then(|item| self.read(&hold.shard, item));
        Ok(lease.filter(is_mine).map(|_| ()))
    }

    /// Ends the parent and creates the missing rows of its children, in one transaction.
    async fn end(
        &self,
        hold: &Hold,
        end: &Checkpoint,
        children: &[LeaseRow],
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let ended = self.progress(end, report, Some((hold.epoch + 1, None)))?;
        let ending = self.formats.under(hold).write(ended);
        let mut missing: Vec<_> = children.iter().collect();
        loop {
            let parent = self.key(&lease_key(&hold.shard));
            let mut parts = vec![Part::Update(parent, ending.clone())];
            for child in &missing {
                parts.extend(self.put_new(child)?);
            }
            let refused = match self.table.transact(parts).await? {
                Transaction::Applied => return Ok(Some(())),
                Transaction::Refused(refused) => refused,
            };
            let mut refused = refused.into_iter();
            if refused.next() == Some(true) {
                let lease = self.standing(&hold.shard).await?;
                let mine =
                    |lease: &LeaseRow| lease.epoch == hold.epoch + 1 && lease.checkpoint == *end;
                return Ok(lease.filter(mine).map(|_| ()));
            }
            missing.retain(|_| [refused.next(), refused.next()] == [Some(false); 2]);
        }
    }
}

impl LeaseStore for DynamoDbLeases {
    fn reads(&self) -> u32 {
        self.formats.reads()
    }

    fn service_time(&self) -> Option<SystemTime> {
        self.time.now()
    }

    async fn look_at(&self, reach: Reach, consistency: Consistency) -> anyhow::Result<View> {
        let of = row::range(reach).when(GROUP_TABLE, Some(text(&*self.group_table)));
        let strong = consistency == Consistency::Strong;
        let mut view = View::default();
        for item in self.table.query(&of, strong).await? {
            view.add(item, self.formats.reads());
        }
        self.formats.saw(&view);
        Ok(view)
    }

    async fn bootstrap(&self, row: GroupRow) -> anyhow::Result<GroupRow> {
        self.bootstrapped(row).await
    }

    async fn change_effects(
        &self,
        seen: &GroupEffects,
        new: &GroupEffects,
    ) -> anyhow::Result<Option<()>> {
        self.effects_changed(seen, new).await
    }

    async fn note_stream(&self, row: &StreamRow) -> anyhow::Result<()> {
        self.stream_noted(row).await
    }

    async fn register(&self, row: &WorkerRow) -> anyhow::Result<()> {
        self.registered(row).await
    }

    async fn heartbeat(&self, row: &WorkerRow) -> anyhow::Result<Option<()>> {
        self.raised(row).await
    }

    async fn remove_worker(
        &self,
        incarnation: &Incarnation,
        still_at: Option<u64>,
    ) -> anyhow::Result<()> {
        self.removed(incarnation, still_at).await
    }

    async fn create(&self, rows: &[LeaseRow]) -> anyhow::Result<()> {
        let puts = rows.iter().map(|row| self.put_new(row));
        let puts = puts.collect::<anyhow::Result<Vec<_>>>()?;
        let puts = puts.into_iter().map(|put| self.table.transact(put.into()));
        let mut puts = stream::iter(puts).buffer_unordered(PUTS_AT_ONCE);
        while puts.try_next().await?.is_some() {}
        Ok(())
    }

    async fn heal(&self, row: &LeaseRow) -> anyhow::Result<()> {
        let key = lease_key(&row.shard);
        let Some(damaged) = self.table.get(self.key(&key)).await? else {
            return Ok(());
        };
        let read = row::lease(&row.shard, damaged.clone(), self.formats.reads());
        if !matches!(read, Err(Unfit::Malformed { .. })) {
            return Ok(());
        }
        let free = LeaseRow {
            epoch: row.epoch.max(row::epoch(&damaged).saturating_add(1)),
            ..row.clone()
        };
        // Only if nothing that the decision depends on has changed since.
        let attributes = row::attributes(&free, self.formats.writes())?;
        let when = row::unchanged(&damaged, &attributes);
        let item = row::item(&self.group_table, &key, attributes);
        self.table.put(item, &when).await?;
        Ok(())
    }

    async fn take(&self, take: &Take) -> anyhow::Result<Option<LeaseRow>> {
        match &take.from {
            None | Some((_, None)) => self.take_undisputed(take).await,
            Some((owner, Some(sighting))) => self.take_from(take, owner, *sighting).await,
        }
    }

    async fn hand_over(
        &self,
        hold: &Hold,
        to: Option<&Incarnation>,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let checkpoint = Checkpoint::At(checkpoint.clone());
        let (epoch, format) = (hold.epoch + 1, self.formats.writes());
        let fields = |to| self.progress(&checkpoint, report, Some((epoch, to)));
        let is_mine = |lease: &LeaseRow| {
            (lease.owner.is_none() || lease.owner.as_ref() == to)
                && lease.epoch == epoch
                && lease.checkpoint == checkpoint
        };
        if let Some(taker) = to {
            let lease = self.key(&lease_key(&hold.shard));
            let parts = vec![
                Part::Update(lease, self.formats.under(hold).write(fields(to)?)),
                Part::Demand(self.key(&worker_key(taker)), stays_and_reads(format)),
            ];
            match self.table.transact(parts).await? {
                Transaction::Applied => return Ok(Some(())),
                Transaction::Refused(refused) if refused.first() == Some(&true) => {
                    let lease = self.standing(&hold.shard).await?;
                    return Ok(lease.filter(is_mine).map(|_| ()));
                }
                // Only the taker is gone, or could not read it.
                Transaction::Refused(_) => {}
            }
        }
        self.change(hold, fields(None)?, is_mine).await
    }

    async fn checkpoint(
        &self,
        hold: &Hold,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let checkpoint = Checkpoint::At(checkpoint.clone());
        let fields = self.progress(&checkpoint, report, None)?;
        // A repeat meets its own condition again, so a refusal is never mine.
        self.change(hold, fields, |_| false).await
    }

    async fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let end = Checkpoint::End {
            children: children.iter().map(|child| child.shard.clone()).collect(),
        };
        let at_once = children.len().min(CHILDREN_PER_TRANSACTION);
        let (first, rest) = children.split_at(at_once);
        let ended = self.end(hold, &end, first, report).await?;
        if ended.is_some() {
            // A shard has at most two children. If there were more than fit, a crash here would leave
            // out rows that the full listing adds.
            self.create(rest).await?;
        }
        Ok(ended)
    }

    async fn archive(&self, shard: &ShardId) -> anyhow::Result<()> {
        let key = self.key(&lease_key(shard));
        let Some(item) = self.table.get(key.clone()).await? else {
            return Ok(());
        };
        let row = self.read(shard, item.clone());
        if row.is_some_and(|row| row.ended()) {
            let archived = row::under_key(item, &archive_key(shard));
            let parts = vec![
                Part::Delete(key, self.ended()),
                Part::Put(archived, RowExpression::default()),
            ];
            self.table.transact(parts).await?;
        }
        Ok(())
    }

    async fn remove_ended(&self, shard: &ShardId) -> anyhow::Result<()> {
        for key in [lease_key(shard), archive_key(shard)] {
            self.table.delete(self.key(&key), &self.ended()).await?;
        }
        Ok(())
    }

    async fn record_gap(&self, gap: &GapRow, hold: Option<&Hold>) -> anyhow::Result<Option<()>> {
        self.write_gap(gap, hold).await
    }

    fn fence(&self, hold: &Hold) -> Fence {
        let key = self.key(&lease_key(&hold.shard));
        Fence::new(Demand::Row {
            table: Arc::clone(self.table.name()),
            key,
            when: self.formats.under(hold),
        })
    }
}
