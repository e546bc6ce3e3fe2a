//! The effects of one shard: each with its own records in flight and its own position.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Assignment, Boxed};
use crate::core::group::EffectName;
use crate::core::pipeline::{Closing, Defer};
use crate::core::record::{Position, Record, SequenceNumber};
use crate::engine::Engine;
use crate::engine::effect::{ActiveEffect, ErasedHandler, JoinedEffect};
use crate::engine::handler::Context;
use crate::engine::progress::LoopTurn;
use crate::engine::run_pipeline::{Carried, InFlight, Reported, Work, ask, into_letters};
use crate::stores::dead_letter::ParkedPage;
use crate::stores::leases::LeaseStore;
use crate::stores::retry::persist;

/// An effect that takes longer than this for what was read holds the others. One that is only a little
/// slower than they are sets their pace while there is a backlog.
const SLOW: Duration = Duration::from_secs(10);

/// How far a shard is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// The least position of all effects.
    pub least: Position,
    /// The effects that are further.
    pub ahead: BTreeMap<EffectName, SequenceNumber>,
}

/// The effects of a shard.
#[derive(Default)]
pub(super) struct ShardEffects {
    runs: Vec<EffectRun>,
    /// Which effect's events are taken in first: each in turn, so that a busy one delays no other.
    first: usize,
}

impl ShardEffects {
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut EffectRun> {
        self.runs.iter_mut()
    }

    pub fn get(&self, index: usize) -> &EffectRun {
        &self.runs[index]
    }

    /// Whether there are several, so that one can wait for another.
    pub fn are_several(&self) -> bool {
        self.runs.len() > 1
    }

    /// Queues a record for an effect.
    pub fn push(&mut self, index: usize, carried: Arc<Carried>) {
        if let Some(run) = self.runs.get_mut(index) {
            run.in_flight.push(carried);
        }
    }

    /// Waits until work on a record has ended or something can start, for any effect. Dropping it loses
    /// nothing.
    pub async fn turn(&mut self) -> (usize, Option<Reported>) {
        self.next(|run| run.in_flight.turn().boxed()).await
    }

    /// Waits until work on a record has ended, and starts nothing. Dropping it loses nothing.
    pub async fn ended(&mut self) -> (usize, Option<Reported>) {
        self.next(|run| run.in_flight.ended().boxed()).await
    }

    async fn next<'s>(
        &'s mut self,
        wait: impl Fn(&'s mut EffectRun) -> Boxed<'s, Option<Reported>>,
    ) -> (usize, Option<Reported>) {
        self.first = (self.first + 1) % self.runs.len().max(1);
        let first = self.first;
        let mut waits: Vec<_> = self.runs.iter_mut().map(wait).collect();
        let several = waits.len();
        std::future::poll_fn(move |context| {
            for turn in 0..several {
                let index = (first + turn) % several;
                if let Poll::Ready(reported) = waits[index].poll_unpin(context) {
                    return Poll::Ready((index, reported));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Starts what can start now.
    pub fn start(&mut self) {
        for run in &mut self.runs {
            run.in_flight.start();
        }
    }

    /// The shard has no more records. One effect does not wait for another for long.
    pub fn source_ended(&mut self) {
        let which = if self.are_several() {
            Defer::Waiting
        } else {
            Defer::Failing
        };
        for run in &mut self.runs {
            run.in_flight.source_ended(which);
        }
    }

    /// No memory is left for more records: the effects that are far behind another one, and are down or
    /// have been busy with what was read for too long, defer half of their records.
    pub fn overflow(&mut self) {
        let waiting = |run: &EffectRun| run.in_flight.pipeline.waiting();
        let least = self.runs.iter().map(waiting).min().unwrap_or(0);
        for run in &mut self.runs {
            let waiting = waiting(run);
            if waiting > 2 * least + 1 && run.holds_others() {
                run.in_flight.pipeline.overflow(waiting / 2);
            }
        }
    }

    /// Records up to this one were read now.
    pub fn have_read(&mut self, last: &SequenceNumber) {
        for run in &mut self.runs {
            run.forget_finished_reads();
            run.reads.push_back((last.clone(), Instant::now()));
        }
    }

    /// Starts nothing more, for this reason.
    pub fn close(&mut self, why: Closing) {
        for run in &mut self.runs {
            run.in_flight.pipeline.close(why);
        }
    }

    /// Gives up the places in the dependencies' lines: nothing starts for a while.
    pub fn leave_line(&mut self) {
        for run in &mut self.runs {
            run.in_flight.leave_line();
        }
    }

    /// How many records are running.
    pub fn running(&self) -> usize {
        self.runs.iter().map(|run| run.in_flight.running()).sum()
    }

    /// How many records wait.
    pub fn waiting(&self) -> usize {
        let waiting = |run: &EffectRun| run.in_flight.pipeline.waiting();
        self.runs.iter().map(waiting).sum()
    }

    /// Whether everything that was read has ended.
    pub fn are_finished(&self) -> bool {
        let finished = |run: &EffectRun| run.in_flight.pipeline.is_finished();
        self.runs.iter().all(finished)
    }

    /// When the oldest unfinished record was committed.
    pub fn oldest_unfinished(&self) -> Option<SystemTime> {
        let oldest = |run: &EffectRun| run.in_flight.pipeline.oldest_unfinished();
        self.runs.iter().filter_map(oldest).min()
    }

    /// Whether a record waits only for a place or for a circuit breaker.
    pub fn are_held_back(&self) -> bool {
        let held_back = |run: &EffectRun| run.in_flight.pipeline.is_held_back();
        self.runs.iter().any(held_back)
    }

    /// The shard was read to its end at this time.
    pub fn at_end(&mut self, at: Option<SystemTime>) {
        for run in &mut self.runs {
            if run.in_flight.pipeline.is_finished() {
                run.caught_up_at = run.caught_up_at.max(at);
            }
        }
    }

    /// How far the shard is finished.
    pub fn reached(&self) -> Reached {
        let least = self.runs.iter().map(EffectRun::reached).min().flatten();
        let ahead = self.runs.iter().filter_map(|run| {
            let reached = run.reached().filter(|reached| Some(*reached) > least)?;
            Some((run.name().clone(), reached.clone()))
        });
        Reached {
            ahead: ahead.collect(),
            least: least.map_or(Position::Horizon, |last| Position::After(last.clone())),
        }
    }

    /// When the last record was committed below which every effect has finished everything, if this
    /// task has read it.
    pub fn frontier_time(&self) -> Option<SystemTime> {
        let least = self
            .runs
            .iter()
            .min_by(|a, b| a.reached().cmp(&b.reached()))?;
        let (_, created) = least.in_flight.pipeline.watermark()?;
        *created
    }

    /// What each effect is doing: those of this worker first, in its order.
    pub fn turns(&self, of_shard: LoopTurn) -> impl Iterator<Item = LoopTurn> {
        self.runs.iter().map(move |run| run.turn(of_shard))
    }

    /// The effects of the group have changed: drops those that it has no more. Returns those that are
    /// new.
    pub fn follow(&mut self, joined: &[JoinedEffect]) -> Vec<JoinedEffect> {
        let is_in = |run: &EffectRun| joined.iter().any(|one| one.is(run.name()));
        self.runs.retain(is_in);
        for one in joined {
            let mut runs = self.runs.iter_mut();
            if let Some(run) = runs.find(|run| one.is(run.name())) {
                run.since = one.since;
            }
        }
        let known = |one: &&JoinedEffect| self.runs.iter().any(|run| one.is(run.name()));
        joined.iter().filter(|one| !known(one)).cloned().collect()
    }

    /// Adds an effect. Nothing of it may start before its parked keys are known.
    pub fn add(&mut self, run: EffectRun) {
        self.runs.push(run);
    }

    /// These keys of an effect have dead letters.
    pub fn know(&mut self, effect: &EffectName, parked: Option<ParkedPage>) {
        let run = self.runs.iter_mut().find(|run| run.name() == effect);
        if let (Some(run), Some(parked)) = (run, parked) {
            run.in_flight.know(parked);
        }
    }
}

/// One effect's records of the shard.
pub(super) struct EffectRun {
    active: Arc<ActiveEffect>,
    pub in_flight: InFlight<'static, Arc<ErasedHandler>>,
    /// What it has finished before.
    start: Position,
    /// It does not handle what was committed before.
    since: Option<SystemTime>,
    /// When the shard was last read to its end with everything of this effect finished.
    caught_up_at: Option<SystemTime>,
    /// The last record of each read that it has not finished, and when it was read.
    reads: VecDeque<(SequenceNumber, Instant)>,
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
    fn reached(&self) -> Option<&SequenceNumber> {
        match (self.in_flight.pipeline.watermark(), &self.start) {
            (Some((number, _)), _) | (None, Position::After(number)) => Some(number),
            (None, Position::Horizon) => None,
        }
    }

    /// Whether its dependency is down, or records that were read long ago still wait.
    fn holds_others(&mut self) -> bool {
        self.forget_finished_reads();
        let oldest = self.reads.front();
        let late = oldest.is_some_and(|(_, read)| read.elapsed() >= SLOW);
        late || self.active.dependency.down_for().is_some()
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

    fn turn(&self, of_shard: LoopTurn) -> LoopTurn {
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
    rules.concurrency = effect.concurrency.unwrap_or(rules.concurrency);
    if let (Some(limits), Some(rules)) = (effect.attempts, &mut rules.dead_letters) {
        rules.limits = limits;
    }
    InFlight::new(rules, work, active.dependency.asker(), rng)
}
