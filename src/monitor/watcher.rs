//! Watches the consumers of a process.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::{join, join_all};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::asked::OrdersInNeed;
use super::health::{self, HeldBack, NotReady, Stuck};
use super::metrics::{Mails, Sample};
use super::process_report::{Process, ProcessHistory, ProcessMoment};
use super::report::FleetStatus;
use super::watched::Watch;
use crate::core::overload::Overload;
use crate::stores::clock::Clock;
use crate::stores::ledger::Needed;

/// The time between two looks at the process.
const LOOK: Duration = Duration::from_secs(1);

/// Records that had to wait for this many lease durations while the lag grew mean overload: a minute by
/// default.
const SUSTAINED: u32 = 6;

/// A watched process and its consumers. Clones watch the same process.
#[derive(Clone)]
pub struct Status {
    inner: Arc<Watching>,
}

struct Watching {
    clock: Clock,
    since: SystemTime,
    origin: Instant,
    /// Set once the process has started.
    watched: OnceLock<Vec<Watch>>,
    /// Why the last attempt to start failed.
    start_error: Mutex<Option<String>>,
    attention: OnceLock<OrdersInNeed>,
    recent: Mutex<Recent>,
}

/// What only repeated looks can show.
#[derive(Default)]
struct Recent {
    overload: Overload,
    overloaded: Option<(Duration, HeldBack)>,
    history: ProcessHistory,
    /// Whether the process was ready at the last look.
    ready: bool,
}

impl Status {
    /// The status of a process with these consumers. It uses the clock of their service, and `clock`
    /// until they run.
    pub fn new(clock: Clock, consumers: impl IntoIterator<Item = Watch>) -> Self {
        let status = Self::starting(clock);
        status.started(consumers);
        status
    }

    /// The status of a process without consumers yet, because it is still looking for its tables. Serve
    /// it from the start, so that probes learn why the process is not ready.
    pub fn starting(clock: Clock) -> Self {
        let inner = Watching {
            since: clock.now(),
            clock,
            origin: Instant::now(),
            watched: OnceLock::new(),
            start_error: Mutex::default(),
            attention: OnceLock::new(),
            recent: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Records that an attempt to start failed, and that another one follows.
    pub fn start_failed(&self, why: impl Into<String>) {
        *self.start_error_mut() = Some(why.into());
    }

    /// Records that the process has started with these consumers. It starts only once.
    pub fn started(&self, consumers: impl IntoIterator<Item = Watch>) {
        let _ = self.inner.watched.set(consumers.into_iter().collect());
    }

    /// The consumers; none while the process starts.
    fn watched(&self) -> &[Watch] {
        self.inner.watched.get().map_or(&[], Vec::as_slice)
    }

    /// Why the process has not started yet.
    fn not_started(&self) -> Option<NotReady> {
        if self.inner.watched.get().is_some() {
            return None;
        }
        Some(NotReady::Starting(self.start_error_mut().clone()))
    }

    fn start_error_mut(&self) -> MutexGuard<'_, Option<String>> {
        let error = self.inner.start_error.lock();
        error.unwrap_or_else(PoisonError::into_inner)
    }

    /// Also shows how many orders need a person's attention, over the whole fleet, for example from
    /// [`DynamoDbLedger::attention`](crate::stores::ledger::dynamodb::DynamoDbLedger::attention). It is
    /// queried when a client looks, at most every ten seconds.
    pub fn attention<F>(&self, count: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = anyhow::Result<Needed>> + Send + 'static,
    {
        let _ = self.inner.attention.set(OrdersInNeed::by(count));
    }

    /// The present metrics of this process, a sample for each table and effect.
    pub fn samples(&self) -> Vec<Sample> {
        Sample::by_labels(self.watched().iter().flat_map(Watch::samples))
    }

    /// The same, and, if this worker lists the stream, what waits in the tables
    /// ([`Levels`](super::levels::Levels)), which is queried as for [`Status::fleet`].
    pub async fn measure(&self) -> Vec<Sample> {
        let orders = self.inner.attention.get();
        let watched = self.watched().iter();
        let samples = join_all(watched.map(|one| one.measure(orders))).await;
        Sample::by_labels(samples.into_iter().flatten())
    }

    /// Whether the process is alive and its loops make progress ([`health::stuck`]), or whether it has
    /// been starting for less than the limit ([`health::start`]).
    ///
    /// # Errors
    ///
    /// What is stuck.
    pub fn alive(&self) -> Result<(), Stuck> {
        if let Some(NotReady::Starting(why)) = self.not_started() {
            return health::start(self.inner.origin.elapsed(), why);
        }
        let watched = self.watched().iter();
        let mut stuck = watched.filter_map(|one| health::stuck(&one.progress));
        stuck.next().map_or(Ok(()), Err)
    }

    /// Whether the process does its work and keeps up with it
    /// ([`Progress::ready`](crate::engine::progress::Progress::ready)).
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        if let Some(starting) = self.not_started() {
            return Err(starting);
        }
        for one in self.watched() {
            one.progress.ready()?;
        }
        let overloaded = self.recent().overloaded;
        overloaded.map_or(Ok(()), |(time, by)| Err(NotReady::Overloaded(time, by)))
    }

    /// How the fleet is doing, as this worker sees it.
    ///
    /// The rows are those that the consumers' own loops saw last, a second or two ago, so this costs no
    /// calls to DynamoDB. Only the parked keys and the orders in the ledger are counted for it, at most
    /// every ten seconds. It waits for them for a second in total. A later answer is shown at the next
    /// look, and the previous one until then, for five minutes.
    pub async fn fleet(&self) -> FleetStatus {
        let watched = self.watched();
        let parked = join_all(watched.iter().map(Watch::parked));
        let needed = async {
            let attention = self.inner.attention.get()?;
            Some(attention.orders().await)
        };
        let (parked, needed) = join(parked, needed).await;
        let mut unknown: Vec<_> = self.not_started().iter().map(ToString::to_string).collect();
        let mut known = |why| unknown.push(why);
        let (now, ready) = (self.now(), self.ready());
        let mut streams = Vec::new();
        let mut read = now;
        for (one, parked) in watched.iter().zip(parked) {
            let Some((at, stream)) = one.stream(now, &ready) else {
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
        FleetStatus::new(read, streams, needed).without(unknown)
    }

    /// What the process reports about itself.
    pub fn process(&self) -> Process {
        let first = self.watched().first().map(|one| &one.progress);
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
            buffered_bytes: budget.map_or(0, crate::engine::budget::Budget::taken),
            buffer_limit_bytes: budget.map_or(0, crate::engine::budget::Budget::limit),
            mails: self.mails(),
            dependency_down_seconds: self.down_for().as_secs_f64(),
            history: self.recent().history.moments().cloned().collect(),
        }
    }

    /// Looks at the process once a second, for as long as it is polled: overload and the history need
    /// this. [`http::serve`](super::http::serve) does it.
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
        let shards = || self.watched().iter().flat_map(|one| one.progress.shards());
        let lag = shards().filter_map(|shard| shard.lag).max();
        let waits = self.watched().iter().any(|one| {
            let budget = one.progress.budget();
            budget.is_some_and(|budget| budget.waiting() > 0)
        });
        let held_back = waits || shards().any(|shard| shard.held_back);
        let timings = self
            .watched()
            .iter()
            .filter_map(|one| one.progress.timing());
        let lease_duration = timings.map(|timing| timing.lease_duration).max();
        let window = lease_duration.unwrap_or_default() * SUSTAINED;
        let moment = ProcessMoment {
            at: self.now(),
            lag_seconds: lag.map(|lag| lag.as_secs_f64()),
            until_trim_seconds: shards()
                .filter_map(|shard| shard.until_trim)
                .min()
                .map(|left| left.as_secs_f64()),
            finished_total: self.finished(),
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
        self.report_change();
    }

    /// Logs when it becomes ready, or stops being ready.
    fn report_change(&self) {
        let why = self.ready().err();
        let before = std::mem::replace(&mut self.recent().ready, why.is_none());
        match why {
            Some(why @ NotReady::Draining) if before => info!(%why, "not ready"),
            // The dependency's own log line says so already.
            Some(NotReady::Down(_)) => {}
            Some(why) if before => warn!(%why, "not ready"),
            None if !before => info!("ready"),
            _ => {}
        }
    }

    fn now(&self) -> SystemTime {
        let mut watched = self.watched().iter();
        let now = watched.find_map(|one| one.progress.now());
        now.unwrap_or_else(|| self.inner.clock.now())
    }

    fn finished(&self) -> u64 {
        self.watched().iter().map(Watch::finished).sum()
    }

    /// The mails of all consumers that send some.
    fn mails(&self) -> Option<Mails> {
        let counts = self.watched().iter().filter_map(Watch::mails_now);
        counts.reduce(Mails::plus)
    }

    fn down_for(&self) -> Duration {
        let all = self.watched().iter().map(Watch::down_for);
        all.max().unwrap_or_default()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.inner
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_cannot_start_is_not_ready_at_once_and_not_alive_after_a_minute() {
        let status = Status::starting(Clock::system());
        let ready = || status.ready().map_err(|why| why.to_string());
        assert_eq!(ready(), Err("starting".to_owned()));
        status.start_failed("DynamoDB is away");
        assert_eq!(ready(), Err("starting: DynamoDB is away".to_owned()));
        assert_eq!(status.alive(), Ok(()));
        let fleet = status.fleet().await;
        let reported = ["The status is incomplete: starting: DynamoDB is away."];
        assert_eq!(fleet.advice, reported);
        assert!(status.samples().is_empty());

        tokio::time::advance(Duration::from_secs(61)).await;
        let stuck = status.alive().map_err(|stuck| stuck.to_string());
        let reported = "the worker has not started for 61 s: DynamoDB is away";
        assert_eq!(stuck, Err(reported.to_owned()));
        status.started([]);
        assert_eq!(status.alive(), Ok(()));
    }
}
