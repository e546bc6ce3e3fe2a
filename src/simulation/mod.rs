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
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::handler::RecordHandler;
use crate::stores::source::memory::Commit;

use crate::core::claim::OnAmbiguous;

mod changes;
mod climate;
mod clocks;
pub mod effects;
mod flaw;
pub(crate) mod gate;
mod letters;
mod link;
mod mailer;
mod operator;
mod owners;
mod pages;
mod redriver;
mod run;
mod simulated_leases;
mod simulated_stream;
mod trace;
mod trouble;
mod weather;
mod witness;
mod worker;
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
    /// Within which virtual time everything must be finished once nothing goes wrong any more.
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
    /// Three workers on two shards for two minutes of bad weather; in one seed of forty, twelve workers
    /// on fifty shards.
    pub fn seeded(seed: u64) -> Self {
        let (workers, shards) = if seed % 40 == 39 { (12, 50) } else { (3, 2) };
        Self {
            seed,
            workers,
            shards,
            weather: Duration::from_mins(2),
            calm: Duration::from_mins(15),
            mail: None,
            flaw: None,
            traced: false,
        }
    }

    /// The command that replays it and prints its trace. Its handler is the built-in one.
    pub fn replay(&self) -> String {
        let Self {
            seed,
            workers,
            shards,
            ..
        } = self;
        let weather = self.weather.as_secs();
        let mail = match self.mail {
            None => "",
            Some(OnAmbiguous::Resend) => " --mail resend",
            Some(OnAmbiguous::Park) => " --mail park",
        };
        let flaw = self
            .flaw
            .map_or(String::new(), |flaw| format!(" --flaw {flaw:?}"));
        format!(
            "cargo run --release --example simulate -- --replay {seed} --workers {workers} \
             --shards {shards} --weather {weather}{mail}{flaw}"
        )
    }

    /// What happened in it, as readable text: it is run once more.
    pub fn trace(&self) -> String {
        let traced = Self {
            traced: true,
            ..self.clone()
        };
        simulate(&traced).trace
    }
}

/// How a simulation ended.
#[derive(Debug, Clone, Default)]
pub struct SimulationOutcome {
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

/// Runs a scenario to its end, on this thread, with a handler that has nothing to do.
pub fn simulate(scenario: &Scenario) -> SimulationOutcome {
    simulate_handler(scenario, || worker::Idle, changes::change_of_few)
}

/// Runs a scenario to its end, on this thread, with your own handler and your own changes.
///
/// `handler` is called at every start of a worker: what it answers is lost when that worker
/// crashes, what it shares (a database, say) is not. `change` makes the changes that are committed,
/// at the time that it is called. The handler is called as in production: records of one item in
/// order, some of them more than once, and now and then dropped in the middle of its work. It should
/// fail with [`Failure::Retry`](crate::Failure) only for a while: not every seed has dead letters. Those
/// that there are an operator redrives.
/// Its own time must be virtual, too ([`tokio::time`]).
///
/// What the fleet promised is judged in the [`SimulationOutcome`]; what your handler did is yours to judge.
/// This one keeps a total, and remembers what it has counted, as a record may come again:
///
/// ```
/// use std::collections::{BTreeMap, HashMap};
/// use std::sync::{Arc, Mutex};
/// use std::time::SystemTime;
///
/// use aftercommit::simulation::{Scenario, simulate_handler};
/// use aftercommit::stores::source::memory::Commit;
/// use aftercommit::{Context, Event, Failure, Record, RecordHandler};
/// use serde_dynamo::{AttributeValue, Item};
///
/// struct Count(Arc<Mutex<BTreeMap<String, u32>>>);
///
/// impl RecordHandler for Count {
///     async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
///         self.0.lock().unwrap().insert(record.event_id.clone(), 1);
///         Ok(())
///     }
/// }
///
/// fn order(rng: &mut fastrand::Rng, created: SystemTime) -> Commit {
///     let id = AttributeValue::S(format!("order-{}", rng.u32(..20)));
///     let keys = Item::from(HashMap::from([("id".to_owned(), id)]));
///     let new_image = Some(keys.clone());
///     Commit { event: Event::Insert, keys, old_image: None, new_image, created }
/// }
///
/// let counted: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
/// let shared = Arc::clone(&counted);
/// let scenario = Scenario::seeded(7);
/// let outcome = simulate_handler(&scenario, move || Count(shared.clone()), order);
/// assert_eq!(outcome.violation, None);
/// assert!(!counted.lock().unwrap().is_empty());
/// ```
pub fn simulate_handler<H: RecordHandler>(
    scenario: &Scenario,
    handler: impl Fn() -> H + Send + Sync + 'static,
    change: impl Fn(&mut fastrand::Rng, SystemTime) -> Commit + Send + Sync + 'static,
) -> SimulationOutcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run::run(scenario, Arc::new(handler), Box::new(change))),
        Err(error) => {
            let violation = Some(format!("no runtime for the simulation: {error}"));
            SimulationOutcome {
                violation,
                ..SimulationOutcome::default()
            }
        }
    }
}

/// Runs many scenarios, one after another on every processor, and hands each outcome to `seen`
/// (in no order) until that answers `false`.
pub fn simulate_all(
    scenarios: impl Iterator<Item = Scenario> + Send,
    seen: impl FnMut(&Scenario, &SimulationOutcome) -> bool + Send,
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
