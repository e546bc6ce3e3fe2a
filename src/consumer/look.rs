//! Looks at the lease table: when, and what they change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::calls::Looked;
use super::complain;
use super::fleet::Fleet;
use super::view::sight_of;
use crate::decide::lease::Change;
use crate::decide::shard::ShardId;
use crate::gate::left_out;
use crate::handler::RecordHandler;
use crate::leases::{Consistency, LeaseStore, Unfit, View};
use crate::source::StreamSource;

/// So many rows are looked at every `look_interval`; more rows, less often, so that looks cost no
/// more than heartbeats (a write costs as much as five reads, and rows are some 250 bytes).
const ROWS_PER_LOOK: usize = 80;

/// After so many lease durations without a look at the lease table a worker stops beating.
const BLIND_AFTER: u32 = 2;

/// When to look.
pub(super) struct Look {
    in_flight: bool,
    due: Instant,
    strong_due: Instant,
    /// When the last consistent one began that was answered.
    seen_at: Instant,
    /// How many in a row failed.
    failures: u32,
    /// The rows of a newer version that were told of.
    left_alone: BTreeSet<String>,
}

impl Look {
    pub fn new(now: Instant) -> Self {
        Self {
            in_flight: false,
            due: now,
            strong_due: now,
            seen_at: now,
            failures: 0,
            left_alone: BTreeSet::new(),
        }
    }

    /// When the next one begins, if nothing else happens. `None`: not before this one has ended.
    pub fn due(&self) -> Option<Instant> {
        (!self.in_flight).then_some(self.due)
    }

    /// Says once of each row that it was written by a newer version.
    fn tell_of_newer(&mut self, view: &View) {
        let rows = view.unreadable.iter();
        let newer = rows.filter_map(|row| match row.why {
            Unfit::Newer { format } => Some((&row.row, format)),
            Unfit::Malformed { .. } => None,
        });
        let now: BTreeSet<_> = newer
            .inspect(|(row, format)| {
                if !self.left_alone.contains(*row) {
                    warn!(
                        row,
                        format,
                        "a row was written by a newer version and is left alone; a worker of that \
                         version must take it on"
                    );
                }
            })
            .map(|(row, _)| row.clone())
            .collect();
        self.left_alone = now;
    }
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Fleet<S, L, H> {
    pub(super) fn begin_look(&mut self, now: Instant) {
        if self.look.in_flight || self.look.due > now {
            return;
        }
        let generation = self.trust.beating();
        let last = self.empty_since.is_some();
        let strong = last || self.look.strong_due <= now || self.trust.tenure().is_none();
        let consistency = if strong {
            Consistency::Strong
        } else {
            Consistency::Eventual
        };
        self.look.in_flight = true;
        self.look.due = now + self.look_interval();
        self.calls.push(self.engine.look(consistency, generation));
    }

    fn look_interval(&self) -> Duration {
        let timing = &self.engine.settings.timing;
        let rows = self.sight.leases.len() + self.sight.workers.len();
        let many = u32::try_from(rows / ROWS_PER_LOOK).unwrap_or(u32::MAX);
        // Trust lives on looks, too: they must come several times in its window.
        timing
            .look_interval
            .saturating_mul(many.max(1))
            .min(timing.lease_duration / 4)
    }

    /// Whether the lease table could not be seen for so long that others had better go on.
    pub(super) fn is_blind(&self) -> bool {
        self.look.seen_at.elapsed() > self.engine.settings.timing.lease_duration * BLIND_AFTER
    }

    /// The shards whose rows were ended when they were last seen.
    pub fn ended_shards(&self) -> BTreeSet<ShardId> {
        let ended = self.rows.values().filter(|row| row.ended());
        ended.map(|row| row.shard.clone()).collect()
    }

    pub fn look_now(&mut self) {
        let now = Instant::now();
        self.look.due = now;
        self.look.strong_due = now;
    }

    pub(super) fn looked(&mut self, looked: Looked) {
        self.look.in_flight = false;
        let view = match looked.result {
            Ok(view) => Arc::new(view),
            Err(error) => {
                complain("a look at the lease table", &error);
                self.look.failures += 1;
                self.look.due = self.again_after(self.look.failures);
                return;
            }
        };
        self.look.failures = 0;
        if looked.consistency == Consistency::Strong {
            self.look.seen_at = looked.began;
        }
        let at = self.engine.clock.now();
        self.engine.progress.saw(view.clone(), at);
        let strong = looked.consistency == Consistency::Strong;
        let mut valid = looked
            .generation
            .filter(|begun| *begun == self.trust.generation());
        if left_out!(EarlyReread) {
            valid = self.trust.beating();
        }
        let confirmed = self.trust.tenure().is_some();
        let began = looked.began.duration_since(self.origin);
        self.sight = sight_of(&view, began, strong);
        self.remember(&view, strong);
        self.look.tell_of_newer(&view);
        if let Some(group) = view.group.as_ref().filter(|_| strong) {
            self.compare(group);
        }
        let trusted = valid.is_some() && (strong || confirmed);
        let now = self.now();
        let changes = self.member().see(&self.sight, now, trusted);
        // A death is looked for the moment that it can be known.
        let death = self.member().next_death(now);
        if let Some(death) = death.and_then(|death| self.origin.checked_add(death)) {
            self.look.due = self.look.due.min(death);
        }
        for change in changes {
            if let Change::Lost(shard) = change {
                self.tasks.abandon(&shard);
            }
        }
        if let Some(generation) = valid.filter(|_| strong) {
            let timing = &self.engine.settings.timing;
            self.look.strong_due = looked.began + timing.lease_duration / 5;
            let counts_from = if left_out!(EarlyReread) {
                Instant::now()
            } else {
                looked.began
            };
            if self.trust.seen(generation, counts_from + timing.trust()) {
                self.mind_streams(&view);
                self.tidy(&view);
            }
        }
        self.act();
    }

    /// Keeps the newest row of every shard, for where to start from.
    fn remember(&mut self, view: &View, strong: bool) {
        if strong {
            self.rows.retain(|shard, _| view.leases.contains_key(shard));
        }
        for (shard, row) in &view.leases {
            if strong
                || self
                    .rows
                    .get(shard)
                    .is_none_or(|known| known.epoch <= row.epoch)
            {
                self.rows.insert(shard.clone(), row.clone());
            }
        }
        if self.group_row.is_none() {
            self.group_row.clone_from(&view.group);
        }
    }
}
