//! What a worker takes and gives, from the rows that a look saw.
//!
//! There is no leader. [`assign`] gives every worker the same answer from the same rows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::assign::assign;
use super::holdings::{Holding, Holdings};
use super::membership::Members;
use super::rows::LeaseRow;
use super::rules::FleetRule;
use super::snapshot::View;
use super::step::InStep;
use super::terms::{Incarnation, Sighting, Take};
use crate::core::shard::ShardId;

/// What to do next. Each is one conditional write that may lose its race.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Take a free lease, a dead worker's lease, or a lease that names me but is not mine.
    Take(Take),
    /// Stop, then give the shard to this worker, or to nobody if there is none.
    HandOver(ShardId, Option<Incarnation>),
}

/// What to do, and whether everything is as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to do next.
    pub actions: Vec<Move>,
    /// Nothing is left to do, and each lease has its right owner.
    pub done: bool,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Planner<'a> {
    /// The last look.
    pub view: &'a View,
    /// Which workers are alive.
    pub members: &'a Members,
    /// What is mine.
    pub holdings: &'a Holdings,
    /// A rule that a simulation leaves out.
    pub left_out: Option<FleetRule>,
}

impl Planner<'_> {
    /// What this worker should do if shards are shared among `live`. Requires trust.
    pub fn plan(&self, live: &BTreeSet<Incarnation>, now: Duration) -> Plan {
        let open = self.view.leases.iter().filter(|(_, row)| !row.ended());
        let read_by_all = self.view.workers.values().map(|worker| worker.reads).min();
        let targets = assign(live, open.clone().map(|(id, row)| (id, row.owner.as_ref())));
        let dead = self.members.dead(now);
        let mut targets = InStep::new(targets);
        let mut holdings = InStep::new(self.holdings.all());
        let (mut actions, mut done) = (Vec::new(), true);
        for (shard, row) in open {
            let mine = holdings.at(shard).copied().unwrap_or_default();
            let target = targets.at(shard);
            done &= target.is_some() && target == row.owner.as_ref();
            if mine.giving.is_some() {
                done = false;
                continue;
            }
            if mine.is_mine() {
                // Handing over writes the row in a format that everybody reads.
                let newer = read_by_all.is_some_and(|reads| row.format > reads);
                let rewrite = newer && self.left_out != Some(FleetRule::FormatForAll);
                if target != Some(self.members.me()) || rewrite {
                    actions.push(Move::HandOver(shard.clone(), target.cloned()));
                }
                continue;
            }
            let evidence = row.owner.as_ref().and_then(|name| dead.get(name).copied());
            if self.is_mine_to_take(row, target, evidence) {
                actions.push(Move::Take(self.take(row, mine, evidence)));
            }
        }
        Plan {
            done: done && actions.is_empty(),
            actions,
        }
    }

    /// Whether this worker should now take a lease that is not its own.
    fn is_mine_to_take(
        &self,
        row: &LeaseRow,
        target: Option<&Incarnation>,
        evidence: Option<Sighting>,
    ) -> bool {
        let me = Some(self.members.me());
        // It names me, but I gave up or outgrew its epoch. Nobody else can take it while I am alive, so
        // I take it even if it will be another's in the end.
        let in_my_name = row.owner.as_ref() == me;
        if row.owner.is_some() && !in_my_name && evidence.is_none() {
            return false;
        }
        // A lease that its worker cannot read is taken by any that can, to be handed to that worker.
        let reads = target.and_then(|name| self.view.workers.get(name));
        let for_others = reads.is_some_and(|worker| worker.reads < row.format);
        target == me || in_my_name || for_others
    }

    /// The new epoch is above the one that was seen, and above every one that I ever saw.
    fn take(&self, row: &LeaseRow, mine: Holding, evidence: Option<Sighting>) -> Take {
        let me = self.members.me();
        let from = row.owner.clone().map(|owner| {
            // No evidence is needed against oneself.
            let evidence = evidence.filter(|_| owner != *me);
            (owner, evidence)
        });
        Take {
            shard: row.shard.clone(),
            from,
            seen_epoch: row.epoch,
            owner: me.clone(),
            epoch: row.epoch.max(mine.highest) + 1,
        }
    }
}
