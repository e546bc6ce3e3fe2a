//! Which workers trust that a shard is theirs: nobody else may at the same time.

use std::collections::BTreeMap;

use crate::core::shard::ShardId;
use crate::engine::trust::Tenure;
use crate::stores::leases::{Epoch, View};

/// Whether a promise holds, or how it was broken.
pub(super) type Judgement = Result<(), String>;

/// A worker that has taken a shard for its own.
#[derive(Debug)]
struct Owner {
    worker: usize,
    epoch: Epoch,
    tenure: Tenure,
}

/// The owners of each shard.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<ShardId, Vec<Owner>>);

impl Owners {
    /// A worker's process ended: it owns nothing.
    pub fn crashed(&mut self, worker: usize) {
        for owners in self.0.values_mut() {
            owners.retain(|owner| owner.worker != worker);
        }
    }

    /// A worker trusts that a shard is its own under this epoch: nobody else may.
    pub fn owns(
        &mut self,
        worker: usize,
        shard: &ShardId,
        epoch: Epoch,
        tenure: &Tenure,
    ) -> Judgement {
        let owners = self.0.entry(shard.clone()).or_default();
        owners.retain(|owner| owner.tenure.holds());
        let other = owners
            .iter()
            .find(|owner| (owner.worker, owner.epoch) != (worker, epoch));
        if let Some(other) = other {
            return Err(format!(
                "{shard} has two owners: worker {} with epoch {} and worker {worker} with epoch {epoch}",
                other.worker, other.epoch
            ));
        }
        if tenure.holds() && !owners.iter().any(|owner| owner.tenure.is(tenure)) {
            let tenure = tenure.clone();
            owners.push(Owner {
                worker,
                epoch,
                tenure,
            });
        }
        Ok(())
    }

    /// Whether each open shard is read under the epoch of its row, and each worker reads its share.
    pub fn shared(&mut self, view: &View, workers: usize) -> Judgement {
        let mut shares = vec![0; workers];
        let open = view.leases.values().filter(|row| !row.ended());
        let all = open.clone().count();
        for row in open {
            let owners = self.0.entry(row.shard.clone()).or_default();
            owners.retain(|owner| owner.tenure.holds());
            let owner = owners.iter().find(|owner| owner.epoch == row.epoch);
            let owner = owner.ok_or_else(|| format!("{} is read by nobody", row.shard))?;
            shares[owner.worker] += 1;
        }
        let fair = all / workers..=all.div_ceil(workers);
        match shares.iter().position(|share| !fair.contains(share)) {
            Some(worker) => Err(format!(
                "worker {worker} has {} of {all} shards",
                shares[worker]
            )),
            None => Ok(()),
        }
    }
}
