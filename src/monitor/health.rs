//! Whether a worker is alive, and whether it does its work.
//!
//! **Alive** ([`stuck`]) is for a supervisor that would kill and restart the process: it only asks
//! whether the loops make progress, because that is all that a restart can fix. They make progress
//! whether or not DynamoDB and the mail server answer, so an outage of either kills no process; tasks
//! that are killed in an outage only recover more slowly. There is one exception: a worker whose first
//! heartbeat was never accepted, or that has not even found its tables ([`start`]). It has no work to
//! lose, and a deployment that cannot work must fail.
//!
//! **Ready** ([`Progress::ready`]) is for people and dashboards: it is false, with the reason, while
//! the worker starts or joins, has not reached the stream, drains, has no heartbeat accepted, or its
//! handler's dependency is down.
//!
//! A handler that blocks its thread can also block the server that answers: then the probe gets no
//! answer, which means the same.

use std::time::Duration;

use crate::engine::progress::{Progress, STUCK, Standing};

pub use crate::engine::progress::{HeldBack, NotReady};

/// How long a process may take to start, and then to have its first heartbeat accepted.
const START: Duration = Duration::from_mins(1);

/// What is stuck.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stuck {
    /// The loop that writes heartbeats and reads the lease table.
    #[error("the fleet's loop of {stream} has made no progress for {} s", .quiet.as_secs())]
    Fleet {
        /// The group and the table.
        stream: String,
        /// For how long.
        quiet: Duration,
    },
    /// The task that reads a shard, for example because a handler blocks its thread.
    #[error("the task of shard {shard} of {stream} has made no progress for {} s: does a handler block?", .quiet.as_secs())]
    Shard {
        /// The group and the table.
        stream: String,
        /// The shard.
        shard: String,
        /// For how long.
        quiet: Duration,
    },
    /// The process has not started: it cannot reach its tables or read a setting.
    #[error("the worker has not started for {} s{}", .time.as_secs(), because(.why.as_ref()))]
    NeverStarted {
        /// For how long it has tried.
        time: Duration,
        /// Why the last attempt failed.
        why: Option<String>,
    },
    /// No heartbeat was ever accepted.
    #[error("the worker cannot join the fleet: for {} s no heartbeat was accepted{}", .time.as_secs(), because(.why.as_ref()))]
    NeverJoined {
        /// For how long it has tried.
        time: Duration,
        /// Why the last heartbeat was not accepted.
        why: Option<String>,
    },
}

fn because(why: Option<&String>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}

/// Whether a process may still be starting after this time.
///
/// # Errors
///
/// It should have started. `why` is why its last attempt failed.
pub fn start(time: Duration, why: Option<String>) -> Result<(), Stuck> {
    if time > START {
        return Err(Stuck::NeverStarted { time, why });
    }
    Ok(())
}

/// The first stuck loop of a consumer. A consumer that is not running yet, or has left, is not stuck.
pub fn stuck(progress: &Progress) -> Option<Stuck> {
    let timing = progress.timing()?;
    if progress.standing() == Standing::Left {
        return None;
    }
    if progress.standing() == Standing::Joining && progress.age() > START {
        let (time, why) = (progress.age(), progress.heartbeat_error());
        return Some(Stuck::NeverJoined { time, why });
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::core::group::{EffectName, Group, GroupTable};
    use crate::core::shard::ShardId;
    use crate::engine::budget::Budget;
    use crate::engine::dependency::{Dependency, Limits};
    use crate::engine::progress::{EffectProgress, Run};
    use crate::engine::settings::Timing;
    use crate::stores::clock::Clock;
    use std::sync::Arc;

    /// A running consumer.
    fn running() -> Arc<Progress> {
        let effect = EffectProgress::new(EffectName::default());
        effect.depends_on(Dependency::new(&Limits::default(), fastrand::Rng::new()));
        let progress = Arc::new(Progress::new(
            GroupTable::new(Group::default(), "arn"),
            vec![Arc::new(effect)],
        ));
        progress.runs(Run {
            clock: Clock::system(),
            timing: Timing::default(),
            budget: Budget::new(0),
            worker: "one/1".to_owned(),
            began: tokio::time::Instant::now(),
        });
        progress
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_whose_task_does_not_turn_is_stuck_unless_a_gap_has_stopped_it() {
        let progress = running();
        progress.beat();
        let reading = progress.reads(&ShardId::new("shard"));
        tokio::time::advance(Duration::from_mins(10)).await;
        progress.turn();
        let quiet = Duration::from_mins(10);
        assert_eq!(
            stuck(&progress).map(|stuck| stuck.to_string()),
            Some(format!(
                "the task of shard shard of confirmation#arn has made no progress for {} s: does a handler block?",
                quiet.as_secs()
            ))
        );
        reading.halt();
        assert_eq!(stuck(&progress), None);
        drop(reading);
        assert!(progress.shards().is_empty());
    }
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_never_gets_a_heartbeat_through_is_not_alive_after_a_minute() {
        let progress = running();
        progress.turn();
        assert_eq!(stuck(&progress), None);
        progress.heartbeat_failed("AccessDeniedException".to_owned());
        tokio::time::advance(START + Duration::from_secs(1)).await;
        progress.turn();
        let reported = stuck(&progress).unwrap().to_string();
        assert_eq!(
            reported,
            "the worker cannot join the fleet: for 61 s no heartbeat was accepted: \
             AccessDeniedException"
        );
        progress.beat();
        assert_eq!(stuck(&progress), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_ready_once_a_heartbeat_was_accepted_and_the_stream_has_answered() {
        let progress = running();
        let reported = || progress.ready().map_err(|why| why.to_string());
        progress.heartbeat_failed("Throttled".to_owned());
        assert_eq!(
            reported(),
            Err("joining the fleet: no heartbeat written yet: Throttled".to_owned())
        );
        progress.beat();
        progress.stream_failed("refused".to_owned());
        assert_eq!(
            reported(),
            Err("the stream has not answered yet: refused".to_owned())
        );
        let trouble = progress.trouble();
        assert_eq!(trouble.unwrap(), "the stream has not answered yet: refused");
        progress.stream_answered();
        assert_eq!(reported(), Ok(()));
        assert_eq!(progress.trouble(), None);
        progress.set_not_reading(Some("the stream is off".to_owned()));
        assert_eq!(
            progress.trouble().unwrap(),
            "not reading: the stream is off"
        );
        progress.set_not_reading(None);
        tokio::time::advance(Duration::from_secs(11)).await;
        progress.heartbeat_failed("AccessDenied".to_owned());
        let why = "no heartbeat was accepted for 11 s: AccessDenied";
        assert_eq!(reported(), Err(why.to_owned()));
    }
}
