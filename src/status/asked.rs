//! What is not in the lease table's rows is asked for now and then, however many look.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::dead_letter::{DeadLetters, Reason};

/// An answer is good for so long, however many ask.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// And for so many times as long as it took: what takes long is asked for seldom.
const REST: u32 = 20;

/// So long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// The keys that wait behind dead letters.
#[derive(Debug)]
pub(super) struct Parked {
    letters: Arc<dyn DeadLetters>,
    last: Last<Vec<Option<Reason>>>,
}

impl Parked {
    pub fn of(letters: Arc<dyn DeadLetters>) -> Self {
        Self {
            letters,
            last: Last::default(),
        }
    }

    /// Why each key is parked; `None`: the table did not answer.
    pub async fn reasons(&self, stream: &str) -> Option<Vec<Option<Reason>>> {
        let ask = async {
            let parked = self.letters.parked(stream).await?;
            Ok(parked.into_iter().map(|key| key.reason).collect())
        };
        self.last.or_ask("parked keys", ask).await
    }
}

/// The orders of which nobody can tell.
pub(super) struct Ambiguous {
    count: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<u64>> + Send + Sync>,
    last: Last<u64>,
}

impl Ambiguous {
    pub fn by<F>(count: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<u64>> + Send + 'static,
    {
        Self {
            count: Box::new(move || Box::pin(count())),
            last: Last::default(),
        }
    }

    /// How many there are; `None`: the ledger did not answer.
    pub async fn orders(&self) -> Option<u64> {
        self.last.or_ask("ambiguous orders", (self.count)()).await
    }
}

impl fmt::Debug for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ambiguous").finish_non_exhaustive()
    }
}

/// The last answer.
#[derive(Debug)]
struct Last<T>(Mutex<Option<Answer<T>>>);

#[derive(Debug)]
struct Answer<T> {
    good_until: Instant,
    told: Option<T>,
}

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Last<T> {
    async fn or_ask(&self, what: &str, ask: impl Future<Output = anyhow::Result<T>>) -> Option<T> {
        let mut last = self.0.lock().await;
        let now = Instant::now();
        if let Some(answer) = last.as_ref().filter(|answer| now < answer.good_until) {
            return answer.told.clone();
        }
        let told = match timeout(LIMIT, ask).await {
            Ok(Ok(told)) => Some(told),
            Ok(Err(error)) => {
                debug!(error = format!("{error:#}"), "{what} cannot be counted");
                None
            }
            Err(_) => None,
        };
        let good_until = Instant::now() + GOOD_FOR.max(now.elapsed() * REST);
        last.insert(Answer { good_until, told }).told.clone()
    }
}
