//! An operator who deletes and damages rows of the lease table behind the fleet's back.

use std::sync::Arc;

use super::witness::Witness;
use super::world::World;
use crate::core::shard::ShardId;
use crate::stores::leases::Incarnation;
use crate::stores::leases::row::{GROUP_ROW, lease_key, worker_key};
use crate::stores::leases::{GapRow, Unfit, Unreadable, View};

/// A row that an operator strikes at.
enum Target {
    Lease(ShardId),
    Worker(Incarnation),
    Gap(GapRow),
    Group,
    Stream(Arc<str>),
}

impl Target {
    /// The rows that there are. The group's own counts once there are leases: a fleet that loses it
    /// before would begin twice, each time from another moment.
    fn all(view: &View) -> Vec<Self> {
        let leases = view.leases.keys().cloned().map(Self::Lease);
        let workers = view.workers.keys().cloned().map(Self::Worker);
        let gaps = view.gaps.iter().cloned().map(Self::Gap);
        let group = view.group.as_ref().filter(|_| !view.leases.is_empty());
        let group = group.map(|_| Self::Group);
        let streams = view.streams.keys().cloned().map(Self::Stream);
        let all = leases.chain(workers).chain(gaps).chain(group);
        all.chain(streams).collect()
    }

    /// Takes the row away. Answers its key, if the fleet heals such a row when it is malformed.
    fn remove(&self, view: &mut View) -> Option<String> {
        match self {
            Self::Lease(shard) => {
                view.leases.remove(shard);
                Some(lease_key(shard))
            }
            Self::Worker(name) => {
                view.workers.remove(name);
                Some(worker_key(name))
            }
            // A gap is reported once. A row that cannot be read counts as missing.
            Self::Gap(gap) => {
                view.gaps.retain(|other| other != gap);
                None
            }
            Self::Group => {
                view.group = None;
                Some(GROUP_ROW.to_owned())
            }
            Self::Stream(label) => {
                view.streams.remove(label);
                None
            }
        }
    }

    fn count(&self, world: &World) {
        world.count(match self {
            Self::Lease(_) => "leases deleted or damaged",
            Self::Worker(_) => "worker rows deleted or damaged",
            Self::Gap(_) => "gap rows deleted",
            Self::Group => "group rows deleted or damaged",
            Self::Stream(_) => "stream rows deleted",
        });
    }
}

/// Deletes a row, or damages it.
pub(super) fn strike(world: &World) {
    let targets = Target::all(&world.table.snapshot());
    let (target, damage) = world.with_rng(|rng, _| (rng.choice(&targets), rng.u32(..3) == 0));
    let Some(target) = target else {
        return;
    };
    let mut nothing = false;
    world.table.tamper(|view: &mut View| {
        let key = target.remove(view).filter(|_| damage);
        view.unreadable.extend(key.map(|row| Unreadable {
            row,
            why: Unfit::Malformed {
                what: "by the simulation".to_owned(),
            },
        }));
        nothing = view.group.is_none() && view.leases.is_empty() && view.unreadable.is_empty();
    });
    target.count(world);
    world.witnesses(|witness| match target {
        Target::Lease(shard) => witness.tampered(shard),
        Target::Gap(gap) => witness.gap_deleted(gap),
        Target::Stream(label) => witness.stream_deleted(label),
        Target::Worker(_) | Target::Group => {}
    });
    if nothing {
        world.witnesses(Witness::forgotten);
    }
    world.table_changed();
}
