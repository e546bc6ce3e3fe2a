//! The events of a member, and its commands.

use std::collections::VecDeque;
use std::sync::Arc;

use super::listed::Listed;
use super::repair::Repair;
use super::rows::{GroupRow, InitialPosition, LeaseRow, Report};
use super::snapshot::{Consistency, Reach, View};
use super::terms::{Epoch, Hold, Incarnation, Take};
use super::validity::Generation;
use crate::core::effects::GroupEffects;
use crate::core::position::Position;
use crate::core::shard::ShardId;

/// A call failed. It is unknown whether it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

/// The answer to a conditional write. `Ok(None)`: the race was lost.
pub type CallResult<T> = Result<Option<T>, Failed>;

/// What happened, as reported to a member.
#[derive(Debug, Clone)]
pub enum FleetEvent {
    /// The heartbeat was answered. `Ok(None)`: its row is gone.
    Heartbeat(CallResult<()>),
    /// The look was answered.
    Snapshot(Result<Arc<View>, Failed>),
    /// The group row was written, or existed already: this is it.
    Bootstrapped(Result<GroupRow, Failed>),
    /// The change of the group's effects was answered.
    EffectsChanged(CallResult<()>),
    /// A take was answered, with the row as it is now.
    Took(ShardId, CallResult<Box<LeaseRow>>),
    /// A hand-over was answered, or given up.
    HandedOver(ShardId),
    /// The listing was answered.
    Listed(Result<Listed, Failed>),
    /// The repair was made.
    Repaired(Result<(), Failed>),
    /// A shard's task ended.
    Stopped(ShardId, Stopped),
    /// The worker is asked to leave.
    Leave,
}

/// How a shard's task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The shard has ended, and its end is recorded together with its children.
    Finished,
    /// Drained: everything up to here is finished.
    Drained(Position, Report),
    /// A write was refused: the lease belongs to another worker.
    Refused,
    /// The task was abandoned, or it crashed, or trust lapsed.
    Abandoned,
    /// The task stopped at a gap, as the settings say. Everything up to here is finished and recorded.
    /// The lease is kept, so that no other worker reaches the same gap.
    Halted(Position, Report),
}

/// What a member asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Write the heartbeat.
    Heartbeat(Beat),
    /// Read these rows of the lease table.
    Look(Reach, Consistency),
    /// Write the group row, if there is none.
    Bootstrap(GroupRow),
    /// Replace the group's effects, if they are still these.
    ChangeEffects {
        /// The effects that the group had.
        seen: GroupEffects,
        /// The new effects.
        new: GroupEffects,
    },
    /// These are the group's effects from now on, this worker's and others.
    ShareEffects(GroupEffects),
    /// List the table's streams and their shards, starting from this stream.
    List(Option<String>),
    /// Take a lease.
    Take(Take),
    /// Give a lease away, with the last checkpoint.
    HandOver(Box<HandOver>),
    /// Create, replace and remove rows.
    Repair(Box<Repair>),
    /// Start the task of a shard that is mine.
    StartShard(Box<ShardStart>),
    /// Tell the shard's task to drain: to start no more records, and to report how far it came.
    Drain(ShardId),
    /// The shard is not mine any more: from now on its task must begin nothing.
    Abandon(ShardId),
    /// Something that a person may want to know.
    Note(Note),
    /// Everything is handed over: remove my row and stop.
    Left,
}

/// A heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The worker.
    pub incarnation: Incarnation,
    /// The number of the beat.
    pub beat: u64,
    /// The worker is leaving.
    pub draining: bool,
    /// The worker has not been able to list the stream for a while.
    pub unable_to_list: bool,
    /// Whether the row exists already. The first heartbeat writes it.
    pub registered: bool,
}

/// A lease to give away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// The owner and epoch under which it is mine.
    pub hold: Hold,
    /// The next owner; `None`: nobody yet.
    pub to: Option<Incarnation>,
    /// How far the shard was handled.
    pub position: Position,
    /// The progress to write with it.
    pub report: Report,
}

/// A shard's task to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStart {
    /// The owner and epoch under which the shard is mine.
    pub hold: Hold,
    /// Its row, which says where to start.
    pub row: LeaseRow,
    /// The stretch of trust in which the task may work.
    pub generation: Generation,
}

/// Something that happened, for the log and the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Trust lapsed while shards were mine.
    Lapsed,
    /// My row was removed; I join under this name.
    Reborn(Incarnation),
    /// The worker drains and hands over.
    Leaving,
    /// The group begins, started by this worker.
    GroupBegins(InitialPosition),
    /// How the group's identity differs from mine.
    IdentityDiffers(String),
    /// The row was written by a newer version and is left alone.
    NewerRow(String, u32),
    /// How the row is damaged.
    MalformedRow(String, String),
    /// How many lease rows are created, replaced and archived.
    Repairing {
        /// Missing ones.
        created: usize,
        /// Damaged ones.
        healed: usize,
        /// Rows of ended shards.
        removed: usize,
    },
    /// The shard is about to be given to this worker.
    HandingOver(ShardId, Option<Incarnation>),
    /// A lease was taken under this epoch, from this owner.
    Took(ShardId, Epoch, Option<Incarnation>),
    /// Why committed changes are not read; `None`: they are read again.
    NotReading(Option<String>),
}

/// The commands that were not polled yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(VecDeque<Command>);

impl Outbox {
    pub fn push(&mut self, command: Command) {
        self.0.push_back(command);
    }

    pub fn note(&mut self, note: Note) {
        self.push(Command::Note(note));
    }

    pub fn pop(&mut self) -> Option<Command> {
        self.0.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
