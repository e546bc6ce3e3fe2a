//! Whether a table has a later stream than the one that an event comes from.
//!
//! An event source mapping reads one stream. When the stream is disabled and enabled again, the old
//! mapping reads what the earlier stream still holds, and without a second mapping nothing reads the
//! later one. The function sees only events, so it asks the table.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

/// How long an answer is used. A stream keeps 24 hours, so there is time to act.
const BELIEVED: Duration = Duration::from_mins(5);

/// The longest time that an event waits for an answer.
const CALL: Duration = Duration::from_secs(3);

/// The ARN of the table's present stream; `None` if it has none or does not answer.
type AskedStream = BoxFuture<'static, Option<Arc<str>>>;

/// The latest stream of a table, asked for at most once in five minutes.
pub(super) struct LatestStream {
    ask: Box<dyn Fn() -> AskedStream + Send + Sync>,
    known: Mutex<Option<Latest>>,
}

/// The latest stream, and when the table returned it.
struct Latest {
    stream: Arc<str>,
    at: SystemTime,
}

impl LatestStream {
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Arc<str>>> + Send + 'static,
    {
        Self {
            ask: Box::new(move || Box::pin(ask())),
            known: Mutex::default(),
        }
    }

    /// The later stream, if the table has one. Uses the wall clock, because the monotonic clock does
    /// not run while Lambda freezes the process.
    pub async fn later_than(&self, stream: &str, now: SystemTime) -> Option<Arc<str>> {
        let latest = if let Some(latest) = self.known(now) {
            latest
        } else {
            let latest = timeout(CALL, (self.ask)()).await.ok().flatten()?;
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let (stream, at) = (latest.clone(), now);
            *known = Some(Latest { stream, at });
            latest
        };
        (&*latest > stream).then_some(latest)
    }

    fn known(&self, now: SystemTime) -> Option<Arc<str>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Latest { stream, at } = known.as_ref()?;
        let age = now.duration_since(*at).ok()?;
        (age < BELIEVED).then(|| stream.clone())
    }
}
