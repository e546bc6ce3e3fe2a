//! How fast to call a dependency that may be overloaded: a rate, a number of calls at a time, and
//! rejecting calls before they are made.
//!
//! Times are durations since an arbitrary start, given by the caller.

use std::collections::VecDeque;
use std::time::Duration;

/// Lets calls pass at a steady rate, with a small burst.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// `per_second` on average (at least one in a thousand seconds), and up to `burst` at once (at
    /// least one).
    pub fn new(per_second: f64, burst: f64) -> Self {
        let burst = burst.max(1.0);
        Self {
            per_second: per_second.max(0.001),
            burst,
            tokens: burst,
            at: Duration::ZERO,
        }
    }

    /// Takes a turn. If there is none, returns how long to wait for one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        // Rounding must not withhold a turn that the caller has waited for.
        if self.tokens >= 1.0 - 1e-9 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.tokens) / self.per_second;
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }
}

/// How many calls may run at a time: additive increase, multiplicative decrease.
///
/// A sign of overload halves the limit, or the number of running calls if that is lower. It does so
/// once for all calls that were running then. Up to just below that point the limit grows back quickly
/// (by one for each success, like TCP's slow start). From there it probes: it grows by one after
/// [`Concurrency::WINDOWS`] windows of successes, then after half as many windows, and so on down to
/// one. A window is as many successes as the limit allows calls at a time.
///
/// Source: [RFC 5681, section 3.1](https://www.rfc-editor.org/rfc/rfc5681#section-3.1).
#[derive(Debug, Clone)]
pub struct Concurrency {
    limit: usize,
    most: usize,
    /// Up to here the limit grows back quickly.
    known_good: usize,
    /// Steps made above that.
    steps: u32,
    successes: usize,
    running: usize,
    cut: Option<Duration>,
}

/// A running call. Return it to the [`Concurrency`] that gave it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call that is not handed back counts as running forever"]
pub struct Permit {
    began: Duration,
}

/// How a call ended, as far as the load is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It was served.
    Served,
    /// It was refused because the load was too high: SMTP's 421 and 454, a provider's throttling.
    Overload,
    /// It says nothing about the load: a bad address, a cancelled call.
    Unknown,
}

impl Concurrency {
    /// How many windows must pass before the first step above the known good limit.
    pub const WINDOWS: usize = 16;

    /// Starts at `first` calls at a time, and never allows more than `most`.
    pub fn new(first: usize, most: usize) -> Self {
        let most = most.max(1);
        Self {
            limit: first.clamp(1, most),
            most,
            known_good: most,
            steps: 0,
            successes: 0,
            running: 0,
            cut: None,
        }
    }

    /// How many calls can run at a time now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many calls are running.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many more calls can start now.
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.running)
    }

    /// Starts a call, if one more can run now.
    pub fn begin(&mut self, now: Duration) -> Option<Permit> {
        if self.running >= self.limit {
            return None;
        }
        self.running += 1;
        Some(Permit { began: now })
    }

    /// Ends a call.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used once")]
    pub fn end(&mut self, now: Duration, permit: Permit, load: Load) {
        // While the limit is not reached, success says nothing about a higher limit.
        let full = self.running >= self.limit;
        let reached = self.running.clamp(1, self.limit);
        self.running = self.running.saturating_sub(1);
        match load {
            Load::Unknown => {}
            Load::Served if !full => {}
            Load::Served => {
                self.successes += 1;
                let above = self.limit >= self.known_good;
                let windows = Self::WINDOWS.checked_shr(self.steps).unwrap_or(0).max(1);
                if !above || self.successes >= self.limit * windows {
                    self.successes = 0;
                    self.steps += u32::from(above);
                    self.limit = (self.limit + 1).min(self.most);
                }
            }
            Load::Overload => {
                if self.cut.is_some_and(|cut| permit.began <= cut) {
                    return;
                }
                self.cut = Some(now);
                self.successes = 0;
                self.steps = 0;
                // A twentieth below, but at least one.
                self.known_good = (reached * 19 / 20).min(reached - 1).max(1);
                self.limit = (reached / 2).max(1);
            }
        }
    }
}

/// Rejects calls here that the dependency would mostly refuse, so that it need not spend work on
/// refusing them: with probability `(requests - K * accepts) / (requests + 1)`, over the last two
/// minutes.
///
/// Source: [Handling overload](https://sre.google/sre-book/handling-overload/#client-side-throttling-a7sYUg).
#[derive(Debug, Clone, Default)]
pub struct Rejection {
    /// (slice of time, requests, accepts), oldest first.
    slices: VecDeque<(u64, u32, u32)>,
}

impl Rejection {
    /// How many requests are made for each accepted one.
    pub const K: f64 = 2.0;

    const SLICE: Duration = Duration::from_secs(10);
    const SLICES: u64 = 12;

    /// The probability that a call is rejected now, from 0 to 1.
    pub fn probability(&mut self, now: Duration) -> f64 {
        self.slice(now);
        let (mut requests, mut accepts) = (0.0, 0.0);
        for (_, asked, accepted) in &self.slices {
            requests += f64::from(*asked);
            accepts += f64::from(*accepted);
        }
        ((requests - Self::K * accepts) / (requests + 1.0)).max(0.0)
    }

    /// Says whether to reject a call. A rejected call counts as one request, and does not count a
    /// second time when it comes `again`. If each ask counted, each would raise the odds against the
    /// next, and one refusal on a quiet day could hold a call back for minutes.
    pub fn turns_away(&mut self, now: Duration, again: bool, rng: &mut fastrand::Rng) -> bool {
        let turned_away = rng.f64() < self.probability(now);
        self.slice(now).1 += u32::from(turned_away && !again);
        turned_away
    }

    /// Records that a call was accepted: the dependency worked on it, whatever the result. Calls count
    /// when they end, so that running calls do not look like refused ones.
    pub fn accepted(&mut self, now: Duration) {
        let (_, requests, accepts) = self.slice(now);
        (*requests, *accepts) = (*requests + 1, *accepts + 1);
    }

    /// Records that a call was refused.
    pub fn refused(&mut self, now: Duration) {
        self.slice(now).1 += 1;
    }

    fn slice(&mut self, now: Duration) -> &mut (u64, u32, u32) {
        let slice = now.as_secs() / Self::SLICE.as_secs();
        while self
            .slices
            .front()
            .is_some_and(|old| old.0 + Self::SLICES <= slice)
        {
            self.slices.pop_front();
        }
        match self.slices.back() {
            Some(last) if last.0 >= slice => {}
            _ => self.slices.push_back((slice, 0, 0)),
        }
        let last = self.slices.len() - 1;
        &mut self.slices[last]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn one_refusal_on_a_quiet_day_holds_no_call_back_for_long() {
        for seed in 0..1000 {
            let (mut it, mut rng) = (Rejection::default(), fastrand::Rng::with_seed(seed));
            it.refused(seconds(0.0));
            let asks = (0..1000).find(|ask: &u32| {
                let now = seconds(0.3 * f64::from(*ask));
                !it.turns_away(now, *ask > 0, &mut rng)
            });
            assert!(asks.unwrap() < 80, "{asks:?} asks with seed {seed}");
        }
    }

    #[test]
    fn a_bucket_passes_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(10.0, 3.0);
        for _ in 0..3 {
            assert_eq!(bucket.take(seconds(5.0)), Ok(()));
        }
        let wait = bucket.take(seconds(5.0)).unwrap_err();
        assert_eq!(wait.as_millis(), 100);
        assert!(bucket.take(seconds(5.0)).is_err(), "asking costs nothing");
        assert_eq!(bucket.take(seconds(5.0) + wait), Ok(()));
        // A clock that steps back gives no second turn.
        let mut bucket = TokenBucket::new(10.0, 1.0);
        assert_eq!(bucket.take(seconds(9.0)), Ok(()));
        assert!(bucket.take(seconds(1.0)).is_err());
        assert!(bucket.take(seconds(9.0)).is_err());
    }

    #[test]
    fn a_bucket_without_a_rate_still_says_a_wait() {
        let mut bucket = TokenBucket::new(0.0, 0.0);
        assert_eq!(bucket.take(Duration::ZERO), Ok(()));
        assert_eq!(bucket.take(Duration::ZERO), Err(Duration::from_secs(1000)));
    }

    /// Starts as many as may run, and ends them all.
    fn round(it: &mut Concurrency, now: f64, load: Load) -> usize {
        let permits: Vec<_> = std::iter::from_fn(|| it.begin(seconds(now))).collect();
        let count = permits.len();
        for permit in permits.into_iter().rev() {
            it.end(seconds(now + 0.5), permit, load);
        }
        count
    }

    #[test]
    fn one_overload_halves_the_limit_once_for_all_that_were_running() {
        let mut it = Concurrency::new(16, 64);
        assert_eq!(round(&mut it, 1.0, Load::Overload), 16);
        assert_eq!(it.limit(), 8);
        assert_eq!(it.running(), 0);
        round(&mut it, 2.0, Load::Overload);
        assert_eq!(it.limit(), 4);
        for n in 3..9 {
            round(&mut it, f64::from(n), Load::Overload);
        }
        assert_eq!(it.limit(), 1);
        round(&mut it, 10.0, Load::Unknown);
        assert_eq!(it.limit(), 1);
    }

    #[test]
    fn an_overload_far_below_the_limit_halves_what_was_running() {
        let mut it = Concurrency::new(1024, 1024);
        let permits: Vec<_> = (0..16).map(|_| it.begin(seconds(1.0)).unwrap()).collect();
        for permit in permits {
            it.end(seconds(2.0), permit, Load::Overload);
        }
        assert_eq!(it.limit(), 8);
        let alone = it.begin(seconds(4.0)).unwrap();
        it.end(seconds(5.0), alone, Load::Overload);
        assert_eq!(it.limit(), 1);
    }

    #[test]
    fn the_limit_returns_quickly_to_what_was_good_and_feels_its_way_above() {
        let mut it = Concurrency::new(40, 100);
        round(&mut it, 1.0, Load::Overload);
        let mut limits = Vec::new();
        let mut permits = VecDeque::new();
        for n in 0..2000 {
            let now = seconds(2.0 + f64::from(n));
            permits.extend(std::iter::from_fn(|| it.begin(now)));
            let permit = permits.pop_front().unwrap();
            it.end(now, permit, Load::Served);
            limits.push(it.limit());
        }
        assert_eq!(limits[17], 38);
        assert_eq!(
            limits[18..].iter().position(|limit| *limit == 39),
            Some(607)
        );
        assert!((55..62).contains(limits.last().unwrap()));
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let mut it = Concurrency::new(4, 100);
        for n in 0..1000 {
            let now = seconds(f64::from(n));
            let permit = it.begin(now).unwrap();
            it.end(now, permit, Load::Served);
        }
        assert_eq!(it.limit(), 4);
    }

    #[test]
    fn calls_are_turned_away_only_where_most_are_refused_and_not_forever() {
        let mut it = Rejection::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for n in 0..1000 {
            assert!(!it.turns_away(seconds(0.01), false, &mut rng));
            if n % 2 == 0 {
                it.accepted(seconds(0.01));
            } else {
                it.refused(seconds(0.01));
            }
        }
        let before = it.probability(seconds(1.0));
        assert!(before < 0.001, "{before}");
        let mut asked = 0;
        for _ in 0..10_000 {
            if !it.turns_away(seconds(30.0), false, &mut rng) {
                it.refused(seconds(30.0));
                asked += 1;
            }
        }
        assert!(asked < 3000, "{asked}");
        let after = it.probability(seconds(30.0));
        assert!(after > 0.9, "{after}");
        // After two minutes the past is forgotten.
        assert!(it.probability(seconds(151.0)) < f64::EPSILON);
        assert!(it.slices.len() <= 12);
    }
}
