//! One member of the fleet: it looks at the lease table, does what the plan says, and runs a task
//! for every shard that is its own.
//!
//! Nobody is in charge. Each member decides from the same rows ([`crate::decide::lease`]), and what
//! it decides is a conditional write that may lose its race. The loop waits for nothing but the
//! next thing to happen: calls are in flight beside each other, and a slow one holds up no other.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::decide::claim::Liveness;
use crate::decide::lease::Member;
use crate::engine::{Budget, Counters, Engine};
use crate::gate::left_out;
use crate::handler::RecordHandler;
use crate::leases::{Incarnation, LeaseStore};
use crate::settings::Settings;
use crate::source::StreamSource;

mod calls;
mod fleet;
mod listing;
mod tasks;

use fleet::Fleet;
#[cfg(feature = "simulation")]
pub(crate) use listing::EDGE;

/// Reads a stream together with the other workers of its fleet.
///
/// ```no_run
/// # async fn example(source: aftercommit::source::memory::MemoryStream,
/// #   leases: aftercommit::leases::memory::MemoryLeases) -> anyhow::Result<()> {
/// # use aftercommit::{Consumer, Context, Failure, Record, RecordHandler};
/// # struct Print;
/// # impl RecordHandler for Print {
/// #     async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> { Ok(()) }
/// # }
/// let consumer = Consumer::new("arn:aws:dynamodb:...", source, leases, Print);
/// consumer.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await
/// # }
/// ```
pub struct Consumer<S, L, H> {
    stream: Arc<str>,
    source: S,
    leases: L,
    handler: H,
    settings: Settings,
    clock: Clock,
    budget: Option<Budget>,
    counters: Arc<Counters>,
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Consumer<S, L, H> {
    /// A consumer of the stream with this ARN, with the default [`Settings`].
    pub fn new(stream: impl Into<Arc<str>>, source: S, leases: L, handler: H) -> Self {
        Self {
            stream: stream.into(),
            source,
            leases,
            handler,
            settings: Settings::default(),
            clock: Clock::system(),
            budget: None,
            counters: Arc::default(),
        }
    }

    /// With these settings.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// With this clock.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// With a memory budget that other consumers of the process share.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        Self {
            budget: Some(budget),
            ..self
        }
    }

    /// What it has done so far; stays valid while it runs.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Works until `shutdown` resolves, then drains: starts nothing more, lets records in flight
    /// finish (at most `handover_timeout`), writes the checkpoints, hands its shards over and
    /// leaves. Dropping the future instead is a crash: the others notice after `lease_duration`.
    ///
    /// # Errors
    ///
    /// Only settings that do not go together. Whatever fails later is logged and tried again.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.settings.validate()?;
        let mut rng = fastrand::Rng::with_seed(self.settings.seed);
        let nonce = if left_out!(TrustingStart) {
            0
        } else {
            rng.u64(..)
        };
        let me = Incarnation::new(&self.settings.worker_id, nonce);
        let origin = Instant::now();
        let member = Member::new(me.clone(), self.settings.timing.lease_duration);
        let member = Arc::new(Mutex::new(member));
        let budget = self
            .budget
            .unwrap_or_else(|| Budget::new(self.settings.memory_budget));
        info!(stream = %self.stream, worker = %me, "joining the fleet");
        let engine = Engine {
            source: self.source,
            leases: self.leases,
            handler: self.handler,
            stream: self.stream,
            settings: self.settings,
            clock: self.clock,
            budget,
            counters: self.counters,
            liveness: liveness_of(member.clone(), origin),
        };
        Fleet::new(Arc::new(engine), member, origin, rng)
            .run(shutdown)
            .await;
        Ok(())
    }
}

/// Asks the fleet's heartbeats whether a process may still be acting.
fn liveness_of(member: Arc<Mutex<Member>>, origin: Instant) -> crate::handler::LivenessOf {
    Arc::new(move |name| {
        let mut member = member.lock().unwrap_or_else(PoisonError::into_inner);
        let dead = member.is_dead(&Incarnation::from_row(name), origin.elapsed());
        if dead {
            Liveness::Dead
        } else {
            Liveness::Alive
        }
    })
}

/// A call that gets its answer within `limit`, or fails.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {limit:?}")))
}

fn complain(what: &str, error: &anyhow::Error) {
    warn!(
        error = format!("{error:#}"),
        "{what} failed; it is tried again"
    );
}
