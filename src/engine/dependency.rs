//! What handlers depend on, such as a mail server: how fast it can be called, and whether at all.
//!
//! Every attempt asks for a turn first and reports its result afterwards. For all shards together, this
//! decides: the circuit opens while the dependency is down, and is probed at intervals
//! ([`crate::core::breaker::circuit`]); the number of calls at a time is halved on overload and grows
//! again; calls are held back if most are refused; retries stay below a tenth of the first attempts, or
//! one a second; and a rate can be set ([`crate::core::breaker::throttle`]). A record that alone is not
//! served, again and again, is to blame itself and opens no circuit ([`crate::core::breaker::blame`]).
//!
//! Nothing is kept across restarts: a new worker finds out again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::core::backoff::RetryBudget;
use crate::core::breaker::blame::{Blame, Guilty, Streak, Unserved};
use crate::core::breaker::circuit::{self, Circuit, Probing};
use crate::core::breaker::line::Line;
use crate::core::breaker::throttle::{Concurrency, Load, Permit, Rejection, TokenBucket};
use crate::core::pipeline::FailureKind;
use crate::engine::handler::{Context, Failure};

mod asker;
mod outage;

pub use crate::core::pipeline::Try;
pub use asker::Asker;
use outage::Outage;

/// How soon a caller outside of the line asks again after it found the limit reached.
const FULL: Duration = Duration::from_millis(20);

/// How many callers in the line are woken when a call ends. Each of them wakes the next when it leaves
/// the line, so this is only how many start at the same moment.
const WOKEN: usize = 4;

/// A dependency that reports overload for this long, and serves nobody meanwhile, counts as down: it is
/// then called once a minute, not once a second.
const OVERLOADED: Duration = Duration::from_mins(1);

/// How many retries a second are always allowed, however few first attempts there are.
const TRICKLE: f64 = 1.0;

/// The name of a dependency without one.
const UNNAMED: &str = "the handler's dependency";

/// The limits on calling a dependency.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// The dependency, for logs and status: `the mail server smtp.example.com:587`.
    pub name: Option<String>,
    /// Attempts per second, on average; `None`: no limit.
    pub per_second: Option<f64>,
    /// The most attempts at a time, over all shards of the process.
    pub at_once: usize,
    /// How a dependency that is down is probed.
    pub probing: Probing,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            name: None,
            per_second: None,
            at_once: 1024,
            probing: Probing::default(),
        }
    }
}

/// A dependency. Clones are the same dependency: share it among the consumers of a process whose
/// handlers call the same server.
#[derive(Debug, Clone)]
pub struct Dependency(Arc<DependencyInner>);

#[derive(Debug)]
struct DependencyInner {
    /// Its name, for people.
    name: Arc<str>,
    origin: Instant,
    /// How many records wait, over all askers.
    waiting: AtomicUsize,
    state: Mutex<DependencyState>,
}

#[derive(Debug)]
struct DependencyState {
    circuit: Circuit,
    concurrency: Concurrency,
    /// The callers that found the limit reached.
    line: Line,
    /// How to wake each of them, by its number in the line.
    waiting: HashMap<u64, Arc<Notify>>,
    rejection: Rejection,
    retries: RetryBudget,
    rate: Option<TokenBucket>,
    /// How recent attempts ended.
    streak: Streak,
    /// Since when it has reported overload and served nobody.
    overloaded: Option<Duration>,
    /// Why it was last found down.
    why: Option<String>,
    /// What was logged about its outage.
    outage: Outage,
    rng: fastrand::Rng,
}

/// A dependency that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Its name.
    pub what: Arc<str>,
    /// For how long.
    pub lasts: Duration,
    /// The last failure that showed it, without addresses.
    pub why: String,
}

/// The answer to asking for a turn.
pub type Admission = crate::core::pipeline::Admission<Turn>;

/// The right to one attempt. Dropping it reports an unknown result.
#[derive(Debug)]
pub struct Turn {
    of: Dependency,
    held: Option<(circuit::Ticket, Permit)>,
}

impl Dependency {
    /// A dependency that is considered up. `rng` spreads waits.
    pub fn new(limits: &Limits, rng: fastrand::Rng) -> Self {
        let burst = |rate: f64| TokenBucket::new(rate, rate / 4.0);
        let state = DependencyState {
            circuit: Circuit::new(limits.probing),
            concurrency: Concurrency::new(limits.at_once, limits.at_once),
            line: Line::default(),
            waiting: HashMap::new(),
            rejection: Rejection::default(),
            retries: RetryBudget::new(TRICKLE),
            rate: limits.per_second.map(burst),
            streak: Streak::default(),
            overloaded: None,
            why: None,
            outage: Outage::default(),
            rng,
        };
        Self(Arc::new(DependencyInner {
            name: limits.name.as_deref().unwrap_or(UNNAMED).into(),
            origin: Instant::now(),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(state),
        }))
    }

    /// Asks for a turn once. Use an [`Asker`] to ask until there is one.
    pub fn ask(&self, which: Try) -> Admission {
        let mut asker = self.asker();
        asker.ask_once(which).unwrap_or(Admission::Wait(FULL))
    }

    /// A caller that asks repeatedly, and keeps its place in the line meanwhile.
    pub fn asker(&self) -> Asker {
        Asker::new(self.clone())
    }

    /// How long it has been down; `None`: it is up, as far as is known.
    pub fn down_for(&self) -> Option<Duration> {
        let since = self.state().circuit.open_since()?;
        Some(self.now().saturating_sub(since))
    }

    /// Since when and why it is down; `None`: it is up, as far as is known.
    pub fn down(&self) -> Option<Down> {
        let lasts = self.down_for()?;
        let why = self.state().why.clone();
        let why = why.unwrap_or_else(|| "it did not say why".to_owned());
        let what = self.0.name.clone();
        Some(Down { what, lasts, why })
    }

    /// How many attempts can run at a time now.
    pub fn at_once(&self) -> usize {
        self.state().concurrency.limit()
    }

    /// Who is to blame that a call was not served, and why it was not.
    fn judge(&self, how: Unserved, why: &str, blame: &mut Blame) -> Guilty {
        let now = self.now();
        let state = &mut *self.state();
        let open = state.circuit.open_since().is_some();
        let guilty = blame.unserved(how, &mut state.streak, open, now);
        if guilty == Guilty::Dependency {
            state.why = Some(without_addresses(why));
        }
        guilty
    }

    /// Records that a call was served, for a record with this history.
    fn served(&self, blame: Blame) {
        let state = &mut *self.state();
        state.streak.served(blame);
        state.overloaded = None;
    }

    /// Records that a call was asked to come later, which says something about the dependency.
    fn overloaded(&self, why: &str) -> circuit::Response {
        let now = self.now();
        let state = &mut *self.state();
        let since = *state.overloaded.get_or_insert(now);
        if now.saturating_sub(since) < OVERLOADED {
            return circuit::Response::Up;
        }
        state.why = Some(without_addresses(why));
        circuit::Response::Down
    }

    fn now(&self) -> Duration {
        self.0.origin.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, DependencyState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, ticket: circuit::Ticket, permit: Permit, answer: circuit::Response, load: Load) {
        let now = self.now();
        let (limit, limited) = {
            let state = &mut *self.state();
            let limit = state.concurrency.limit();
            let open = state.circuit.open_since();
            state.concurrency.end(now, permit, load);
            state.circuit.end(now, ticket, answer, &mut state.rng);
            if state.circuit.open_since() != open {
                state.streak.is_at_fault();
            }
            match (answer, load) {
                (_, Load::Overload) => state.rejection.refused(now),
                (circuit::Response::Up, _) => state.rejection.accepted(now),
                // For a dependency that is down, the circuit is enough.
                (
                    circuit::Response::Down
                    | circuit::Response::Broken
                    | circuit::Response::Unknown,
                    _,
                ) => {}
            }
            state.wake_next();
            let what = outage::What {
                name: &self.0.name,
                why: state.why.as_deref().unwrap_or_default(),
                waiting: self.0.waiting.load(Ordering::Relaxed),
            };
            state.outage.see(state.circuit.open_since(), now, &what);
            (limit, state.concurrency.limit())
        };
        if limited < limit {
            warn!(
                name = &*self.0.name,
                limit = limited,
                "the dependency is overloaded: making fewer calls at a time"
            );
        }
    }
}

impl DependencyState {
    /// Wakes the callers that have their turn: never more than a few, however many wait.
    fn wake_next(&self) {
        let free = self.concurrency.free().min(WOKEN);
        for number in self.line.first(free) {
            if let Some(waiting) = self.waiting.get(&number) {
                waiting.notify_one();
            }
        }
    }

    fn leave_line(&mut self, number: u64) {
        self.line.leave(number);
        self.waiting.remove(&number);
        self.wake_next();
    }
}

impl Turn {
    /// Reports how the attempt ended, and whether it asked the dependency at all. Returns the result
    /// after the blame is decided.
    pub fn end(
        mut self,
        result: Result<(), Failure>,
        context: &Context,
        blame: &mut Blame,
    ) -> Result<(), Failure> {
        use circuit::Response::{Broken, Down, Unknown, Up};
        if let Some(doubt) = context.doubt() {
            let answer = match self.of.judge(Unserved::InDoubt, doubt, blame) {
                Guilty::Dependency => Broken,
                Guilty::Record | Guilty::Unknown => Unknown,
            };
            self.hand_back(answer, Load::Unknown);
            return result;
        }
        let result = result.map_err(|failure| self.blamed(failure, blame));
        let (answer, load) = match &result {
            Ok(()) if !context.has_asked() => (Unknown, Load::Unknown),
            Ok(()) => {
                self.of.served(*blame);
                (Up, Load::Served)
            }
            Err(Failure::Overloaded(error)) => {
                (self.of.overloaded(&format!("{error:#}")), Load::Overload)
            }
            Err(Failure::Unavailable(_)) => (Down, Load::Unknown),
            // The fault is unknown, or the record's, or another worker is performing the effect.
            Err(_) => (Unknown, Load::Unknown),
        };
        self.hand_back(answer, load);
        result
    }

    /// The failure after the blame is decided.
    fn blamed(&self, failure: Failure, blame: &mut Blame) -> Failure {
        let kind = failure.kind();
        let (how, error) = match failure {
            Failure::Unavailable(error) => (Unserved::Down, error),
            Failure::Refused(error) => (Unserved::Refused, error),
            Failure::Retry(error) if kind == FailureKind::Retry => (Unserved::Deferred, error),
            failure => return failure,
        };
        let guilty = self.of.judge(how, &format!("{error:#}"), blame);
        match (guilty, how) {
            (Guilty::Dependency, _) => Failure::Unavailable(error),
            (Guilty::Record, Unserved::Refused) => Failure::Reject(error),
            (Guilty::Record, Unserved::Down) => Failure::Retry(
                error.context("other records succeed, so the failure is blamed on this record"),
            ),
            (Guilty::Record | Guilty::Unknown, _) => Failure::Retry(error),
        }
    }

    fn hand_back(&mut self, answer: circuit::Response, load: Load) {
        if let Some((ticket, permit)) = self.held.take() {
            self.of.end(ticket, permit, answer, load);
        }
    }
}

/// The text for a log and a table: short, and without anything that names a person.
fn without_addresses(text: &str) -> String {
    const LONGEST: usize = 300;
    let words = text.split_whitespace();
    let words = words.map(|word| {
        if word.contains('@') {
            "<address>"
        } else {
            word
        }
    });
    let mut text = words.collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.hand_back(circuit::Response::Unknown, Load::Unknown);
    }
}

#[cfg(test)]
mod tests;
