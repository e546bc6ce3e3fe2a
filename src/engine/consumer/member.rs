//! Drives one member of the fleet: turns its commands into calls, and the answers into events.
//!
//! It decides nothing; [`crate::core::fleet`] does. The loop only waits for the next event: calls run
//! side by side, and a slow one does not delay the others.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::IdentityDiffers;
use super::calls::within;
use super::tasks::Tasks;
use crate::core::Now;
use crate::core::fleet::Fleet;
use crate::core::fleet::events::{Command, FleetEvent, Note, ShardStart, Stopped};
use crate::core::fleet::upkeep::NEXT_FOUND;
use crate::engine::Engine;
use crate::engine::effect::joined;
use crate::engine::progress::{Counters, Standing};
use crate::engine::trust::{Published, Trust};
use crate::stores::leases::{Incarnation, LeaseStore};
use crate::stores::source::StreamSource;

/// A call in flight.
type Call = Pin<Box<dyn Future<Output = FleetEvent> + Send>>;

pub(super) struct Member<S, L> {
    engine: Arc<Engine<S, L>>,
    machine: Arc<Mutex<Fleet>>,
    origin: Instant,
    trust: Trust,
    calls: FuturesUnordered<Call>,
    tasks: Tasks,
    leaving: bool,
    /// Why this worker leaves, if it was not asked to.
    refused: Option<IdentityDiffers>,
}

impl<S: StreamSource, L: LeaseStore> Member<S, L> {
    pub fn new(engine: Arc<Engine<S, L>>, machine: Arc<Mutex<Fleet>>, origin: Instant) -> Self {
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
                    self.handle(FleetEvent::Leave);
                }
                Some(event) = self.calls.next() => self.handle(event),
                (shard, stopped) = self.tasks.next() => {
                    if stopped == Stopped::Refused {
                        Counters::add(&self.engine.progress.counters.refused);
                    }
                    self.handle(FleetEvent::Stopped(shard, stopped));
                }
                () = sleep_until(due) => {}
            }
        }
        let me = self.machine().me().clone();
        let limit = self.engine.settings.timing.call_timeout();
        if let Err(error) = within(limit, self.engine.leases.remove_worker(&me, None)).await {
            warn!(
                error = format!("{error:#}"),
                "cannot remove this worker's row; other workers will remove it"
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

    fn handle(&self, event: FleetEvent) {
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
                Command::ChangeEffects { seen, new } => {
                    self.call(engine.change_effects(seen, new));
                }
                Command::ShareEffects(group) => {
                    let known = engine.effects.borrow().clone();
                    engine
                        .effects
                        .send_replace(joined(&engine.own, &known, &group));
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

    fn call(&self, call: impl Future<Output = FleetEvent> + Send + 'static) {
        self.calls.push(Box::pin(call));
    }

    fn start(&mut self, start: ShardStart) {
        let tenure = self.trust.tenure(start.generation);
        self.tasks.start(&self.engine, start, tenure);
    }

    /// Logs and counts what happened.
    fn note(&mut self, note: Note) {
        let progress = &self.engine.progress;
        match note {
            Note::Lapsed => {
                warn!(
                    "this worker could not confirm its leases in time: it acts on none until it has read them again"
                );
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
