//! What membership speaks of: who, which epoch, what was seen, what is to be done.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::decide::shard::ShardId;

/// One start of one worker process: `<worker id>/<random>`. A restarted worker is another
/// incarnation and inherits nothing by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Names an incarnation of the worker `id`. `nonce` must never repeat for that worker.
    pub fn new(id: &str, nonce: u64) -> Self {
        Self(format!("{id}/{nonce:016x}").into())
    }

    /// Reads back what [`Incarnation::as_str`] gave.
    pub fn from_row(text: &str) -> Self {
        Self(text.into())
    }

    /// The worker's id, without the random part.
    pub fn worker(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(id, _)| id)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fence of a lease: raised by every change of owner, never lowered.
pub type Epoch = u64;

/// What a taker has seen of a lease's owner for a whole lease duration. The take applies only if
/// it is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// The owner's heartbeat stands at this beat.
    Beat(u64),
    /// The owner has no row.
    Missing,
}

/// The lease and epoch under which a worker acts on a shard: the fence of all its writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The shard.
    pub shard: ShardId,
    /// Who I am.
    pub owner: Incarnation,
    /// My epoch.
    pub epoch: Epoch,
}

/// A take of a lease: from whom, and on what evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The shard.
    pub shard: ShardId,
    /// The owner that was seen, with the evidence that it is dead; `None` for a free lease. No
    /// evidence is needed against oneself.
    pub from: Option<(Incarnation, Option<Sighting>)>,
    /// The epoch that was seen.
    pub seen_epoch: Epoch,
    /// Who takes.
    pub owner: Incarnation,
    /// The epoch to write: above the one seen, and above every one that the taker ever saw.
    pub epoch: Epoch,
}

/// A lease row, as far as membership needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who holds it.
    pub owner: Option<Incarnation>,
    /// Its fence.
    pub epoch: Epoch,
    /// Its format: a worker that does not read it leaves it alone.
    pub format: u32,
    /// Nothing is left to read.
    pub ended: bool,
}

/// A worker row, as far as membership needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its heartbeat.
    pub beat: u64,
    /// It is leaving.
    pub draining: bool,
    /// The newest format of rows that it reads.
    pub reads: u32,
    /// It has not been able to list the stream for a while.
    pub unable_to_list: bool,
    /// How long its heartbeat must stand still before it counts as dead.
    pub patience: Duration,
}

/// All rows that one look saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The heartbeats, mine among them.
    pub workers: BTreeMap<Incarnation, Peer>,
    /// The leases.
    pub leases: BTreeMap<ShardId, Row>,
    /// The newest format of any row, be it one that I cannot read.
    pub newest_format: u32,
    /// The look was consistent: it saw every write that was answered before it began.
    pub consistent: bool,
    /// When the look began.
    pub began: Duration,
}

/// What a look changed in what I own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The shard is mine under this epoch.
    Gained(ShardId, Epoch),
    /// The shard is not mine any more.
    Lost(ShardId),
}

/// What to do next: each is one conditional write that may lose its race.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take a free lease, a dead worker's, or one that stands in my name but is not mine.
    Take(Take),
    /// Stop, then give the shard to this worker, or to nobody if there is none.
    HandOver(ShardId, Option<Incarnation>),
    /// Remove a worker row that has been still for long and owns nothing.
    Bury(Incarnation, u64),
}
