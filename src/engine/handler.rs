//! The handler that users write for committed changes.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::core::claim::Liveness;
use crate::core::record::Record;
use crate::core::shard::ShardId;
use crate::engine::trust::Tenure;

mod attempt;
mod aws;
mod failure;

pub(crate) use attempt::{Crash, attempt, contained, span_of};
pub use failure::Failure;

/// Acts on committed changes.
///
/// Records of one item are delivered one after another, in commit order; records of different items
/// in parallel. A record is delivered **at least once**: again after a crash, a lost lease or a retry.
/// Make the effect idempotent, on the order id for example, or give the rows that you write a version
/// ([`Context::version`]), so that a late write never replaces a newer one.
///
/// ```
/// use aftercommit::{Context, Event, Failure, Record, RecordHandler};
///
/// struct Print;
///
/// impl RecordHandler for Print {
///     async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
///         if record.event == Event::Insert {
///             println!("{} committed in {}", record.key().as_str(), context.shard());
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait RecordHandler: Send + Sync + 'static {
    /// Handles one record. `Ok` finishes it; a [`Failure`] says what to do with it.
    ///
    /// The future may be dropped at any await: when the worker drains for too long, or when the
    /// handler overruns its time.
    fn handle(
        &self,
        record: &Record,
        context: &Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// How many records of a shard have to run at a time for this handler to work well: 1, but for one
    /// that gathers records into batches. If it is more than
    /// [`Settings::concurrency`](crate::Settings::concurrency), so many run.
    fn needs_at_a_time(&self) -> usize {
        1
    }
}

impl<H: RecordHandler> RecordHandler for Arc<H> {
    fn needs_at_a_time(&self) -> usize {
        (**self).needs_at_a_time()
    }

    fn handle(
        &self,
        record: &Record,
        context: &Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        (**self).handle(record, context)
    }
}

/// Prefix of the names of processes outside of a fleet. They write no heartbeat.
pub const OUTSIDE: &str = "~";

/// Prefix of the names of commands that handle one order once, on an operator's request. Its record is
/// not delivered again.
pub const ONCE: &str = "~send/";

/// Whether the process with this incarnation may still be acting.
pub type LivenessOf = Arc<dyn Fn(&str) -> Liveness + Send + Sync>;

/// Where a record was read, which attempt this is, and until when the handler may act.
#[derive(Clone)]
pub struct Context {
    pub(crate) stream: Arc<str>,
    pub(crate) shard: ShardId,
    pub(crate) incarnation: Arc<str>,
    pub(crate) epoch: Option<u64>,
    pub(crate) attempt: u32,
    pub(crate) tenure: Tenure,
    pub(crate) cancelled: CancellationToken,
    pub(crate) liveness: LivenessOf,
    pub(crate) ends: Option<Instant>,
    pub(crate) attempt_ends: Option<Instant>,
    pub(crate) remarks: Arc<Remarks>,
}

/// What a handler reports about a call besides its result.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    did_not_ask: AtomicBool,
    in_doubt: OnceLock<String>,
}

impl Context {
    /// The stream's ARN.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The shard that the record was read from.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The name of this process since its start; it is never used again.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Whether the record is delivered again until it is finished.
    pub(crate) fn comes_again(&self) -> bool {
        !self.incarnation.starts_with(ONCE)
    }

    /// The version of a row of yours that shows the item as `record` left it: the record's place in
    /// the history of its item. Versions compare as strings, across all shards and streams of a table.
    /// A record has the same version however often it is delivered, by a fleet, a redrive or Lambda.
    /// A write under [`Context::NEWER`] never puts an older state over a newer one.
    ///
    /// ```
    /// # use aftercommit::{Context, Failure, Record};
    /// use aws_sdk_dynamodb::types::AttributeValue;
    ///
    /// # async fn project(client: &aws_sdk_dynamodb::Client, record: &Record, context: &Context)
    /// #     -> Result<(), Failure> {
    /// let put = client.put_item().table_name("orders-by-customer");
    /// let written = put
    ///     .item("id", AttributeValue::S(record.key().as_str().to_owned()))
    ///     .item("version", AttributeValue::S(context.version(record)))
    ///     .condition_expression(Context::NEWER)
    ///     .expression_attribute_names("#version", "version")
    ///     .expression_attribute_values(":version", AttributeValue::S(context.version(record)))
    ///     .send()
    ///     .await;
    /// match written {
    ///     Err(error) if error.as_service_error()
    ///         .is_some_and(|error| error.is_conditional_check_failed_exception()) =>
    ///     {
    ///         context.did_not_ask(); // The row is newer: nothing to do.
    ///         Ok(())
    ///     }
    ///     written => written.map(|_| ()).map_err(Failure::from),
    /// }
    /// # }
    /// ```
    ///
    /// For a removed item write a row that marks the removal, with a time to live of more than a day.
    /// If you delete the row instead, a late write of an older state brings it back.
    pub fn version(&self, record: &Record) -> String {
        let label = self.stream.rsplit_once("/stream/");
        let label = label.map_or("", |(_, label)| label);
        format!("{label}#{}", record.sequence_number.padded())
    }

    /// The condition of a write that versions its row by [`Context::version`]: as the condition
    /// expression of a DynamoDB call in which `#version` is the attribute and `:version` the version.
    pub const NEWER: &str = "attribute_not_exists(#version) OR #version < :version";

    /// The epoch of the lease under which the record is handled: it rises with every change of the
    /// owner of a shard, from a shard to its children, and from a stream of the table to the next,
    /// so a store of yours that refuses an epoch lower than the last it saw of an item keeps out an
    /// owner that was frozen and does not know that it lost the shard. `None` where there is no
    /// lease: on Lambda, and when a dead letter is redriven, be it by a worker of the fleet.
    ///
    /// For rows that show an item's state, [`Context::version`] is simpler and always there.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// When this worker's lease of the shard ends, unless a heartbeat renews it. `None`: it has ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.tenure.until()
    }

    /// Whether an effect may still begin. Check it right before a point of no return.
    pub fn may_act(&self) -> bool {
        self.tenure.holds()
    }

    /// When this process will be killed, as Lambda ends an invocation; `None` if unknown. A claim of
    /// yours need not last longer. If this is `Some`, a whole batch is delivered again after one
    /// failure: check whether the effect is done before you begin it.
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// When this attempt runs out of time and its future is dropped
    /// ([`Timing::handler_timeout`](crate::engine::Timing::handler_timeout)), or the process is killed, if that
    /// is sooner; `None` if neither is known.
    pub fn attempt_ends(&self) -> Option<Instant> {
        let both = [self.attempt_ends, self.ends];
        both.into_iter().flatten().min()
    }

    /// Resolves when the worker wants to stop: finish soon, or your future is dropped.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Reports that this call did not use the dependency: there was nothing to do, or it was done
    /// before. Its success then does not close the circuit, and does not count against records that
    /// find the dependency down.
    pub fn did_not_ask(&self) {
        self.remarks.did_not_ask.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_asked(&self) -> bool {
        !self.remarks.did_not_ask.load(Ordering::Relaxed)
    }

    /// Reports that the dependency failed after it may have acted, such as a mail server that hangs up
    /// after the final dot, so that it is unknown whether the effect took place. Call it whether the
    /// record is finished (`Ok`, for a person to decide) or retried ([`Failure::Retry`], which then
    /// waits minutes). Two records in a row that end this way open the circuit breaker, so that an
    /// outage at this step puts a few effects in doubt and not all.
    pub fn is_in_doubt(&self, why: impl Into<String>) {
        // The first report counts: an attempt ends only once.
        let _ = self.remarks.in_doubt.set(why.into());
    }

    pub(crate) fn doubt(&self) -> Option<&str> {
        self.remarks.in_doubt.get().map(String::as_str)
    }

    /// Whether another process may still be acting, according to the fleet's heartbeats.
    pub fn liveness(&self, incarnation: &str) -> Liveness {
        (self.liveness)(incarnation)
    }

    /// A context for calling a handler without a fleet, in a test or by an operator: the first attempt,
    /// with an hour to act.
    pub fn detached() -> Self {
        let hour = Duration::from_hours(1);
        Self {
            stream: "detached".into(),
            shard: ShardId::new("shardId-detached"),
            incarnation: "detached/0".into(),
            epoch: None,
            attempt: 1,
            tenure: Tenure::until_deadline(Instant::now() + hour),
            cancelled: CancellationToken::new(),
            liveness: Arc::new(|_| Liveness::Unknown),
            ends: None,
            attempt_ends: None,
            remarks: Arc::default(),
        }
    }

    /// The same for another worker, which sees every other worker as `others`.
    #[must_use]
    pub fn of_worker(self, incarnation: &str, others: Liveness) -> Self {
        let me: Arc<str> = incarnation.into();
        let incarnation = me.clone();
        let liveness: LivenessOf =
            Arc::new(move |who| if who == &*me { Liveness::Alive } else { others });
        Self {
            incarnation,
            liveness,
            ..self
        }
    }

    /// The same for a record of this stream and shard.
    #[must_use]
    pub fn of_shard(self, stream: &str, shard: &ShardId) -> Self {
        let (stream, shard) = (stream.into(), shard.clone());
        Self {
            stream,
            shard,
            ..self
        }
    }

    /// The same with another attempt number.
    #[must_use]
    pub fn of_attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    /// The same, with the right to act only until this moment.
    #[must_use]
    pub fn until(self, deadline: Instant) -> Self {
        let tenure = Tenure::until_deadline(deadline);
        Self { tenure, ..self }
    }

    /// The same, with a token that asks it to finish soon.
    #[cfg(feature = "lambda")]
    pub(crate) fn cancelled_by(self, cancelled: &CancellationToken) -> Self {
        let cancelled = cancelled.clone();
        Self { cancelled, ..self }
    }

    /// The same, in a process that is killed at this moment.
    #[must_use]
    pub fn ending(self, at: Instant) -> Self {
        let ends = Some(at);
        Self { ends, ..self }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("shard", &self.shard)
            .field("epoch", &self.epoch)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
