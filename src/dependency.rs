//! What handlers depend on, such as a mail server: how fast it may be asked, and whether at all.
//!
//! Every attempt asks for a turn first and tells afterwards how it ended. From that, for all shards
//! together: a gate shuts while the dependency is down and is tried now and then
//! ([`crate::decide::gate`]); the number of calls at a time is halved when there are too many and
//! grows again; calls are held back where most are refused; retries stay below a tenth of the first
//! tries, or one a second; and a rate may be set ([`crate::decide::throttle`]).
//!
//! It keeps nothing across restarts: a new worker finds out by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::decide::gate::{self, Gate, Probing};
use crate::decide::retry::RetryBudget;
use crate::decide::throttle::{Concurrency, Load, Permit, Rejection, TokenBucket};
use crate::handler::Failure;

/// So long a call waits that found the limit reached, if nothing else ends before.
const FULL: Duration = Duration::from_millis(20);

/// So many retries a second are allowed however few first tries there are.
const TRICKLE: f64 = 1.0;

/// The bounds of asking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Attempts a second, on average; `None`: as fast as it goes.
    pub per_second: Option<f64>,
    /// Attempts at a time at most, over all shards of the process.
    pub at_once: usize,
    /// How a dependency that is down is tried.
    pub probing: Probing,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_second: None,
            at_once: 1024,
            probing: Probing::default(),
        }
    }
}

/// A dependency. Clones are the same one: share it among the consumers of a process whose handlers
/// call the same server.
#[derive(Debug, Clone)]
pub struct Dependency(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    gate: Gate,
    concurrency: Concurrency,
    rejection: Rejection,
    retries: RetryBudget,
    rate: Option<TokenBucket>,
    rng: fastrand::Rng,
}

/// Which try of its record an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// The first one, or one after a failure that burned no attempt.
    First,
    /// One after a failed attempt.
    Again,
}

/// What asking for a turn came to.
#[derive(Debug)]
pub enum Admission {
    /// Go, and tell how it ended.
    Go(Turn),
    /// Nobody may: ask again after this long.
    Wait(Duration),
    /// This record's retry may not, others may: ask again after this long.
    Later(Duration),
}

/// The right to one attempt. Dropping it tells that nothing came of it.
#[derive(Debug)]
pub struct Turn {
    of: Dependency,
    held: Option<(gate::Ticket, Permit)>,
}

impl Dependency {
    /// One that is taken to be up. `rng` spreads waits.
    pub fn new(limits: &Limits, rng: fastrand::Rng) -> Self {
        let burst = |rate: f64| TokenBucket::new(rate, rate / 4.0);
        let state = State {
            gate: Gate::new(limits.probing),
            concurrency: Concurrency::new(limits.at_once, limits.at_once),
            rejection: Rejection::default(),
            retries: RetryBudget::new(TRICKLE),
            rate: limits.per_second.map(burst),
            rng,
        };
        Self(Arc::new(Shared {
            origin: Instant::now(),
            state: Mutex::new(state),
        }))
    }

    /// Asks for a turn.
    pub fn ask(&self, which: Try) -> Admission {
        let now = self.now();
        let state = &mut *self.state();
        let ticket = match state.gate.ask(now) {
            gate::Pass::Go(ticket) => ticket,
            gate::Pass::Wait(wait) => return Admission::Wait(wait),
        };
        if !ticket.is_probe() {
            if state.rejection.turns_away(now, &mut state.rng) {
                let spread = 0.1 + 0.4 * state.rng.f64();
                return Admission::Wait(Duration::from_secs_f64(spread));
            }
            if which == Try::Again
                && let Err(wait) = state.retries.retry(now)
            {
                return Admission::Later(wait);
            }
        }
        let retries = (!ticket.is_probe()).then_some(&mut state.retries);
        let rate = state.rate.as_mut();
        let wait = match state.concurrency.begin(now) {
            None => FULL,
            Some(permit) => match rate.map_or(Ok(()), |rate| rate.take(now)) {
                Ok(()) => {
                    if let (Some(retries), Try::First) = (retries, which) {
                        retries.first_try();
                    }
                    let (of, held) = (self.clone(), Some((ticket, permit)));
                    return Admission::Go(Turn { of, held });
                }
                Err(wait) => {
                    state.concurrency.end(now, permit, Load::Unknown);
                    wait
                }
            },
        };
        if let (Some(retries), Try::Again) = (retries, which) {
            retries.give_back();
        }
        let unknown = gate::Answer::Unknown;
        state.gate.end(now, ticket, unknown, &mut state.rng);
        Admission::Wait(wait)
    }

    /// For how long it has been down; `None`: it is up, as far as is known.
    pub fn down_for(&self) -> Option<Duration> {
        let since = self.state().gate.shut_since()?;
        Some(self.now().saturating_sub(since))
    }

    /// How many attempts may run at a time now.
    pub fn at_once(&self) -> usize {
        self.state().concurrency.limit()
    }

    fn now(&self) -> Duration {
        self.0.origin.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, ticket: gate::Ticket, permit: Permit, answer: gate::Answer, load: Load) {
        let now = self.now();
        let (before, limit, after, limited) = {
            let state = &mut *self.state();
            let (before, limit) = (state.gate.shut_since(), state.concurrency.limit());
            state.concurrency.end(now, permit, load);
            state.gate.end(now, ticket, answer, &mut state.rng);
            match (answer, load) {
                (_, Load::Overload) => state.rejection.refused(now),
                (gate::Answer::Up, _) => state.rejection.accepted(now),
                // A gate is enough for what is down.
                (gate::Answer::Down | gate::Answer::Unknown, _) => {}
            }
            let after = (state.gate.shut_since(), state.concurrency.limit());
            (before, limit, after.0, after.1)
        };
        match (before, after) {
            (None, Some(_)) => warn!("the dependency is down: held back until it answers again"),
            (Some(since), None) => {
                let down_for = now.saturating_sub(since);
                info!(?down_for, "the dependency is back");
            }
            _ => {}
        }
        if limited < limit {
            warn!(
                limit = limited,
                "the dependency is overloaded: fewer at a time"
            );
        }
    }
}

impl Turn {
    /// Tells how the attempt ended.
    pub fn end(mut self, result: &Result<(), Failure>) {
        use gate::Answer::{Down, Unknown, Up};
        let (answer, load) = match result {
            Ok(()) => (Up, Load::Served),
            Err(Failure::Retry(_)) => (Up, Load::Unknown),
            Err(Failure::Overloaded(_)) => (Up, Load::Overload),
            Err(Failure::Unavailable(_)) => (Down, Load::Unknown),
            // The record's fault, or somebody else's turn: the dependency was not asked.
            Err(Failure::Reject(_) | Failure::Busy(_)) => (Unknown, Load::Unknown),
        };
        self.hand_back(answer, load);
    }

    fn hand_back(&mut self, answer: gate::Answer, load: Load) {
        if let Some((ticket, permit)) = self.held.take() {
            self.of.end(ticket, permit, answer, load);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.hand_back(gate::Answer::Unknown, Load::Unknown);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn dependency(limits: Limits) -> Dependency {
        Dependency::new(&limits, fastrand::Rng::with_seed(7))
    }

    fn turn(of: &Dependency) -> Turn {
        match of.ask(Try::First) {
            Admission::Go(turn) => turn,
            held => panic!("{held:?}"),
        }
    }

    fn waits(of: &Dependency) -> Duration {
        match of.ask(Try::First) {
            Admission::Wait(wait) => wait,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_it_is_down_nobody_goes_but_one_probe_and_its_answer_lets_all_go() {
        let it = dependency(Limits::default());
        let also_running = turn(&it);
        turn(&it).end(&Err(Failure::unavailable("no route")));
        assert_eq!(it.down_for(), Some(Duration::ZERO));
        // What ran before proves nothing.
        also_running.end(&Ok(()));
        tokio::time::advance(waits(&it)).await;
        let probe = turn(&it);
        let held = waits(&it);
        drop(probe);
        let probe = turn(&it);
        probe.end(&Ok(()));
        assert_eq!(it.down_for(), None);
        let _all = [turn(&it), turn(&it), turn(&it)];
        assert!(held > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_a_turn_that_is_refused_costs_nothing() {
        let it = dependency(Limits {
            per_second: Some(10.0),
            ..Limits::default()
        });
        let (began, mut made) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(10) {
            match it.ask(Try::First) {
                Admission::Go(turn) => {
                    turn.end(&Ok(()));
                    made += 1;
                }
                Admission::Wait(wait) => tokio::time::advance(wait.max(FULL / 20)).await,
                Admission::Later(wait) => panic!("{wait:?}"),
            }
        }
        assert!((98..=103).contains(&made), "{made}");
    }

    #[tokio::test(start_paused = true)]
    async fn overload_halves_what_runs_at_a_time() {
        let it = dependency(Limits {
            at_once: 8,
            ..Limits::default()
        });
        let turns: Vec<_> = (0..8).map(|_| turn(&it)).collect();
        assert_eq!(waits(&it), FULL);
        tokio::time::advance(FULL).await;
        for turn in turns {
            turn.end(&Err(Failure::Overloaded(anyhow::anyhow!("421"))));
        }
        assert_eq!(it.at_once(), 4);
        assert_eq!(it.down_for(), None, "it answers");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_for_their_budget_and_first_tries_do_not() {
        let it = dependency(Limits::default());
        let failed = || Err(Failure::Retry(anyhow::anyhow!("no")));
        let mut made = 0;
        let wait = loop {
            match it.ask(Try::Again) {
                Admission::Go(turn) => turn.end(&failed()),
                Admission::Later(wait) => break wait,
                Admission::Wait(wait) => panic!("{wait:?}"),
            }
            made += 1;
        };
        assert_eq!(made, 10);
        turn(&it).end(&Ok(()));
        tokio::time::advance(wait).await;
        assert!(matches!(it.ask(Try::Again), Admission::Go(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn asking_in_vain_neither_earns_nor_spends_retries() {
        let it = dependency(Limits {
            at_once: 1,
            ..Limits::default()
        });
        let running = turn(&it);
        for _ in 0..100 {
            assert!(matches!(it.ask(Try::Again), Admission::Wait(_)));
        }
        drop(running);
        let mut made = 0;
        while let Admission::Go(turn) = it.ask(Try::Again) {
            turn.end(&Err(Failure::Retry(anyhow::anyhow!("no"))));
            made += 1;
        }
        assert_eq!(made, 10);
        let _running = turn(&it);
        for _ in 0..100 {
            assert!(matches!(it.ask(Try::First), Admission::Wait(_)));
        }
        assert!(matches!(it.ask(Try::Again), Admission::Later(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_are_bad_say_nothing_about_it() {
        let it = dependency(Limits::default());
        turn(&it).end(&Err(Failure::unavailable("no route")));
        tokio::time::advance(waits(&it)).await;
        turn(&it).end(&Err(Failure::reject("no address")));
        assert!(it.down_for().is_some());
    }
}
