//! Whether a worker is overloaded, and not only busy.
//!
//! A worker that works through a backlog is busy: its oldest waiting record gets younger. A worker that
//! holds work back while the oldest record gets older is overloaded.

use std::collections::VecDeque;
use std::time::Duration;

/// What was seen of a worker while it held work back.
#[derive(Debug, Clone, Default)]
pub struct Overload {
    /// When, on any one clock, and how far the worker was behind then.
    looks: VecDeque<(Duration, Duration)>,
    since: Option<Duration>,
}

impl Overload {
    /// Reports how far the worker is behind, or `None` if nothing had to wait for it. Returns how long
    /// work has been held back if it was at every look for `window`, and if the lag has grown since
    /// then.
    pub fn see(
        &mut self,
        now: Duration,
        lag: Option<Duration>,
        window: Duration,
    ) -> Option<Duration> {
        let Some(lag) = lag else {
            *self = Self::default();
            return None;
        };
        let since = *self.since.get_or_insert(now);
        self.looks.push_back((now, lag));
        // Keeps the last look that is a window old.
        while self
            .looks
            .get(1)
            .is_some_and(|(at, _)| now.saturating_sub(*at) >= window)
        {
            self.looks.pop_front();
        }
        let (at, before) = self.looks.front().copied()?;
        let lasts = now.saturating_sub(at) >= window && lag > before;
        lasts.then(|| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// Looks each second at a worker with this `lag`. Returns the second at which it first counts as
    /// overloaded.
    fn overloaded_at(lag: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut overload = Overload::default();
        (0..600).find(|second| {
            let lag = lag(*second).map(Duration::from_secs);
            overload
                .see(Duration::from_secs(*second), lag, MINUTE)
                .is_some()
        })
    }

    #[test]
    fn a_lag_that_grows_for_a_minute_while_work_waits_is_overload() {
        assert_eq!(overloaded_at(Some), Some(60));
    }

    #[test]
    fn working_off_a_backlog_is_not_overload() {
        assert_eq!(overloaded_at(|second| Some(10_000 - second)), None);
    }

    #[test]
    fn a_moment_in_which_nothing_waits_restarts_it() {
        let lag = |second| (second % 50 != 0).then_some(second);
        assert_eq!(overloaded_at(lag), None);
    }

    #[test]
    fn it_is_over_as_soon_as_the_lag_falls() {
        let mut overload = Overload::default();
        let mut see = |second, lag| {
            let (now, lag) = (Duration::from_secs(second), Duration::from_secs(lag));
            overload.see(now, Some(lag), MINUTE)
        };
        for second in 0..90 {
            see(second, second);
        }
        assert_eq!(see(90, 90), Some(Duration::from_secs(90)));
        assert_eq!(see(91, 5), None);
    }
}
