//! When a failed record is tried again, and how many retries are allowed.

use std::time::Duration;

/// The bounds of the backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second attempt.
    pub base: Duration,
    /// The longest wait before any attempt.
    pub cap: Duration,
}

/// How long a failing record is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLimits {
    /// The most attempts in which the handler panics or times out, under one owner of the shard.
    pub attempts: u32,
    /// The longest time after the first failed attempt.
    pub age: Duration,
}

impl Default for AttemptLimits {
    fn default() -> Self {
        Self {
            attempts: 10,
            age: Duration::from_hours(6),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_mins(5),
        }
    }
}

impl Backoff {
    /// How long to wait after attempt `attempt` (from 1) failed: a random time up to `base * 2^(attempt
    /// - 1)`, at most `cap`. Records that failed together are so not retried together.
    ///
    /// Source: [full jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    pub fn wait(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        ceiling.mul_f64(rng.f64())
    }
}

/// Keeps retries below a tenth of the first attempts, so that a failing dependency does not get more
/// calls than a working one.
///
/// Each first attempt earns a fraction of a retry. A slow trickle lets the last records be retried when
/// there are no more first attempts.
///
/// Source: [Fixing retries with token buckets](https://brooker.co.za/blog/2022/02/28/retries.html).
#[derive(Debug, Clone)]
pub struct RetryBudget {
    tokens: f64,
    trickle: f64,
    at: Duration,
}

impl RetryBudget {
    /// What a first attempt earns.
    pub const SHARE: f64 = 0.1;

    /// The most retries that can be saved.
    pub const MOST: f64 = 10.0;

    /// The shortest wait that is returned.
    pub const SHORTEST: Duration = Duration::from_millis(1);

    /// A full budget. `trickle` retries per second are always allowed.
    pub fn new(trickle: f64) -> Self {
        Self {
            tokens: Self::MOST,
            trickle: trickle.max(0.001),
            at: Duration::ZERO,
        }
    }

    fn earn(&mut self, share: f64) {
        self.tokens = (self.tokens + share).min(Self::MOST);
    }

    /// Records a first attempt.
    pub fn first_try(&mut self) {
        self.earn(Self::SHARE);
    }

    /// Returns a retry that was not made.
    pub fn give_back(&mut self) {
        self.earn(1.0);
    }

    /// Spends a retry. If there is none, returns how long to wait before asking again.
    pub fn retry(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.earn(passed * self.trickle);
        // Ten times a tenth is a little less than one in floating point.
        if self.tokens >= 1.0 - f64::EPSILON * Self::MOST {
            self.tokens = (self.tokens - 1.0).max(0.0);
            return Ok(());
        }
        let wait = (1.0 - self.tokens) / self.trickle;
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
        // A caller that waits for no time would ask in a loop.
        Err(wait.max(Self::SHORTEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_first_tries_are_a_retry_and_a_refusal_is_never_for_no_time() {
        let mut budget = RetryBudget::new(1.0);
        while budget.retry(Duration::ZERO).is_ok() {}
        for _ in 0..9 {
            budget.first_try();
        }
        let nearly = Duration::from_nanos(99_999_999);
        assert_eq!(budget.retry(nearly), Err(RetryBudget::SHORTEST));
        let mut budget = RetryBudget::new(1.0);
        while budget.retry(Duration::ZERO).is_ok() {}
        for _ in 0..10 {
            budget.first_try();
        }
        assert_eq!(budget.retry(Duration::ZERO), Ok(()));
    }

    #[test]
    fn waits_grow_to_the_cap_and_replay_from_the_seed() {
        let backoff = Backoff::default();
        let longest = |attempt| {
            let mut rng = fastrand::Rng::with_seed(7);
            (0..1000).map(|_| backoff.wait(attempt, &mut rng)).max()
        };
        assert!(longest(1) <= Some(backoff.base));
        assert!(longest(3) > Some(backoff.base * 3));
        assert!(longest(u32::MAX) <= Some(backoff.cap));
        assert_eq!(longest(5), longest(5));
    }

    #[test]
    fn retries_stay_below_a_tenth_of_the_first_tries() {
        let mut budget = RetryBudget::new(0.0);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.first_try();
            while budget.retry(Duration::ZERO).is_ok() {
                retries += 1;
            }
        }
        assert!((1000..=1010).contains(&retries), "{retries}");
    }

    #[test]
    fn the_last_records_are_retried_at_the_trickle() {
        let mut budget = RetryBudget::new(0.5);
        let mut now = Duration::ZERO;
        let mut retries = 0;
        while now < Duration::from_secs(100) {
            match budget.retry(now) {
                Ok(()) => retries += 1,
                Err(wait) => now += wait + Duration::from_micros(1),
            }
        }
        assert!((58..=60).contains(&retries), "{retries}");
    }
}
