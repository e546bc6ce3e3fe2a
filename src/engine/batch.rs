//! Handlers that get several records at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};

use crate::core::record::Record;
use crate::engine::handler::{Context, Crash, Failure, RecordHandler, contained};
use crate::stores::gather::{Callers, Gather, GatherLimits, GatherRequest};

/// How long a batch may take if its records have no limit of their own.
const LONGEST: Duration = Duration::from_hours(1);

/// When a record comes again whose batch was cut off, or did not begin in time.
const SOON: Duration = Duration::from_millis(100);

/// A record of a batch, and its own context: records of different shards share a batch, and each has its
/// own attempts, epoch and deadline.
#[derive(Debug, Clone)]
pub struct BatchRecord {
    /// The change.
    pub record: Record,
    /// Its context.
    pub context: Context,
}

/// Acts on committed changes, several at a time.
///
/// A batch has at most one record of an item, and is sorted by partition key. Records of one item still
/// come one after another, in commit order, and each at least once, as with a [`RecordHandler`].
///
/// ```
/// use std::time::Duration;
///
/// use aftercommit::engine::{BatchHandler, BatchLimits, Batched, BatchRecord};
/// use aftercommit::{Effect, EffectName, Failure};
///
/// struct Index;
///
/// impl BatchHandler for Index {
///     async fn handle(&self, batch: &[BatchRecord]) -> Vec<Result<(), Failure>> {
///         // One call for all of them; here, each succeeds.
///         println!("{} changes", batch.len());
///         batch.iter().map(|_| Ok(())).collect()
///     }
/// }
///
/// let mut limits = BatchLimits::default();
/// limits.max_records = 25;
/// limits.max_wait = Duration::from_millis(50);
/// let index = Batched::new(Index, limits);
/// let effect = Effect::new(EffectName::new("index")?, index);
/// # Ok::<(), aftercommit::engine::InvalidName>(())
/// ```
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles a batch of at least one record. Returns what became of each, in the order of the batch;
    /// with any other number of results every record is retried.
    ///
    /// The future may be dropped at any await: as soon as one of the records must not be handled any
    /// more, because its lease is lost or its worker has drained for too long, and when the batch overruns
    /// the time of an attempt. In the first case the others come again at once, in the second each record
    /// has failed.
    fn handle(
        &self,
        batch: &[BatchRecord],
    ) -> impl Future<Output = Vec<Result<(), Failure>>> + Send;
}

/// How large batches get.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BatchLimits {
    /// The most records in a batch; 100 by default, as much as `BatchGetItem` accepts.
    pub max_records: usize,
    /// The most bytes in a batch, as the stream counts them, unless a single record has more; 1 MiB by
    /// default.
    pub max_bytes: u64,
    /// How long a record waits for others; 20 ms by default. A full batch does not wait, and while
    /// `in_flight` batches are being handled records gather in any case.
    pub max_wait: Duration,
    /// How many batches are handled at a time; 4 by default.
    pub in_flight: usize,
    /// The attribute that is the table's partition key, for tables that have a sort key as well. A batch
    /// is sorted by it, so that it touches few partitions. `None`: by the whole key.
    pub partition_key: Option<String>,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            max_records: 100,
            max_bytes: 1 << 20,
            max_wait: Duration::from_millis(20),
            in_flight: 4,
            partition_key: None,
        }
    }
}

/// Hands records to a [`BatchHandler`] in batches. It is a [`RecordHandler`], and so fits wherever one is
/// expected.
///
/// A record whose attempt has failed comes alone the next time, so that one bad record cannot fail the
/// same others again and again.
pub struct Batched {
    gather: Gather<BatchRecord, Result<(), Failure>>,
    limits: BatchLimits,
}

impl Batched {
    /// Calls `handler` with batches of at most this size.
    pub fn new(handler: impl BatchHandler, limits: BatchLimits) -> Self {
        let handler = Arc::new(handler);
        let gathered = GatherLimits {
            most: limits.max_records.max(1),
            bytes: limits.max_bytes,
            wait: limits.max_wait,
            at_once: limits.in_flight,
        };
        let gather = Gather::new(gathered, move |batch, callers| {
            perform(handler.clone(), batch, callers).boxed()
        });
        Self { gather, limits }
    }

    fn request(&self, record: &Record, context: &Context) -> GatherRequest<BatchRecord> {
        let alone = context.attempt() > 1;
        GatherRequest {
            bytes: if alone {
                self.limits.max_bytes
            } else {
                record.size_bytes
            },
            order: self.order(record),
            what: BatchRecord {
                record: record.clone(),
                context: context.clone(),
            },
        }
    }

    /// What batches are sorted by: the partition key and then the whole key.
    fn order(&self, record: &Record) -> Arc<str> {
        let key = record.key();
        let name = self.limits.partition_key.as_ref();
        match name.and_then(|name| record.keys.inner().get(name)) {
            Some(partition) => format!("{partition:?} {}", key.as_str()).into(),
            None => key.as_str().into(),
        }
    }
}

impl RecordHandler for Batched {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let again = || Err(Failure::Busy(SOON));
        let joining = self.gather.join(self.request(record, context));
        // The rest is left to the batch. No record is to blame for waiting.
        let left = context.attempt_ends().map_or(LONGEST, left);
        let Ok(Some(answer)) = timeout(left / 2, joining).await else {
            return again();
        };
        answer.await.unwrap_or_else(|_| again())
    }

    /// One batch is handled while the next one gathers.
    fn needs_at_a_time(&self) -> usize {
        self.limits.max_records.saturating_mul(2)
    }
}

impl fmt::Debug for Batched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batched")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Handles a batch, until one of its callers leaves: its record may be handled elsewhere from then on.
async fn perform<B: BatchHandler>(
    handler: Arc<B>,
    batch: Vec<BatchRecord>,
    mut callers: Callers<Result<(), Failure>>,
) {
    let ends = batch
        .iter()
        .filter_map(|one| one.context.attempt_ends())
        .min();
    // Before the first attempt runs out, so that the time counts against all of them.
    let limit = ends.map_or(LONGEST, left) * 19 / 20;
    let handling = contained(async { handler.handle(&batch).await }, limit);
    let ended = tokio::select! {
        biased;
        ended = handling => ended,
        () = callers.one_has_left() => return,
    };
    callers.answer(results(ended, batch.len()));
}

/// What became of each of so many records.
fn results(
    ended: Result<Vec<Result<(), Failure>>, Crash>,
    records: usize,
) -> Vec<Result<(), Failure>> {
    let failure = match ended {
        Ok(results) if results.len() == records => return results,
        Ok(results) => Failure::retry(format!(
            "the batch handler returned {} results for {records} records: it must return one for each",
            results.len()
        )),
        Err(crash) => Failure::Retry(crash.into()),
    };
    (0..records).map(|_| Err(failure.copied())).collect()
}

#[cfg(test)]
mod tests;
