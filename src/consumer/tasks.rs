//! The shard tasks that a fleet member runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

use crate::decide::shard::ShardId;
use crate::engine::Engine;
use crate::handler::RecordHandler;
use crate::leases::{Checkpoint, Hold, Incarnation, LeaseRow, LeaseStore, Report};
use crate::progress::Reading;
use crate::record::Position;
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
    /// How far it came before it halted.
    halted: Option<(Position, Report)>,
    /// What a halted shard tells is kept as well.
    reading: Arc<Reading>,
}

/// What telling a task to drain came to.
pub(super) enum Draining {
    /// It ends, and says how far it came.
    Told,
    /// It had halted here.
    Halted(Position, Report),
    /// There is none.
    NoTask,
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
        self.running.values().all(|task| task.halted.is_some())
    }

    /// Starts the task of a shard that is mine.
    pub fn start<S: StreamSource, L: LeaseStore, H: RecordHandler>(
        &mut self,
        engine: &Arc<Engine<S, L, H>>,
        row: &LeaseRow,
        owner: Incarnation,
        tenure: Tenure,
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
            starts_at: row.starts_at,
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
            halted: None,
            reading,
        };
        self.running.insert(row.shard.clone(), running);
    }

    /// Tells a task to drain, for `to`.
    pub fn drain(&mut self, shard: &ShardId, to: Option<Incarnation>) -> Draining {
        let Some(task) = self.running.get_mut(shard) else {
            return Draining::NoTask;
        };
        if let Some((position, report)) = task.halted.take() {
            self.running.remove(shard);
            return Draining::Halted(position, report);
        }
        task.to = to;
        // One that has just ended is met with its order.
        task.orders.send_replace(Order::Drain);
        Draining::Told
    }

    /// The shard is somebody else's: from this moment its task may begin nothing.
    pub fn abandon(&mut self, shard: &ShardId) {
        if let Some(task) = self.running.get_mut(shard) {
            task.tenure.revoke();
            task.orders.send_replace(Order::Abandon);
            if task.halted.is_some() {
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
            let order = *task.orders.borrow();
            let ended = match (ended, order) {
                (Ended::Halted(position, report), Order::Drain) => Ended::Drained(position, report),
                (Ended::Halted(..), Order::Abandon) => Ended::Abandoned,
                (ended, _) => ended,
            };
            if let Ended::Halted(position, report) = &ended {
                // The lease is kept, so that nobody else runs into the same gap.
                task.halted = Some((position.clone(), report.clone()));
                task.reading.halt();
                self.running.insert(shard, task);
            }
            return Finished { hold, to, ended };
        }
    }
}
