//! One shard, under one lease: read, filter, lanes, frontier, checkpoint.
//!
//! The task starts no record outside its tenure. It ends in one of the ways that [`Ended`] names
//! and never without saying how; whatever it had begun but not settled is above the checkpoint, so
//! whoever reads the shard next does it again.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::decide::frontier::{Frontier, Ticket};
use crate::decide::lane::Lanes;
use crate::engine::{Counters, Engine};
use crate::handler::{Context, Failure, RecordHandler};
use crate::leases::{GapRow, Hold, LeaseStore, Report};
use crate::record::{ItemKey, Position, Record, SequenceNumber};
use crate::settings::OnGap;
use crate::source::StreamSource;
use crate::trust::Tenure;

mod attempt;
mod end;
mod fetch;

use attempt::{Attempted, attempt};
use fetch::{Fetched, Fetcher};

/// How many records a shard may have read ahead of its frontier.
const WINDOW: usize = 10_000;

/// What the consumer wants of a shard task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Work.
    Run,
    /// Start nothing more, let what is in flight finish (bounded), and say how far you came.
    Drain,
    /// The lease is not yours any more: start nothing more, write nothing more.
    Abandon,
}

/// How a shard task ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The shard is at its end, and that is written down with its children.
    Finished,
    /// Drained: everything up to here is settled.
    Drained(Position, Report),
    /// A write was refused: the lease is somebody else's.
    Refused,
    /// Told to abandon the shard, or trust lapsed.
    Abandoned,
    /// A gap, and the settings say to stop.
    Halted,
}

/// What a shard task starts from.
pub(crate) struct Assignment {
    pub hold: Hold,
    pub start: Position,
    /// What the last owner reported.
    pub report: Report,
    /// Records created before this are older than the start of the fleet.
    pub skip_before: Option<SystemTime>,
    pub tenure: Tenure,
    pub orders: watch::Receiver<Order>,
}

/// A record that waits for its turn.
struct Queued {
    record: Arc<Record>,
    ticket: Ticket,
    attempts: u32,
    _room: Option<OwnedSemaphorePermit>,
}

/// A read under way: it gives the reader back.
type Fetching<S, L, H> = Boxed<(Fetcher<S, L, H>, Fetched)>;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) struct ShardTask<S, L, H> {
    engine: Arc<Engine<S, L, H>>,
    assignment: Assignment,
    lanes: Lanes<ItemKey, Queued>,
    frontier: Frontier<(SequenceNumber, SystemTime)>,
    running: FuturesUnordered<Boxed<Attempted>>,
    waiting: BTreeMap<(Instant, u64), ItemKey>,
    waits: u64,
    last_read: Option<(SequenceNumber, Option<SystemTime>)>,
    open_gap: Option<GapRow>,
    /// Reading begins at the horizon, wherever that has moved to by then.
    at_horizon: bool,
    at_end: bool,
    refused: bool,
    written: Position,
    report: Report,
    written_report: Report,
    cancel: CancellationToken,
    rng: fastrand::Rng,
    /// When to stop waiting for what is in flight; set by [`Order::Drain`] and [`Order::Abandon`].
    stopping: Option<(Order, Instant)>,
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> ShardTask<S, L, H> {
    pub fn new(engine: Arc<Engine<S, L, H>>, assignment: Assignment) -> Self {
        let of_shard = crate::decide::lease::hash(assignment.hold.shard.as_str());
        let seed = engine.settings.seed ^ of_shard ^ assignment.hold.epoch;
        let last_read = match &assignment.start {
            Position::After(number) => Some((number.clone(), None)),
            Position::Horizon => None,
        };
        Self {
            lanes: Lanes::new(engine.settings.concurrency),
            frontier: Frontier::default(),
            running: FuturesUnordered::new(),
            waiting: BTreeMap::new(),
            waits: 0,
            last_read,
            open_gap: None,
            at_horizon: assignment.start == Position::Horizon
                && assignment.report.complete_until().is_some(),
            at_end: false,
            refused: false,
            written: assignment.start.clone(),
            report: Report {
                settled: 0,
                last_error: None,
                ..assignment.report.clone()
            },
            written_report: assignment.report.clone(),
            cancel: CancellationToken::new(),
            rng: fastrand::Rng::with_seed(seed),
            stopping: None,
            engine,
            assignment,
        }
    }

    /// Works until the shard ends, or until told to stop.
    pub async fn run(mut self) -> Ended {
        let start = self.assignment.start.clone();
        info!(shard = %self.shard(), epoch = self.assignment.hold.epoch, from = ?start, "reading");
        let first = Fetcher::new(self.engine.clone(), self.shard().clone(), start);
        let mut idle = Some(first);
        let mut fetching: Option<Fetching<S, L, H>> = None;
        let mut checkpointing: Option<Boxed<anyhow::Result<Option<()>>>> = None;
        let mut checkpoint_due = Instant::now() + self.engine.settings.timing.checkpoint_interval;
        loop {
            self.start_ready();
            if let Some(ended) = self.stopped() {
                return ended;
            }
            if self.at_end && self.frontier.is_empty() && self.stopping.is_none() {
                return self.finish().await;
            }
            if fetching.is_none() && self.wants_more() {
                fetching = idle
                    .take()
                    .map(|fetcher| Box::pin(fetcher.next()) as Boxed<_>);
            }
            let wake = self.waiting.keys().next().map(|(at, _)| *at);
            let (expiry, patience) = (self.expiry(), self.patience());
            let moved = self.has_news() && checkpointing.is_none();
            tokio::select! {
                biased;
                order = next_order(&mut self.assignment.orders), if !self.abandoned() => self.stop(order),
                () = until(expiry) => self.check_tenure(),
                () = until(patience) => {}
                Some(attempted) = self.running.next() => self.take_in(attempted),
                answer = or_never(&mut checkpointing) => {
                    checkpointing = None;
                    self.checkpointed(answer);
                }
                () = until(wake) => self.wake(),
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

    fn shard(&self) -> &crate::decide::shard::ShardId {
        &self.assignment.hold.shard
    }

    fn wants_more(&self) -> bool {
        self.stopping.is_none() && !self.at_end && self.frontier.len() < WINDOW
    }

    /// Starts what may start: nothing outside the tenure.
    fn start_ready(&mut self) {
        while self.stopping.is_none() && self.assignment.tenure.holds() {
            let Some((key, queued)) = self.lanes.start() else {
                return;
            };
            let context = Context {
                stream: self.engine.stream.clone(),
                shard: self.assignment.hold.shard.clone(),
                incarnation: self.assignment.hold.owner.as_str().into(),
                epoch: self.assignment.hold.epoch,
                attempt: queued.attempts + 1,
                tenure: self.assignment.tenure.clone(),
                cancelled: self.cancel.clone(),
                liveness: self.engine.liveness.clone(),
            };
            let attempt = attempt(self.engine.clone(), queued.record.clone(), context, key);
            self.running.push(Box::pin(attempt));
        }
    }

    /// Takes in how an attempt ended.
    fn take_in(&mut self, attempted: Attempted) {
        let Attempted { key, result } = attempted;
        match result {
            Ok(()) => {
                if let Some(queued) = self.lanes.settle(&key) {
                    self.settle(queued.ticket);
                    Counters::add(&self.engine.counters.handled);
                    debug!(shard = %self.shard(), sequence = %queued.record.sequence_number, "settled");
                }
            }
            Err(failure) => self.try_again(key, &failure),
        }
    }

    /// A record that failed stays first of its key until it succeeds; the others go on.
    fn try_again(&mut self, key: ItemKey, failure: &Failure) {
        Counters::add(&self.engine.counters.failed_attempts);
        self.lanes.suspend(&key);
        let Some(queued) = self.lanes.first(&key) else {
            return;
        };
        let backoff = self.engine.settings.backoff;
        let (sequence, attempt) = (queued.record.sequence_number.clone(), queued.attempts + 1);
        let wait = match failure {
            Failure::Busy(wait) => (*wait).min(backoff.cap / 30),
            Failure::Unavailable(_) => backoff.wait(4, &mut self.rng),
            Failure::Retry(_) => {
                queued.attempts = attempt;
                backoff.wait(attempt, &mut self.rng)
            }
            Failure::Reject(_) => {
                queued.attempts = attempt;
                backoff.cap
            }
        };
        let shard = &self.assignment.hold.shard;
        if let Failure::Reject(_) = failure {
            error!(%shard, %sequence, error = %failure, again_in = ?wait,
                "the record is bad: the shard's checkpoint holds at it until it can be handled");
        } else {
            warn!(%shard, %sequence, attempt, error = %failure, again_in = ?wait, "an attempt failed");
        }
        self.report.last_error = Some(format!("record {sequence}: {failure}"));
        self.waits += 1;
        self.waiting
            .insert((Instant::now() + wait, self.waits), key);
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self
            .waiting
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let key = entry.remove();
            self.lanes.resume(&key);
        }
    }

    fn settle(&mut self, ticket: Ticket) {
        self.frontier.settle(ticket);
        self.report.settled += 1;
        if let Some((_, created)) = self.frontier.reached() {
            self.report.frontier_time = Some(*created);
        }
    }

    /// Takes in what reading brought.
    async fn fetched(&mut self, fetched: Fetched) -> Option<Ended> {
        // Nothing else tells that the horizon moved before the first read.
        let late = self.at_horizon && self.open_gap.is_none() && self.may_have_lost();
        if late
            && fetched.has_read()
            && let Some(ended) = self.gap().await
        {
            return Some(ended);
        }
        match fetched {
            Fetched::Records(records, room) => self.queue(records, room).await,
            Fetched::End(records, room) => {
                self.at_end = true;
                self.queue(records, room).await
            }
            Fetched::Nothing { at_end } => {
                if self.frontier.is_empty() {
                    self.report.caught_up_at = self.report.caught_up_at.max(at_end);
                }
                None
            }
            Fetched::Failed(error) => {
                self.report.last_error = Some(error);
                None
            }
            Fetched::Trimmed => {
                self.at_horizon = true;
                if self.may_have_lost() {
                    self.gap().await
                } else {
                    None
                }
            }
            Fetched::Gone => self.gone().await,
        }
    }

    async fn queue(
        &mut self,
        records: Vec<Record>,
        mut room: Option<OwnedSemaphorePermit>,
    ) -> Option<Ended> {
        for record in records {
            let place = (record.sequence_number.clone(), record.created);
            if self
                .last_read
                .as_ref()
                .is_some_and(|(last, _)| place.0 <= *last)
            {
                continue;
            }
            if let Some(ended) = self.close_gap(&place.0).await {
                return Some(ended);
            }
            self.last_read = Some((place.0.clone(), Some(place.1)));
            self.at_horizon = false;
            let ticket = self.frontier.begin(place);
            if self
                .assignment
                .skip_before
                .is_some_and(|start| record.created < start)
            {
                Counters::add(&self.engine.counters.skipped);
                self.settle(ticket);
                continue;
            }
            let bytes = usize::try_from(record.size_bytes).unwrap_or(usize::MAX);
            let taken = room
                .as_mut()
                .and_then(|room| room.split(bytes.min(room.num_permits())));
            let queued = Queued {
                ticket,
                attempts: 0,
                _room: taken,
                record: Arc::new(record),
            };
            self.lanes.push(queued.record.key(), queued);
        }
        None
    }

    /// The last record below which everything is settled.
    fn reached(&self) -> Position {
        match self.frontier.reached() {
            Some((number, _)) => Position::After(number.clone()),
            None => self.assignment.start.clone(),
        }
    }

    /// Whether a checkpoint is worth a write: it moved, or for a twenty-fourth of the stream's
    /// retention it has only been known that there was nothing to do.
    fn has_news(&self) -> bool {
        let refresh = self.engine.settings.timing.retention / 24;
        let (now, then) = (self.report.caught_up_at, self.written_report.caught_up_at);
        let stale = match (now, then) {
            (Some(now), Some(then)) => now.duration_since(then).is_ok_and(|age| age >= refresh),
            (now, then) => now != then,
        };
        stale || self.reached() != self.written
    }

    /// Whether the stream may have trimmed something that is not settled. It has not if everything
    /// was settled at a time from which on it still keeps everything.
    fn may_have_lost(&self) -> bool {
        let kept = self.engine.settings.timing.retention.mul_f64(0.99);
        let age = |time| {
            self.engine
                .clock
                .now()
                .duration_since(time)
                .unwrap_or_default()
        };
        self.report
            .complete_until()
            .is_none_or(|time| age(time) >= kept)
    }

    fn checkpoint(&mut self) -> Boxed<anyhow::Result<Option<()>>> {
        let (engine, hold) = (self.engine.clone(), self.assignment.hold.clone());
        let (position, report) = (self.reached(), self.report.clone());
        self.written = position.clone();
        self.written_report = report.clone();
        let limit = engine.settings.timing.call_timeout();
        Box::pin(async move {
            let write = engine.leases.checkpoint(&hold, &position, &report);
            tokio::time::timeout(limit, write).await?
        })
    }

    fn checkpointed(&mut self, answer: anyhow::Result<Option<()>>) {
        match answer {
            Ok(Some(())) => Counters::add(&self.engine.counters.checkpoints),
            Ok(None) => {
                warn!(shard = %self.shard(), epoch = self.assignment.hold.epoch,
                    "the checkpoint was refused: the lease is somebody else's now");
                self.engine.counters.refused.fetch_add(1, Ordering::Relaxed);
                self.refused = true;
                self.stop(Order::Abandon);
            }
            Err(error) => {
                warn!(shard = %self.shard(), error = format!("{error:#}"),
                    "the checkpoint may not have been written; the next one will tell");
                // Written again with the next one, even if nothing moves until then.
                self.written = Position::Horizon;
            }
        }
    }

    /// When the tenure ends if no heartbeat renews it.
    fn expiry(&self) -> Option<Instant> {
        if self.stopping.is_some() {
            None
        } else {
            self.assignment.tenure.until()
        }
    }

    /// When stopping has taken long enough.
    fn patience(&self) -> Option<Instant> {
        self.stopping.map(|(_, limit)| limit)
    }

    fn check_tenure(&mut self) {
        if !self.assignment.tenure.holds() {
            self.stop(Order::Abandon);
        }
    }

    fn abandoned(&self) -> bool {
        matches!(self.stopping, Some((Order::Abandon, _)))
    }

    /// Begins to stop. An abandoned shard stays abandoned.
    fn stop(&mut self, order: Order) {
        if order == Order::Run || self.abandoned() {
            return;
        }
        let limit = Instant::now() + self.engine.settings.timing.handover_timeout;
        let limit = self.stopping.map_or(limit, |(_, limit)| limit);
        self.stopping = Some((order, limit));
        self.cancel.cancel();
    }

    /// Whether stopping is done: nothing is in flight any more, or it took too long.
    fn stopped(&mut self) -> Option<Ended> {
        if self.stopping.is_none() && !self.assignment.tenure.holds() {
            self.stop(Order::Abandon);
        }
        let (order, limit) = self.stopping?;
        if !self.running.is_empty() && Instant::now() < limit {
            return None;
        }
        if !self.running.is_empty() {
            warn!(shard = %self.shard(), dropped = self.running.len(), "records in flight took too long");
        }
        Some(match order {
            Order::Drain => Ended::Drained(self.reached(), self.report.clone()),
            _ if self.refused => Ended::Refused,
            _ => Ended::Abandoned,
        })
    }
}

async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    match orders.changed().await {
        Ok(()) => *orders.borrow_and_update(),
        // The consumer is gone, and so is its right to the shard.
        Err(_) => Order::Abandon,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits for a call in flight; for ever if there is none.
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
    }
}

/// What a shard does about a gap once it is written down.
fn after_gap(on_gap: OnGap) -> Option<Ended> {
    match on_gap {
        OnGap::Continue => None,
        OnGap::Halt => Some(Ended::Halted),
    }
}
