//! Drives one member of the fleet: turns its commands into calls, and the answers into events.
//!
//! It decides nothing; [`crate::core::fleet`] does. The loop only waits for the next event: calls run
//! side by side, and a slow one does not delay the others.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::IdentityDiffers;
use super::tasks::Tasks;
use crate::core::Now;
use crate::core::fleet::Fleet;
use crate::core::fleet::events::{Beat, Command, Event, Failed, HandOver, Note, Start, Stopped};
use crate::core::fleet::listed::{FoundStream, Listed};
use crate::core::fleet::repair::Repair;
use crate::core::fleet::rules::Rule;
use crate::core::fleet::upkeep::NEXT_FOUND;
use crate::engine::Engine;
use crate::engine::handler::RecordHandler;
use crate::engine::progress::{Counters, Standing};
use crate::engine::trust::{Published, Trust};
use crate::stores::leases::{
    Consistency, GroupRow, Incarnation, LeaseStore, Reach, Take, WorkerRow,
};
use crate::stores::source::{Description, StreamSource};

/// A call in flight.
type Call = Pin<Box<dyn Future<Output = Event> + Send>>;

/// A listing that takes this many listing intervals is given up: the stream does not answer.
const LISTING_PATIENCE: u32 = 10;

/// How many rows are created within the timeout of one call.
const ROWS_AT_ONCE: usize = 100;

/// How often a hand-over with a lost answer is repeated before the next look has to show the result.
const HAND_OVER_TRIES: u32 = 5;

pub(super) struct Member<S, L, H> {
    engine: Arc<Engine<S, L, H>>,
    machine: Arc<Mutex<Fleet>>,
    origin: Instant,
    trust: Trust,
    calls: FuturesUnordered<Call>,
    tasks: Tasks,
    leaving: bool,
    /// Why this worker leaves, if it was not asked to.
    refused: Option<IdentityDiffers>,
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Member<S, L, H> {
    pub fn new(engine: Arc<Engine<S, L, H>>, machine: Arc<Mutex<Fleet>>, origin: Instant) -> Self {
        Self {
            engine,
            machine,
            origin,
            trust: Trust::default(),
            calls: FuturesUnordered::new(),
            tasks: Tasks::default(),
            leaving: false,
            refused: None,
        }
    }

    /// Works until it has left.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), IdentityDiffers> {
        tokio::pin!(shutdown);
        loop {
            self.engine.progress.turn();
            if !self.follow() {
                break;
            }
            let due = self.due();
            tokio::select! {
                biased;
                () = &mut shutdown, if !self.leaving => {
                    self.leaving = true;
                    self.handle(Event::Leave);
                }
                Some(event) = self.calls.next() => self.handle(event),
                (shard, stopped) = self.tasks.next() => {
                    if stopped == Stopped::Refused {
                        Counters::add(&self.engine.progress.counters.refused);
                    }
                    self.handle(Event::Stopped(shard, stopped));
                }
                () = sleep_until(due) => {}
            }
        }
        let me = self.machine().me().clone();
        let limit = self.engine.settings.timing.call_timeout();
        if let Err(error) = within(limit, self.engine.leases.remove_worker(&me, None)).await {
            warn!(
                error = format!("{error:#}"),
                "the worker's row stays until others remove it"
            );
        }
        self.engine.progress.stands(Standing::Left);
        info!(worker = %me, "left the fleet");
        self.refused.map_or(Ok(()), Err)
    }

    fn machine(&self) -> MutexGuard<'_, Fleet> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now {
            elapsed: self.origin.elapsed(),
            time: self.engine.clock.now(),
        }
    }

    fn due(&self) -> Instant {
        let wake_at = self.machine().wake_at(self.origin.elapsed());
        self.origin + wake_at
    }

    fn handle(&self, event: Event) {
        self.ask(|machine, now| machine.handle(event, now));
    }

    /// Polls the machine, and publishes its trust. The time is read while no task can see what was
    /// published before.
    fn ask<T>(&self, ask: impl FnOnce(&mut Fleet, Now) -> T) -> Option<T> {
        let mut answer = None;
        self.trust.publish(|| {
            let mut machine = self.machine();
            answer = Some(ask(&mut machine, self.now()));
            let validity = machine.validity();
            Published {
                generation: validity.generation(),
                until: validity.until().map(|until| self.origin + until),
            }
        });
        answer
    }

    /// Executes all commands of the machine. `false`: the worker has left.
    fn follow(&mut self) -> bool {
        let progress = &self.engine.progress;
        progress.set_lister(self.machine().is_lister());
        let reached = progress.has_reached_the_stream();
        while let Some(command) = self
            .ask(|machine, now| {
                if reached {
                    machine.reached_the_stream();
                }
                machine.poll(now)
            })
            .flatten()
        {
            let engine = self.engine.clone();
            match command {
                Command::Heartbeat(beat) => self.call(engine.beat(beat)),
                Command::Look(reach, how) => self.call(engine.look(reach, how)),
                Command::Bootstrap(row) => self.call(engine.bootstrap(row)),
                Command::ChangeIdentity { seen, new } => {
                    self.call(engine.change_identity(seen, new));
                }
                Command::List(from) => self.call(engine.list(from)),
                Command::Take(take) => self.call(engine.take(take)),
                Command::HandOver(what) => self.call(engine.hand_over(*what)),
                Command::Repair(repair) => self.call(engine.repair(*repair)),
                Command::StartShard(start) => self.start(*start),
                Command::Drain(shard) => self.tasks.drain(&shard),
                Command::Abandon(shard) => self.tasks.abandon(&shard),
                Command::Note(note) => self.note(note),
                Command::Left => return false,
            }
        }
        true
    }

    fn call(&self, call: impl Future<Output = Event> + Send + 'static) {
        self.calls.push(Box::pin(call));
    }

    fn start(&mut self, start: Start) {
        let tenure = self.trust.tenure(start.generation);
        self.tasks.start(&self.engine, start, tenure);
    }

    /// Logs and counts what happened.
    fn note(&mut self, note: Note) {
        let progress = &self.engine.progress;
        match note {
            Note::Lapsed => {
                warn!("trust lapsed: nothing is mine until the lease table says so");
                Counters::add(&progress.counters.lapses);
            }
            Note::Reborn(me) => {
                warn!(worker = %me, "the worker's row was removed; joining again under another name");
            }
            Note::Leaving => {
                progress.stands(Standing::Leaving);
                info!("leaving: draining and handing over");
            }
            Note::GroupBegins(initial) => info!(?initial, "the group begins"),
            Note::IdentityDiffers(difference) => {
                let differs = IdentityDiffers {
                    group: self.engine.at.group().to_string(),
                    difference,
                };
                warn!(reason = %differs, "leaving the group");
                self.refused = Some(differs);
                self.leaving = true;
            }
            Note::NewerRow(row, format) => warn!(
                row,
                format,
                "a row was written by a newer version and is left alone; a worker of that version \
                 must take it"
            ),
            Note::MalformedRow(row, what) => {
                warn!(row, what, "a row of the lease table is malformed");
            }
            Note::Repairing {
                created,
                healed,
                removed,
            } => info!(created, healed, removed, "repairing the lease table"),
            Note::HandingOver(shard, to) => info!(%shard, ?to, "handing over"),
            Note::Took(shard, epoch, from) => {
                let from = from.as_ref().map(Incarnation::as_str);
                info!(%shard, epoch, from, "took a lease");
                Counters::add(&progress.counters.takes);
            }
            Note::NotReading(why) => self.note_not_reading(why),
        }
    }

    fn note_not_reading(&self, why: Option<String>) {
        self.engine.progress.set_not_reading(why.clone());
        let table = self.engine.at.table();
        match why {
            Some(why) if why == NEXT_FOUND => {}
            Some(why) => warn!(table, why, "committed changes are not read"),
            None => info!(table, "committed changes are read again"),
        }
    }
}

impl<S: StreamSource, L: LeaseStore, H: Send + Sync + 'static> Engine<S, L, H> {
    fn limit(&self) -> Duration {
        self.settings.timing.call_timeout()
    }

    /// Writes the heartbeat; the first one of an incarnation registers it.
    async fn beat(self: Arc<Self>, beat: Beat) -> Event {
        let row = WorkerRow {
            incarnation: beat.incarnation,
            beat: beat.beat,
            draining: beat.draining,
            unable_to_list: beat.unable_to_list,
            lease_duration: self.settings.timing.lease_duration,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reads: self.leases.reads(),
            zone: self.settings.place.zone.clone(),
            status_address: self.settings.place.status_address.clone(),
            trouble: self.progress.trouble(),
            stuck: self.progress.stuck_shard().map(|stuck| stuck.shard),
            at: Some(self.clock.now()),
        };
        let result = if beat.registered {
            within(self.limit(), self.leases.heartbeat(&row)).await
        } else {
            let registered = within(self.limit(), self.leases.register(&row)).await;
            registered.map(Some)
        };
        match &result {
            Ok(Some(())) => self.progress.beat(),
            Ok(None) => {}
            Err(error) => self.progress.heartbeat_failed(format!("{error:#}")),
        }
        Event::Heartbeat(answer("a heartbeat", result))
    }

    async fn look(self: Arc<Self>, reach: Reach, consistency: Consistency) -> Event {
        let endless = self.simulated.leaves_out(Rule::FreshLook);
        let patience = if endless { 100 } else { 1 };
        let look = self.leases.look_at(reach, consistency);
        let result = within(self.limit() * patience, look).await.map(Arc::new);
        if let Ok(view) = &result {
            self.progress.saw(view, reach, self.clock.now());
        }
        Event::Snapshot(answer("a look at the lease table", result))
    }

    async fn bootstrap(self: Arc<Self>, row: GroupRow) -> Event {
        let result = within(self.limit(), self.leases.bootstrap(row)).await;
        Event::Bootstrapped(answer("bootstrapping", result))
    }

    async fn change_identity(
        self: Arc<Self>,
        seen: crate::core::group::Identity,
        new: crate::core::group::Identity,
    ) -> Event {
        let change = self.leases.change_identity(&seen, &new);
        let result = within(self.limit(), change).await;
        if let Ok(Some(())) = result {
            info!(group = %self.at.group(), "the group has this worker's identity now");
        }
        Event::IdentityChanged(answer("changing the group's identity", result))
    }

    async fn take(self: Arc<Self>, take: Take) -> Event {
        let result = within(self.limit(), self.leases.take(&take)).await;
        let result = result.map(|row| row.map(Box::new));
        Event::Took(take.shard, answer("taking a lease", result))
    }

    async fn hand_over(self: Arc<Self>, what: HandOver) -> Event {
        let HandOver {
            hold,
            to,
            position,
            report,
        } = what;
        let mut result = Ok(None);
        for _ in 0..HAND_OVER_TRIES {
            let call = self
                .leases
                .hand_over(&hold, to.as_ref(), &position, &report);
            result = within(self.limit(), call).await;
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(self.settings.timing.idle_min).await;
        }
        if let Ok(Some(())) = answer("handing a shard over", result) {
            info!(shard = %hold.shard, ?to, "handed over");
            Counters::add(&self.progress.counters.hand_overs);
        }
        Event::HandedOver(hold.shard)
    }

    /// Lists the streams and their shards, from this stream on.
    async fn list(self: Arc<Self>, from: Option<String>) -> Event {
        let limit = self.settings.timing.listing_interval * LISTING_PATIENCE;
        let listing = tokio::time::timeout(limit, self.source.describe(from.as_deref()));
        let why = match listing.await {
            Ok(Ok(description)) => {
                self.progress.stream_answered();
                return Event::Listed(Ok(listed(description)));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no listing within {limit:?}"),
        };
        warn!(error = why, "listing the stream failed and is retried");
        self.progress.stream_failed(why);
        Counters::add(&self.progress.counters.reads_failed);
        Event::Listed(Err(Failed))
    }

    async fn repair(self: Arc<Self>, repair: Repair) -> Event {
        let result = self.write(repair).await;
        if let Ok(gaps) = result {
            let counter = &self.progress.counters.gaps;
            counter.fetch_add(gaps, Ordering::Relaxed);
        }
        let result = answer("repairing the lease table", result);
        Event::Repaired(result.map(|_| ()))
    }

    /// Makes one call after another. The next listing finds whatever is left undone. Returns the number
    /// of gaps.
    async fn write(&self, repair: Repair) -> anyhow::Result<u64> {
        let (limit, leases) = (self.limit(), &self.leases);
        for gap in &repair.gaps {
            within(limit, leases.record_gap(gap, None)).await?;
        }
        for rows in repair.create.chunks(ROWS_AT_ONCE) {
            within(limit, leases.create(rows)).await?;
        }
        for row in &repair.heal {
            within(limit, leases.heal(row)).await?;
        }
        for shard in &repair.archived {
            within(limit, leases.archive(shard)).await?;
        }
        for shard in &repair.ended {
            within(limit, leases.remove_ended(shard)).await?;
        }
        for (name, beat) in &repair.dead {
            within(limit, leases.remove_worker(name, *beat)).await?;
        }
        for stream in &repair.streams {
            within(limit, leases.note_stream(stream)).await?;
        }
        Ok(repair.gaps.len() as u64)
    }
}

fn listed(description: Description) -> Listed {
    let streams = description.streams.into_iter();
    let streams = streams.map(|stream| FoundStream {
        label: stream.label,
        created: stream.created,
    });
    Listed {
        shards: description.shards,
        streams: streams.collect(),
        trouble: description.trouble,
    }
}

/// A call that is answered within `limit`, or fails.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {limit:?}")))
}

/// The answer. A failure is logged.
fn answer<T>(what: &str, result: anyhow::Result<T>) -> Result<T, Failed> {
    result.map_err(|error| {
        warn!(error = format!("{error:#}"), "{what} failed and is retried");
        Failed
    })
}
