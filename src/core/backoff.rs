//! When a record that failed is tried again, and how many may be.

use std::time::Duration;

/// The bounds of the backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second attempt.
    pub base: Duration,
    /// The longest wait at all.
    pub cap: Duration,
}

/// How long a record that fails is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLimits {
    /// So many attempts at most in which the handler panics or overruns, by one owner of its shard.
    pub attempts: u32,
    /// So long at most after the first attempt that failed.
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
    /// How long to wait after the failure of attempt `attempt` (from 1): anything between nothing
    /// and `base * 2^(attempt - 1)`, at most `cap`, so that those who failed together do not come
    /// back together.
    ///
    /// Source: [full jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    pub fn wait(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        ceiling.mul_f64(rng.f64())
    }
}

/// Keeps retries below a tenth of the first tries, so that a dependency that fails is not asked
/// more than one that works.
///
/// Each first try earns a part of a retry. A slow trickle keeps the last records going when there
/// are no more first tries.
///
/// Source: [Fixing retries with token buckets](https://brooker.co.za/blog/2022/02/28/retries.html).
#[derive(Debug, Clone)]
pub struct RetryBudget {
    tokens: f64,
    trickle: f64,
    at: Duration,
}

impl RetryBudget {
    /// What a first try earns.
    pub const SHARE: f64 = 0.1;

    /// The most retries that can be saved up.
    pub const MOST: f64 = 10.0;

    /// The shortest wait that is told.
    pub const SHORTEST: Duration = Duration::from_millis(1);

    /// A full budget. `trickle` retries a second are always allowed.
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

    /// A first try is made.
    pub fn first_try(&mut self) {
        self.earn(Self::SHARE);
    }

    /// A retry that was spent was not made.
    pub fn give_back(&mut self) {
        self.earn(1.0);
    }

    /// Spends a retry; or says how long to wait before asking again.
    pub fn retry(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.earn(passed * self.trickle);
        // Ten tenths are a little less than one.
        if self.tokens >= 1.0 - f64::EPSILON * Self::MOST {
            self.tokens = (self.tokens - 1.0).max(0.0);
            return Ok(());
        }
        let wait = (1.0 - self.tokens) / self.trickle;
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
        // Who were to wait no time would ask again and again.
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
