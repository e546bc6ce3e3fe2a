//! Counts that are not in the lease table's rows. They are read at intervals, however many clients
//! look.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::core::group::EffectTable;
use crate::monitor::levels;
use crate::stores::dead_letter::{DeadLetters, Reason};
use crate::stores::ledger::Needed;

/// The pause after an answer, however many clients look.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// The pause is also this many times as long as the answer took, so that slow questions are rare.
const REST: u32 = 20;

/// How long the background query may run,
const LIMIT: Duration = Duration::from_secs(5);

/// and how long a page request waits for it. A page that takes longer than a few seconds shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the last answer is shown if no new one comes.
const SHOWN_FOR: Duration = Duration::from_mins(5);

/// Why the keys could not be counted.
type Uncounted = String;

/// The keys that wait behind dead letters of an effect.
#[derive(Debug)]
pub(super) struct ParkedKeys {
    letters: Arc<dyn DeadLetters>,
    of: EffectTable,
    last: LastAnswer<Vec<Option<Reason>>>,
}

impl ParkedKeys {
    pub fn new(letters: Arc<dyn DeadLetters>, of: EffectTable) -> Self {
        Self {
            letters,
            of,
            last: LastAnswer::default(),
        }
    }

    /// Why each key is parked.
    pub async fn reasons(&self) -> Result<Vec<Option<Reason>>, Uncounted> {
        let (letters, at) = (self.letters.clone(), self.of.clone());
        let ask = || async move { levels::reasons(&*letters, &at).await };
        self.last.or_ask("parked keys", ask).await
    }
}

/// The orders that need a person's attention.
pub(super) struct OrdersInNeed {
    count: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<Needed>> + Send + Sync>,
    last: LastAnswer<Needed>,
}

impl OrdersInNeed {
    pub fn by<F>(count: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<Needed>> + Send + 'static,
    {
        Self {
            count: Box::new(move || Box::pin(count())),
            last: LastAnswer::default(),
        }
    }

    /// How many there are.
    pub async fn orders(&self) -> Result<Needed, Uncounted> {
        let what = "orders that need attention";
        self.last.or_ask(what, &self.count).await
    }
}

impl fmt::Debug for OrdersInNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attention").finish_non_exhaustive()
    }
}

/// The last answer, and the state of the query.
///
/// A task of its own queries, so that its answer is ready at the next look even if the first client is
/// gone.
#[derive(Debug)]
struct LastAnswer<T>(Arc<watch::Sender<CachedAnswer<T>>>);

#[derive(Debug)]
struct CachedAnswer<T> {
    /// The last answer, and when it came.
    answer: Option<(T, Instant)>,
    /// Why the last query failed.
    failed: Option<Uncounted>,
    /// When a running query has ended at the latest.
    asking_until: Option<Instant>,
    /// No query before this time.
    again_at: Option<Instant>,
}

impl<T> Default for LastAnswer<T> {
    fn default() -> Self {
        let nothing = CachedAnswer {
            answer: None,
            failed: None,
            asking_until: None,
            again_at: None,
        };
        Self(Arc::new(watch::Sender::new(nothing)))
    }
}

impl<T: Clone + Send + Sync + 'static> LastAnswer<T> {
    async fn or_ask<F>(&self, what: &'static str, ask: impl FnOnce() -> F) -> Result<T, Uncounted>
    where
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let mut answers = self.0.subscribe();
        let begins = self.0.send_if_modified(CachedAnswer::begin);
        if begins {
            tokio::spawn(asked(self.0.clone(), what, ask()));
        }
        let answered = answers.wait_for(|answer| answer.asking_until.is_none());
        // Whatever is there then is shown. The sender lives as long as this.
        let _ = timeout(PATIENCE, answered).await;
        self.0.borrow().shown(what)
    }
}

impl<T: Clone> CachedAnswer<T> {
    /// Whether to query now.
    fn begin(&mut self) -> bool {
        let now = Instant::now();
        let later = |at: Option<Instant>| at.is_some_and(|at| now < at);
        if later(self.asking_until) || later(self.again_at) {
            return false;
        }
        self.asking_until = Some(now + 2 * LIMIT);
        true
    }

    fn shown(&self, what: &str) -> Result<T, Uncounted> {
        match (&self.answer, &self.failed) {
            (Some((answer, at)), _) if at.elapsed() < SHOWN_FOR => Ok(answer.clone()),
            (_, Some(why)) => Err(format!(
                "{what} cannot be counted ({why}); check that their table exists and that the worker \
                 is allowed to query it"
            )),
            (_, None) => Err(format!("{what} are not counted yet")),
        }
    }
}

/// Queries, and stores the answer.
async fn asked<T>(
    to: Arc<watch::Sender<CachedAnswer<T>>>,
    what: &'static str,
    ask: impl Future<Output = anyhow::Result<T>>,
) {
    let began = Instant::now();
    let answer = match timeout(LIMIT, ask).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    };
    let now = Instant::now();
    to.send_modify(|last| {
        last.asking_until = None;
        last.again_at = Some(now + GOOD_FOR.max(began.elapsed() * REST));
        match answer {
            Ok(answer) => (last.answer, last.failed) = (Some((answer, now)), None),
            Err(error) => {
                debug!(error, "{what} cannot be counted");
                last.failed = Some(error);
            }
        }
    });
}

#[cfg(test)]
mod tests;
