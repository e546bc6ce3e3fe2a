//! What is logged about a dependency that is down: one line at once, then lines at growing intervals,
//! and one at the end.

use std::time::Duration;

use tracing::{info, warn};

/// The time between the first two lines,
const FIRST: Duration = Duration::from_mins(1);

/// and the longest time between two lines.
const LONGEST: Duration = Duration::from_hours(1);

/// An outage, with what was logged about it.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Logged>);

#[derive(Debug)]
struct Logged {
    since: Duration,
    next: Duration,
    pause: Duration,
}

/// What is known about the dependency now.
#[derive(Debug, Clone, Copy)]
pub(super) struct What<'a> {
    /// Its name.
    pub name: &'a str,
    /// Why it was last found down.
    pub why: &'a str,
    /// How many records wait.
    pub waiting: usize,
}

/// What to log.
#[derive(Debug, PartialEq, Eq)]
enum OutageLine {
    Begins,
    /// How long it has lasted.
    Lasts(Duration),
    /// How long it lasted.
    Ended(Duration),
}

impl Outage {
    /// A call has ended. `since` is when the dependency went down, if it is down.
    pub fn see(&mut self, since: Option<Duration>, now: Duration, what: &What<'_>) {
        let What { name, why, waiting } = *what;
        match self.line(since, now) {
            None => {}
            Some(OutageLine::Begins) => warn!(
                name,
                error = why,
                waiting,
                "the dependency is down: nothing is sent until a probe succeeds"
            ),
            Some(OutageLine::Lasts(time)) => warn!(
                name,
                error = why,
                down_for = whole(time),
                waiting,
                "the dependency is still down"
            ),
            Some(OutageLine::Ended(time)) => {
                info!(
                    name,
                    down_for = whole(time),
                    waiting,
                    "the dependency is back"
                );
            }
        }
    }

    fn line(&mut self, since: Option<Duration>, now: Duration) -> Option<OutageLine> {
        let Some(logged) = &mut self.0 else {
            let (since, pause) = (since?, FIRST);
            let next = since + FIRST;
            self.0 = Some(Logged { since, next, pause });
            return Some(OutageLine::Begins);
        };
        let lasts = now.saturating_sub(logged.since);
        if since.is_none() {
            self.0 = None;
            return Some(OutageLine::Ended(lasts));
        }
        if now < logged.next {
            return None;
        }
        logged.pause = (logged.pause * 2).min(LONGEST);
        logged.next = now + logged.pause;
        Some(OutageLine::Lasts(lasts))
    }
}

/// A duration in words, to the second.
fn whole(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_at_once_then_ever_more_rarely_and_at_its_end() {
        let mut outage = Outage::default();
        assert_eq!(outage.line(None, Duration::ZERO), None);
        let began = Duration::from_secs(10);
        let mut lasts = Vec::new();
        for second in 0..24 * 3_600 {
            match outage.line(Some(began), began + Duration::from_secs(second)) {
                Some(OutageLine::Begins) => assert_eq!(second, 0),
                Some(OutageLine::Lasts(time)) => lasts.push(time.as_secs() / 60),
                Some(OutageLine::Ended(_)) | None => {}
            }
        }
        assert_eq!(lasts[..7], [1, 3, 7, 15, 31, 63, 123]);
        assert_eq!(lasts.len(), 6 + 22, "once an hour for the rest of the day");
        let day = Duration::from_hours(24);
        assert_eq!(outage.line(None, began + day), Some(OutageLine::Ended(day)));
        assert_eq!(outage.line(None, began + day), None);
    }
}
