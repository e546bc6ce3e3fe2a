//! Executes what a [`Pipeline`] decides. Handlers are called and dead letters are written only here.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use crate::core::breaker::blame::Blame;
use crate::core::group::EffectTable;
use crate::core::pipeline::{
    AfterFailure, Change, Closing, DeadLetter, Defer, Ended, FailureKind, Handle, Next, Now,
    Pipeline, Rules,
};
use crate::core::record::{ItemKey, Record, SequenceNumber};
use crate::core::{Attempts, Reason};
use crate::engine::budget::Room;
use crate::engine::dependency::{Asker, Turn};
use crate::engine::handler::{Context, Failure, RecordHandler, attempt, span_of};
use crate::engine::progress::{Counters, Histogram};
use crate::stores::clock::Clock;
use crate::stores::dead_letter::{Letter, ParkedPage};

mod letters;

pub(crate) use letters::{AskParked, Buried, Bury, ask, into_letters};

/// A change, and the failure that caused it.
pub(crate) type Reported = (Change<Arc<Carried>>, Option<Failure>);

/// A record in flight. Its room in memory is freed when nothing holds it any more.
pub(crate) struct Carried {
    record: Record,
    _room: Option<Room>,
}

impl Carried {
    pub fn new(record: Record, room: Option<Room>) -> Arc<Self> {
        Arc::new(Self {
            record,
            _room: room,
        })
    }
}

impl Deref for Carried {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// What one source has in flight.
pub(crate) struct InFlight<'a, C> {
    pub pipeline: Pipeline<ItemKey, SequenceNumber, Arc<Carried>>,
    work: Work<'a, C>,
    asker: Asker,
    running: FuturesUnordered<BoxFuture<'a, Done>>,
    origin: Instant,
    /// When to ask the pipeline again, if nothing happens before.
    wakes: Option<Instant>,
    rng: fastrand::Rng,
}

/// What work on a record needs.
pub(crate) struct Work<'a, C> {
    /// The effect, its group, and the table of the records.
    pub at: EffectTable,
    /// The handler.
    pub handler: C,
    /// The context of a first attempt at any record. Nothing starts unless it may act.
    pub context: Context,
    /// Why the pipeline closes when it may not act any more.
    pub at_expiry: Closing,
    /// The time limit of an attempt.
    pub limit: Duration,
    /// How dead letters are written, if there is a store for them.
    pub bury: Option<Bury<'a>>,
    /// How to ask whether a key is parked, if that is not known for all keys.
    pub ask: Option<AskParked<'a>>,
    /// How long attempts take.
    pub handling: Arc<Histogram>,
    pub clock: Clock,
}

/// Work on the first record of a key has ended.
struct Done {
    key: ItemKey,
    outcome: WorkOutcome,
}

enum WorkOutcome {
    /// With what the record has seen of its dependency.
    Handled(Result<(), (FailureKind, Failure)>, Blame),
    Buried(Buried),
    /// Whether the key is parked.
    Asked(bool),
}

impl<'a, C, H> InFlight<'a, C>
where
    C: Deref<Target = H> + Clone + Send + 'a,
    H: RecordHandler,
{
    pub fn new(rules: Rules, work: Work<'a, C>, asker: Asker, rng: fastrand::Rng) -> Self {
        Self {
            pipeline: Pipeline::new(rules),
            work,
            asker,
            running: FuturesUnordered::new(),
            origin: Instant::now(),
            wakes: None,
            rng,
        }
    }

    /// Adds a record to handle, behind all earlier ones.
    pub fn push(&mut self, carried: Arc<Carried>) {
        let (number, created) = (carried.sequence_number.clone(), carried.created);
        let key = carried.record.key();
        self.pipeline.push(number, created, key, carried);
    }

    /// These keys are parked. If there are more, each other key is asked about.
    pub fn know(&mut self, page: ParkedPage) {
        let all = page.next.is_none() && page.unreadable.is_empty();
        let keys = page.keys.into_iter().map(|parked| parked.key);
        self.pipeline.know_parked(keys, all);
    }

    /// The source has no more records: one that keeps failing does not delay what follows.
    pub fn source_ended(&mut self, which: Defer) {
        let now = self.now();
        self.pipeline.source_ended(now, which);
    }

    /// Starts what can start now.
    pub fn start(&mut self) {
        self.start_all();
        let unfinished = self.pipeline.waiting() + self.pipeline.in_hand();
        self.asker.waits_with(unfinished);
    }

    fn start_all(&mut self) {
        loop {
            // Before each record, as the lease can end at any time.
            if !self.work.context.may_act() {
                self.pipeline.close(self.work.at_expiry);
            }
            self.wakes = None;
            match self.pipeline.next(self.now(), &mut self.asker) {
                Next::Handle(what) => self.handle(what),
                Next::DeadLetter(what) => self.bury(what),
                Next::AskParked(key) => self.ask(key),
                Next::WaitUntil(at) => {
                    self.wakes = Some(self.origin + at);
                    return;
                }
                Next::Idle => return,
            }
        }
    }

    /// Waits until something has ended, or something can start. Dropping it loses nothing.
    pub async fn turn(&mut self) -> Option<Reported> {
        tokio::select! {
            biased;
            Some(done) = self.running.next() => return self.take_in(done),
            () = until(self.wakes) => {}
            () = self.asker.freed() => self.pipeline.ask_again(),
        }
        None
    }

    /// Waits until something has ended, and starts nothing. Dropping it loses nothing.
    pub async fn ended(&mut self) -> Option<Reported> {
        match self.running.next().await {
            Some(done) => self.take_in(done),
            None => std::future::pending().await,
        }
    }

    /// How many records are running.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// When something can start, if nothing ends before.
    pub fn wakes(&self) -> Option<Instant> {
        self.wakes
    }

    /// Gives up a place in the dependency's line: nothing starts for a while.
    pub fn leave_line(&mut self) {
        self.asker.leave();
    }

    fn now(&self) -> Now {
        Now {
            elapsed: self.origin.elapsed(),
            time: self.work.clock.now(),
        }
    }

    fn handle(&mut self, what: Handle<ItemKey, Arc<Carried>, Turn>) {
        let Handle {
            key,
            record,
            attempt: number,
            mut blame,
            permit,
        } = what;
        let context = Context {
            attempt: self.work.context.attempt + number - 1,
            attempt_ends: Some(Instant::now() + self.work.limit),
            remarks: Arc::default(),
            ..self.work.context.clone()
        };
        let (handler, limit) = (self.work.handler.clone(), self.work.limit);
        let handling = self.work.handling.clone();
        self.running.push(Box::pin(async move {
            let began = Instant::now();
            let result = attempt(&*handler, &record, &context, limit).await;
            handling.add(began.elapsed());
            let result = permit.end(result, &context, &mut blame);
            let doubtful = context.doubt().is_some();
            let result = result.map_err(|failure| (failure.kind().in_doubt(doubtful), failure));
            let outcome = WorkOutcome::Handled(result, blame);
            Done { key, outcome }
        }));
    }

    fn bury(&mut self, what: DeadLetter<ItemKey, Arc<Carried>>) {
        let DeadLetter {
            key,
            record,
            reason,
            attempts,
        } = what;
        let Some(bury) = self.work.bury.clone() else {
            return;
        };
        let letter = self.letter(&record, reason, attempts);
        let rng = self.rng.fork();
        self.running.push(Box::pin(async move {
            let outcome = WorkOutcome::Buried(bury(letter, rng).await);
            Done { key, outcome }
        }));
    }

    fn ask(&mut self, key: ItemKey) {
        let (ask, rng) = (self.work.ask.clone(), self.rng.fork());
        self.running.push(Box::pin(async move {
            let parked = match ask {
                Some(ask) => ask(key.clone(), rng).await,
                None => false,
            };
            let outcome = WorkOutcome::Asked(parked);
            Done { key, outcome }
        }));
    }

    fn letter(&self, record: &Record, reason: Reason, attempts: Attempts) -> Letter {
        let origin = (&self.work.at, &self.work.context.shard);
        Letter::new(
            origin,
            record.clone(),
            reason,
            attempts,
            self.work.clock.now(),
        )
    }

    /// Handles the end of work on a record.
    fn take_in(&mut self, done: Done) -> Option<Reported> {
        let Done { key, outcome } = done;
        let (ended, failure) = match outcome {
            WorkOutcome::Handled(Ok(()), _) => (Ended::Handled, None),
            WorkOutcome::Handled(Err((kind, failure)), blame) => {
                let error = failure.to_string();
                (Ended::Failed { kind, error, blame }, Some(failure))
            }
            WorkOutcome::Buried(Buried::As(reason)) => (Ended::Written(reason), None),
            WorkOutcome::Buried(Buried::KeyFree) => (Ended::Unparked, None),
            WorkOutcome::Buried(Buried::LeaseLost) => (Ended::LeaseLost, None),
            WorkOutcome::Asked(parked) => (Ended::Asked(parked), None),
        };
        let now = self.now();
        let change = self.pipeline.done(&key, ended, now, &mut self.rng)?;
        Some((change, failure))
    }

    /// Counts and logs what happened.
    pub fn report(&self, happened: &Reported, counters: &Counters) {
        match happened {
            (Change::Ended(record, reason), _) => self.count(record, *reason, counters),
            (
                Change::Failed {
                    record,
                    attempts,
                    verdict,
                },
                Some(failure),
            ) => {
                if failure.kind().burns() {
                    Counters::add(&counters.failed_attempts);
                }
                self.failed(record, failure, *attempts, *verdict);
            }
            (Change::LeaseLost, _) => {
                let context = &self.work.context;
                warn!(shard = %context.shard, epoch = context.epoch,
                    "a dead letter was refused: another worker holds the lease now");
            }
            (Change::Failed { .. } | Change::Known, _) => {}
        }
    }

    fn count(&self, record: &Record, reason: Option<Reason>, counters: &Counters) {
        Counters::add(reason.map_or(&counters.handled, |reason| counters.of(reason)));
        let _of_trace = span_of(record).entered();
        let (context, sequence) = (&self.work.context, &record.sequence_number);
        debug!(stream = %context.stream, shard = %context.shard, %sequence, "finished");
    }

    fn failed(&self, record: &Record, failure: &Failure, attempt: u32, verdict: AfterFailure) {
        let burned = failure.kind().burns();
        let _of_trace = span_of(record).entered();
        let (context, sequence) = (&self.work.context, &record.sequence_number);
        let (stream, shard) = (&context.stream, &context.shard);
        match verdict {
            AfterFailure::DeadLetter(Reason::Deferred) => {
                warn!(%stream, %shard, %sequence, attempt, error = %failure,
                    "the shard ended while the record was failing: it becomes a dead letter that is \
                     redriven by itself, so that the next shards can start");
            }
            AfterFailure::DeadLetter(reason) => {
                error!(%stream, %shard, %sequence, %reason, attempt, error = %failure,
                    "a record becomes a dead letter, and its key is parked");
            }
            AfterFailure::Leave => {
                error!(%stream, %shard, %sequence, error = %failure,
                    "the record is bad, and there is no table for dead letters: it holds its shard \
                     until it can be handled");
            }
            AfterFailure::Again(wait) if matches!(failure, Failure::Reject(_)) => {
                error!(%stream, %shard, %sequence, error = %failure, again_in = ?wait,
                    "the record is bad, and there is no table for dead letters: the shard's \
                     checkpoint holds at it until it can be handled");
            }
            AfterFailure::Again(wait) if burned => {
                warn!(%stream, %shard, %sequence, attempt, error = %failure, again_in = ?wait,
                    "an attempt failed");
            }
            AfterFailure::Again(wait) => {
                debug!(%stream, %shard, %sequence, error = %failure, again_in = ?wait, "deferred");
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
