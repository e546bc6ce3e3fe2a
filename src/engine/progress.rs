//! What a consumer has done and is doing now, for monitoring.
//!
//! Its loops record here what they see each time they run. No decision depends on it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::core::group::{EffectName, GroupTable};
use crate::core::shard::ShardId;
use crate::engine::budget::Budget;
use crate::engine::dependency::Down;
use crate::engine::settings::Timing;
use crate::stores::clock::Clock;
use crate::stores::leases::{Reach, View};

mod beats;
mod counters;
mod effect;
mod histogram;
mod ready;
mod shard;

pub use beats::Beats;
pub use counters::Counters;
pub use effect::EffectProgress;
pub use histogram::{BOUNDS, BUCKETS, BucketCounts, Buckets, Histogram};
pub use ready::{HeldBack, NotReady};
use shard::Boards;
pub use shard::ShardNow;
pub(crate) use shard::{LoopTurn, Reading};

/// A loop that has not run for this many lease durations is stuck. It normally runs several times in
/// one.
pub(crate) const STUCK: u32 = 3;

/// What a consumer is doing now. It stays valid while the consumer runs and afterwards.
#[derive(Debug)]
pub struct Progress {
    at: GroupTable,
    pub(crate) counters: Arc<Counters>,
    effects: Vec<Arc<EffectProgress>>,
    origin: Instant,
    run: OnceLock<Run>,
    standing: Mutex<Standing>,
    turned: Stamp,
    beaten: Stamp,
    shards: Arc<Boards>,
    seen: Mutex<Option<SeenRows>>,
    not_reading: Mutex<Option<String>>,
    lister: AtomicBool,
    beats: Mutex<Beats>,
    calls: Mutex<CallErrors>,
}

/// The results of the calls that a worker depends on.
#[derive(Debug, Default)]
struct CallErrors {
    /// Why the last heartbeat was not accepted.
    heartbeat: Option<String>,
    /// Whether the stream ever answered.
    stream_answered: bool,
    /// Why the stream last did not answer.
    stream: Option<String>,
}

/// What is known once the consumer runs.
#[derive(Debug)]
pub(crate) struct Run {
    pub clock: Clock,
    pub timing: Timing,
    pub budget: Budget,
    pub worker: String,
    pub began: Instant,
}

/// A worker's state in its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Its consumer is not running yet.
    #[default]
    Idle,
    /// It has not written its first heartbeat yet.
    Joining,
    /// It is a member.
    Member,
    /// It drains and hands over.
    Leaving,
    /// It has left.
    Left,
}

/// All rows of the group in the lease table, as the worker last saw them.
#[derive(Debug, Clone)]
pub struct SeenRows {
    /// The rows.
    pub view: Arc<View>,
    /// When they were read.
    pub at: SystemTime,
}

/// A moment, in milliseconds since the origin.
#[derive(Debug, Default)]
struct Stamp(AtomicU64);

impl Stamp {
    fn set(&self, origin: Instant) {
        let millis = u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis + 1, Ordering::Relaxed);
    }

    /// How long ago it was set.
    fn age(&self, origin: Instant) -> Option<Duration> {
        let millis = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            origin
                .elapsed()
                .saturating_sub(Duration::from_millis(millis)),
        )
    }
}

impl Progress {
    /// The progress of these effects. What the fleet does is counted with the first of them.
    pub(crate) fn new(at: GroupTable, effects: Vec<Arc<EffectProgress>>) -> Self {
        let first = effects.first();
        Self {
            at,
            counters: first.map_or_else(Arc::default, |first| first.counters.clone()),
            effects,
            origin: Instant::now(),
            run: OnceLock::new(),
            standing: Mutex::default(),
            turned: Stamp::default(),
            beaten: Stamp::default(),
            shards: Arc::default(),
            seen: Mutex::default(),
            beats: Mutex::default(),
            calls: Mutex::default(),
            not_reading: Mutex::default(),
            lister: AtomicBool::new(false),
        }
    }

    /// The group, and the table that it reads.
    pub fn at(&self) -> &GroupTable {
        &self.at
    }

    /// What the first effect and the fleet have done so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The worker's name and incarnation, once it runs.
    pub fn worker(&self) -> Option<&str> {
        self.run.get().map(|run| &*run.worker)
    }

    /// Its intervals and timeouts, once it runs.
    pub fn timing(&self) -> Option<&Timing> {
        self.run.get().map(|run| &run.timing)
    }

    /// Its memory budget, once it runs.
    pub fn budget(&self) -> Option<&Budget> {
        self.run.get().map(|run| &run.budget)
    }

    /// Its effects.
    pub fn effects(&self) -> &[Arc<EffectProgress>] {
        &self.effects
    }

    /// The dependency of one of its handlers that is down, for the longest time if there are several.
    pub fn down(&self) -> Option<Down> {
        let down = self.effects.iter().filter_map(|effect| effect.down());
        down.max_by_key(|down| down.lasts)
    }

    /// The time by the service's clock, once it runs.
    pub fn now(&self) -> Option<SystemTime> {
        self.run.get().map(|run| run.clock.now())
    }

    /// The worker's state in its fleet.
    pub fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the fleet's loop last ran. It runs several times in a lease duration, whatever the
    /// lease table answers. `None`: it has not begun.
    pub fn turned(&self) -> Option<Duration> {
        self.turned.age(self.origin)
    }

    /// How long ago a heartbeat was last accepted.
    pub fn beaten(&self) -> Option<Duration> {
        self.beaten.age(self.origin)
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.run
            .get()
            .map_or(Duration::ZERO, |run| run.began.elapsed())
    }

    /// Why the last heartbeat was not accepted; `None`: it was, or there was none yet.
    pub fn heartbeat_error(&self) -> Option<String> {
        self.calls().heartbeat.clone()
    }

    /// Whether the stream has answered this worker at least once.
    pub fn has_reached_the_stream(&self) -> bool {
        self.calls().stream_answered
    }

    /// Why the stream last did not answer; `None`: it did, or was not asked yet.
    pub fn stream_error(&self) -> Option<String> {
        self.calls().stream.clone()
    }

    /// Which heartbeats move, as this worker sees them.
    pub fn beats(&self) -> Beats {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.clone()
    }

    pub(crate) fn heartbeat_failed(&self, why: String) {
        self.calls().heartbeat = Some(why);
    }

    pub(crate) fn stream_answered(&self) {
        let mut calls = self.calls();
        calls.stream_answered = true;
        calls.stream = None;
    }

    pub(crate) fn stream_failed(&self, why: String) {
        self.calls().stream = Some(why);
    }

    fn calls(&self) -> MutexGuard<'_, CallErrors> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of the lease table, as last seen.
    pub fn seen(&self) -> Option<SeenRows> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// The shards that it is reading.
    pub fn shards(&self) -> Vec<ShardNow> {
        let Some(run) = self.run.get() else {
            return Vec::new();
        };
        self.shards.now(run.clock.now(), &run.timing, None)
    }

    /// The shards that it is reading, with what one of its effects has in each.
    pub fn shards_of(&self, effect: &EffectName) -> Vec<ShardNow> {
        let mut effects = self.effects.iter();
        let index = effects.position(|known| known.name() == effect);
        match (index, self.run.get()) {
            (Some(_), Some(run)) => self.shards.now(run.clock.now(), &run.timing, index),
            _ => Vec::new(),
        }
    }

    /// A shard whose task makes no progress, for example because a handler blocks its thread.
    pub fn stuck_shard(&self) -> Option<ShardNow> {
        let timing = self.timing()?;
        // A draining task waits only for running records.
        let draining = timing.handover_timeout + timing.lease_duration;
        let patience = draining.max(timing.lease_duration * STUCK);
        let mut shards = self.shards().into_iter();
        shards.find(|shard| !shard.halted && shard.turned > patience)
    }

    pub(crate) fn runs(&self, run: Run) {
        // A consumer runs only once.
        let _ = self.run.set(run);
        self.stands(Standing::Joining);
    }

    pub(crate) fn stands(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The fleet's loop has run.
    pub(crate) fn turn(&self) {
        self.turned.set(self.origin);
    }

    /// A heartbeat was accepted.
    pub(crate) fn beat(&self) {
        Counters::add(&self.counters.heartbeats);
        self.beaten.set(self.origin);
        self.calls().heartbeat = None;
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *standing == Standing::Joining {
            *standing = Standing::Member;
        }
    }

    /// Why the table's changes are not read, such as a disabled stream.
    pub fn not_reading(&self) -> Option<String> {
        let why_not = self
            .not_reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        why_not.clone()
    }

    /// Whether this worker lists the stream, and so reports for the whole group.
    pub fn is_lister(&self) -> bool {
        self.standing() == Standing::Member && self.lister.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lister(&self, is: bool) {
        self.lister.store(is, Ordering::Relaxed);
    }

    /// Returns the previous value.
    pub(crate) fn set_not_reading(&self, why: Option<String>) -> Option<String> {
        let mut why_not = self
            .not_reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut why_not, why)
    }

    pub(crate) fn saw(&self, view: &Arc<View>, reach: Reach, at: SystemTime) {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.see(view, Instant::now());
        drop(beats);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *seen {
            Some(seen) if reach == Reach::Workers => {
                Arc::make_mut(&mut seen.view).update_workers(view);
                seen.at = at;
            }
            seen => {
                let view = view.clone();
                *seen = Some(SeenRows { view, at });
            }
        }
    }

    /// Reports a shard as being read, for as long as the returned value lives.
    pub(crate) fn reads(&self, shard: &ShardId) -> Reading {
        self.shards.reads(shard)
    }
}
