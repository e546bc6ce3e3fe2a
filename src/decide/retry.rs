//! When a record that failed is tried again.

use std::time::Duration;

/// The bounds of the backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second attempt.
    pub base: Duration,
    /// The longest wait at all.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(30),
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
