//! One effect's records of a shard, in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Assignment;
use crate::core::group::EffectName;
use crate::core::pipeline::Closing;
use crate::core::record::{Position, Record, SequenceNumber};
use crate::engine::Engine;
use crate::engine::effect::{ActiveEffect, ErasedHandler, JoinedEffect};
use crate::engine::handler::{Context, RecordHandler as _};
use crate::engine::progress::LoopTurn;
use crate::engine::run_pipeline::{InFlight, Work, ask, into_letters};
use crate::stores::dead_letter::ParkedPage;
use crate::stores::leases::LeaseStore;
use crate::stores::retry::persist;

/// An effect that has not finished what was read this long ago is slow: it defers records rather than let
/// the others wait. An effect that is only a little slower sets the pace of all while there is a backlog.
const SLOW: Duration = Duration::from_secs(10);

/// Others give way to an effect again so long after its last dead letter, however it did before.
const FORGIVEN: Duration = Duration::from_mins(1);

/// How its last so many records ended says how an effect is doing.
const OF_LATE: u32 = 64;

/// One effect's records of the shard.
pub(super) struct EffectRun {
    active: Arc<ActiveEffect>,
    pub in_flight: InFlight<'static, Arc<ErasedHandler>>,
    /// What it has finished before.
    start: Position,
    /// It does not handle what was committed before.
    pub since: Option<SystemTime>,
    /// When the shard was last read to its end with everything of this effect finished.
    pub caught_up_at: Option<SystemTime>,
    /// The last record of each read that it has not finished, and when it was read.
    reads: VecDeque<(SequenceNumber, Instant)>,
    ended: Endings,
}

/// How its records have ended of late.
#[derive(Default)]
struct Endings {
    handled: u32,
    lettered: u32,
    lettered_at: Option<Instant>,
}

impl Endings {
    fn count(&mut self, handled: bool) {
        if handled {
            self.handled += 1;
        } else {
            self.lettered += 1;
            self.lettered_at = Some(Instant::now());
        }
        if self.handled + self.lettered >= OF_LATE {
            self.handled /= 2;
            self.lettered /= 2;
        }
    }
}

impl EffectRun {
    /// The effect's records of a shard from `start` on. Nothing starts outside of the tenure.
    pub fn new<S, L: LeaseStore>(
        engine: &Engine<S, L>,
        assignment: &Assignment,
        joined: &JoinedEffect,
        start: Position,
        with: (&CancellationToken, fastrand::Rng),
    ) -> Self {
        let (cancel, rng) = with;
        let active = joined.active.clone();
        Self {
            in_flight: in_flight(engine, assignment, &active, cancel, rng),
            start,
            since: joined.since,
            caught_up_at: assignment.report.caught_up_at,
            reads: VecDeque::new(),
            ended: Endings::default(),
            active,
        }
    }

    pub fn name(&self) -> &EffectName {
        &self.active.effect.name
    }

    pub fn active(&self) -> &ActiveEffect {
        &self.active
    }

    /// The last record up to which it has finished everything; `None`: the horizon.
    pub fn reached(&self) -> Option<&SequenceNumber> {
        match (self.in_flight.pipeline.watermark(), &self.start) {
            (Some((number, _)), _) | (None, Position::After(number)) => Some(number),
            (None, Position::Horizon) => None,
        }
    }

    /// Records up to this one were read now.
    pub fn has_read(&mut self, last: &SequenceNumber) {
        self.forget_finished_reads();
        self.reads.push_back((last.clone(), Instant::now()));
    }

    /// Whether its dependency is down, or records that were read long ago still wait.
    pub fn holds_others(&mut self) -> bool {
        self.forget_finished_reads();
        let oldest = self.reads.front();
        let late = oldest.is_some_and(|(_, read)| read.elapsed() >= SLOW);
        late || self.active.dependency.down_for().is_some()
    }

    /// A record has ended: it was handled, or became a dead letter.
    pub fn has_ended(&mut self, handled: bool) {
        self.ended.count(handled);
    }

    /// Whether it would handle more records if others gave way. Most records of one that is down or slow
    /// become dead letters, which is quick: it seems to be waiting for the others, and is not.
    pub fn would_gain(&self) -> bool {
        let Endings {
            handled,
            lettered,
            lettered_at,
        } = &self.ended;
        handled >= lettered || lettered_at.is_none_or(|at| at.elapsed() >= FORGIVEN)
    }

    fn forget_finished_reads(&mut self) {
        while let Some((last, _)) = self.reads.front()
            && self.reached() >= Some(last)
        {
            self.reads.pop_front();
        }
    }

    /// Whether it has finished this record before the task began.
    pub fn has_done(&self, record: &SequenceNumber) -> bool {
        matches!(&self.start, Position::After(last) if record <= last)
    }

    /// Whether the record was committed before the effect joined the group.
    pub fn is_older(&self, record: &Record) -> bool {
        self.since.is_some_and(|since| record.created < since)
    }

    /// Finishes a record that the effect does not handle.
    pub fn skip(&mut self, record: &Record) {
        let pipeline = &mut self.in_flight.pipeline;
        pipeline.skip(record.sequence_number.clone(), record.created);
    }

    pub fn turn(&self, of_shard: LoopTurn) -> LoopTurn {
        let pipeline = &self.in_flight.pipeline;
        LoopTurn {
            oldest: pipeline.oldest_unfinished(),
            caught_up_at: self.caught_up_at,
            waiting: pipeline.waiting(),
            in_hand: pipeline.in_hand(),
            held_back: pipeline.is_held_back(),
            ..of_shard
        }
    }
}

/// Which keys of an effect have dead letters.
pub(super) async fn parked<S, L: LeaseStore>(
    engine: Arc<Engine<S, L>>,
    effect: EffectName,
    rng: fastrand::Rng,
) -> Option<ParkedPage> {
    let letters = engine.letters.clone()?;
    let at = engine.letters_of(&effect);
    let look = || letters.parked_page(&at, None, engine.simulated.few_parked());
    let limit = engine.settings.timing.call_timeout();
    Some(persist(limit, rng, "looking for parked keys", look).await)
}

fn in_flight<S, L: LeaseStore>(
    engine: &Engine<S, L>,
    assignment: &Assignment,
    active: &ActiveEffect,
    cancel: &CancellationToken,
    rng: fastrand::Rng,
) -> InFlight<'static, Arc<ErasedHandler>> {
    let (hold, effect) = (&assignment.hold, &active.effect);
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
    let at = engine.letters_of(&effect.name);
    let (letters, counters) = (engine.letters.clone(), effect.progress.counters.clone());
    let limit = timing.call_timeout();
    let fence = Some(engine.leases.fence(hold));
    let ask = letters
        .clone()
        .map(|letters| ask(letters, at.clone(), limit));
    let into = |letters| into_letters(letters, fence, counters, limit);
    let work = Work {
        at,
        handler: Arc::new(effect.handler.clone()),
        context,
        at_expiry: Closing::LeaseLost,
        limit: timing.handler_timeout,
        bury: letters.map(into),
        ask,
        handling: effect.progress.handling.clone(),
        clock: engine.clock.clone(),
    };
    let mut rules = engine
        .settings
        .rules(engine.letters.is_some(), engine.simulated.pipeline);
    let wanted = effect.concurrency.unwrap_or(rules.concurrency);
    rules.concurrency = wanted.max(effect.handler.needs_at_a_time());
    if let (Some(limits), Some(rules)) = (effect.attempts, &mut rules.dead_letters) {
        rules.limits = limits;
    }
    InFlight::new(rules, work, active.dependency.asker(), rng)
}
