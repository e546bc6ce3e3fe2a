//! Which record is worked on next, and how: by the handler, or into the dead letters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::settle::{Done, Outcome};
use super::{Queued, ShardTask};
use crate::dead_letter::{Letter, Reason};
use crate::decide::blame::Blame;
use crate::dependency::{Admission, Asker, Try, Turn};
use crate::engine::{Burial, persist};
use crate::handler::{Context, RecordHandler, Unasked, attempt};
use crate::leases::LeaseStore;
use crate::record::{ItemKey, Record};
use crate::source::StreamSource;

/// A record that is about to leave the stream is still handled, not rescued, if it gets its turn
/// within this time.
const TURN: Duration = Duration::from_mins(1);

/// Between two looks for records that are about to leave the stream.
const RESCUE_LOOK: Duration = Duration::from_secs(1);

/// So many letters are written at a time when records are rescued.
const RESCUES: usize = 16;

/// What becomes of a record whose turn it is.
enum Next {
    Handle(Turn),
    /// Its key is parked.
    Follow,
    /// Whether its key is parked has to be asked.
    Ask,
    /// Nobody may call the handler until then.
    Hold(Instant),
    /// Others may call the handler.
    Later(Instant),
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> ShardTask<S, L, H> {
    /// Starts what may start: nothing outside the tenure.
    pub(super) fn start_ready(&mut self) {
        while self.stopping.is_none() && self.assignment.tenure.holds() {
            if self.start_rescue() {
                continue;
            }
            if self.held_until.is_some_and(|until| until > Instant::now()) {
                return;
            }
            self.held_until = None;
            let Some((key, queued)) = self.lanes.start() else {
                return self.asker.leave();
            };
            match next(&mut self.asker, self.parked.is_parked(&key), queued) {
                Next::Handle(turn) => {
                    let (record, blame) = (queued.record.clone(), queued.blame);
                    let made = queued.attempts.made();
                    self.handle(key, (record, blame), made, turn);
                }
                Next::Follow => self.bury(key, Reason::Followed),
                Next::Ask => self.ask(key),
                Next::Hold(until) => {
                    self.lanes.put_back(&key);
                    self.held_until = Some(until);
                }
                Next::Later(until) => {
                    self.lanes.suspend(&key);
                    self.wait(key, until);
                }
            }
        }
    }

    fn handle(&mut self, key: ItemKey, what: (Arc<Record>, Blame), made: u32, turn: Turn) {
        let (record, mut blame) = what;
        let context = Context {
            stream: self.stream.clone(),
            shard: self.assignment.hold.shard.clone(),
            incarnation: self.assignment.hold.owner.as_str().into(),
            epoch: Some(self.assignment.hold.epoch),
            attempt: made + 1,
            tenure: self.assignment.tenure.clone(),
            cancelled: self.cancel.clone(),
            liveness: self.engine.liveness.clone(),
            ends: None,
            unasked: Unasked::default(),
        };
        let engine = self.engine.clone();
        self.running.push(Box::pin(async move {
            let limit = engine.settings.timing.handler_timeout;
            let began = Instant::now();
            let result = attempt(&engine.handler, &record, &context, limit).await;
            engine.progress.handling.add(began.elapsed());
            let outcome = Outcome::Handled(turn.end(result, &context, &mut blame), blame);
            Done { key, outcome }
        }));
    }

    /// Writes a letter for the first record of a running key, until it is written.
    pub(super) fn bury(&mut self, key: ItemKey, reason: Reason) {
        let Some(letters) = self.engine.letters.clone() else {
            return;
        };
        let Some(queued) = self.lanes.first(&key) else {
            return;
        };
        let reason = match self.parked.is_parked(&key) {
            Some(true) => Reason::Followed,
            Some(false) | None => reason,
        };
        let letter = Letter::new(
            (&self.engine.at, &self.assignment.hold.shard),
            Record::clone(&queued.record),
            reason,
            queued.attempts.clone(),
            self.engine.clock.now(),
        );
        let (engine, rng) = (self.engine.clone(), self.rng.fork());
        let fence = self.fence.clone();
        self.running.push(Box::pin(async move {
            let burial = Burial {
                letters: &*letters,
                fence: Some(&fence),
                counters: &engine.progress.counters,
                limit: engine.settings.timing.call_timeout(),
            };
            let outcome = Outcome::Buried(burial.of(&letter, rng).await);
            Done { key, outcome }
        }));
    }

    /// Asks whether a running key is parked, until that is answered.
    fn ask(&mut self, key: ItemKey) {
        let Some(letters) = self.engine.letters.clone() else {
            return;
        };
        let (engine, rng) = (self.engine.clone(), self.rng.fork());
        self.running.push(Box::pin(async move {
            let limit = engine.settings.timing.call_timeout();
            let ask = || letters.is_parked(&engine.at, &key);
            let parked = persist(limit, rng, "asking whether a key is parked", ask).await;
            let outcome = Outcome::Asked(parked);
            Done { key, outcome }
        }));
    }

    /// Before this time after its commit a record is not rescued; `None`: it never is.
    fn rescue_age(&self) -> Option<Duration> {
        self.engine.letters.as_ref()?;
        self.engine.settings.timing.rescue_age()
    }

    /// When to look whether a record is about to leave the stream.
    pub(super) fn rescue_look(&self) -> Option<Instant> {
        let age = self.rescue_age()?;
        if self.stopping.is_some() || !self.rescues.is_empty() {
            return None;
        }
        let (_, created) = self.frontier.first()?;
        let due = (*created + age).duration_since(self.engine.clock.now());
        Some((Instant::now() + due.unwrap_or_default()).max(self.rescue_looked + RESCUE_LOOK))
    }

    /// Marks what is about to leave the stream and does not get its turn, by key.
    pub(super) fn look_for_rescues(&mut self) {
        self.rescue_looked = Instant::now();
        let Some(age) = self.rescue_age() else {
            return;
        };
        let down = self.engine.dependency.down_for().is_some();
        let late = self.engine.clock.now().checked_sub(age);
        let late = late.unwrap_or(SystemTime::UNIX_EPOCH);
        let due = |queued: &Queued| {
            let waits = down || queued.attempts.made() > 0 || queued.since.elapsed() >= TURN;
            queued.record.created <= late && waits
        };
        self.rescues = self.lanes.waiting(due).collect();
    }

    /// Begins to rescue the next record that was marked.
    fn start_rescue(&mut self) -> bool {
        while self.lanes.running() < RESCUES.min(self.engine.settings.concurrency) {
            let Some(key) = self.rescues.pop_front() else {
                return false;
            };
            if self.lanes.start_key(&key) {
                self.bury(key, Reason::Rescued);
                return true;
            }
        }
        false
    }
}

fn next(asker: &mut Asker, parked: Option<bool>, queued: &Queued) -> Next {
    match parked {
        Some(true) => return Next::Follow,
        None => return Next::Ask,
        Some(false) => {}
    }
    let which = match queued.attempts.made() {
        0 => Try::First,
        _ => Try::Again,
    };
    match asker.ask(which) {
        Admission::Go(turn) => Next::Handle(turn),
        Admission::Wait(wait) => Next::Hold(Instant::now() + wait),
        Admission::Later(wait) => Next::Later(Instant::now() + wait),
    }
}
