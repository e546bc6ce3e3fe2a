//! Reads a table's changes together with the other workers of its group.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::info;

use crate::core::claim::Liveness;
use crate::core::filter::{Filters, HomeRegion};
use crate::core::fleet::Fleet;
use crate::core::group::{GroupTable, Identity};
use crate::engine::Engine;
use crate::engine::budget::Budget;
use crate::engine::dependency::{Dependency, Limits};
use crate::engine::handler::{OUTSIDE, RecordHandler};
use crate::engine::progress::{Counters, Progress, Run};
use crate::engine::settings::Settings;
use crate::engine::simulated::Simulated;
use crate::stores::clock::Clock;
use crate::stores::dead_letter::DeadLetters;
use crate::stores::leases::{Incarnation, LeaseStore};
use crate::stores::source::StreamSource;

mod calls;
mod member;
mod rescued;
mod tasks;

#[cfg(feature = "simulation")]
pub(crate) use crate::core::fleet::horizon::EDGE;
use member::Member;
use rescued::Rescued;

/// This worker's settings would perform the group's effects under other keys, so it does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this worker's settings are not those of group {group} ({difference}): use the group's settings, \
     or another group; to change them for the whole group, start one worker with \
     --accept-new-identity"
)]
pub struct IdentityDiffers {
    /// The group.
    pub group: String,
    /// The difference, in words.
    pub difference: String,
}

/// Reads a table's changes together with the other workers of its group.
///
/// ```no_run
/// # async fn example(source: aftercommit::stores::source::memory::MemoryStream,
/// #   leases: aftercommit::stores::leases::memory::MemoryLeases) -> anyhow::Result<()> {
/// # use aftercommit::{Consumer, Context, Failure, Group, GroupTable, Record, RecordHandler};
/// # struct Print;
/// # impl RecordHandler for Print {
/// #     async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> { Ok(()) }
/// # }
/// let orders = GroupTable::new(Group::default(), "arn:aws:dynamodb:...:table/orders");
/// let consumer = Consumer::new(orders, source, leases, Print);
/// consumer.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await
/// # }
/// ```
pub struct Consumer<S, L, H> {
    at: GroupTable,
    identity: Identity,
    accepts_new_identity: bool,
    source: S,
    leases: L,
    handler: H,
    settings: Settings,
    clock: Clock,
    budget: Option<Budget>,
    letters: Option<Arc<dyn DeadLetters>>,
    filters: Filters,
    home: Option<HomeRegion>,
    dependency: Option<Dependency>,
    progress: Arc<Progress>,
    simulated: Simulated,
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Consumer<S, L, H> {
    /// A consumer for this group and table, with the default [`Settings`]. `leases` must be those of
    /// the same group and table.
    pub fn new(at: GroupTable, source: S, leases: L, handler: H) -> Self {
        Self {
            progress: Arc::new(Progress::new(at.clone())),
            at,
            identity: Identity::default(),
            accepts_new_identity: false,
            source,
            leases,
            handler,
            settings: Settings::default(),
            clock: Clock::system(),
            budget: None,
            letters: None,
            filters: Filters::default(),
            home: None,
            dependency: None,
            simulated: Simulated::default(),
        }
    }

    /// Uses these settings.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Sets the settings that decide which record becomes which effect. The first worker writes them
    /// into the group's row; [`Consumer::run`] fails if they differ from that row.
    #[must_use]
    pub fn identity(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// Replaces the identity in the group's row by this consumer's, if they differ. Workers with the
    /// old identity leave the group within seconds.
    #[must_use]
    pub fn accept_new_identity(self) -> Self {
        Self {
            accepts_new_identity: true,
            ..self
        }
    }

    /// Uses this clock until the lease table has answered, and afterwards only if neither the table nor
    /// the stream has a time of its own ([`LeaseStore::service_time`]).
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Uses a memory budget that other consumers of the process share.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        Self {
            budget: Some(budget),
            ..self
        }
    }

    /// Writes dead letters to this store. A record that is rejected, that fails too many times or for
    /// too long, or that is about to leave the stream while its dependency is down is stored there with
    /// its images; later records of its key follow it. Without dead letters, a bad record holds its
    /// shard's checkpoint until it can be handled, and its key waits.
    #[must_use]
    pub fn dead_letters(self, letters: impl DeadLetters) -> Self {
        Self {
            letters: Some(Arc::new(letters)),
            ..self
        }
    }

    /// Handles only records that pass these filters. Others are finished at once, and counted.
    #[must_use]
    pub fn filters(self, filters: Filters) -> Self {
        Self { filters, ..self }
    }

    /// Handles only the records of this Region, on a replica of a global table.
    #[must_use]
    pub fn home_region(self, home: HomeRegion) -> Self {
        Self {
            home: Some(home),
            ..self
        }
    }

    /// Limits how fast the handler is called, together with all consumers that share this
    /// [`Dependency`]. Without it the consumer has its own, with the default [`Limits`].
    #[must_use]
    pub fn dependency(self, dependency: Dependency) -> Self {
        Self {
            dependency: Some(dependency),
            ..self
        }
    }

    /// What a simulation changes.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub(crate) fn simulated(self, simulated: Simulated) -> Self {
        Self { simulated, ..self }
    }

    pub(crate) fn letters(&self) -> Option<Arc<dyn DeadLetters>> {
        self.letters.clone()
    }

    /// What it has done so far. Stays valid while it runs.
    pub fn counters(&self) -> Arc<Counters> {
        self.progress.counters.clone()
    }

    /// What it is doing. Stays valid while it runs. [`crate::monitor`] serves it.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Works until `shutdown` resolves, then drains: it starts no more records, lets running ones
    /// finish (at most `handover_timeout`), writes the checkpoints, hands its shards over and leaves.
    /// Dropping the future instead is a crash: the others notice after `lease_duration`.
    ///
    /// # Errors
    ///
    /// Inconsistent settings; [`IdentityDiffers`], as soon as the group's identity is known to differ.
    /// Every other failure is logged and retried.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.settings.validate()?;
        let clock = clock_of(self.source.clone(), self.leases.clone(), self.clock);
        let mut rng = fastrand::Rng::with_seed(self.settings.seed);
        let mut own_rng = fastrand::Rng::with_seed(!self.settings.seed);
        let nonce = rng.u64(..);
        let origin = Instant::now();
        let mut rules = self.settings.fleet_rules(&self.simulated);
        rules.identity = self.identity;
        rules.accepts_new_identity = self.accepts_new_identity;
        let machine = Fleet::new(rules, nonce, rng, origin.elapsed());
        let me = machine.me().clone();
        let machine = Arc::new(Mutex::new(machine));
        let budget = self
            .budget
            .unwrap_or_else(|| Budget::new(self.settings.memory_budget));
        info!(group = %self.at.group(), table = self.at.table(), worker = %me, "joining the fleet");
        let dependency = self
            .dependency
            .unwrap_or_else(|| Dependency::new(&Limits::default(), own_rng.fork()));
        self.progress.runs(Run {
            clock: clock.clone(),
            timing: self.settings.timing.clone(),
            budget: budget.clone(),
            dependency: dependency.clone(),
            worker: me.to_string(),
            began: origin,
        });
        let engine = Engine {
            source: self.source,
            leases: self.leases,
            handler: Arc::new(self.handler),
            letters: self.letters,
            filters: self.filters,
            home: self.home,
            dependency,
            at: self.at,
            settings: self.settings,
            clock,
            budget,
            progress: self.progress,
            liveness: liveness_of(machine.clone()),
            simulated: self.simulated,
        };
        let engine = Arc::new(engine);
        let rescued = Rescued::new(engine.clone(), &me, own_rng.fork());
        let stop = rescued.stop.clone();
        let stopped = stop.clone();
        let shutdown = async move {
            shutdown.await;
            stop.cancel();
        };
        let member = Member::new(engine, machine, origin);
        let member = async move {
            let left = member.run(shutdown).await;
            stopped.cancel();
            left
        };
        let (left, ()) = tokio::join!(member, rescued.run());
        Ok(left?)
    }
}

/// The service's clock, or else the worker's own. On a machine that was suspended it is behind until
/// the next answer; a stream's answer is never judged by a time older than the answer.
pub(crate) fn clock_of(source: impl StreamSource, leases: impl LeaseStore, own: Clock) -> Clock {
    Clock::new(move || {
        let time = leases.service_time().max(source.service_time());
        time.unwrap_or_else(|| own.now())
    })
}

/// Asks the fleet's heartbeats whether a process may still be acting.
fn liveness_of(machine: Arc<Mutex<Fleet>>) -> crate::engine::handler::LivenessOf {
    Arc::new(move |name| {
        if name.starts_with(OUTSIDE) {
            return Liveness::Unknown;
        }
        let machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.liveness(&Incarnation::from_row(name))
    })
}
