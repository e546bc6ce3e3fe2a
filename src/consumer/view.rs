//! What the rows that a look saw mean to the decisions.

use std::time::Duration;

use tracing::warn;

use crate::decide::lease::{Peer, Row, Sight};
use crate::decide::shard::{Shard, ShardId, Standing, Tree};
use crate::leases::{Checkpoint, Epoch, Incarnation, Unfit, View};
use crate::record::Position;

/// What membership needs of a view.
pub(super) fn sight_of(view: &View, began: Duration, consistent: bool) -> Sight {
    let workers = view.workers.values().map(|row| {
        let peer = Peer {
            beat: row.beat,
            draining: row.draining,
            reads: row.reads,
            unable_to_list: row.unable_to_list,
            patience: row.lease_duration,
        };
        (row.incarnation.clone(), peer)
    });
    // A worker of a newer version: it is not ours to judge, and nothing is given to it.
    let strangers = view
        .unreadable
        .iter()
        .filter(|row| matches!(row.why, Unfit::Newer { .. }));
    let strangers = strangers
        .filter_map(|row| row.row.strip_prefix("worker#"))
        .map(|name| {
            let peer = Peer {
                beat: 0,
                draining: true,
                reads: u32::MAX,
                unable_to_list: true,
                patience: Duration::MAX,
            };
            (Incarnation::from_row(name), peer)
        });
    let leases = view.leases.values().map(|row| {
        let seen = Row {
            owner: row.owner.clone(),
            epoch: row.epoch,
            format: row.format,
            ended: row.ended(),
        };
        (row.shard.clone(), seen)
    });
    let newer = view.unreadable.iter().filter_map(|row| match row.why {
        Unfit::Newer { format } => Some(format),
        Unfit::Malformed { .. } => None,
    });
    let formats = view.leases.values().map(|row| row.format).chain(newer);
    Sight {
        newest_format: formats.max().unwrap_or(0),
        workers: workers.chain(strangers).collect(),
        leases: leases.collect(),
        consistent,
        began,
    }
}

pub(super) fn tree_of(listed: Vec<Shard>, view: &View) -> Tree {
    let rows = view.leases.values().map(|row| {
        let standing = match &row.checkpoint {
            Checkpoint::At(Position::Horizon) => Standing::AtHorizon,
            Checkpoint::At(Position::After(_)) => Standing::Reading,
            Checkpoint::End { children } => Standing::Ended(children.clone()),
        };
        (row.shard.clone(), row.parent.clone(), standing)
    });
    let unreadable = view
        .unreadable
        .iter()
        .filter_map(|row| row.row.strip_prefix("shard#"))
        .map(|id| (ShardId::new(id), None, Standing::Unknown));
    Tree::new(listed, rows.chain(unreadable))
}

/// The epoch above which a new row of this shard begins: what the owners of earlier shards wrote to
/// the same items is older than what the owners of this one write. Those are its parent, and every
/// shard of the earlier streams; of a shard whose parent has no row any shard may be an ancestor.
pub(super) fn epoch_before(view: &View, shard: &Shard) -> Option<Epoch> {
    let parent = shard.parent.as_ref();
    let is_orphan = parent.is_some_and(|parent| !view.leases.contains_key(parent));
    let label = shard.id.label();
    let is_before =
        |id: &ShardId| Some(id) == parent || id.label() < label || is_orphan && id.label() == label;
    let before = view.leases.values().filter(|row| is_before(&row.shard));
    before.map(|row| row.epoch).max()
}

/// The shards whose rows are malformed. Rows of a newer format are not ours to heal.
pub(super) fn damaged_shards(view: &View, listed: &[Shard]) -> Vec<Shard> {
    let damaged = view.unreadable.iter().filter_map(|row| match &row.why {
        Unfit::Malformed { what } => {
            warn!(row = row.row, what, "a row of the lease table is malformed");
            row.row.strip_prefix("shard#").map(ShardId::new)
        }
        Unfit::Newer { .. } => None,
    });
    let with_parent = |id: ShardId| {
        let listed = listed.iter().find(|shard| shard.id == id).cloned();
        listed.unwrap_or(Shard { id, parent: None })
    };
    damaged.map(with_parent).collect()
}

/// The workers whose rows are malformed: each notices at its next heartbeat and joins anew.
pub(super) fn damaged_workers(view: &View) -> Vec<(Incarnation, Option<u64>)> {
    let damaged = view
        .unreadable
        .iter()
        .filter(|row| matches!(row.why, Unfit::Malformed { .. }));
    let names = damaged.filter_map(|row| row.row.strip_prefix("worker#"));
    names
        .map(|name| (Incarnation::from_row(name), None))
        .collect()
}
