//! What all shard tasks of a consumer share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use crate::budget::Budget;
use crate::clock::Clock;
use crate::dead_letter::{Coming, DeadLetters, Fence, Letter, Reason, Written};
use crate::decide::retry::Backoff;
use crate::dependency::Dependency;
use crate::filter::{Filters, HomeRegion};
use crate::group::{GroupTable, Identity};
use crate::handler::LivenessOf;
use crate::progress::{Counters, Progress};
use crate::record::Record;
use crate::settings::Settings;

/// From so many parked keys on, a reader asks for each key instead of knowing all of them.
pub(crate) const FEW_PARKED: usize = 250;

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
    pub at: GroupTable,
    /// Which record becomes which effect.
    pub identity: Identity,
    pub settings: Settings,
    pub clock: Clock,
    pub budget: Budget,
    pub progress: Arc<Progress>,
    pub liveness: LivenessOf,
}

impl<S, L, H> Engine<S, L, H> {
    /// Whether the handler gets the record, which is from the stream with this ARN.
    pub fn wants(&self, record: &Record, stream: &str) -> bool {
        self.filters.want(record, stream, self.home.as_ref())
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

/// What came of burying a record.
pub(crate) enum Buried {
    /// Its letter is written, for this reason.
    As(Reason),
    /// It was to follow others of its key, and the key is not parked any more.
    KeyFree,
    /// The lease under which it was read is somebody else's.
    LeaseLost,
}

/// How letters are written.
pub(crate) struct Burial<'a> {
    pub letters: &'a dyn DeadLetters,
    pub fence: Option<&'a Fence>,
    pub counters: &'a Counters,
    /// How long one call may take.
    pub limit: Duration,
}

impl Burial<'_> {
    /// Writes a letter, again and again until the store takes it, and sends the copies of it that
    /// are due.
    pub async fn of(self, letter: &Letter, rng: fastrand::Rng) -> Buried {
        let reason = letter.envelope.reason;
        let coming = match reason {
            Reason::Followed => Coming::Behind,
            _ => Coming::First,
        };
        let write = || self.letters.write(letter, coming, self.fence);
        match persist(self.limit, rng, "writing a dead letter", write).await {
            Written::Done => {}
            Written::KeyFree => return Buried::KeyFree,
            Written::LeaseLost => return Buried::LeaseLost,
        }
        if let Err(error) = self.letters.copy(letter).await {
            Counters::add(&self.counters.uncopied);
            let (shard, sequence) = (&letter.envelope.shard, &letter.envelope.id.sequence_number);
            error!(%shard, %sequence, error = format!("{error:#}"),
                "a dead letter is written, but no copy of it could be sent");
        }
        Buried::As(reason)
    }
}
