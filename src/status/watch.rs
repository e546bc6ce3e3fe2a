//! The consumers of a process, watched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::{join, join_all};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::asked::{Attention, Parked};
use super::health::{self, HeldBack, NotReady, Stuck};
use super::metrics::{Behind, Facts, FleetNow, Labels, Mails, Sample};
use super::process::{History, Moment, Process};
use super::report::{FleetStatus, StreamStatus};
use crate::clock::Clock;
use crate::consumer::Consumer;
use crate::dead_letter::Reason;
use crate::decide::overload::Overload;
use crate::group::Effect;
use crate::handler::RecordHandler;
use crate::leases::LeaseStore;
use crate::ledger::Needed;
use crate::progress::{Progress, Seen};
use crate::settings::Timing;
use crate::source::StreamSource;

/// How often the process is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Work that had to wait for this many lease durations while the lag grew is overload that lasts:
/// a minute, unless configured otherwise.
const SUSTAINED: u32 = 6;

/// What is watched of one consumer.
#[derive(Clone)]
pub struct Watch {
    progress: Arc<Progress>,
    labels: Labels,
    mails: Option<Arc<dyn Fn() -> Mails + Send + Sync>>,
    parked: Option<Arc<Parked>>,
}

impl Watch {
    /// Watches a consumer, once it has all that it is to have. Its table is the one in its ARN.
    pub fn of<S: StreamSource, L: LeaseStore, H: RecordHandler>(
        consumer: &Consumer<S, L, H>,
    ) -> Self {
        let progress = consumer.progress();
        let table = progress.at().table_name();
        Self {
            labels: Labels {
                group: progress.at().group().clone(),
                effect: Effect::default(),
                table: table.to_owned(),
            },
            progress,
            mails: None,
            parked: consumer
                .letters()
                .map(|letters| Arc::new(Parked::of(letters))),
        }
    }

    /// Of a handler that performs this effect; `confirmation` unless another is set.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.labels.effect = effect;
        self
    }

    /// With the counts of a handler that sends mails.
    #[must_use]
    pub fn mails(self, counts: impl Fn() -> Mails + Send + Sync + 'static) -> Self {
        let mails: Arc<dyn Fn() -> Mails + Send + Sync> = Arc::new(counts);
        Self {
            mails: Some(mails),
            ..self
        }
    }

    fn mails_now(&self) -> Option<Mails> {
        self.mails.as_ref().map(|counts| counts())
    }

    fn sample(&self) -> Sample {
        let shards = self.progress.shards();
        let behind = shards.iter().filter_map(|shard| {
            Some(Behind {
                shard: shard.shard.to_string(),
                lag: shard.lag?,
                until_trim: shard.until_trim?,
            })
        });
        Sample::of(&Facts {
            labels: &self.labels,
            counters: self.progress.counters(),
            handling: &self.progress.handling,
            mails: self.mails_now(),
            behind: behind.collect(),
            fleet: Some(FleetNow {
                settling: &self.progress.settling,
                shards: &shards,
                budget: self.progress.budget(),
                down_for: self.down_for(),
            }),
        })
    }

    /// The stream as the worker's last look saw it.
    fn stream(&self, now: SystemTime) -> Option<(SystemTime, StreamStatus)> {
        let Seen { view, at } = self.progress.seen()?;
        let retention = self.progress.timing().map(|timing| timing.retention);
        let retention = retention.unwrap_or(Timing::default().retention);
        let of = self.progress.at();
        let beats = self.progress.beats();
        let mut status = StreamStatus::new(of, &view, &beats, now, retention);
        // Its own row tells it only from the next heartbeat on.
        let me = self.progress.worker();
        let mut workers = status.workers.iter_mut();
        if let Some(me) = workers.find(|worker| Some(&*worker.worker) == me) {
            me.trouble = self.progress.trouble();
        }
        Some((at, status))
    }

    /// Why each key is parked, if that can be known; and if not, why not.
    async fn parked(&self) -> Option<Result<Vec<Option<Reason>>, String>> {
        let parked = self.parked.as_ref()?;
        Some(parked.reasons(self.progress.at()).await)
    }

    fn down_for(&self) -> Duration {
        let dependency = self.progress.dependency();
        let down_for = dependency.and_then(crate::dependency::Dependency::down_for);
        down_for.unwrap_or_default()
    }
}

/// A process and its consumers, watched. Clones are the same.
#[derive(Clone)]
pub struct Status {
    inner: Arc<Inner>,
    attention: Option<Arc<Attention>>,
}

struct Inner {
    clock: Clock,
    since: SystemTime,
    origin: Instant,
    watched: Vec<Watch>,
    recent: Mutex<Recent>,
}

/// What only who looks again and again can tell.
#[derive(Default)]
struct Recent {
    overload: Overload,
    overloaded: Option<(Duration, HeldBack)>,
    history: History,
    /// Whether it was ready at the last look.
    ready: bool,
}

impl Status {
    /// The status of a process with these consumers. The clock is theirs.
    pub fn new(clock: Clock, consumers: impl IntoIterator<Item = Watch>) -> Self {
        let inner = Inner {
            since: clock.now(),
            clock,
            origin: Instant::now(),
            watched: consumers.into_iter().collect(),
            recent: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
            attention: None,
        }
    }

    /// With a count of the orders that need a person's attention, over the whole fleet, such as
    /// [`DynamoDbLedger::attention`](crate::ledger::dynamodb::DynamoDbLedger::attention). It is asked
    /// for when somebody looks, at most every ten seconds.
    #[must_use]
    pub fn attention<F>(self, count: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<Needed>> + Send + 'static,
    {
        Self {
            attention: Some(Arc::new(Attention::by(count))),
            ..self
        }
    }

    /// All metrics as they are now, a sample for each table.
    pub fn samples(&self) -> Vec<Sample> {
        Sample::by_labels(self.inner.watched.iter().map(Watch::sample))
    }

    /// Whether the process is alive and its loops turn ([`health::stuck`]).
    ///
    /// # Errors
    ///
    /// Says what is stuck.
    pub fn alive(&self) -> Result<(), Stuck> {
        let mut stuck = self
            .inner
            .watched
            .iter()
            .filter_map(|one| health::stuck(&one.progress));
        stuck.next().map_or(Ok(()), Err)
    }

    /// Whether the process takes part in its work and keeps up with it ([`health::standing`]).
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        for one in &self.inner.watched {
            health::standing(&one.progress)?;
        }
        let overloaded = self.recent().overloaded;
        overloaded.map_or(Ok(()), |(time, by)| Err(NotReady::Overloaded(time, by)))
    }

    /// How the fleet is doing, as this worker sees it.
    ///
    /// The rows are those that the consumers' own loops saw last, a second or two ago, so that asking
    /// costs DynamoDB nothing; only the parked keys and the orders in the ledger are counted for it, at most
    /// every ten seconds. They are waited for a second, all together; an answer that comes later is
    /// told at the next look, and the last one until then, for five minutes.
    pub async fn fleet(&self) -> FleetStatus {
        let watched = &self.inner.watched;
        let parked = join_all(watched.iter().map(Watch::parked));
        let needed = async {
            let attention = self.attention.as_ref()?;
            Some(attention.orders().await)
        };
        let (parked, needed) = join(parked, needed).await;
        let mut untold = Vec::new();
        let mut known = |why| untold.push(why);
        let now = self.inner.clock.now();
        let mut streams = Vec::new();
        let mut read = now;
        for (one, parked) in watched.iter().zip(parked) {
            let Some((at, stream)) = one.stream(now) else {
                continue;
            };
            let reasons = parked.and_then(|parked| parked.map_err(&mut known).ok());
            read = read.min(at);
            streams.push(match reasons {
                Some(reasons) => {
                    stream.with_parked(reasons.into_iter().map(|one| Some(one?.word())))
                }
                None => stream,
            });
        }
        let needed = needed.and_then(|orders| orders.map_err(&mut known).ok());
        FleetStatus::new(read, streams, needed).without(untold)
    }

    /// What the process tells of itself.
    pub fn process(&self) -> Process {
        let first = self.inner.watched.first().map(|one| &one.progress);
        let budget = first.and_then(|progress| progress.budget());
        let why = self.ready().err();
        Process {
            version: env!("CARGO_PKG_VERSION"),
            worker: first
                .and_then(|progress| progress.worker())
                .map(str::to_owned),
            since: self.inner.since,
            ready: why.is_none(),
            not_ready_because: why.map(|why| why.to_string()),
            buffered_bytes: budget.map_or(0, crate::budget::Budget::taken),
            buffer_limit_bytes: budget.map_or(0, crate::budget::Budget::limit),
            mails: self.mails(),
            dependency_down_seconds: self.down_for().as_secs_f64(),
            history: self.recent().history.moments().cloned().collect(),
        }
    }

    /// Looks at the process once a second, for as long as it is polled: overload that lasts and the
    /// history are known only by that. [`http::serve`](super::http::serve) does it.
    pub async fn watch(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    fn look(&self) {
        let now = self.inner.origin.elapsed();
        let shards = || {
            self.inner
                .watched
                .iter()
                .flat_map(|one| one.progress.shards())
        };
        let lag = shards().filter_map(|shard| shard.lag).max();
        let waits = self.inner.watched.iter().any(|one| {
            let budget = one.progress.budget();
            budget.is_some_and(|budget| budget.waiting() > 0)
        });
        let held_back = waits || shards().any(|shard| shard.held_back);
        let lease_duration = self
            .inner
            .watched
            .iter()
            .filter_map(|one| one.progress.timing());
        let lease_duration = lease_duration.map(|timing| timing.lease_duration).max();
        let window = lease_duration.unwrap_or_default() * SUSTAINED;
        let moment = Moment {
            at: self.inner.clock.now(),
            lag_seconds: lag.map(|lag| lag.as_secs_f64()),
            until_trim_seconds: shards()
                .filter_map(|shard| shard.until_trim)
                .min()
                .map(|left| left.as_secs_f64()),
            settled_total: self.settled(),
            accepted_total: self.mails().map_or(0, |mails| mails.accepted),
        };
        let mut recent = self.recent();
        let lag = held_back.then(|| lag.unwrap_or_default());
        let lasts = recent.overload.see(now, lag, window);
        let by = if waits {
            HeldBack::Memory
        } else {
            HeldBack::Places
        };
        recent.overloaded = lasts.map(|lasts| (lasts, by));
        recent.history.add(now, moment);
        drop(recent);
        self.tell_change();
    }

    /// Logs that it has become ready, or is so no longer.
    fn tell_change(&self) {
        let why = self.ready().err();
        let before = std::mem::replace(&mut self.recent().ready, why.is_none());
        match why {
            Some(why @ NotReady::Draining) if before => info!(%why, "not ready"),
            // The dependency's own line says so already.
            Some(NotReady::Down(_)) => {}
            Some(why) if before => warn!(%why, "not ready"),
            None if !before => info!("ready"),
            _ => {}
        }
    }

    fn settled(&self) -> u64 {
        let counters = self.inner.watched.iter().map(|one| one.progress.counters());
        counters.map(|counters| counters.settled()).sum()
    }

    /// The mails of all consumers that send some.
    fn mails(&self) -> Option<Mails> {
        let counts = self.inner.watched.iter().filter_map(Watch::mails_now);
        counts.reduce(Mails::plus)
    }

    fn down_for(&self) -> Duration {
        let all = self.inner.watched.iter().map(Watch::down_for);
        all.max().unwrap_or_default()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.inner
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
