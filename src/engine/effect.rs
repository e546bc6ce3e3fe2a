//! An effect: a named handler with its own filter, limits, circuit breaker, position, dead letters and
//! counters.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;

use crate::core::backoff::AttemptLimits;
use crate::core::effects::GroupEffects;
use crate::core::filter::{Filters, HomeRegion};
use crate::core::group::{EffectName, Identity};
use crate::core::record::Record;
use crate::engine::dependency::{Dependency, Limits};
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::engine::progress::EffectProgress;

/// A named handler of a [`Consumer`](crate::Consumer).
///
/// A consumer performs several effects from one read of the stream. Each has its own position in every
/// shard, its own running records, circuit breaker, attempts and dead letters, so that a slow or broken
/// effect does not hold the others: records that it cannot keep up with become dead letters
/// (`deferred`), which are redriven in order by themselves. Without a table for dead letters a slow
/// effect holds the others once the memory budget is full.
///
/// An effect that is added to a running group begins with the changes committed about six lease
/// durations (a minute by default) after its first worker joins. Records that a group's effect has left
/// to do are kept for it even by workers that do not perform it.
#[derive(Debug)]
pub struct Effect {
    pub(crate) name: EffectName,
    pub(crate) handler: ErasedHandler,
    pub(crate) identity: Identity,
    pub(crate) dependency: Option<Dependency>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) attempts: Option<AttemptLimits>,
    pub(crate) progress: Arc<EffectProgress>,
    filters: Filters,
}

impl Effect {
    /// An effect that handles every record with this handler.
    pub fn new(name: EffectName, handler: impl RecordHandler) -> Self {
        Self {
            progress: Arc::new(EffectProgress::new(name.clone())),
            name,
            handler: ErasedHandler::new(handler),
            identity: Identity::default(),
            filters: Filters::default(),
            dependency: None,
            concurrency: None,
            attempts: None,
        }
    }

    /// Handles only records that pass these filters. Others are finished at once, and counted.
    #[must_use]
    pub fn filters(self, filters: Filters) -> Self {
        Self { filters, ..self }
    }

    /// Sets the settings that decide which record becomes which effect key. The first worker writes
    /// them into the group's row; [`Consumer::run`](crate::Consumer::run) fails if they differ from that
    /// row.
    #[must_use]
    pub fn identity(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// Limits how fast the handler is called, together with all effects of the process that share this
    /// [`Dependency`]. Without it the effect has its own, with the default [`Limits`].
    #[must_use]
    pub fn dependency(self, dependency: Dependency) -> Self {
        Self {
            dependency: Some(dependency),
            ..self
        }
    }

    /// How many records of a shard the handler gets at a time, in place of
    /// [`Settings::concurrency`](crate::Settings::concurrency).
    #[must_use]
    pub fn concurrency(self, limit: usize) -> Self {
        Self {
            concurrency: Some(limit),
            ..self
        }
    }

    /// When a failing record becomes a dead letter, in place of
    /// [`Settings::attempts`](crate::Settings::attempts).
    #[must_use]
    pub fn attempts(self, limits: AttemptLimits) -> Self {
        Self {
            attempts: Some(limits),
            ..self
        }
    }

    /// Its name.
    pub fn name(&self) -> &EffectName {
        &self.name
    }

    /// What it is doing and has done. Stays valid while its consumer runs.
    pub fn progress(&self) -> Arc<EffectProgress> {
        self.progress.clone()
    }

    /// Whether the handler gets the record, which comes from the stream with this ARN.
    pub(crate) fn wants(&self, record: &Record, stream: &str, home: Option<&HomeRegion>) -> bool {
        self.filters.want(record, stream, home)
    }
}

/// An effect of a running consumer.
#[derive(Debug)]
pub(crate) struct ActiveEffect {
    pub effect: Effect,
    /// What its handler depends on.
    pub dependency: Dependency,
}

impl ActiveEffect {
    pub fn new(effect: Effect, rng: fastrand::Rng) -> Self {
        let own = || Dependency::new(&Limits::default(), rng);
        let dependency = effect.dependency.clone().unwrap_or_else(own);
        effect.progress.depends_on(dependency.clone());
        Self { effect, dependency }
    }

    /// An effect of the group that this worker does not perform. Its records wait for a worker that
    /// does: in the stream, or as deferred dead letters if other effects would have to wait for them.
    fn elsewhere(name: &EffectName) -> Self {
        let limits = Limits {
            name: Some(format!(
                "effect {name}, which this worker does not perform,"
            )),
            ..Limits::default()
        };
        let rng = fastrand::Rng::with_seed(crate::core::hash::hash(name.as_str()));
        Self {
            effect: Effect::new(name.clone(), Elsewhere),
            dependency: Dependency::new(&limits, rng),
        }
    }
}

/// An effect of the group, and when it joined: it does not handle what was committed before.
#[derive(Debug, Clone)]
pub(crate) struct JoinedEffect {
    pub active: Arc<ActiveEffect>,
    pub since: Option<SystemTime>,
}

impl JoinedEffect {
    /// Whether it has this name.
    pub fn is(&self, name: &EffectName) -> bool {
        self.active.effect.name == *name
    }
}

/// The effects of the group, in the order of a list: `own` first, each that others perform behind
/// them. Those that were there before are kept.
pub(crate) fn joined(
    own: &[Arc<ActiveEffect>],
    before: &[JoinedEffect],
    group: &GroupEffects,
) -> Arc<[JoinedEffect]> {
    let since = |name| group.get(name).and_then(|effect| effect.since);
    let mine = own.iter().map(|active| JoinedEffect {
        since: since(&active.effect.name),
        active: active.clone(),
    });
    let is_mine = |name: &EffectName| own.iter().any(|active| active.effect.name == *name);
    let others = group.names().filter(|name| !is_mine(name)).map(|name| {
        let known = before.iter().find(|known| known.is(name));
        let new = || Arc::new(ActiveEffect::elsewhere(name));
        JoinedEffect {
            active: known.map_or_else(new, |known| known.active.clone()),
            since: since(name),
        }
    });
    mine.chain(others).collect()
}

type Handling<'a> = BoxFuture<'a, Result<(), Failure>>;

type HandleRecord = dyn for<'a> Fn(&'a Record, &'a Context) -> Handling<'a> + Send + Sync;

/// A handler of any type, so that a consumer can hold several.
#[derive(Clone)]
pub(crate) struct ErasedHandler {
    handle: Arc<HandleRecord>,
    needs_at_a_time: usize,
}

impl ErasedHandler {
    pub fn new(handler: impl RecordHandler) -> Self {
        let needs_at_a_time = handler.needs_at_a_time();
        let handler = Arc::new(handler);
        let handle: Arc<HandleRecord> = Arc::new(move |record, context| {
            let handler = handler.clone();
            Box::pin(async move { handler.handle(record, context).await })
        });
        Self {
            handle,
            needs_at_a_time,
        }
    }
}

impl fmt::Debug for ErasedHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErasedHandler")
    }
}

impl RecordHandler for ErasedHandler {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        (self.handle)(record, context).await
    }

    fn needs_at_a_time(&self) -> usize {
        self.needs_at_a_time
    }
}

/// Handles nothing.
struct Elsewhere;

impl RecordHandler for Elsewhere {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        let why = "this worker does not perform the effect";
        Err(Failure::Unavailable(anyhow::anyhow!(why)))
    }
}
