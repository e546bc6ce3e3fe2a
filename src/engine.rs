//! What all shard tasks of a consumer share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::dead_letter::DeadLetters;
use crate::decide::retry::Backoff;
use crate::dependency::Dependency;
use crate::filter::{Filters, HomeRegion};
use crate::group::{GroupTable, Identity};
use crate::handler::LivenessOf;
use crate::progress::Progress;
use crate::record::Record;
use crate::settings::Settings;

/// From so many parked keys on, a reader asks for each key instead of knowing all of them.
pub(crate) const FEW_PARKED: usize = 250;

/// What all shard tasks of a consumer share.
pub(crate) struct Engine<S, L, H> {
    pub source: S,
    pub leases: L,
    pub handler: Arc<H>,
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
    /// The service's, whatever the worker's own shows.
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
