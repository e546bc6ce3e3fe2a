//! The shard tasks that a fleet member runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

use crate::decide::shard::ShardId;
use crate::engine::Engine;
use crate::handler::RecordHandler;
use crate::leases::{Checkpoint, Hold, Incarnation, LeaseRow, LeaseStore};
use crate::progress::Reading;
use crate::shard_task::{Assignment, Ended, Order, ShardTask};
use crate::source::StreamSource;
use crate::trust::Tenure;

/// The shard tasks that run, at most one per shard.
#[derive(Default)]
pub(super) struct Tasks {
    running: BTreeMap<ShardId, Running>,
    ends: JoinSet<(ShardId, Ended)>,
    by_id: BTreeMap<tokio::task::Id, ShardId>,
}

struct Running {
    hold: Hold,
    orders: watch::Sender<Order>,
    tenure: Tenure,
    to: Option<Incarnation>,
    halted: bool,
    /// What a halted shard tells is kept as well.
    reading: Arc<Reading>,
}

/// A task that ended.
pub(super) struct Finished {
    pub hold: Hold,
    /// To whom the shard was to be given.
    pub to: Option<Incarnation>,
    pub ended: Ended,
}

impl Tasks {
    pub fn is_running(&self, shard: &ShardId) -> bool {
        self.running.contains_key(shard)
    }

    pub fn is_empty(&self) -> bool {
        self.running.values().all(|task| task.halted)
    }

    /// Starts the task of a shard that is mine.
    pub fn start<S: StreamSource, L: LeaseStore, H: RecordHandler>(
        &mut self,
        engine: &Arc<Engine<S, L, H>>,
        row: &LeaseRow,
        owner: Incarnation,
        tenure: Tenure,
        skip_before: Option<SystemTime>,
    ) {
        let Checkpoint::At(start) = &row.checkpoint else {
            return;
        };
        let hold = Hold {
            shard: row.shard.clone(),
            owner,
            epoch: row.epoch,
        };
        let (orders, receiver) = watch::channel(Order::Run);
        let reading = Arc::new(engine.progress.reads(&row.shard));
        let assignment = Assignment {
            hold: hold.clone(),
            start: start.clone(),
            report: row.report.clone(),
            skip_before,
            tenure: tenure.clone(),
            orders: receiver,
            reading: reading.clone(),
        };
        crate::gate::owned(&hold, &tenure);
        let shard = row.shard.clone();
        let task = ShardTask::new(engine.clone(), assignment).run();
        let named = async move { (shard, task.await) };
        let handle = self.ends.spawn(crate::gate::gated(named));
        self.by_id.insert(handle.id(), row.shard.clone());
        let running = Running {
            hold,
            orders,
            tenure,
            to: None,
            halted: false,
            reading,
        };
        self.running.insert(row.shard.clone(), running);
    }

    /// Tells a task to drain, for `to`. `false`: there is no task.
    pub fn drain(&mut self, shard: &ShardId, to: Option<Incarnation>) -> bool {
        let task = self.running.get_mut(shard).filter(|task| !task.halted);
        task.is_some_and(|task| {
            task.to = to;
            task.orders.send(Order::Drain).is_ok()
        })
    }

    /// The shard is somebody else's: from this moment its task may begin nothing.
    pub fn abandon(&mut self, shard: &ShardId) {
        if let Some(task) = self.running.get_mut(shard) {
            task.tenure.revoke();
            // A task that has just ended has nobody to tell.
            let _ = task.orders.send(Order::Abandon);
            if task.halted {
                self.running.remove(shard);
            }
        }
    }

    /// Trust lapsed, or I am another incarnation now.
    pub fn abandon_all(&mut self) {
        let shards: Vec<_> = self.running.keys().cloned().collect();
        for shard in shards {
            self.abandon(&shard);
        }
    }

    /// Waits for the next task to end; for ever if none runs.
    pub async fn next(&mut self) -> Finished {
        loop {
            let Some(joined) = self.ends.join_next_with_id().await else {
                std::future::pending().await
            };
            let (id, ended) = match joined {
                Ok((id, (_, ended))) => (id, ended),
                Err(failed) => {
                    error!(error = %failed, "a shard task failed; the shard is started anew");
                    (failed.id(), Ended::Abandoned)
                }
            };
            let Some(shard) = self.by_id.remove(&id) else {
                continue;
            };
            let Some(mut task) = self.running.remove(&shard) else {
                continue;
            };
            let (hold, to) = (task.hold.clone(), task.to.clone());
            task.tenure.revoke();
            if matches!(ended, Ended::Halted) {
                // The lease is kept, so that nobody else runs into the same gap.
                task.halted = true;
                task.reading.halt();
                self.running.insert(shard, task);
            }
            return Finished { hold, to, ended };
        }
    }
}
