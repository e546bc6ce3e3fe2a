//! The tasks that read shards, at most one for each shard.

use std::collections::BTreeMap;

use super::events::Stopped;
use super::rows::Report;
use super::terms::{Hold, Incarnation};
use crate::core::position::Position;
use crate::core::shard::ShardId;

/// The running tasks.
#[derive(Debug, Clone, Default)]
pub(super) struct ShardTasks {
    running: BTreeMap<ShardId, RunningTask>,
}

#[derive(Debug, Clone)]
struct RunningTask {
    hold: Hold,
    order: LastOrder,
    /// Who gets the shard once it is drained.
    to: Option<Incarnation>,
    /// How far it came before it halted at a gap.
    halted: Option<(Position, Report)>,
}

/// The last order to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastOrder {
    Run,
    Drain,
    Abandon,
}

/// The result of asking a task to drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Draining {
    /// It drains, then ends and reports how far it came.
    Asked,
    /// It had halted here.
    Halted(Position, Report),
    /// There is no task.
    NoTask,
}

/// A task that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndedTask {
    pub hold: Hold,
    pub to: Option<Incarnation>,
    pub how: Stopped,
}

impl ShardTasks {
    pub fn is_running(&self, shard: &ShardId) -> bool {
        self.running.contains_key(shard)
    }

    /// Whether no task works. Those that halted at a gap do not.
    pub fn is_empty(&self) -> bool {
        self.running.values().all(|task| task.halted.is_some())
    }

    pub fn start(&mut self, hold: Hold) {
        let task = RunningTask {
            hold: hold.clone(),
            order: LastOrder::Run,
            to: None,
            halted: None,
        };
        self.running.insert(hold.shard, task);
    }

    /// Asks a task to drain, for `to`.
    pub fn drain(&mut self, shard: &ShardId, to: Option<Incarnation>) -> Draining {
        let Some(task) = self.running.get_mut(shard) else {
            return Draining::NoTask;
        };
        if let Some((position, report)) = task.halted.take() {
            self.running.remove(shard);
            return Draining::Halted(position, report);
        }
        task.to = to;
        task.order = LastOrder::Drain;
        Draining::Asked
    }

    /// From now on the task must begin nothing. Returns whether there is one.
    pub fn abandon(&mut self, shard: &ShardId) -> bool {
        let Some(task) = self.running.get_mut(shard) else {
            return false;
        };
        task.order = LastOrder::Abandon;
        if task.halted.is_some() {
            self.running.remove(shard);
        }
        true
    }

    /// The shards whose tasks run.
    pub fn shards(&self) -> Vec<ShardId> {
        self.running.keys().cloned().collect()
    }

    /// A task ended. If it halted before it heard its last order, that order still counts.
    pub fn stopped(&mut self, shard: &ShardId, how: Stopped) -> Option<EndedTask> {
        let mut task = self.running.remove(shard)?;
        let how = match (how, task.order) {
            (Stopped::Halted(position, report), LastOrder::Drain) => {
                Stopped::Drained(position, report)
            }
            (Stopped::Halted(..), LastOrder::Abandon) => Stopped::Abandoned,
            (how, _) => how,
        };
        let (hold, to) = (task.hold.clone(), task.to.clone());
        if let Stopped::Halted(position, report) = &how {
            task.halted = Some((position.clone(), report.clone()));
            self.running.insert(shard.clone(), task);
        }
        Some(EndedTask { hold, to, how })
    }
}
