//! What you write: a handler for committed changes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::decide::claim::Liveness;
use crate::decide::shard::ShardId;
use crate::record::{DecodeError, Record};
use crate::trust::Tenure;

mod attempt;

pub(crate) use attempt::attempt;

/// Acts on committed changes.
///
/// Records of one item come one after another, in commit order; records of different items come in
/// parallel. A record comes **at least once**: again after a crash, a lost lease or a retry. Make
/// the effect idempotent, on the order id for example, or guard it with [`Context::epoch`].
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
    /// Handles one record. `Ok` settles it; a [`Failure`] says what to do with it.
    ///
    /// The future may be dropped at any await: when the worker drains for too long, or when the
    /// handler overruns its time.
    fn handle(
        &self,
        record: &Record,
        context: &Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl<H: RecordHandler> RecordHandler for Arc<H> {
    fn handle(
        &self,
        record: &Record,
        context: &Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        (**self).handle(record, context)
    }
}

/// Why a record could not be handled, and so what becomes of it.
#[derive(Debug)]
pub enum Failure {
    /// Try again with backoff; the item's later records wait.
    Retry(anyhow::Error),
    /// The record is bad and will never do: say which field, and what was expected.
    Reject(anyhow::Error),
    /// Something that the handler depends on is down: no attempt is burned, everything that needs
    /// it waits and is tried again. Where it serves others all the same, the record is to blame, and
    /// this is a [`Failure::Retry`] ([`crate::decide::blame`]).
    Unavailable(anyhow::Error),
    /// Something that the handler depends on asks for fewer calls: no attempt is burned, and fewer
    /// records are handled at a time until it takes more.
    Overloaded(anyhow::Error),
    /// Somebody else is at it: look again after this long. No attempt is burned.
    Busy(Duration),
}

impl Failure {
    /// [`Failure::Reject`] with a message.
    pub fn reject(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::Reject(anyhow::Error::msg(message))
    }

    /// [`Failure::Unavailable`] with a message.
    pub fn unavailable(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::Unavailable(anyhow::Error::msg(message))
    }
}

impl Failure {
    /// Whether this was an attempt at the record, and not the fault of others.
    pub(crate) fn burns(&self) -> bool {
        matches!(self, Self::Retry(_) | Self::Reject(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(error)
            | Self::Reject(error)
            | Self::Unavailable(error)
            | Self::Overloaded(error) => write!(f, "{error:#}"),
            Self::Busy(wait) => write!(f, "somebody else is at it, at most {wait:?} more"),
        }
    }
}

/// An error that says nothing better is tried again.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Retry(error)
    }
}

/// A record that cannot be decoded will never do.
impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Reject(error.into())
    }
}

/// What the names of processes begin with that act outside of a fleet: no heartbeat tells whether
/// they live.
pub const OUTSIDE: &str = "~";

/// Tells whether the process that is named by an incarnation may still be acting.
pub type LivenessOf = Arc<dyn Fn(&str) -> Liveness + Send + Sync>;

/// Where a record comes from, and how far its handler may go.
#[derive(Clone)]
pub struct Context {
    pub(crate) stream: Arc<str>,
    pub(crate) shard: ShardId,
    pub(crate) incarnation: Arc<str>,
    pub(crate) epoch: u64,
    pub(crate) attempt: u32,
    pub(crate) tenure: Tenure,
    pub(crate) cancelled: CancellationToken,
    pub(crate) liveness: LivenessOf,
    pub(crate) ends: Option<Instant>,
    pub(crate) unasked: Unasked,
}

/// Whether a handler said of its call that it asked nothing of its dependency.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unasked(Arc<AtomicBool>);

impl Context {
    /// The stream's ARN.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The shard that the record was read from.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// Which try this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// This start of this worker process, unique for all times.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// The epoch of the lease: a fencing token. It rises with every change of the shard's owner,
    /// so a conditional write of yours that demands "not lower than the last one I saw" keeps out
    /// an owner that was frozen and does not know that it lost the shard. Outside of a fleet there
    /// are no leases, and it is always 1: do not fence by it what runs on Lambda.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the right to act on this shard ends, unless a heartbeat renews it; `None`: it has
    /// ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.tenure.until()
    }

    /// Whether an effect may still begin. Ask right before a point of no return.
    pub fn may_act(&self) -> bool {
        self.tenure.holds()
    }

    /// When this process is ended by force, as Lambda ends an invocation; `None`: not that is known.
    /// A claim of yours need stand no longer than that. Where it is told, a batch comes again as a
    /// whole after one failure: look whether the effect is done before you begin it.
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Resolves when the worker wants to stop: finish soon, or be dropped.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Tells that this call asks nothing of what the handler depends on: there is nothing to do, or it
    /// was done before. Its success is then no sign that a dependency which was found down is back,
    /// nor that a record which finds it down is itself to blame.
    pub fn did_not_ask(&self) {
        self.unasked.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_asked(&self) -> bool {
        !self.unasked.0.load(Ordering::Relaxed)
    }

    /// Whether another process may still be acting: as the fleet's heartbeats tell.
    pub fn liveness(&self, incarnation: &str) -> Liveness {
        (self.liveness)(incarnation)
    }

    /// A context for a handler that is called without a fleet, by a test or by an operator: one
    /// attempt, an hour of trust.
    pub fn detached() -> Self {
        let hour = Duration::from_hours(1);
        Self {
            stream: "detached".into(),
            shard: ShardId::new("shardId-detached"),
            incarnation: "detached/0".into(),
            epoch: 1,
            attempt: 1,
            tenure: Tenure::until_deadline(Instant::now() + hour),
            cancelled: CancellationToken::new(),
            liveness: Arc::new(|_| Liveness::Unknown),
            ends: None,
            unasked: Unasked::default(),
        }
    }

    /// The same, for another worker, in whose eyes every other one is as `others` says.
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

    /// The same, for a record of that stream and shard.
    #[must_use]
    pub fn of_shard(self, stream: &str, shard: &ShardId) -> Self {
        let (stream, shard) = (stream.into(), shard.clone());
        Self {
            stream,
            shard,
            ..self
        }
    }

    /// The same, on a later try.
    #[must_use]
    pub fn of_attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    /// The same, with the right to act only until then.
    #[must_use]
    pub fn until(self, deadline: Instant) -> Self {
        let tenure = Tenure::until_deadline(deadline);
        Self { tenure, ..self }
    }

    /// The same, asked to finish soon by this token.
    #[cfg(feature = "lambda")]
    pub(crate) fn cancelled_by(self, cancelled: &CancellationToken) -> Self {
        let cancelled = cancelled.clone();
        Self { cancelled, ..self }
    }

    /// The same, in a process that is ended by force then.
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
