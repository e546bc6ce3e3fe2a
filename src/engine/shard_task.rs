//! One shard, under one lease: read, filter, push into the pipeline, checkpoint its watermark.
//!
//! The task starts no record outside its tenure. It always ends in one of the ways of [`Stopped`].
//! Records that it started and did not finish are above the checkpoint, so the next reader of the shard
//! handles them again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::core::fleet::events::Stopped;
use crate::core::rate::Rate;
use crate::core::record::{Position, SequenceNumber};
use crate::engine::Engine;
use crate::engine::budget::Share;
use crate::engine::effect::JoinedEffect;
use crate::engine::progress::{LoopTurn, Reading};
use crate::engine::trust::Tenure;
use crate::stores::leases::{GapRow, Hold, LeaseStore, Report};
use crate::stores::source::StreamSource;

mod checkpoint;
mod effect_run;
mod effects;
mod end;
mod fetch;
mod read;
mod reported;
mod stop;

use effect_run::{EffectRun, parked};
use effects::{Reached, ShardEffects};
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
type Fetching<S, L> = Boxed<'static, (Fetcher<S, L>, Fetched)>;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How often a shard with several effects checks whether its reader waits for memory.
const OVERFLOW_LOOK: Duration = Duration::from_millis(250);

pub(crate) struct ShardTask<S, L> {
    engine: Arc<Engine<S, L>>,
    assignment: Assignment,
    /// The ARN of the shard's stream.
    stream: Arc<str>,
    /// What it holds of the memory budget.
    share: Share,
    effects: ShardEffects,
    /// The effects of the group.
    joined: watch::Receiver<Arc<[JoinedEffect]>>,
    last_read: Option<(SequenceNumber, Option<SystemTime>)>,
    open_gap: Option<GapRow>,
    /// Reading begins at the horizon, wherever that is by then.
    at_horizon: bool,
    ahead: Ahead,
    refused: bool,
    /// What the row says, as far as is known.
    written: Option<Reached>,
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

impl<S: StreamSource, L: LeaseStore> ShardTask<S, L> {
    pub fn new(engine: Arc<Engine<S, L>>, assignment: Assignment) -> Self {
        let of_shard = crate::core::hash::hash(assignment.hold.shard.as_str());
        let seed = engine.settings.seed ^ of_shard ^ assignment.hold.epoch;
        let last_read = match &assignment.start {
            Position::After(number) => Some((number.clone(), assignment.report.frontier_time)),
            Position::Horizon => None,
        };
        let rng = fastrand::Rng::with_seed(seed);
        let written = Reached {
            least: assignment.start.clone(),
            ahead: assignment.report.ahead.clone(),
        };
        Self {
            stream: engine.at.stream(assignment.hold.shard.label()),
            share: engine.budget.share(),
            effects: ShardEffects::default(),
            joined: engine.effects.subscribe(),
            last_read,
            open_gap: None,
            at_horizon: assignment.start == Position::Horizon
                && assignment.report.complete_until().is_some(),
            ahead: Ahead::More,
            refused: false,
            written: Some(written),
            report: Report {
                finished: 0,
                last_error: None,
                ..assignment.report.clone()
            },
            written_report: assignment.report.clone(),
            written_at: Instant::now(),
            read_at: Instant::now(),
            rate: Rate::default(),
            began: Instant::now(),
            cancel: CancellationToken::new(),
            rng,
            stopping: None,
            engine,
            assignment,
        }
    }

    /// Works until the shard ends, or until it gets the order to stop.
    pub async fn run(mut self) -> Stopped {
        let start = self.assignment.start.clone();
        info!(shard = %self.shard(), epoch = self.assignment.hold.epoch, from = ?start, "reading");
        if let Some(ended) = self.follow_effects().await {
            return ended;
        }
        let share = self.share.clone();
        let first = Fetcher::new(self.engine.clone(), self.shard().clone(), start, share);
        let mut idle = Some(first);
        let mut fetching: Option<Fetching<S, L>> = None;
        let mut checkpointing: Option<Boxed<'static, anyhow::Result<Option<()>>>> = None;
        let mut checkpoint_due = Instant::now() + self.engine.settings.timing.checkpoint_interval;
        let mut overflow = Instant::now() + OVERFLOW_LOOK;
        loop {
            if self.ahead == Ahead::End {
                self.effects.source_ended();
            }
            self.effects.start();
            self.note_silence();
            self.tell_turn();
            if let Some(ended) = self.stopped() {
                return ended;
            }
            let finished = self.effects.are_finished() && self.stopping.is_none();
            match self.ahead {
                Ahead::End if finished => return self.finish().await,
                // No earlier checkpoint may be written after the last one.
                Ahead::Gap if finished && checkpointing.is_none() => return self.halt().await,
                Ahead::More | Ahead::End | Ahead::Gap => {}
            }
            if fetching.is_none() && self.wants_more() {
                fetching = idle
                    .take()
                    .map(|fetcher| Box::pin(fetcher.next()) as Boxed<_>);
            }
            let (expiry, patience) = (self.expiry(), self.patience());
            let may_overflow = self.effects.are_several() && self.effects.waiting() > 0;
            let moved = self.has_news() && checkpointing.is_none();
            tokio::select! {
                biased;
                order = next_order(&mut self.assignment.orders), if !self.abandoned() => self.stop(order),
                () = until(expiry) => self.check_tenure(),
                () = until(patience) => {}
                happened = self.effects.turn() => self.happened(happened),
                Ok(()) = self.joined.changed(), if self.stopping.is_none() => {
                    if let Some(ended) = self.follow_effects().await {
                        return ended;
                    }
                }
                () = sleep_until(overflow), if may_overflow => {
                    overflow = Instant::now() + OVERFLOW_LOOK;
                    if self.share.is_waiting() {
                        self.effects.overflow();
                    }
                }
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

    /// Handles the effects of the group from now on, first those that it begins with. From then on only
    /// this task parks keys of its shard.
    async fn follow_effects(&mut self) -> Option<Stopped> {
        let joined = self.joined.borrow_and_update().clone();
        // All of them first: a task that stops meanwhile reports the position of each.
        let new = self.effects.follow(&joined);
        for one in &new {
            let ahead = self.assignment.report.ahead.get(one.active.effect.name());
            let begins = match (&self.last_read, ahead) {
                (_, Some(ahead)) => Position::After(ahead.clone()),
                // Everything before is older than an effect that joins now.
                (Some((last, _)), None) => Position::After(last.clone()),
                (None, None) => self.assignment.start.clone(),
            };
            let with = (&self.cancel, self.rng.fork());
            let run = EffectRun::new(&self.engine, &self.assignment, one, begins, with);
            self.effects.add(run);
        }
        for one in new {
            let name = one.active.effect.name().clone();
            let parked = parked(self.engine.clone(), name.clone(), self.rng.fork());
            match self.guarded(parked).await {
                Ok(page) => self.effects.know(&name, page),
                Err(ended) => return Some(ended),
            }
        }
        None
    }

    /// Reports its progress to the monitoring.
    fn tell_turn(&self) {
        let turn = LoopTurn {
            oldest: self.effects.oldest_unfinished(),
            caught_up_at: self.report.caught_up_at,
            complete_until: self.report.complete_until(),
            waiting: self.effects.waiting(),
            in_hand: self.effects.running(),
            held_back: self.effects.are_held_back(),
        };
        let effects = self.effects.turns(turn);
        self.assignment.reading.turned(turn, effects);
    }

    fn shard(&self) -> &crate::core::shard::ShardId {
        &self.assignment.hold.shard
    }

    fn wants_more(&self) -> bool {
        self.ahead == Ahead::More && self.stopping.is_none()
    }
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
async fn or_never<T>(call: &mut Option<Boxed<'static, T>>) -> T {
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
