//! The same handler behind an event source mapping of AWS Lambda, in place of a fleet.
//!
//! Lambda reads the stream and passes a batch of one shard at a time. Filters, the home region, order
//! per item, dead letters and the circuit breaker work as in a fleet. Where a fleet checkpoints, the
//! answer names the first record that is not finished ([`Answer`]). The mapping must have
//! `ReportBatchItemFailures`: without it Lambda treats such an answer as success, and the record is
//! lost.
//!
//! # What happens to a record
//!
//! Attempts are counted per invocation, as they are per worker in a fleet.
//!
//! | | |
//! |---|---|
//! | handled, filtered out, a dead letter | finished |
//! | `Retry` | retried with backoff while there is time; after `attempts.attempts` a dead letter |
//! | `Retry`, and the time is over | a dead letter if it was committed longer than `attempts.age` ago; else delivered again |
//! | `Reject` | a dead letter at once; without a table for them, delivered again |
//! | `Unavailable` | the batch ends: everything that is not finished is delivered again |
//! | it waits, and is about to leave the stream | a dead letter, as in a fleet |
//! | its key has a dead letter | follows it |
//! | it cannot be read | the records before it are finished; it and all that follow are delivered again |
//!
//! Later records of an item start only when the earlier ones are finished. Nothing starts in the last
//! [`MARGIN`] of an invocation, and no email passes its point of no return there.
//!
//! A record that cannot be read has no key and no image to keep, so it does not become a dead letter.
//! It holds its shard, and the invocation fails or reports its number, until a newer build can read it
//! or the stream drops it. DynamoDB writes no such record.
//!
//! # Time
//!
//! Ages and deadlines are measured by this machine's clock, which AWS synchronises. DynamoDB's own
//! time, which a fleet uses, does not help here: it advances by the monotonic clock, which does not run
//! while Lambda freezes the process.
//!
//! # Crashes
//!
//! A claim in the [ledger](crate::stores::ledger) carries the end of its invocation. If that is killed in
//! the middle of a mail, others wait for that end (and some minutes, as clocks differ), and then
//! call the mail AMBIGUOUS.

use std::future::Future;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use crate::core::filter::{Filters, HomeRegion};
use crate::core::group::{EffectName, EffectTable, GroupTable};
use crate::core::record::Record;
use crate::engine::dependency::{Dependency, Limits};
use crate::engine::handler::{OUTSIDE, RecordHandler};
use crate::engine::progress::{Counters, Histogram};
use crate::engine::settings::Settings;
use crate::stores::clock::Clock;
use crate::stores::dead_letter::DeadLetters;
use crate::stores::leases::GapRow;

mod answer;
mod behind;
mod event;
mod invocation;
mod latest;
mod runtime;

use answer::FailedItem;
pub use answer::{Answer, Invoked, Refused};
use behind::Gaps;
use event::Records;
use invocation::Invocation;
use latest::LatestStream;
pub use runtime::run;

/// How long before the end of an invocation nothing is started any more: time for a mail server's
/// answer to the final dot, and for the ledger.
pub const MARGIN: Duration = Duration::from_secs(10);

/// An invocation with less time than this does little or nothing.
const SHORT: Duration = Duration::from_secs(30);

/// How long before the end of an invocation records in flight are given up and the answer is sent.
const ANSWER: Duration = Duration::from_secs(1);

type OnInvoked = Arc<dyn Fn(Invoked) -> BoxFuture<'static, ()> + Send + Sync>;

/// The time limit for the callback after each event.
const CALLBACK_LIMIT: Duration = Duration::from_secs(2);

/// Handles the batches of one table's streams.
///
/// ```no_run
/// # async fn example(handler: impl aftercommit::RecordHandler) -> anyhow::Result<()> {
/// use aftercommit::engine::lambda::{Function, run};
/// use aftercommit::{Group, GroupTable};
///
/// let orders = GroupTable::new(Group::default(), "arn:aws:dynamodb:...:table/orders");
/// let function = Function::new(orders, handler);
/// run(vec![function]).await
/// # }
/// ```
pub struct Function<H> {
    at: GroupTable,
    effect: EffectName,
    handler: H,
    settings: Settings,
    clock: Clock,
    letters: Option<Arc<dyn DeadLetters>>,
    filters: Filters,
    home: Option<HomeRegion>,
    dependency: Dependency,
    counters: Arc<Counters>,
    handling: Arc<Histogram>,
    latest: Option<LatestStream>,
    on_invoked: Option<OnInvoked>,
    gaps: Option<Gaps>,
    incarnation: Arc<str>,
    rng: Mutex<fastrand::Rng>,
    warned: Once,
}

impl<H: RecordHandler> Function<H> {
    /// A function for this group and table, with the default [`Settings`].
    pub fn new(at: GroupTable, handler: H) -> Self {
        let function = Self {
            at,
            effect: EffectName::default(),
            handler,
            settings: Settings::default(),
            clock: Clock::system(),
            letters: None,
            filters: Filters::default(),
            home: None,
            dependency: Dependency::new(&Limits::default(), fastrand::Rng::new()),
            counters: Arc::default(),
            handling: Arc::default(),
            latest: None,
            on_invoked: None,
            gaps: None,
            incarnation: "".into(),
            rng: Mutex::default(),
            warned: Once::new(),
        };
        function.settings(Settings::default())
    }

    /// With these settings. Used here: worker id, concurrency, backoff, attempts, the handler's timeout,
    /// retention and rescue, and the seed.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        let mut rng = fastrand::Rng::with_seed(settings.seed);
        let incarnation = format!(
            "{OUTSIDE}lambda-{}/{:016x}",
            settings.worker_id,
            rng.u64(..)
        );
        Self {
            settings,
            incarnation: incarnation.into(),
            rng: Mutex::new(rng),
            ..self
        }
    }

    /// Sets the name of its effect, to which its dead letters belong; `confirmation` by default. A
    /// function performs one effect.
    #[must_use]
    pub fn effect(self, effect: EffectName) -> Self {
        Self { effect, ..self }
    }

    /// With this clock, instead of the machine's.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// With dead letters, as for a [`Consumer`](crate::Consumer).
    #[must_use]
    pub fn dead_letters(self, letters: Arc<dyn DeadLetters>) -> Self {
        let letters = Some(letters);
        Self { letters, ..self }
    }

    /// Handles only records that pass these filters.
    #[must_use]
    pub fn filters(self, filters: Filters) -> Self {
        Self { filters, ..self }
    }

    /// Handles only records of this Region, on a replica of a global table.
    #[must_use]
    pub fn home_region(self, home: HomeRegion) -> Self {
        let home = Some(home);
        Self { home, ..self }
    }

    /// Limits how fast the handler is called in this process.
    #[must_use]
    pub fn dependency(self, dependency: Dependency) -> Self {
        Self { dependency, ..self }
    }

    /// Asks the table, with this call, for the ARN of its present stream, at most once in five minutes.
    /// An event of an earlier stream is handled, and counts in [`Counters::of_earlier_streams`]: no
    /// event shows whether a mapping reads the later stream.
    #[must_use]
    pub fn latest_stream<F>(self, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Arc<str>>> + Send + 'static,
    {
        let latest = Some(LatestStream::new(ask));
        Self { latest, ..self }
    }

    /// Records a gap, for example by
    /// [`LeaseStore::record_gap`](crate::stores::leases::LeaseStore::record_gap), if the event source
    /// fell so far behind that the stream may have dropped unread records. If that fails, the event is
    /// refused. Without it, only a log line reports the gap.
    #[must_use]
    pub fn gaps<F>(self, record: impl Fn(GapRow) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let gaps = Some(Gaps::new(record));
        Self { gaps, ..self }
    }

    /// Calls this after each event, before the event is answered, for metrics. It is given up after two
    /// seconds.
    #[must_use]
    pub fn on_invoked<F>(self, on_invoked: impl Fn(Invoked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let on_invoked: OnInvoked = Arc::new(move |invoked| Box::pin(on_invoked(invoked)));
        Self {
            on_invoked: Some(on_invoked),
            ..self
        }
    }

    /// What it has done so far in this process.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// How long attempts took.
    pub fn handling(&self) -> Arc<Histogram> {
        self.handling.clone()
    }

    /// Handles an event, and answers before `ends`, when this process may be killed. Dropping the
    /// future is a crash.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the whole batch must be delivered again.
    pub async fn handle(&self, event: &Value, ends: Instant) -> Result<Answer, Refused> {
        self.mind_time(ends);
        let records = Records::of(event, self.clock.now());
        let stream = match &records.stream {
            Some(arn) if table(arn) == self.at.table() => arn.clone(),
            Some(arn) => {
                let stream = arn.to_string();
                return Err(Refused::Foreign { stream });
            }
            None => self.at.stream(None),
        };
        let rng = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            rng.fork()
        };
        if let Some(first) = records.read.first() {
            self.mind_gap(first, &stream).await?;
        }
        let later = self.warn_of_later_stream(stream.clone());
        let mut invocation = Invocation::new(self, stream, ends, rng);
        let unread = invocation.take_in(records);
        let (unfinished, ()) = tokio::join!(invocation.work(), later);
        if let Some(on_invoked) = &self.on_invoked {
            let of_unread = || unread.as_ref().map(|unread| unread.created);
            let first = unfinished.as_ref().map(|(_, created)| *created);
            let first = first.or_else(of_unread);
            let invoked = first.map_or(Invoked::Finished, Invoked::Waiting);
            if timeout(CALLBACK_LIMIT, on_invoked(invoked)).await.is_err() {
                warn!("the metrics of an event took too long and are not written");
            }
        }
        match (unfinished, unread) {
            (None, Some(unread)) => Err(unread.error.into()),
            (unfinished, _) => {
                let failed = unfinished.map(|(number, _)| FailedItem {
                    sequence_number: number.as_str().to_owned(),
                });
                let failures = failed.into_iter().collect();
                Ok(Answer { failures })
            }
        }
    }
}

impl<H> Function<H> {
    /// The place of its dead letters.
    fn letters_of(&self) -> EffectTable {
        EffectTable::new(self.at.clone(), self.effect.clone())
    }

    /// Records a gap if the event source fell behind by most of a day.
    async fn mind_gap(&self, first: &Record, stream: &Arc<str>) -> Result<(), Refused> {
        let timing = &self.settings.timing;
        let Some(gap) = behind::before(first, stream, self.clock.now(), timing) else {
            return Ok(());
        };
        let recorded = match &self.gaps {
            Some(gaps) => gaps.record(gap).await,
            None => Ok(true),
        };
        match recorded {
            Ok(false) => Ok(()),
            Ok(true) => {
                Counters::add(&self.counters.gaps);
                error!(
                    %stream,
                    sequence = %first.sequence_number,
                    "the event source fell so far behind that the stream may have dropped records unread"
                );
                Ok(())
            }
            Err(error) => Err(Refused::FellBehind {
                stream: stream.to_string(),
                why: format!("{error:#}"),
            }),
        }
    }

    /// Counts and logs an event of a stream that is not the table's latest.
    async fn warn_of_later_stream(&self, stream: Arc<str>) {
        let Some(latest) = &self.latest else {
            return;
        };
        let Some(later) = latest.later_than(&stream, self.clock.now()).await else {
            return;
        };
        Counters::add(&self.counters.of_earlier_streams);
        error!(
            %stream,
            %later,
            "the table has a later stream than this event's: without an event source mapping that \
             reads it from TRIM_HORIZON, new changes are lost after 24 hours"
        );
    }

    /// Reports once that there is too little time.
    fn mind_time(&self, ends: Instant) {
        let left = ends.saturating_duration_since(Instant::now());
        if left < SHORT {
            self.warned.call_once(|| {
                warn!(
                    ?left,
                    "the function has too little time, because it starts nothing in its last \
                     {MARGIN:?}: raise its timeout to at least {SHORT:?}"
                );
            });
        }
    }
}

/// A stream's table, from its ARN: a re-enabled stream is another stream of the same table.
fn table(stream: &str) -> &str {
    stream.split("/stream/").next().unwrap_or(stream)
}
