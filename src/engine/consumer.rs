//! Reads a table's changes together with the other workers of its group.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::core::claim::Liveness;
use crate::core::effects::GroupEffects;
use crate::core::filter::HomeRegion;
use crate::core::fleet::Fleet;
use crate::core::group::{EffectName, GroupTable};
use crate::engine::Engine;
use crate::engine::budget::Budget;
use crate::engine::effect::{ActiveEffect, Effect, joined};
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

/// Reads a table's changes together with the other workers of its group, and performs one or several
/// effects with them.
///
/// ```no_run
/// # async fn example(source: aftercommit::stores::source::memory::MemoryStream,
/// #   leases: aftercommit::stores::leases::memory::MemoryLeases) -> anyhow::Result<()> {
/// # use aftercommit::{Consumer, Context, Effect, EffectName, Failure, Group, GroupTable, Record, RecordHandler};
/// # struct Print;
/// # impl RecordHandler for Print {
/// #     async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> { Ok(()) }
/// # }
/// # struct Index;
/// # impl RecordHandler for Index {
/// #     async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> { Ok(()) }
/// # }
/// let orders = GroupTable::new(Group::default(), "arn:aws:dynamodb:...:table/orders");
/// let consumer = Consumer::new(orders, source, leases)
///     .effect(Effect::new(EffectName::new("placed")?, Print))
///     .effect(Effect::new(EffectName::new("search-index")?, Index));
/// consumer.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await
/// # }
/// ```
pub struct Consumer<S, L> {
    at: GroupTable,
    accepts_new_identity: bool,
    source: S,
    leases: L,
    effects: Vec<Effect>,
    settings: Settings,
    clock: Clock,
    budget: Option<Budget>,
    letters: Option<Arc<dyn DeadLetters>>,
    home: Option<HomeRegion>,
    progress: Arc<Progress>,
    simulated: Simulated,
}

impl<S: StreamSource, L: LeaseStore> Consumer<S, L> {
    /// A consumer for this group and table, with the default [`Settings`] and without an effect yet.
    /// `leases` must be those of the same group and table.
    pub fn new(at: GroupTable, source: S, leases: L) -> Self {
        Self {
            progress: Arc::new(Progress::new(at.clone(), Vec::new())),
            at,
            accepts_new_identity: false,
            source,
            leases,
            effects: Vec::new(),
            settings: Settings::default(),
            clock: Clock::system(),
            budget: None,
            letters: None,
            home: None,
            simulated: Simulated::default(),
        }
    }

    /// Adds an effect. All effects are performed from one read of the stream.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        let effects = self.effects.iter().map(Effect::progress).collect();
        self.progress = Arc::new(Progress::new(self.at.clone(), effects));
        self
    }

    /// Adds an effect of the default name that handles every record with this handler.
    #[must_use]
    pub fn handler(self, handler: impl RecordHandler) -> Self {
        self.effect(Effect::new(EffectName::default(), handler))
    }

    /// Uses these settings.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Replaces the identities of effects in the group's row by this consumer's, if they differ. Workers
    /// with the old ones leave the group within seconds.
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

    /// Handles only the records of this Region, on a replica of a global table.
    #[must_use]
    pub fn home_region(self, home: HomeRegion) -> Self {
        Self {
            home: Some(home),
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

    /// What its first effect and the fleet have done so far. Stays valid while it runs. Call it after
    /// [`Consumer::effect`]; [`Effect::progress`] has the counters of each effect.
    pub fn counters(&self) -> Arc<Counters> {
        self.progress.counters.clone()
    }

    /// What it is doing. Stays valid while it runs. [`crate::monitor`] serves it. Call it after
    /// [`Consumer::effect`].
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Works until `shutdown` resolves, then drains: it starts no more records, lets running ones
    /// finish (at most `handover_timeout`), writes the checkpoints, hands its shards over and leaves.
    /// Dropping the future instead is a crash: the others notice after `lease_duration`.
    ///
    /// # Errors
    ///
    /// Inconsistent settings, no effect, or two of one name; [`IdentityDiffers`], as soon as an effect's
    /// identity is known to differ from the group's.
    /// Every other failure is logged and retried.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.settings.validate()?;
        let mut names: Vec<_> = self.effects.iter().map(Effect::name).collect();
        names.sort();
        anyhow::ensure!(!names.is_empty(), "the consumer has no effect");
        for pair in names.windows(2) {
            let [name, other] = pair else { continue };
            anyhow::ensure!(name != other, "the consumer has two effects named {name}");
        }
        let clock = clock_of(self.source.clone(), self.leases.clone(), self.clock);
        let mut rng = fastrand::Rng::with_seed(self.settings.seed);
        let mut own_rng = fastrand::Rng::with_seed(!self.settings.seed);
        let nonce = rng.u64(..);
        let origin = Instant::now();
        let mut rules = self.settings.fleet_rules(&self.simulated);
        let mine = self.effects.iter();
        let mine = mine.map(|effect| (effect.name.clone(), effect.identity.clone()));
        rules.effects = GroupEffects::of(mine);
        rules.accepts_new_identity = self.accepts_new_identity;
        let machine = Fleet::new(rules, nonce, rng, origin.elapsed());
        let me = machine.me().clone();
        let machine = Arc::new(Mutex::new(machine));
        let budget = self
            .budget
            .unwrap_or_else(|| Budget::new(self.settings.memory_budget));
        info!(group = %self.at.group(), table = self.at.table(), worker = %me, "joining the fleet");
        let own = self.effects.into_iter();
        let own: Vec<_> = own
            .map(|effect| Arc::new(ActiveEffect::new(effect, own_rng.fork())))
            .collect();
        self.progress.runs(Run {
            clock: clock.clone(),
            timing: self.settings.timing.clone(),
            budget: budget.clone(),
            worker: me.to_string(),
            began: origin,
        });
        let engine = Engine {
            source: self.source,
            leases: self.leases,
            effects: watch::Sender::new(joined(&own, &[], &GroupEffects::default())),
            own,
            letters: self.letters,
            home: self.home,
            at: self.at,
            settings: self.settings,
            clock,
            budget,
            progress: self.progress,
            liveness: liveness_of(machine.clone()),
            simulated: self.simulated,
        };
        let engine = Arc::new(engine);
        let stop = CancellationToken::new();
        let rescued = engine.own.iter().map(|effect| {
            let engine = engine.clone();
            Rescued::new(engine, effect.clone(), &me, stop.clone(), own_rng.fork()).run()
        });
        let rescued = join_all(rescued);
        let stopped = stop.clone();
        let shutdown = async move {
            shutdown.await;
            stop.cancel();
        };
        let member = Member::new(engine.clone(), machine, origin);
        let member = async move {
            let left = member.run(shutdown).await;
            stopped.cancel();
            left
        };
        let (left, _) = tokio::join!(member, rescued);
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
