//! A whole fleet under a deterministic simulation.
//!
//! The consumer and the shard tasks are the shipped ones. What surrounds them is simulated: the
//! stream and the lease table are in memory, time is virtual, every call may be lost, late or
//! refused, workers crash and freeze, shards split and are trimmed. One seed decides everything, so
//! that a run that breaks a promise can be replayed.
//!
//! ```
//! use aftercommit::simulation::{Scenario, simulate};
//!
//! let outcome = simulate(&Scenario::seeded(7));
//! assert_eq!(outcome.violation, None, "replay with seed 7:\n{}", outcome.trace);
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::decide::claim::OnAmbiguous;

pub mod flaw;
pub(crate) mod gate;
mod mailing;
mod network;
mod weather;
mod witness;
mod world;

pub use flaw::Flaw;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many workers the fleet has.
    pub workers: usize,
    /// How many shards the stream begins with.
    pub shards: u64,
    /// For how long things go wrong, in virtual time.
    pub weather: Duration,
    /// Within which virtual time everything must be settled once nothing goes wrong any more.
    pub calm: Duration,
    /// Whether the fleet confirms orders by mail, under this policy; otherwise its handler only
    /// looks on.
    pub mail: Option<OnAmbiguous>,
    /// What is deliberately broken, to show that the simulation notices.
    pub flaw: Option<Flaw>,
    /// Whether to keep a readable trace.
    pub traced: bool,
}

impl Scenario {
    /// Three workers on two shards for two minutes of bad weather.
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            workers: 3,
            shards: 2,
            weather: Duration::from_mins(2),
            calm: Duration::from_mins(5),
            mail: None,
            flaw: None,
            traced: false,
        }
    }
}

/// How a simulation ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The first promise that was broken, with the virtual time.
    pub violation: Option<String>,
    /// What happened, how often.
    pub counts: Counts,
    /// What happened, in order, if the scenario asked for it.
    pub trace: String,
}

/// How often what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &'static str) {
        self.add_many(what, 1);
    }

    pub(crate) fn add_many(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    /// Adds those of another run.
    pub fn absorb(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add_many(what, *count);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>12} {what}")?;
        }
        Ok(())
    }
}

/// Runs a scenario to its end, on this thread.
pub fn simulate(scenario: &Scenario) -> Outcome {
    let _broken = flaw::Broken::by(scenario.flaw);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(world::run(scenario)),
        Err(error) => {
            let violation = Some(format!("no runtime for the simulation: {error}"));
            Outcome {
                violation,
                ..Outcome::default()
            }
        }
    }
}

/// Runs many scenarios, one after another on every processor, and hands each outcome to `seen`
/// (in no order) until that answers `false`.
pub fn simulate_all(
    scenarios: impl Iterator<Item = Scenario> + Send,
    seen: impl FnMut(&Scenario, &Outcome) -> bool + Send,
) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shared = std::sync::Mutex::new((scenarios, seen, true));
    let lock = || {
        shared
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let next = || {
        let (scenarios, _, going) = &mut *lock();
        if *going { scenarios.next() } else { None }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    let outcome = simulate(&scenario);
                    let (_, seen, going) = &mut *lock();
                    *going = *going && seen(&scenario, &outcome);
                }
            });
        }
    });
}
