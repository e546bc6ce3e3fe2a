//! The meaning of the rows of one look.
//!
//! Pure: the caller passes the rows, the time and what was seen of the heartbeats. A moving heartbeat
//! shows that a worker is alive; the clocks of two machines are never compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::stream::{
    EffectStatus, Gap, ResolvedGap, ShardState, ShardStatus, StatusVerdict, StreamStatus,
    UnreadableRow, WorkerStatus,
};
use crate::core::group::{EffectName, GroupTable};
use crate::core::rate::faded;
use crate::core::record::{Position, SequenceNumber};
use crate::engine::progress::Beats;
use crate::stores::leases::{Checkpoint, GapRow, LeaseRow, Unfit, Unreadable, View, WorkerRow};

impl StreamStatus {
    /// The status from the rows of a group at this time. `beats`: what was seen of the heartbeats;
    /// `retention`: how long the stream keeps a record.
    pub fn new(
        at: &GroupTable,
        view: &View,
        beats: &Beats,
        now: SystemTime,
        retention: Duration,
    ) -> Self {
        let workers = view.workers.values();
        let workers: Vec<_> = workers.map(|row| worker(row, view, beats)).collect();
        let alive = |row: &LeaseRow| {
            let owner = row.owner.as_ref()?;
            let of_owner = |worker: &&WorkerStatus| worker.worker == owner.as_str();
            Some(workers.iter().find(of_owner)?.alive.unwrap_or(true))
        };
        let turns = |row: &LeaseRow| {
            let owner = row.owner.as_ref().and_then(|owner| view.workers.get(owner));
            owner.and_then(|owner| owner.stuck.as_ref()) != Some(&row.shard)
        };
        let shards = in_order_of_descent(view).into_iter();
        let shards = shards
            .map(|row| shard(row, (alive(row), turns(row)), (now, retention)))
            .collect();
        let mut report = Self {
            group_table: at.to_string(),
            group: at.group().to_string(),
            effects: effects(view, &workers),
            table: at.table_name().to_owned(),
            verdict: StatusVerdict::Well,
            shards,
            workers,
            gaps: view.gaps.iter().map(Gap::from).collect(),
            unreadable: view.unreadable.iter().map(unreadable).collect(),
            parked_keys: None,
            dead_letters: None,
        };
        if view.group.is_none() && view.leases.is_empty() {
            report.verdict = StatusVerdict::Unknown;
        }
        report
    }
}

/// The effects of the group, with the workers that perform them.
fn effects(view: &View, workers: &[WorkerStatus]) -> Vec<EffectStatus> {
    let lives = |row: &&WorkerRow| {
        let of_row = |worker: &&WorkerStatus| worker.worker == row.incarnation.as_str();
        let worker = workers.iter().find(of_row);
        worker.is_some_and(|worker| worker.alive != Some(false))
    };
    let names = view.group.iter().flat_map(|group| group.effects.names());
    let of_name = |name: &EffectName| EffectStatus {
        name: name.to_string(),
        workers: {
            let live = view.workers.values().filter(lives);
            live.filter(|row| row.effects.contains(name)).count()
        },
    };
    names.map(of_name).collect()
}

fn worker(row: &WorkerRow, view: &View, beats: &Beats) -> WorkerStatus {
    let now = Instant::now();
    let quiet = beats.quiet(&row.incarnation, now);
    let owned =
        |lease: &&LeaseRow| !lease.ended() && lease.owner.as_ref() == Some(&row.incarnation);
    WorkerStatus {
        worker: row.incarnation.to_string(),
        alive: beats.lives(row, now),
        heartbeat_age_seconds: quiet.map(|quiet| (quiet.as_secs_f64() * 10.0).round() / 10.0),
        draining: row.draining,
        version: row.version.clone(),
        zone: row.zone.clone(),
        status_address: row.status_address.clone(),
        trouble: row.trouble.clone(),
        stuck_shard: row.stuck.as_ref().map(ToString::to_string),
        shards: view.leases.values().filter(owned).count(),
    }
}

/// Each shard after the one that it continues.
fn in_order_of_descent(view: &View) -> Vec<&LeaseRow> {
    let known = |row: &&LeaseRow| {
        let parent = row.parent.as_ref();
        parent.is_some_and(|parent| view.leases.contains_key(parent))
    };
    let mut children: BTreeMap<_, Vec<&LeaseRow>> = BTreeMap::new();
    for row in view.leases.values().filter(known) {
        children.entry(row.parent.as_ref()).or_default().push(row);
    }
    let mut next: Vec<_> = view.leases.values().filter(|row| !known(row)).collect();
    next.reverse();
    let (mut ordered, mut placed) = (Vec::new(), BTreeSet::new());
    while let Some(row) = next.pop() {
        if placed.insert(&row.shard) {
            ordered.push(row);
            next.extend(
                children
                    .remove(&Some(&row.shard))
                    .unwrap_or_default()
                    .into_iter()
                    .rev(),
            );
        }
    }
    // Rows that name each other as parents are not a tree, and are shown anyway.
    ordered.extend(
        view.leases
            .values()
            .filter(|row| !placed.contains(&row.shard)),
    );
    ordered
}

/// `alive`: whether its owner, if any, is alive; `turns`: whether the owner's task makes progress.
fn shard(
    row: &LeaseRow,
    (alive, turns): (Option<bool>, bool),
    (now, retention): (SystemTime, Duration),
) -> ShardStatus {
    let state = match (&row.checkpoint, &row.owner, alive) {
        (Checkpoint::End { .. }, ..) => ShardState::Ended,
        (_, None, _) => ShardState::Free,
        (_, Some(_), Some(true)) => ShardState::Reading,
        (_, Some(_), _) => ShardState::Orphaned,
    };
    let lag = lag(row, state == ShardState::Reading && turns, now);
    let age = row
        .report
        .reported_at
        .map_or(Duration::ZERO, |at| since(at, now));
    let (checkpoint, children) = match &row.checkpoint {
        Checkpoint::At(Position::Horizon) => ("TRIM_HORIZON", &[][..]),
        Checkpoint::At(Position::After(last)) => (last.as_str(), &[][..]),
        Checkpoint::End { children } => ("SHARD_END", &children[..]),
    };
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let per_minute = row.report.per_minute as f64;
    ShardStatus {
        shard: row.shard.to_string(),
        parent: row.parent.as_ref().map(ToString::to_string),
        children: children.iter().map(ToString::to_string).collect(),
        state,
        owner: row.owner.as_ref().map(ToString::to_string),
        epoch: row.epoch,
        checkpoint: checkpoint.to_owned(),
        lag_seconds: lag.map(|lag| lag.as_secs_f64()),
        until_trim_seconds: lag.map(|lag| retention.saturating_sub(lag).as_secs_f64()),
        per_minute: (faded(per_minute, age) * 10.0).round() / 10.0,
        last_error: row.report.last_error.clone().filter(|_| !row.ended()),
    }
}

/// The age of the oldest unfinished record, or its upper bound.
///
/// A live owner whose task makes progress reports waiting and unreadable records soon, so its silence
/// means that everything is finished. If nobody reads, records may have come since everything was
/// finished.
fn lag(row: &LeaseRow, is_read: bool, now: SystemTime) -> Option<Duration> {
    let report = &row.report;
    let speaks = is_read && report.reported_at.is_some();
    let oldest = match report.oldest_waiting() {
        _ if row.ended() => return None,
        Some(waiting) => waiting,
        None if speaks && report.last_error.is_none() => return Some(Duration::ZERO),
        None => report.complete_until()?,
    };
    Some(since(oldest, now))
}

impl From<&GapRow> for Gap {
    fn from(row: &GapRow) -> Self {
        let place = |at: &Option<SequenceNumber>| at.as_ref().map(|at| at.as_str().to_owned());
        Self {
            shard: row.shard.to_string(),
            last_handled: place(&row.last_handled),
            last_handled_time: row.last_handled_time,
            first_after: place(&row.first_after),
            detected: row.detected,
            resolved: row.resolved.as_ref().map(|one| ResolvedGap {
                by: one.by.clone(),
                at: one.at,
                note: one.note.clone(),
            }),
        }
    }
}

fn unreadable(row: &Unreadable) -> UnreadableRow {
    let why = match &row.why {
        Unfit::Newer { format } => {
            format!("it was written by a newer build (format {format}): update this one")
        }
        Unfit::Malformed { what } => format!("it is damaged: {what}"),
    };
    let row = row.row.clone();
    UnreadableRow { row, why }
}

fn since(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}
