//! Whether a worker does its work, and if not, why: the same answer for `/readyz`, for the worker's
//! row, and so for every status.

use std::time::Duration;

use super::{Progress, Standing};
use crate::engine::dependency::Down;

/// Why a worker does not do its work, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// It has not found its tables yet. Holds the failure of the last attempt, if any.
    #[error("starting{}", because(.0.as_ref()))]
    Starting(Option<String>),
    /// It has not written its first heartbeat yet. Holds the last error, if any.
    #[error("joining the fleet: no heartbeat written yet{}", because(.0.as_ref()))]
    Joining(Option<String>),
    /// The stream has never answered. Holds the last error, if any.
    #[error("the stream has not answered yet{}", because(.0.as_ref()))]
    Unreached(Option<String>),
    /// It is stopping.
    #[error("draining: no new records are started, and the shards are handed over")]
    Draining,
    /// The table's changes cannot be read, for this reason.
    #[error("not reading: {0}")]
    NotReading(String),
    /// The lease table accepts no heartbeat. Holds the last error, if any.
    #[error("no heartbeat was accepted for {} s{}", .0.as_secs(), because(.1.as_ref()))]
    NoHeartbeat(Duration, Option<String>),
    /// Its handler's dependency is down.
    #[error("{} is down for {} s: {}", .0.what, .0.lasts.as_secs(), .0.why)]
    Down(Down),
    /// Records have been waiting for this long, and the lag is growing.
    #[error("overloaded: for {} s records wait because {}, and the lag grows", .0.as_secs(), .1)]
    Overloaded(Duration, HeldBack),
}

/// What records wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBack {
    /// Room in memory.
    Memory,
    /// A place among the running records.
    Places,
}

impl std::fmt::Display for HeldBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "the memory budget is full (--memory-budget)",
            Self::Places => {
                "the limit is reached (--concurrency, --mail-rate), or the dependency is slow"
            }
        })
    }
}

fn because(why: Option<&String>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}

impl NotReady {
    /// What keeps a member of the fleet from its work; nothing while it joins or leaves. All workers
    /// with the same trouble use the same words.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self {
            Self::Starting(_) | Self::Joining(_) | Self::Unreached(None) | Self::Draining => None,
            Self::Down(down) => Some(format!("{} is down: {}", down.what, down.why)),
            _ => Some(self.to_string()),
        }
    }
}

impl Progress {
    /// Whether the worker takes part in its fleet and can do its work.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        match self.standing() {
            Standing::Idle | Standing::Joining => {
                return Err(NotReady::Joining(self.heartbeat_error()));
            }
            Standing::Leaving | Standing::Left => return Err(NotReady::Draining),
            Standing::Member => {}
        }
        let patience = self.timing().map(|timing| timing.lease_duration);
        if let Some(quiet) = self.beaten().filter(|quiet| Some(*quiet) > patience) {
            return Err(NotReady::NoHeartbeat(quiet, self.heartbeat_error()));
        }
        if !self.has_reached_the_stream() {
            return Err(NotReady::Unreached(self.stream_error()));
        }
        if let Some(why) = self.not_reading() {
            return Err(NotReady::NotReading(why));
        }
        self.down().map_or(Ok(()), |down| Err(NotReady::Down(down)))
    }

    /// What keeps a live worker from its work.
    pub fn trouble(&self) -> Option<String> {
        self.ready().err()?.trouble()
    }
}
