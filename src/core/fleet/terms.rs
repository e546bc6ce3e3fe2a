//! The terms of the protocol: owners, epochs, and the evidence on which a lease is taken.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::shard::ShardId;

/// One start of one worker process: `<worker id>/<random>`. A restarted worker is another
/// incarnation and inherits nothing by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Names an incarnation of the worker `id`. `nonce` must never repeat for that worker.
    pub fn new(id: &str, nonce: u64) -> Self {
        Self(format!("{id}/{nonce:016x}").into())
    }

    /// Parses what [`Incarnation::as_str`] returned.
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

impl From<String> for Incarnation {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Incarnation> for String {
    fn from(name: Incarnation) -> Self {
        name.as_str().to_owned()
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

/// The fence of a lease. Raised by every change of owner, never lowered.
pub type Epoch = u64;

/// What a taker has seen of a lease's owner for a whole lease duration. The take applies only if that
/// is still true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// The owner's heartbeat has this beat.
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

/// A shard that is mine, until trust ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds the shard, under which epoch.
    pub hold: Hold,
    /// When trust ends on the worker's own clock, unless it is renewed.
    pub until: Duration,
}

/// A take of a lease: from whom, and on what evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The shard.
    pub shard: ShardId,
    /// The owner that was seen, with the evidence that it is dead; `None` for a free lease. No evidence
    /// is needed against oneself.
    pub from: Option<(Incarnation, Option<Sighting>)>,
    /// The epoch that was seen.
    pub seen_epoch: Epoch,
    /// Who takes.
    pub owner: Incarnation,
    /// The epoch to write: above the one seen, and above every one that the taker ever saw.
    pub epoch: Epoch,
}
