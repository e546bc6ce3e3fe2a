//! One shard, under one lease: read, filter, push into the pipeline, checkpoint its watermark.
//!
//! The task starts no record outside its tenure. It always ends in one of the ways of [`Stopped`].
//! Records that it started and did not finish are above the checkpoint, so the next reader of the shard
//! handles them again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::core::fleet::events::Stopped;
use crate::core::pipeline::Closing;
use crate::core::rate::Rate;
use crate::core::record::{Position, SequenceNumber};
use crate::engine::Engine;
use crate::engine::handler::{Context, RecordHandler};
use crate::engine::progress::{LoopTurn, Reading};
use crate::engine::run_pipeline::{InFlight, Work, ask, into_letters};
use crate::engine::trust::Tenure;
use crate::stores::leases::{GapRow, Hold, LeaseStore, Report};
use crate::stores::retry::persist;
use crate::stores::source::StreamSource;

mod checkpoint;
mod end;
mod fetch;
mod read;
mod reported;
mod stop;

#[cfg(feature = "simulation")]
pub(crate) use end::HALTED;
use fetch::{Fetched, Fetcher};

/// The consumer's order to a shard task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskOrder {
    /// Work.
    Run,
    /// Start no more records, let running ones finish (with a time limit), and report how far you came.
    Drain,
    /// The lease is not yours any more: start nothing more, write nothing more.
    Abandon,
}

/// What follows the records that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    /// More records of the shard.
    More,
    /// The end of the shard.
    End,
    /// A gap to halt at.
    Gap,
}

/// Where a shard task starts.
pub(crate) struct Assignment {
    pub hold: Hold,
    pub start: Position,
    /// What the last owner reported.
    pub report: Report,
    /// Records created before this are older than the group.
    pub starts_at: Option<SystemTime>,
    pub tenure: Tenure,
    pub orders: watch::Receiver<TaskOrder>,
    /// Where the task reports what it does.
    pub reading: Arc<Reading>,
}

/// A read in progress, which returns the reader.
type Fetching<S, L, H> = Boxed<(Fetcher<S, L, H>, Fetched)>;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) struct ShardTask<S, L, H> {
    engine: Arc<Engine<S, L, H>>,
    assignment: Assignment,
    /// The ARN of the shard's stream.
    stream: Arc<str>,
    in_flight: InFlight<'static, Arc<H>>,
    last_read: Option<(SequenceNumber, Option<SystemTime>)>,
    open_gap: Option<GapRow>,
    /// Reading begins at the horizon, wherever that is by then.
    at_horizon: bool,
    ahead: Ahead,
    refused: bool,
    written: Position,
    report: Report,
    written_report: Report,
    written_at: Instant,
    /// When the stream last answered.
    read_at: Instant,
    rate: Rate,
    began: Instant,
    cancel: CancellationToken,
    rng: fastrand::Rng,
    /// When to stop waiting for running records. Set by [`TaskOrder::Drain`] and [`TaskOrder::Abandon`].
    stopping: Option<(TaskOrder, Instant)>,
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> ShardTask<S, L, H> {
    pub fn new(engine: Arc<Engine<S, L, H>>, assignment: Assignment) -> Self {
        let of_shard = crate::core::hash::hash(assignment.hold.shard.as_str());
        let seed = engine.settings.seed ^ of_shard ^ assignment.hold.epoch;
        let last_read = match &assignment.start {
            Position::After(number) => Some((number.clone(), assignment.report.frontier_time)),
            Position::Horizon => None,
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        let cancel = CancellationToken::new();
        let in_flight = in_flight(&engine, &assignment, &cancel, rng.fork());
        Self {
            stream: engine.at.stream(assignment.hold.shard.label()),
            in_flight,
            last_read,
            open_gap: None,
            at_horizon: assignment.start == Position::Horizon
                && assignment.report.complete_until().is_some(),
            ahead: Ahead::More,
            refused: false,
            written: assignment.start.clone(),
            report: Report {
                settled: 0,
                last_error: None,
                ..assignment.report.clone()
            },
            written_report: assignment.report.clone(),
            written_at: Instant::now(),
            read_at: Instant::now(),
            rate: Rate::default(),
            began: Instant::now(),
            cancel,
            rng,
            stopping: None,
            engine,
            assignment,
        }
    }

    /// Works until the shard ends, or until it is told to stop.
    pub async fn run(mut self) -> Stopped {
        let start = self.assignment.start.clone();
        info!(shard = %self.shard(), epoch = self.assignment.hold.epoch, from = ?start, "reading");
        if let Some(ended) = self.learn_parked().await {
            return ended;
        }
        let first = Fetcher::new(self.engine.clone(), self.shard().clone(), start);
        let mut idle = Some(first);
        let mut fetching: Option<Fetching<S, L, H>> = None;
        let mut checkpointing: Option<Boxed<anyhow::Result<Option<()>>>> = None;
        let mut checkpoint_due = Instant::now() + self.engine.settings.timing.checkpoint_interval;
        loop {
            if self.ahead == Ahead::End {
                self.in_flight.source_ended();
            }
            self.in_flight.start();
            self.note_silence();
            self.tell_turn();
            if let Some(ended) = self.stopped() {
                return ended;
            }
            let settled = self.in_flight.pipeline.is_finished() && self.stopping.is_none();
            match self.ahead {
                Ahead::End if settled => return self.finish().await,
                // No earlier checkpoint may be written after the last one.
                Ahead::Gap if settled && checkpointing.is_none() => return self.halt().await,
                Ahead::More | Ahead::End | Ahead::Gap => {}
            }
            if fetching.is_none() && self.wants_more() {
                fetching = idle
                    .take()
                    .map(|fetcher| Box::pin(fetcher.next()) as Boxed<_>);
            }
            let (expiry, patience) = (self.expiry(), self.patience());
            let moved = self.has_news() && checkpointing.is_none();
            tokio::select! {
                biased;
                order = next_order(&mut self.assignment.orders), if !self.abandoned() => self.stop(order),
                () = until(expiry) => self.check_tenure(),
                () = until(patience) => {}
                happened = self.in_flight.turn() => self.happened(happened),
                answer = or_never(&mut checkpointing) => {
                    checkpointing = None;
                    self.checkpointed(answer);
                }
                () = sleep_until(checkpoint_due), if moved && self.stopping.is_none() => {
                    checkpoint_due = Instant::now() + self.engine.settings.timing.checkpoint_interval;
                    checkpointing = Some(self.checkpoint());
                }
                (reader, fetched) = or_never(&mut fetching) => {
                    fetching = None;
                    idle = Some(reader);
                    if let Some(ended) = self.fetched(fetched).await {
                        return ended;
                    }
                }
            }
        }
    }

    /// Which keys have dead letters, or that there are too many to know them all. From then on only
    /// this task parks keys of its shard.
    async fn learn_parked(&mut self) -> Option<Stopped> {
        let letters = self.engine.letters.clone()?;
        let (engine, rng) = (self.engine.clone(), self.rng.fork());
        let learn = async move {
            let look = || letters.parked_page(&engine.at, None, engine.simulated.few_parked());
            let limit = engine.settings.timing.call_timeout();
            persist(limit, rng, "looking for parked keys", look).await
        };
        match self.guarded(learn).await {
            Ok(parked) => {
                self.in_flight.know(parked);
                None
            }
            Err(ended) => Some(ended),
        }
    }

    /// Reports its progress to the monitoring.
    fn tell_turn(&self) {
        let pipeline = &self.in_flight.pipeline;
        self.assignment.reading.turned(LoopTurn {
            oldest: pipeline.oldest_unfinished(),
            caught_up_at: self.report.caught_up_at,
            complete_until: self.report.complete_until(),
            waiting: pipeline.waiting(),
            in_hand: pipeline.in_hand(),
            held_back: pipeline.is_held_back(),
        });
    }

    fn shard(&self) -> &crate::core::shard::ShardId {
        &self.assignment.hold.shard
    }

    fn wants_more(&self) -> bool {
        self.ahead == Ahead::More && self.stopping.is_none()
    }
}

/// The shard's records in flight. Nothing starts outside of the tenure.
fn in_flight<S, L: LeaseStore, H: RecordHandler>(
    engine: &Engine<S, L, H>,
    assignment: &Assignment,
    cancel: &CancellationToken,
    rng: fastrand::Rng,
) -> InFlight<'static, Arc<H>> {
    let hold = &assignment.hold;
    let timing = &engine.settings.timing;
    let context = Context {
        stream: engine.at.stream(hold.shard.label()),
        shard: hold.shard.clone(),
        incarnation: hold.owner.as_str().into(),
        epoch: Some(hold.epoch),
        attempt: 1,
        tenure: assignment.tenure.clone(),
        cancelled: cancel.clone(),
        liveness: engine.liveness.clone(),
        ends: None,
        attempt_ends: None,
        remarks: Arc::default(),
    };
    let (letters, counters) = (engine.letters.clone(), engine.progress.counters.clone());
    let limit = timing.call_timeout();
    let fence = Some(engine.leases.fence(hold));
    let ask = letters
        .clone()
        .map(|letters| ask(letters, engine.at.clone(), limit));
    let into = |letters| into_letters(letters, fence, counters, limit);
    let work = Work {
        at: engine.at.clone(),
        handler: engine.handler.clone(),
        context,
        at_expiry: Closing::LeaseLost,
        limit: timing.handler_timeout,
        bury: letters.map(into),
        ask,
        handling: engine.progress.handling.clone(),
        clock: engine.clock.clone(),
    };
    let rules = engine
        .settings
        .rules(engine.letters.is_some(), engine.simulated.pipeline);
    InFlight::new(rules, work, engine.dependency.asker(), rng)
}

async fn next_order(orders: &mut watch::Receiver<TaskOrder>) -> TaskOrder {
    match orders.changed().await {
        Ok(()) => *orders.borrow_and_update(),
        // The consumer is gone, and with it the right to the shard.
        Err(_) => TaskOrder::Abandon,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits for a call in flight, forever if there is none.
async fn or_never<T>(call: &mut Option<Boxed<T>>) -> T {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// The gap's row, before its first later record is known.
fn gap_row(
    hold: &Hold,
    last_read: Option<&(SequenceNumber, Option<SystemTime>)>,
    detected: SystemTime,
) -> GapRow {
    GapRow {
        shard: hold.shard.clone(),
        last_handled: last_read.map(|(number, _)| number.clone()),
        last_handled_time: last_read.and_then(|(_, time)| *time),
        first_after: None,
        detected,
        resolved: None,
    }
}
