//! The wall clock, passed in so that runs can be replayed, and the time of a service.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub mod dynamodb;

/// Longer than an answer takes to arrive. A time that is further ahead of the service's last answer is
/// wrong.
const ANSWER: Duration = Duration::from_secs(10);

/// The time of day.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// A custom clock.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The machine's clock. It may be wrong by any amount and jump at any time, so nothing that must be
    /// right depends on it.
    pub fn system() -> Self {
        Self::new(SystemTime::now)
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The time by a service's clock: the date of an answer, plus the monotonic time since it arrived. This
/// machine's wall clock is not used.
///
/// An answer's date is rounded down to the second and is older when it arrives. So this time is behind
/// the service's by at most one second plus the time that an answer takes, and by less the more answers
/// come. It is ahead of the service's only if the monotonic clock runs fast or an answer was wrong; the
/// next answer corrects it once it is ahead by ten seconds. The monotonic clock of a suspended virtual
/// machine does not move: this time is then behind until the next answer.
#[derive(Debug, Clone, Default)]
pub struct ServiceTime(Arc<Mutex<Option<Offset>>>);

/// The time at a moment of the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Offset {
    time: SystemTime,
    at: Instant,
}

impl Offset {
    fn now(self, now: Instant) -> SystemTime {
        self.time + now.saturating_duration_since(self.at)
    }
}

impl ServiceTime {
    /// Records an answer of the service with this date.
    pub fn heard(&self, date: SystemTime) {
        let at = Instant::now();
        let mut known = self.known();
        // If both may be right, the later one is closer to the service's time.
        let before = known.map(|known| known.now(at));
        let before = before.filter(|before| *before <= date + ANSWER);
        let time = before.map_or(date, |before| before.max(date));
        *known = Some(Offset { time, at });
    }

    /// The time now; `None` before the first answer.
    pub fn now(&self) -> Option<SystemTime> {
        let known = *self.known();
        known.map(|known| known.now(Instant::now()))
    }

    /// A clock that shows the service's time, and the time of `own` before the first answer.
    pub fn or(&self, own: Clock) -> Clock {
        let time = self.clone();
        Clock::new(move || time.now().unwrap_or_else(|| own.now()))
    }

    fn known(&self) -> MutexGuard<'_, Option<Offset>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    async fn pass(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_gives_the_time_and_the_monotonic_clock_what_has_passed_since() {
        let time = ServiceTime::default();
        assert_eq!(time.now(), None);
        assert_eq!(time.or(Clock::new(|| at(7))).now(), at(7));
        time.heard(at(50_000));
        pass(1_500).await;
        assert_eq!(time.now(), Some(at(51_500)));
        assert_eq!(time.or(Clock::new(|| at(7))).now(), at(51_500));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_rounded_or_late_does_not_set_the_time_back() {
        let time = ServiceTime::default();
        time.heard(at(50_000));
        pass(900).await;
        time.heard(at(50_000));
        assert_eq!(time.now(), Some(at(50_900)));
        time.heard(at(51_000));
        assert_eq!(time.now(), Some(at(51_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_far_ahead_is_corrected_by_the_next_answer() {
        let time = ServiceTime::default();
        time.heard(at(90_000_000));
        time.heard(at(50_000));
        assert_eq!(time.now(), Some(at(50_000)));
    }
}
