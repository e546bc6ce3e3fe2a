//! The shard tasks that a fleet member runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

use crate::core::fleet::events::{ShardStart, Stopped};
use crate::core::shard::ShardId;
use crate::engine::Engine;
use crate::engine::progress::Reading;
use crate::engine::shard_task::{Assignment, ShardTask, TaskOrder};
use crate::engine::trust::Tenure;
use crate::stores::leases::{Checkpoint, LeaseStore};
use crate::stores::source::StreamSource;

/// The running shard tasks, at most one per shard, and those that halted.
#[derive(Default)]
pub(super) struct Tasks {
    running: BTreeMap<ShardId, Running>,
    ends: JoinSet<Stopped>,
    by_id: BTreeMap<tokio::task::Id, ShardId>,
}

struct Running {
    orders: watch::Sender<TaskOrder>,
    tenure: Tenure,
    /// A task that ended at a gap. It keeps its shard's status.
    halted: bool,
    reading: Arc<Reading>,
}

impl Tasks {
    /// Starts the task of a shard that is mine.
    pub fn start<S: StreamSource, L: LeaseStore>(
        &mut self,
        engine: &Arc<Engine<S, L>>,
        start: ShardStart,
        tenure: Tenure,
    ) {
        let ShardStart { hold, row, .. } = start;
        let Checkpoint::At(position) = row.checkpoint else {
            return;
        };
        let (orders, receiver) = watch::channel(TaskOrder::Run);
        let shard = row.shard;
        let reading = Arc::new(engine.progress.reads(&shard));
        crate::hooks::owned(&hold, &tenure);
        let assignment = Assignment {
            hold,
            start: position,
            report: row.report,
            starts_at: row.starts_at,
            tenure: tenure.clone(),
            orders: receiver,
            reading: reading.clone(),
        };
        let task = ShardTask::new(engine.clone(), assignment).run();
        let handle = self.ends.spawn(crate::hooks::gated(task));
        self.by_id.insert(handle.id(), shard.clone());
        let running = Running {
            orders,
            tenure,
            halted: false,
            reading,
        };
        self.running.insert(shard, running);
    }

    /// Tells a task to drain. A task that has just ended is reported as it ended.
    pub fn drain(&mut self, shard: &ShardId) {
        if let Some(task) = self.running.get(shard) {
            task.orders.send_replace(TaskOrder::Drain);
        }
    }

    /// The shard belongs to another worker: from now on its task must begin nothing.
    pub fn abandon(&mut self, shard: &ShardId) {
        if let Some(task) = self.running.get(shard) {
            task.tenure.revoke();
            task.orders.send_replace(TaskOrder::Abandon);
            if task.halted {
                self.running.remove(shard);
            }
        }
    }

    /// Waits for the next task to end, forever if none is running.
    pub async fn next(&mut self) -> (ShardId, Stopped) {
        loop {
            let Some(joined) = self.ends.join_next_with_id().await else {
                std::future::pending().await
            };
            let (id, stopped) = joined.unwrap_or_else(|failed| {
                error!(error = %failed, "a shard task crashed; the shard is started again");
                (failed.id(), Stopped::Abandoned)
            });
            let Some(shard) = self.by_id.remove(&id) else {
                continue;
            };
            self.ended(&shard, &stopped);
            return (shard, stopped);
        }
    }

    fn ended(&mut self, shard: &ShardId, stopped: &Stopped) {
        let Some(mut task) = self.running.remove(shard) else {
            return;
        };
        task.tenure.revoke();
        if matches!(stopped, Stopped::Halted(..)) {
            task.reading.halt();
            task.halted = true;
            self.running.insert(shard.clone(), task);
        }
    }
}
