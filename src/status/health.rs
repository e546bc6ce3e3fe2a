//! Whether a worker is alive, and whether it does its work.
//!
//! **Alive** ([`stuck`]) is for whoever would kill the process and start another: it asks only
//! whether the loops turn, because that is all that a new process would mend. They turn on whether
//! or not DynamoDB and the mail server answer, so an outage of either kills nobody: tasks that are
//! killed during one only come back slower.
//!
//! **Ready** ([`standing`]) is for people and dashboards: it is false, with the reason, while the
//! worker joins, drains, gets no heartbeat through, or does not keep up.
//!
//! A handler that blocks its thread may also stop the server that answers: then the probe gets no
//! answer, which says the same.

use std::time::Duration;

use crate::progress::{Progress, STUCK, Standing};

/// What is stuck.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// The loop that writes heartbeats and looks at the lease table.
    #[error("the fleet's loop of {stream} has not turned for {} s", .quiet.as_secs())]
    Fleet {
        /// The group and the table.
        stream: String,
        /// For how long.
        quiet: Duration,
    },
    /// The task that reads a shard. A handler that blocks its thread does that.
    #[error("the task of shard {shard} of {stream} has not turned for {} s: does a handler block?", .quiet.as_secs())]
    Shard {
        /// The group and the table.
        stream: String,
        /// The shard.
        shard: String,
        /// For how long.
        quiet: Duration,
    },
}

/// Why a worker does not do its work, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It has not written its first heartbeat yet.
    #[error("joining the fleet: no heartbeat is written yet")]
    Joining,
    /// It stops.
    #[error("draining: nothing more is begun, and the shards are handed over")]
    Draining,
    /// The lease table takes no heartbeat.
    #[error("no heartbeat was accepted for {} s: the lease table does not answer", .0.as_secs())]
    NoHeartbeat(Duration),
    /// Work has waited for so long, and the lag grows.
    #[error(
        "overloaded: for {} s records wait because as many are in hand as may be, the memory budget is \
         full or what the handler depends on is down, and the lag grows", .0.as_secs()
    )]
    Overloaded(Duration),
}

/// The first loop of a consumer that is stuck. One that does not run yet, or has left, is not.
pub fn stuck(progress: &Progress) -> Option<Stuck> {
    let timing = progress.timing()?;
    if progress.standing() == Standing::Left {
        return None;
    }
    let patience = timing.lease_duration * STUCK;
    let stream = || progress.at().to_string();
    if let Some(quiet) = progress.turned().filter(|quiet| *quiet > patience) {
        let stream = stream();
        return Some(Stuck::Fleet { stream, quiet });
    }
    let stuck = progress.stuck_shard()?;
    Some(Stuck::Shard {
        stream: stream(),
        shard: stuck.shard.to_string(),
        quiet: stuck.turned,
    })
}

/// Whether a worker takes part in its fleet.
///
/// # Errors
///
/// Says why not.
pub fn standing(progress: &Progress) -> Result<(), NotReady> {
    match progress.standing() {
        Standing::Idle | Standing::Joining => return Err(NotReady::Joining),
        Standing::Leaving | Standing::Left => return Err(NotReady::Draining),
        Standing::Member => {}
    }
    let patience = progress.timing().map(|timing| timing.lease_duration);
    let quiet = progress.beaten().filter(|quiet| Some(*quiet) > patience);
    quiet.map_or(Ok(()), |quiet| Err(NotReady::NoHeartbeat(quiet)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::clock::Clock;
    use crate::decide::shard::ShardId;
    use crate::dependency::{Dependency, Limits};
    use crate::group::{Group, GroupTable};
    use crate::progress::Run;
    use crate::settings::Timing;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_shard_whose_task_does_not_turn_is_stuck_unless_a_gap_has_stopped_it() {
        let progress = Arc::new(Progress::new(GroupTable::new(Group::default(), "arn")));
        progress.runs(Run {
            clock: Clock::system(),
            timing: Timing::default(),
            budget: Budget::new(0),
            dependency: Dependency::new(&Limits::default(), fastrand::Rng::new()),
            worker: "one/1".to_owned(),
        });
        let reading = progress.reads(&ShardId::new("shard"));
        tokio::time::advance(Duration::from_mins(10)).await;
        progress.turn();
        let quiet = Duration::from_mins(10);
        assert_eq!(
            stuck(&progress).map(|stuck| stuck.to_string()),
            Some(format!(
                "the task of shard shard of confirmation#arn has not turned for {} s: does a handler block?",
                quiet.as_secs()
            ))
        );
        reading.halt();
        assert_eq!(stuck(&progress), None);
        drop(reading);
        assert!(progress.shards().is_empty());
    }
}
