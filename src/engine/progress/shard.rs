//! What a shard task reports about itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Stamp;
use crate::core::shard::ShardId;
use crate::engine::settings::Timing;

/// What a shard task knows each time its loop runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoopTurn {
    /// When the oldest unfinished record that was read was committed.
    pub oldest: Option<SystemTime>,
    /// When the shard was last read to its end with everything finished.
    pub caught_up_at: Option<SystemTime>,
    /// No unfinished record was committed before this.
    pub complete_until: Option<SystemTime>,
    pub waiting: usize,
    pub in_hand: usize,
    /// A record could start, but is not allowed to yet.
    pub held_back: bool,
}

/// The shards that are being read.
#[derive(Debug)]
pub(super) struct Boards {
    origin: Instant,
    by_shard: Mutex<BTreeMap<ShardId, Arc<Board>>>,
}

impl Default for Boards {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            by_shard: Mutex::default(),
        }
    }
}

impl Boards {
    /// Reports a shard as being read, for as long as the returned value lives.
    pub fn reads(self: &Arc<Self>, shard: &ShardId) -> Reading {
        let board = Arc::new(Board::new(self.origin));
        let mut shards = self.by_shard.lock().unwrap_or_else(PoisonError::into_inner);
        shards.insert(shard.clone(), board.clone());
        drop(shards);
        Reading {
            boards: self.clone(),
            shard: shard.clone(),
            board,
        }
    }

    /// The shards now: all of each, or what one of the worker's effects has in it.
    pub fn now(&self, now: SystemTime, timing: &Timing, effect: Option<usize>) -> Vec<ShardNow> {
        let shards = self.by_shard.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(id, board): (&ShardId, &Arc<Board>)| {
            board.now(id.clone(), now, self.origin, timing, effect)
        };
        shards.iter().map(of).collect()
    }
}

/// A shard that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    boards: Arc<Boards>,
    shard: ShardId,
    board: Arc<Board>,
}

impl Reading {
    /// Its task's loop has run. `effects`: the same for each of the worker's effects.
    pub fn turned(&self, shard: LoopTurn, effects: impl Iterator<Item = LoopTurn>) {
        self.board.set(self.boards.origin, shard, effects);
    }

    /// It has stopped at a gap.
    pub fn halt(&self) {
        self.board.halt();
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let shards = &self.boards.by_shard;
        let mut shards = shards.lock().unwrap_or_else(PoisonError::into_inner);
        // Another task may be reading it by now.
        let mine = shards.get(&self.shard);
        if mine.is_some_and(|mine| Arc::ptr_eq(mine, &self.board)) {
            shards.remove(&self.shard);
        }
    }
}

/// The last report of a shard task: about the shard, and about each of the worker's effects.
#[derive(Debug, Default)]
struct Turns {
    shard: LoopTurn,
    effects: Vec<LoopTurn>,
}

/// Where a shard task records its last report.
#[derive(Debug)]
struct Board {
    began: Instant,
    turned: Stamp,
    turns: Mutex<Turns>,
    halted: AtomicBool,
}

/// A shard that a consumer reads, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardNow {
    /// The shard.
    pub shard: ShardId,
    /// How long ago the oldest unfinished record was committed; zero if the shard is read to its end.
    /// Unread records count from the last time up to which everything was finished. `None`: not known
    /// yet.
    pub lag: Option<Duration>,
    /// How long until that record leaves the stream; the stream's full retention if the shard is read
    /// to its end.
    pub until_trim: Option<Duration>,
    /// Records that were read and are waiting.
    pub waiting: u64,
    /// Records that are being handled.
    pub in_hand: u64,
    /// A record could start, but its dependency is down, or the limit of running records is reached.
    pub held_back: bool,
    /// How long ago the task's loop last ran. It runs at least once in a lease duration.
    pub turned: Duration,
    /// Reading stopped at a gap ([`crate::engine::settings::OnGap::Halt`]).
    pub halted: bool,
}

impl ShardNow {
    /// What a Lambda event shows about its shard: the age of its first unfinished record.
    pub fn of_event(lag: Duration, retention: Duration) -> Self {
        Self {
            shard: ShardId::new("lambda"),
            lag: Some(lag),
            until_trim: Some(retention.saturating_sub(lag)),
            waiting: 0,
            in_hand: 0,
            held_back: false,
            turned: Duration::ZERO,
            halted: false,
        }
    }
}

impl Board {
    pub fn new(origin: Instant) -> Self {
        let it = Self {
            began: Instant::now(),
            turned: Stamp::default(),
            turns: Mutex::default(),
            halted: AtomicBool::new(false),
        };
        it.turned.set(origin);
        it
    }

    fn set(&self, origin: Instant, shard: LoopTurn, effects: impl Iterator<Item = LoopTurn>) {
        self.turned.set(origin);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.shard = shard;
        turns.effects.clear();
        turns.effects.extend(effects);
    }

    pub fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
    }

    pub fn now(
        &self,
        shard: ShardId,
        now: SystemTime,
        origin: Instant,
        timing: &Timing,
        effect: Option<usize>,
    ) -> ShardNow {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let of_effect = effect.and_then(|effect| turns.effects.get(effect));
        let turn = *of_effect.unwrap_or(&turns.shard);
        drop(turns);
        let lag = lag(&turn, self.began.elapsed(), now, fresh(timing));
        ShardNow {
            shard,
            lag,
            until_trim: lag.map(|lag| timing.retention.saturating_sub(lag)),
            waiting: turn.waiting as u64,
            in_hand: turn.in_hand as u64,
            held_back: turn.held_back,
            turned: self.turned.age(origin).unwrap_or_default(),
            halted: self.halted.load(Ordering::Relaxed),
        }
    }
}

/// A shard without records is read to its end about every five pauses, each of `idle_max`. A shard that
/// reached its end within twice that time, plus some time for the reads, is at its end.
fn fresh(timing: &Timing) -> Duration {
    timing.idle_max * 10 + Duration::from_secs(10)
}

/// How far behind the table a shard is that has been read for this long.
fn lag(turn: &LoopTurn, read_for: Duration, now: SystemTime, fresh: Duration) -> Option<Duration> {
    let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
    if let Some(oldest) = turn.oldest {
        return Some(age(oldest));
    }
    if turn.caught_up_at.is_some_and(|at| age(at) <= fresh) {
        return Some(Duration::ZERO);
    }
    // The last owner's report may be old, and the first reads may still be in progress.
    let since = turn.complete_until.filter(|_| read_for > fresh);
    since.map(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(20);

    fn seconds(n: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(n)
    }

    fn lag_of(oldest: Option<u64>, caught_up: Option<u64>, read_for: u64) -> Option<u64> {
        let turn = LoopTurn {
            oldest: oldest.map(seconds),
            caught_up_at: caught_up.map(seconds),
            complete_until: Some(seconds(500)),
            ..LoopTurn::default()
        };
        let lag = lag(&turn, Duration::from_secs(read_for), seconds(1_000), FRESH);
        lag.map(|lag| lag.as_secs())
    }

    #[test]
    fn the_lag_is_the_age_of_what_is_unfinished_and_nothing_at_the_end() {
        assert_eq!(lag_of(Some(900), Some(999), 100), Some(100));
        assert_eq!(lag_of(None, Some(985), 100), Some(0));
    }

    #[test]
    fn a_shard_that_cannot_be_read_falls_behind_although_nothing_of_it_waits() {
        assert_eq!(lag_of(None, Some(900), 100), Some(500));
        assert_eq!(lag_of(None, None, 100), Some(500));
        assert_eq!(
            lag_of(None, None, 1),
            None,
            "the first read may be in progress"
        );
    }
}
