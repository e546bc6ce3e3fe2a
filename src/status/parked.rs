//! The keys that wait behind dead letters, asked for now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::dead_letter::{DeadLetters, Reason};

/// An answer is good for so long, however many ask.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// And for so many times as long as it took: many keys are read seldom.
const REST: u32 = 20;

/// So long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the table of dead letters, seldom.
#[derive(Debug)]
pub(super) struct Parked {
    letters: Arc<dyn DeadLetters>,
    last: Mutex<Option<Answer>>,
}

#[derive(Debug)]
struct Answer {
    good_until: Instant,
    reasons: Option<Vec<Option<Reason>>>,
}

impl Parked {
    pub fn of(letters: Arc<dyn DeadLetters>) -> Self {
        Self {
            letters,
            last: Mutex::default(),
        }
    }

    /// Why each key is parked; `None`: the table did not answer.
    pub async fn reasons(&self, stream: &str) -> Option<Vec<Option<Reason>>> {
        let mut last = self.last.lock().await;
        let now = Instant::now();
        if let Some(answer) = last.as_ref().filter(|answer| now < answer.good_until) {
            return answer.reasons.clone();
        }
        let parked = match timeout(LIMIT, self.letters.parked(stream)).await {
            Ok(Ok(parked)) => Some(parked),
            Ok(Err(error)) => {
                debug!(
                    error = format!("{error:#}"),
                    "dead letters cannot be counted"
                );
                None
            }
            Err(_) => None,
        };
        let reasons = parked.map(|keys| keys.into_iter().map(|key| key.reason).collect());
        let good_until = Instant::now() + GOOD_FOR.max(now.elapsed() * REST);
        let answer = last.insert(Answer {
            good_until,
            reasons,
        });
        answer.reasons.clone()
    }
}
