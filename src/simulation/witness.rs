//! Sees everything, trusts nobody: checks the promises after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::owners::{Judgement, Owners};
use crate::core::group::EffectName;
use crate::core::record::{ItemKey, Position, Record, SequenceNumber};
use crate::core::shard::{Shard, ShardId};
use crate::engine::consumer::EDGE;
use crate::engine::handler::Context;
use crate::stores::leases::{
    BEFORE_STREAM, Checkpoint, Epoch, GapRow, GroupRow, InitialPosition, View, WHOLE_STREAM,
};

/// What really happened.
#[derive(Debug, Default)]
pub(super) struct Witness {
    records: BTreeMap<SequenceNumber, WitnessedRecord>,
    orders: BTreeMap<Sequence, Vec<SequenceNumber>>,
    parents: BTreeMap<ShardId, ShardId>,
    /// How many records are known to be finished from the start on.
    finished: BTreeMap<Sequence, usize>,
    pub owners: Owners,
    epochs: BTreeMap<ShardId, EpochStart>,
    /// Those that an operator deleted.
    deleted_gaps: Vec<GapRow>,
    /// The streams of which records are known.
    labels: BTreeSet<String>,
    /// The streams whose row an operator deleted, until there is one again.
    unnamed: BTreeSet<String>,
    /// Under which epoch the last record of each item began.
    fences: BTreeMap<ItemKey, Epoch>,
    /// An operator took away a lease, and with it the shard's epoch.
    unfenced: bool,
    started: Option<GroupStart>,
    retention: Duration,
    effect: EffectName,
}

/// When the group began, and from where.
#[derive(Debug)]
struct GroupStart {
    initial: InitialPosition,
    at: SystemTime,
}

impl GroupStart {
    /// `now` its row came to be. It may say that the group began before, as it was asked for before.
    fn of(row: &GroupRow, effect: &EffectName, now: SystemTime) -> Option<Self> {
        let joins = row.effects.get(effect)?.since;
        Some(match joins {
            Some(at) => Self {
                initial: InitialPosition::Latest,
                at,
            },
            None => Self {
                initial: row.initial,
                at: row.bootstrapped.min(now),
            },
        })
    }
}

/// What keeps its records in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Sequence {
    Key(ItemKey),
    Shard(ShardId),
    Stream(String),
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct WitnessedRecord {
    shard: ShardId,
    created: SystemTime,
    record: Record,
    handled: bool,
    trimmed: bool,
    /// It was written into the dead letters.
    lettered: bool,
    /// A filter keeps it from the handler.
    filtered: bool,
}

impl WitnessedRecord {
    /// Nothing is left to do with it, as far as others in this order are concerned: its item's later
    /// records wait for its dead letter to be redriven, its shard does not.
    fn is_done(&self, order: &Sequence) -> bool {
        let is_kept = match order {
            Sequence::Key(_) => self.trimmed && !self.lettered,
            Sequence::Shard(_) | Sequence::Stream(_) => self.trimmed || self.lettered,
        };
        self.handled || self.filtered || is_kept
    }
}

/// Where a shard's newest epoch began.
#[derive(Debug, Clone)]
struct EpochStart {
    epoch: Epoch,
    at: Option<SequenceNumber>,
}

impl Witness {
    /// Of this effect, and of a stream that keeps its records for so long.
    pub fn new(effect: EffectName, retention: Duration) -> Self {
        Self {
            retention,
            effect,
            ..Self::default()
        }
    }

    /// A record is in the stream. `filtered`: the handler is not to get it.
    pub fn committed(&mut self, shard: &ShardId, record: &Record, filtered: bool) {
        let number = record.sequence_number.clone();
        let known = WitnessedRecord {
            shard: shard.clone(),
            created: record.created,
            record: record.clone(),
            handled: false,
            trimmed: false,
            lettered: false,
            filtered,
        };
        self.records.insert(number.clone(), known);
        let label = shard.label().unwrap_or_default().to_owned();
        self.labels.insert(label.clone());
        let orders = [
            Sequence::Shard(shard.clone()),
            Sequence::Key(record.key()),
            Sequence::Stream(label),
        ];
        for order in orders {
            self.orders.entry(order).or_default().push(number.clone());
        }
    }

    pub fn trimmed(&mut self, records: &[Record]) {
        for record in records {
            if let Some(known) = self.records.get_mut(&record.sequence_number) {
                known.trimmed = true;
            }
        }
    }

    pub fn born(&mut self, shard: &Shard) {
        if let Some(parent) = &shard.parent {
            self.parents.insert(shard.id.clone(), parent.clone());
        }
    }

    /// An operator deleted everything about the fleet: the next worker to start begins from nothing.
    pub fn forgotten(&mut self) {
        self.started = None;
    }

    /// An operator changed the row: its epoch may start from 0 again.
    pub fn tampered(&mut self, shard: &ShardId) {
        self.epochs.remove(shard);
        self.unfenced = true;
    }

    /// An operator deleted the row of a gap: whoever looks for what it recorded has to ask the operator.
    pub fn gap_deleted(&mut self, gap: &GapRow) {
        self.deleted_gaps.push(gap.clone());
    }

    /// An operator deleted the row of a stream. If the stream is gone before it is listed again, nobody
    /// can tell what was read of it.
    pub fn stream_deleted(&mut self, label: &str) {
        self.unnamed.insert(label.to_owned());
    }

    /// A handler begins with a record.
    pub fn begins(&mut self, worker: usize, record: &Record, context: &Context) -> Judgement {
        if let Some(epoch) = context.epoch() {
            let shard = context.shard();
            self.owners.owns(worker, shard, epoch, &context.tenure)?;
        }
        let number = &record.sequence_number;
        let key = record.key();
        if self.records.get(number).is_some_and(|known| known.filtered) {
            return Err(format!("{number} begins, which a filter keeps out"));
        }
        if let Some(open) = self
            .first_open(Sequence::Key(key.clone()))
            .filter(|n| *n < *number)
        {
            return Err(format!(
                "{number} of {} begins before {open} is finished",
                key.as_str()
            ));
        }
        if let Some(epoch) = context.epoch().filter(|_| !self.unfenced) {
            let fence = self.fences.insert(key.clone(), epoch);
            if let Some(fence) = fence.filter(|fence| *fence > epoch) {
                return Err(format!(
                    "{number} of {} begins under epoch {epoch}, after epoch {fence}",
                    key.as_str()
                ));
            }
        }
        let label = context.shard().label().unwrap_or_default();
        let earlier: Vec<_> = self.labels.range(..label.to_owned()).cloned().collect();
        for label in earlier {
            if let Some(open) = self.first_open(Sequence::Stream(label)) {
                let shard = context.shard();
                return Err(format!(
                    "{shard} is read before {open} of an earlier stream is finished"
                ));
            }
        }
        let parent = self.parents.get(context.shard()).cloned();
        if let Some(open) = parent.and_then(|parent| self.first_open(Sequence::Shard(parent))) {
            let shard = context.shard();
            return Err(format!(
                "{shard} is read before {open} of its parent is finished"
            ));
        }
        Ok(())
    }

    pub fn handled(&mut self, record: &Record) {
        if let Some(known) = self.records.get_mut(&record.sequence_number) {
            known.handled = true;
        }
    }

    /// A record is in the dead letters: with all that it had, and before all later ones of its item.
    pub fn lettered(&mut self, record: &Record) -> Judgement {
        let number = &record.sequence_number;
        // What was passed as trimmed is to be handled after all.
        self.finished.remove(&Sequence::Key(record.key()));
        let known = self.records.get_mut(number);
        let known = known.ok_or_else(|| format!("{number} is a dead letter, and never was"))?;
        if known.record != *record {
            return Err(format!("the dead letter of {number} is another record"));
        }
        known.lettered = true;
        Ok(())
    }

    /// A dead letter is finished.
    pub fn redriven(&mut self, number: &SequenceNumber) -> Judgement {
        let known = self.records.get(number);
        let handled = known.is_some_and(|known| known.handled || known.filtered);
        let unhandled = || format!("{number} counts as redriven, and was never handled");
        handled.then_some(()).ok_or_else(unhandled)
    }

    fn is_open(&self, number: &SequenceNumber, order: &Sequence) -> bool {
        let known = self.records.get(number);
        known.is_some_and(|known| !known.is_done(order) && !self.is_older_than_the_fleet(known))
    }

    /// What the stream was about to trim when a fleet started at the horizon is not the fleet's.
    fn is_at_the_edge(&self, known: &WitnessedRecord) -> bool {
        let held = self.retention.mul_f64(1.0 - EDGE);
        let start = self.started.as_ref();
        start.is_some_and(|start| start.at > known.created + held)
    }

    fn is_older_than_the_fleet(&self, known: &WitnessedRecord) -> bool {
        let start = self.started.as_ref();
        start.is_some_and(|start| {
            start.initial == InitialPosition::Latest && known.created < start.at
        })
    }

    /// The table changed.
    pub fn table(&mut self, view: &View, now: SystemTime) -> Judgement {
        if self.started.is_none() {
            let row = view.group.as_ref();
            self.started = row.and_then(|row| GroupStart::of(row, &self.effect, now));
            let is_first = self.effect == EffectName::default();
            if let Some(start) = self.started.as_mut().filter(|_| !is_first)
                && !view.leases.is_empty()
            {
                // The group's row was lost: the effect joins the leases where they are.
                (start.initial, start.at) = (InitialPosition::Latest, start.at.max(now));
            }
        } else if view
            .group
            .as_ref()
            .is_some_and(|row| row.effects.get(&self.effect).is_none())
        {
            // The group's row was lost, and with it the effect: it joins again.
            self.started = None;
        }
        self.unnamed
            .retain(|label| !view.streams.contains_key(label.as_str()));
        for (shard, row) in &view.leases {
            let at = match &row.checkpoint {
                Checkpoint::At(Position::After(number)) => Some(number.clone()),
                _ => None,
            };
            let began = EpochStart {
                epoch: row.epoch,
                at,
            };
            let before = self
                .epochs
                .entry(shard.clone())
                .or_insert_with(|| began.clone());
            if before.epoch > row.epoch {
                let (from, to) = (before.epoch, row.epoch);
                return Err(format!("the epoch of {shard} fell from {from} to {to}"));
            }
            if before.epoch == row.epoch && began.at < before.at && !row.ended() {
                return Err(format!(
                    "the checkpoint of {shard} fell behind where its epoch {} began",
                    row.epoch
                ));
            }
            if before.epoch < row.epoch {
                *before = began;
            }
            if self.started.is_none() {
                // The effect has not joined yet, and will begin later.
                continue;
            }
            match &row.checkpoint {
                Checkpoint::At(position) => {
                    let ahead = row.report.ahead.get(&self.effect);
                    let number = match (ahead, position) {
                        (Some(number), _) | (None, Position::After(number)) => number,
                        (None, Position::Horizon) => continue,
                    };
                    self.passed(shard, Some(number))?;
                }
                Checkpoint::End { .. } => self.passed(shard, None)?,
            }
        }
        Ok(())
    }

    /// Everything of `shard` up to `number` (all of it, if `None`) must be finished.
    fn passed(&mut self, shard: &ShardId, number: Option<&SequenceNumber>) -> Judgement {
        let open = self.first_open(Sequence::Shard(shard.clone()));
        match open.filter(|open| number.is_none_or(|number| open <= number)) {
            Some(open) => Err(format!(
                "the checkpoint of {shard} passed {open}, which is not finished"
            )),
            None => Ok(()),
        }
    }

    /// The first record of a key or a shard that is not finished. What is finished stays so, so that
    /// the search continues where it last ended.
    fn first_open(&mut self, order: Sequence) -> Option<SequenceNumber> {
        let records = self.orders.get(&order)?;
        let mut finished = self.finished.get(&order).copied().unwrap_or(0);
        while records
            .get(finished)
            .is_some_and(|number| !self.is_open(number, &order))
        {
            finished += 1;
        }
        let open = records.get(finished).cloned();
        self.finished.insert(order, finished);
        open
    }

    /// What is not finished yet, once everything should be.
    pub fn unfinished(&self, view: &View) -> Judgement {
        for (number, known) in &self.records {
            if self.is_open(number, &Sequence::Key(known.record.key())) {
                return Err(format!("{number} of {} was never handled", known.shard));
            }
            let mine = !self.is_older_than_the_fleet(known) && !self.is_at_the_edge(known);
            let label = known.shard.label().unwrap_or_default();
            let mine = mine && !self.unnamed.contains(label);
            let lost = known.trimmed && !known.handled && !known.filtered && mine;
            let mut gaps = view.gaps.iter().chain(&self.deleted_gaps);
            if lost && !gaps.any(|gap| covers(gap, &known.shard, number)) {
                return Err(format!(
                    "{number} of {} was trimmed, and no gap row says so",
                    known.shard
                ));
            }
        }
        Ok(())
    }
}

fn covers(gap: &GapRow, shard: &ShardId, number: &SequenceNumber) -> bool {
    match gap.shard.id() {
        WHOLE_STREAM => return gap.shard.label() == shard.label(),
        BEFORE_STREAM => return shard.label() < gap.shard.label(),
        _ => {}
    }
    gap.shard == *shard
        && gap.last_handled.as_ref().is_none_or(|last| number > last)
        && gap.first_after.as_ref().is_none_or(|first| number < first)
}
