//! Calls to the lease table and the stream that are late, lost, or applied without an answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::super::events::{Command, Failed, FleetEvent};
use super::super::golden::beating;
use super::super::listed::{FoundStream, Listed};
use super::super::snapshot::View;
use super::SHARDS;
use crate::core::shard::{Shard, ShardId};
use crate::stores::leases::LeaseStore;
use crate::stores::leases::memory::MemoryLeases;

/// A call under way: when the table gets it, and when its answer comes.
pub(super) struct Call {
    pub command: Command,
    pub began: Duration,
    pub applied_at: Option<Duration>,
    pub answered_at: Duration,
    pub fails: bool,
    /// The answer, once it was applied.
    pub answer: Option<FleetEvent>,
    pub answered: bool,
}

impl Call {
    /// A call in good times.
    pub fn quick(command: Command, began: Duration, rng: &mut fastrand::Rng) -> Self {
        let mut wait = || Duration::from_millis(rng.u64(..300));
        let applied_at = began + wait();
        Self {
            command,
            began,
            applied_at: Some(applied_at),
            answered_at: applied_at + wait(),
            fails: false,
            answer: None,
            answered: false,
        }
    }

    pub fn new(command: Command, began: Duration, rng: &mut fastrand::Rng) -> Self {
        let slow = rng.u32(..10) == 0;
        let most = if slow { 6_000 } else { 300 };
        let mut wait = || Duration::from_millis(rng.u64(..most));
        let (way, back) = (wait(), wait());
        let limit = Duration::from_secs(3);
        let lost = rng.u32(..30) == 0;
        let fails = lost || way + back > limit || rng.u32(..30) == 0;
        Self {
            command,
            began,
            applied_at: (!lost).then_some(began + way),
            answered_at: began + (way + back).min(limit),
            fails,
            answer: None,
            answered: false,
        }
    }
}

pub(super) fn failed(command: &Command) -> FleetEvent {
    match command {
        Command::Heartbeat(_) => FleetEvent::Heartbeat(Err(Failed)),
        Command::Look(..) => FleetEvent::Snapshot(Err(Failed)),
        Command::Bootstrap(_) => FleetEvent::Bootstrapped(Err(Failed)),
        Command::List(_) => FleetEvent::Listed(Err(Failed)),
        Command::Take(take) => FleetEvent::Took(take.shard.clone(), Err(Failed)),
        Command::HandOver(what) => FleetEvent::HandedOver(what.hold.shard.clone()),
        Command::Repair(_) => FleetEvent::Repaired(Err(Failed)),
        other => panic!("{other:?}"),
    }
}

/// Makes the call, and answers what the table answers.
pub(super) fn applied(leases: &MemoryLeases, command: Command) -> FleetEvent {
    let made = async {
        match command {
            Command::Heartbeat(beat) => {
                let mut row = beating(beat.incarnation, beat.beat);
                row.draining = beat.draining;
                if beat.registered {
                    FleetEvent::Heartbeat(leases.heartbeat(&row).await.map_err(|_| Failed))
                } else {
                    let registered = leases.register(&row).await;
                    FleetEvent::Heartbeat(registered.map(Some).map_err(|_| Failed))
                }
            }
            Command::Look(reach, consistency) => {
                let view: View = leases.look_at(reach, consistency).await.unwrap();
                FleetEvent::Snapshot(Ok(Arc::new(view)))
            }
            Command::Bootstrap(row) => {
                FleetEvent::Bootstrapped(leases.bootstrap(row).await.map_err(|_| Failed))
            }
            Command::List(_) => FleetEvent::Listed(Ok(listed())),
            Command::Take(take) => {
                let row = leases.take(&take).await.unwrap();
                FleetEvent::Took(take.shard, Ok(row.map(Box::new)))
            }
            Command::HandOver(what) => {
                let (to, report) = (what.to.as_ref(), &what.report);
                let given = leases.hand_over(&what.hold, to, &what.position, report);
                given.await.unwrap();
                FleetEvent::HandedOver(what.hold.shard)
            }
            Command::Repair(repair) => {
                leases.create(&repair.create).await.unwrap();
                for (name, beat) in &repair.dead {
                    leases.remove_worker(name, *beat).await.unwrap();
                }
                FleetEvent::Repaired(Ok(()))
            }
            other => panic!("{other:?}"),
        }
    };
    made.now_or_never().unwrap()
}

fn listed() -> Listed {
    let shard = |id: &str| Shard {
        id: ShardId::new(id),
        parent: None,
    };
    Listed {
        shards: SHARDS.map(shard).into(),
        streams: vec![FoundStream {
            label: "".into(),
            created: None,
        }],
        trouble: None,
    }
}
