//! Sees everything, trusts nobody: checks the promises after every step.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::decide::shard::{Shard, ShardId};
use crate::handler::Context;
use crate::leases::{Checkpoint, Epoch, GapRow, InitialPosition, StreamRow, View};
use crate::record::{ItemKey, Position, Record, SequenceNumber};
use crate::trust::Tenure;

/// What really happened.
#[derive(Debug, Default)]
pub(super) struct Witness {
    records: BTreeMap<SequenceNumber, Known>,
    of_shard: BTreeMap<ShardId, Vec<SequenceNumber>>,
    of_key: BTreeMap<ItemKey, Vec<SequenceNumber>>,
    parents: BTreeMap<ShardId, ShardId>,
    /// How many of a shard's records are known to be settled from its start on.
    settled: BTreeMap<ShardId, usize>,
    owners: BTreeMap<ShardId, Vec<Owner>>,
    epochs: BTreeMap<ShardId, Epoch>,
    started: Option<StreamRow>,
}

#[derive(Debug)]
struct Known {
    shard: ShardId,
    created: SystemTime,
    handled: bool,
    trimmed: bool,
}

/// A worker that has acted on a shard.
#[derive(Debug)]
struct Owner {
    worker: usize,
    epoch: Epoch,
    tenure: Tenure,
}

type Verdict = Result<(), String>;

impl Witness {
    pub fn committed(&mut self, shard: &ShardId, record: &Record) {
        let number = record.sequence_number.clone();
        let known = Known {
            shard: shard.clone(),
            created: record.created,
            handled: false,
            trimmed: false,
        };
        self.records.insert(number.clone(), known);
        self.of_shard
            .entry(shard.clone())
            .or_default()
            .push(number.clone());
        self.of_key.entry(record.key()).or_default().push(number);
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

    /// A worker process is no more: it owns nothing.
    pub fn crashed(&mut self, worker: usize) {
        for owners in self.owners.values_mut() {
            owners.retain(|owner| owner.worker != worker);
        }
    }

    /// An operator changed the row: its epoch may begin anew.
    pub fn tampered(&mut self, shard: &ShardId) {
        self.epochs.remove(shard);
    }

    /// A handler begins with a record.
    pub fn begins(&mut self, worker: usize, record: &Record, context: &Context) -> Verdict {
        self.only_owner(worker, context)?;
        let number = &record.sequence_number;
        let key = record.key();
        let earlier = self.of_key.get(&key).into_iter().flatten();
        if let Some(open) = earlier
            .take_while(|other| *other < number)
            .find(|n| self.is_open(n))
        {
            return Err(format!(
                "{number} of {} begins before {open} is settled",
                key.as_str()
            ));
        }
        let parent = self.parents.get(context.shard());
        let of_parent = parent.and_then(|parent| self.of_shard.get(parent));
        if let Some(open) = of_parent.into_iter().flatten().find(|n| self.is_open(n)) {
            let shard = context.shard();
            return Err(format!(
                "{shard} is read before {open} of its parent is settled"
            ));
        }
        Ok(())
    }

    fn only_owner(&mut self, worker: usize, context: &Context) -> Verdict {
        let owners = self.owners.entry(context.shard().clone()).or_default();
        owners.retain(|owner| owner.tenure.holds());
        let (shard, epoch) = (context.shard(), context.epoch());
        let other = owners
            .iter()
            .find(|owner| (owner.worker, owner.epoch) != (worker, epoch));
        if let Some(other) = other {
            return Err(format!(
                "{shard} has two owners: worker {} with epoch {} and worker {worker} with epoch {epoch}",
                other.worker, other.epoch
            ));
        }
        owners.push(Owner {
            worker,
            epoch,
            tenure: context.tenure.clone(),
        });
        Ok(())
    }

    pub fn handled(&mut self, record: &Record) {
        if let Some(known) = self.records.get_mut(&record.sequence_number) {
            known.handled = true;
        }
    }

    fn is_open(&self, number: &SequenceNumber) -> bool {
        self.records.get(number).is_some_and(|known| {
            !known.handled && !known.trimmed && !self.is_older_than_the_fleet(known)
        })
    }

    fn is_older_than_the_fleet(&self, known: &Known) -> bool {
        self.started.is_some_and(|row| {
            row.initial == InitialPosition::Latest && known.created < row.bootstrapped
        })
    }

    /// The table changed.
    pub fn table(&mut self, view: &View) -> Verdict {
        self.started = self.started.or(view.stream);
        for (shard, row) in &view.leases {
            let before = self.epochs.insert(shard.clone(), row.epoch);
            if before.is_some_and(|before| before > row.epoch) {
                return Err(format!(
                    "the epoch of {shard} fell from {before:?} to {}",
                    row.epoch
                ));
            }
            match &row.checkpoint {
                Checkpoint::At(Position::Horizon) => {}
                Checkpoint::At(Position::After(number)) => self.passed(shard, Some(number))?,
                Checkpoint::End { .. } => self.passed(shard, None)?,
            }
        }
        Ok(())
    }

    /// Everything of `shard` up to `number` (all of it, if `None`) must be settled.
    fn passed(&mut self, shard: &ShardId, number: Option<&SequenceNumber>) -> Verdict {
        let Some(records) = self.of_shard.get(shard) else {
            return Ok(());
        };
        let mut settled = self.settled.get(shard).copied().unwrap_or(0);
        while let Some(next) = records.get(settled) {
            if number.is_some_and(|number| next > number) {
                break;
            }
            if self.is_open(next) {
                return Err(format!(
                    "the checkpoint of {shard} passed {next}, which is not settled"
                ));
            }
            settled += 1;
        }
        self.settled.insert(shard.clone(), settled);
        Ok(())
    }

    /// What is not settled yet, once everything should be.
    pub fn unsettled(&self, view: &View) -> Verdict {
        for (number, known) in &self.records {
            if self.is_open(number) {
                return Err(format!("{number} of {} was never handled", known.shard));
            }
            let lost = known.trimmed && !known.handled && !self.is_older_than_the_fleet(known);
            if lost
                && !view
                    .gaps
                    .iter()
                    .any(|gap| covers(gap, &known.shard, number))
            {
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
    gap.shard == *shard
        && gap.last_handled.as_ref().is_none_or(|last| number > last)
        && gap.first_after.as_ref().is_none_or(|first| number < first)
}
