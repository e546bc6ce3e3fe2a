//! What a shard task tells of itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Stamp;
use crate::decide::shard::ShardId;
use crate::settings::Timing;

/// What a shard task knows at one turn of its loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// When the oldest record was committed that is read and not settled.
    pub oldest: Option<SystemTime>,
    /// When the shard was last read to its end and everything in it was settled.
    pub caught_up_at: Option<SystemTime>,
    /// Nothing that is still to be settled was committed before this.
    pub complete_until: Option<SystemTime>,
    pub waiting: usize,
    pub in_hand: usize,
    /// A record could start, but may not yet.
    pub held_back: bool,
}

/// Where a shard task tells of its last turn. Times are milliseconds since the epoch; 0 is none.
#[derive(Debug)]
pub(crate) struct Board {
    began: Instant,
    turned: Stamp,
    oldest: AtomicU64,
    caught_up_at: AtomicU64,
    complete_until: AtomicU64,
    waiting: AtomicU64,
    in_hand: AtomicU64,
    held_back: AtomicBool,
    halted: AtomicBool,
}

/// A shard that a consumer reads, at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardNow {
    /// The shard.
    pub shard: ShardId,
    /// How long ago the oldest record was committed that is not settled; zero when the shard is read
    /// to its end. What is not read yet counts from the last time up to which all was settled.
    /// `None`: not known yet.
    pub lag: Option<Duration>,
    /// How long until that record leaves the stream; all of the stream's retention when the shard is
    /// read to its end.
    pub until_trim: Option<Duration>,
    /// Records that were read and wait for their turn.
    pub waiting: u64,
    /// Records that are being handled.
    pub in_hand: u64,
    /// A record could start, but its dependency is down, or as many are in hand as may be.
    pub held_back: bool,
    /// How long ago the task's loop last turned. It does so at least once in a lease's duration.
    pub turned: Duration,
    /// Reading was stopped by a gap ([`crate::settings::OnGap::Halt`]).
    pub halted: bool,
}

impl Board {
    pub fn new(origin: Instant) -> Self {
        let it = Self {
            began: Instant::now(),
            turned: Stamp::default(),
            oldest: AtomicU64::new(0),
            caught_up_at: AtomicU64::new(0),
            complete_until: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            in_hand: AtomicU64::new(0),
            held_back: AtomicBool::new(false),
            halted: AtomicBool::new(false),
        };
        it.turned.set(origin);
        it
    }

    pub fn set(&self, origin: Instant, turn: &Turn) {
        self.turned.set(origin);
        for (place, time) in [
            (&self.oldest, turn.oldest),
            (&self.caught_up_at, turn.caught_up_at),
            (&self.complete_until, turn.complete_until),
        ] {
            place.store(time.map_or(0, millis), Ordering::Relaxed);
        }
        self.waiting.store(turn.waiting as u64, Ordering::Relaxed);
        self.in_hand.store(turn.in_hand as u64, Ordering::Relaxed);
        self.held_back.store(turn.held_back, Ordering::Relaxed);
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
    ) -> ShardNow {
        let time = |place: &AtomicU64| from_millis(place.load(Ordering::Relaxed));
        let known = Known {
            oldest: time(&self.oldest),
            caught_up_at: time(&self.caught_up_at),
            complete_until: time(&self.complete_until),
            read_for: self.began.elapsed(),
        };
        let lag = lag(known, now, fresh(timing));
        ShardNow {
            shard,
            lag,
            until_trim: lag.map(|lag| timing.retention.saturating_sub(lag)),
            waiting: self.waiting.load(Ordering::Relaxed),
            in_hand: self.in_hand.load(Ordering::Relaxed),
            held_back: self.held_back.load(Ordering::Relaxed),
            turned: self.turned.age(origin).unwrap_or_default(),
            halted: self.halted.load(Ordering::Relaxed),
        }
    }
}

/// A time as the task's numbers keep it.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn from_millis(millis: u64) -> Option<SystemTime> {
    (millis > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// A shard without records is read to its end about every five pauses, each of `idle_max`: whoever
/// has been there in twice that time, and a little for the reads, is there.
fn fresh(timing: &Timing) -> Duration {
    timing.idle_max * 10 + Duration::from_secs(10)
}

#[derive(Debug, Clone, Copy)]
struct Known {
    oldest: Option<SystemTime>,
    caught_up_at: Option<SystemTime>,
    complete_until: Option<SystemTime>,
    read_for: Duration,
}

/// How far behind the table a shard is.
fn lag(known: Known, now: SystemTime, fresh: Duration) -> Option<Duration> {
    let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
    if let Some(oldest) = known.oldest {
        return Some(age(oldest));
    }
    if known.caught_up_at.is_some_and(|at| age(at) <= fresh) {
        return Some(Duration::ZERO);
    }
    // What the last owner wrote down may be old, and the first reads are on their way.
    let since = known.complete_until.filter(|_| known.read_for > fresh);
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
        let known = Known {
            oldest: oldest.map(seconds),
            caught_up_at: caught_up.map(seconds),
            complete_until: Some(seconds(500)),
            read_for: Duration::from_secs(read_for),
        };
        lag(known, seconds(1_000), FRESH).map(|lag| lag.as_secs())
    }

    #[test]
    fn the_lag_is_the_age_of_what_is_not_settled_and_nothing_at_the_end() {
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
            "the first read may be under way"
        );
    }
}
