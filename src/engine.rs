//! What all shard tasks of a consumer share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::clock::Clock;
use crate::dead_letter::{DeadLetters, Letter, Reason};
use crate::decide::retry::Backoff;
use crate::dependency::Dependency;
use crate::filter::{Filters, HomeRegion};
use crate::handler::LivenessOf;
use crate::record::Record;
use crate::settings::Settings;

/// What all shard tasks of a consumer share.
pub(crate) struct Engine<S, L, H> {
    pub source: S,
    pub leases: L,
    pub handler: H,
    /// Where records go that cannot be handled.
    pub letters: Option<Arc<dyn DeadLetters>>,
    /// Which records the handler gets.
    pub filters: Filters,
    pub home: Option<HomeRegion>,
    pub dependency: Dependency,
    pub stream: Arc<str>,
    pub settings: Settings,
    pub clock: Clock,
    pub budget: Budget,
    pub counters: Arc<Counters>,
    pub liveness: LivenessOf,
}

impl<S, L, H> Engine<S, L, H> {
    /// Whether the handler gets the record.
    pub fn wants(&self, record: &Record) -> bool {
        self.filters.want(record, &self.stream, self.home.as_ref())
    }
}

/// How many bytes of records a process may hold. Share one among the consumers of a process.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// What one read may bring, in bytes.
///
/// Source: [GetRecords](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const READ: u32 = 1 << 20;

impl Budget {
    /// A budget of this many bytes, and at least the 1 MiB of one read.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(
            bytes.clamp(READ as usize, Semaphore::MAX_PERMITS),
        )))
    }

    /// Waits until one read fits; readers take turns. `None` never happens while it is in use.
    pub(crate) async fn room_for_a_read(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_many_owned(READ).await.ok()
    }
}

/// What a consumer has done since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that the handler settled.
    pub handled: AtomicU64,
    /// Records that were skipped: older than the start.
    pub skipped: AtomicU64,
    /// Records that the filters held back, or that belong to another region.
    pub filtered: AtomicU64,
    /// Records that became dead letters because they failed.
    pub dead_letters: AtomicU64,
    /// Records that went behind a dead letter of their key.
    pub followed: AtomicU64,
    /// Records that became dead letters because they were about to leave the stream.
    pub rescued: AtomicU64,
    /// Dead letters that were redriven by themselves.
    pub redriven: AtomicU64,
    /// Attempts that failed. Those that a dependency put off are not counted.
    pub failed_attempts: AtomicU64,
    /// Gaps: stretches of records that were trimmed before they could be read.
    pub gaps: AtomicU64,
    /// Leases taken from nobody or from dead workers.
    pub takes: AtomicU64,
    /// Leases handed over to others.
    pub hand_overs: AtomicU64,
    /// Times that the trust window closed before a heartbeat renewed it.
    pub lapses: AtomicU64,
    /// Checkpoints written.
    pub checkpoints: AtomicU64,
    /// Writes that another worker's lease refused.
    pub refused: AtomicU64,
}

impl Counters {
    /// Which one counts dead letters for this reason.
    pub(crate) fn of(&self, reason: Reason) -> &AtomicU64 {
        match reason {
            Reason::Rescued => &self.rescued,
            Reason::Followed => &self.followed,
            Reason::Rejected | Reason::Exhausted | Reason::TooOld => &self.dead_letters,
        }
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// How calls are repeated whose answer must come.
pub(crate) const PERSISTENT: Backoff = Backoff {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
};

/// Repeats a call whose answer must come, each for at most `limit`. What is called so may be
/// repeated.
pub(crate) async fn persist<T, F: Future<Output = anyhow::Result<T>>>(
    limit: Duration,
    mut rng: fastrand::Rng,
    what: &'static str,
    call: impl Fn() -> F,
) -> T {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match tokio::time::timeout(limit, call()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error,
            Err(late) => late.into(),
        };
        warn!(
            error = format!("{error:#}"),
            "{what} failed and is tried again"
        );
        tokio::time::sleep(PERSISTENT.wait(attempt, &mut rng)).await;
    }
}

/// Writes a letter, again and again until the store takes it. `None`: it was to follow others of
/// its key, and the key is not parked any more.
pub(crate) async fn bury(
    letters: &dyn DeadLetters,
    letter: &Letter,
    limit: Duration,
    rng: fastrand::Rng,
) -> Option<Reason> {
    let reason = letter.envelope.reason;
    let what = "writing a dead letter";
    if reason == Reason::Followed {
        let follow = || letters.follow(letter);
        return persist(limit, rng, what, follow).await.map(|()| reason);
    }
    persist(limit, rng, what, || letters.park(letter)).await;
    Some(reason)
}
