//! How much happens per minute, in one number.

use std::time::Duration;

/// An event this long ago counts for a little more than a third of one now.
const FADES: Duration = Duration::from_mins(1);

/// Counts events with exponential decay: under a steady load it is the number of events per minute.
/// Times come from any one clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    count: f64,
    at: Duration,
}

impl Rate {
    /// Adds what has happened since the last call.
    pub fn add(&mut self, now: Duration, count: u32) {
        self.count = self.left(now) + f64::from(count);
        self.at = now;
    }

    /// The number of events per minute, rounded.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rate is small"
    )]
    pub fn per_minute(&self, now: Duration) -> u64 {
        self.left(now).round() as u64
    }

    fn left(&self, now: Duration) -> f64 {
        faded(self.count, now.saturating_sub(self.at))
    }
}

/// What is left of a rate if nothing has happened since.
pub fn faded(per_minute: f64, since: Duration) -> f64 {
    per_minute * (-since.div_duration_f64(FADES)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_reported_by_the_minute_and_fades_when_it_ends() {
        let mut rate = Rate::default();
        for second in 0..600 {
            rate.add(Duration::from_secs(second), 50);
        }
        let end = Duration::from_mins(10);
        let reported = rate.per_minute(end);
        assert!((2_900..3_100).contains(&reported), "{reported}");
        let later = rate.per_minute(end + Duration::from_mins(10));
        assert!(later == 0, "{later}");
    }
}
