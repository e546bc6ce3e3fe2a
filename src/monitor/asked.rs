//! What is not in the lease table's rows is asked for now and then, however many look.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::core::group::GroupTable;
use crate::monitor::levels;
use crate::stores::dead_letter::{DeadLetters, Reason};
use crate::stores::ledger::Needed;

/// After an answer nobody asks for so long, however many look.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// And for so many times as long as it took: what takes long is asked for seldom.
const REST: u32 = 20;

/// So long an answer is waited for by the task that asks,
const LIMIT: Duration = Duration::from_secs(5);

/// and so long by whoever looks: a page that waits for more than a few seconds shows nothing at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// While no new answer comes the last one is told for so long.
const TOLD_FOR: Duration = Duration::from_mins(5);

/// Why there is no answer.
type Untold = String;

/// The keys that wait behind dead letters.
#[derive(Debug)]
pub(super) struct ParkedKeys {
    letters: Arc<dyn DeadLetters>,
    last: LastAnswer<Vec<Option<Reason>>>,
}

impl ParkedKeys {
    pub fn of(letters: Arc<dyn DeadLetters>) -> Self {
        Self {
            letters,
            last: LastAnswer::default(),
        }
    }

    /// Why each key is parked.
    pub async fn reasons(&self, at: &GroupTable) -> Result<Vec<Option<Reason>>, Untold> {
        let (letters, at) = (self.letters.clone(), at.clone());
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
    pub async fn orders(&self) -> Result<Needed, Untold> {
        let what = "orders that need attention";
        self.last.or_ask(what, &self.count).await
    }
}

impl fmt::Debug for OrdersInNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attention").finish_non_exhaustive()
    }
}

/// The last answer, and whether another is on its way.
///
/// A task of its own asks, so that its answer is there at the next look even if whoever looked first
/// has gone.
#[derive(Debug)]
struct LastAnswer<T>(Arc<watch::Sender<Asked<T>>>);

#[derive(Debug)]
struct Asked<T> {
    /// What was told last, and when.
    told: Option<(T, Instant)>,
    /// Why the last question was not answered.
    failed: Option<Untold>,
    /// A task asks, and has ended by then.
    asking_until: Option<Instant>,
    /// Nobody asks before.
    again_at: Option<Instant>,
}

impl<T> Default for LastAnswer<T> {
    fn default() -> Self {
        let nothing = Asked {
            told: None,
            failed: None,
            asking_until: None,
            again_at: None,
        };
        Self(Arc::new(watch::Sender::new(nothing)))
    }
}

impl<T: Clone + Send + Sync + 'static> LastAnswer<T> {
    async fn or_ask<F>(&self, what: &'static str, ask: impl FnOnce() -> F) -> Result<T, Untold>
    where
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let mut answers = self.0.subscribe();
        let begins = self.0.send_if_modified(Asked::begin);
        if begins {
            tokio::spawn(asked(self.0.clone(), what, ask()));
        }
        let answered = answers.wait_for(|answer| answer.asking_until.is_none());
        // Whatever there is then is told. The sender lives as long as this.
        let _ = timeout(PATIENCE, answered).await;
        self.0.borrow().told(what)
    }
}

impl<T: Clone> Asked<T> {
    /// Whether somebody is to ask now.
    fn begin(&mut self) -> bool {
        let now = Instant::now();
        let later = |at: Option<Instant>| at.is_some_and(|at| now < at);
        if later(self.asking_until) || later(self.again_at) {
            return false;
        }
        self.asking_until = Some(now + 2 * LIMIT);
        true
    }

    fn told(&self, what: &str) -> Result<T, Untold> {
        match (&self.told, &self.failed) {
            (Some((told, at)), _) if at.elapsed() < TOLD_FOR => Ok(told.clone()),
            (_, Some(why)) => Err(format!(
                "{what} cannot be counted ({why}); see that their table is there and that the worker \
                 may query it"
            )),
            (_, None) => Err(format!("{what} are not counted yet")),
        }
    }
}

/// Asks, and leaves the answer for whoever looks.
async fn asked<T>(
    to: Arc<watch::Sender<Asked<T>>>,
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
            Ok(told) => (last.told, last.failed) = (Some((told, now)), None),
            Err(error) => {
                debug!(error, "{what} cannot be counted");
                last.failed = Some(error);
            }
        }
    });
}

#[cfg(test)]
mod tests;
