//! What the trace of a run says of the lease table.

use std::fmt::Write as _;

use crate::core::shard::ShardId;
use crate::stores::leases::Incarnation;
use crate::stores::leases::{LeaseRow, View};

/// Writes down which rows came, changed and went.
pub(super) fn describe_change(trace: &mut String, at: f64, before: &View, now: &View) {
    let mut note = |what: std::fmt::Arguments<'_>| {
        let _ = writeln!(trace, "{at:9.3} table: {what}");
    };
    if before.group != now.group {
        note(format_args!("the group's row is {:?}", now.group));
    }
    for (label, row) in &now.streams {
        if before.streams.get(label) != Some(row) {
            let (stage, newest_at) = (row.stage, row.newest_at);
            note(format_args!(
                "stream {label} is {stage:?}, the newest at {newest_at:?}"
            ));
        }
    }
    for label in before.streams.keys() {
        if !now.streams.contains_key(label) {
            note(format_args!("stream {label} has no row any more"));
        }
    }
    let changed = |(shard, row): &(&ShardId, &LeaseRow)| before.leases.get(*shard) != Some(*row);
    for (shard, row) in now.leases.iter().filter(changed) {
        let owner = row.owner.as_ref().map_or("nobody", Incarnation::as_str);
        let (epoch, checkpoint) = (row.epoch, &row.checkpoint);
        note(format_args!(
            "{shard} is {owner}'s, epoch {epoch}, {checkpoint:?}"
        ));
    }
    for shard in before.leases.keys() {
        if !now.leases.contains_key(shard) {
            note(format_args!("{shard} is gone"));
        }
    }
    let beat = |name| before.workers.get(name).map(|row| row.beat);
    for (name, row) in &now.workers {
        if beat(name) != Some(row.beat) {
            note(format_args!("{name} beats {}", row.beat));
        }
    }
    for name in before.workers.keys() {
        if !now.workers.contains_key(name) {
            note(format_args!("{name} is gone"));
        }
    }
    for gap in now.gaps.iter().filter(|gap| !before.gaps.contains(gap)) {
        note(format_args!("{gap:?}"));
    }
    for row in &now.unreadable {
        note(format_args!("{} cannot be read", row.row));
    }
}
