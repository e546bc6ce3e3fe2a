//! The effects of one shard: each with its own records in flight and its own position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use futures_util::FutureExt as _;

use super::Boxed;
use super::effect_run::EffectRun;
use crate::core::group::EffectName;
use crate::core::pipeline::{Closing, Defer};
use crate::core::record::{Position, SequenceNumber};
use crate::engine::effect::JoinedEffect;
use crate::engine::progress::LoopTurn;
use crate::engine::run_pipeline::{Carried, Reported};
use crate::stores::dead_letter::ParkedPage;

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

    /// A record of an effect has ended: it was handled, or became a dead letter.
    pub fn has_ended(&mut self, index: usize, handled: bool) {
        if let Some(run) = self.runs.get_mut(index) {
            run.has_ended(handled);
        }
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

    /// Frees memory for more records: every slow effect, and every effect whose dependency is down, defers
    /// half of its records if it is far behind an effect that would gain from that.
    pub fn overflow(&mut self) {
        let waiting = |run: &EffectRun| run.in_flight.pipeline.waiting();
        let gaining = self.runs.iter().filter(|run| run.would_gain());
        let Some(least) = gaining.map(waiting).min() else {
            return;
        };
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
            run.has_read(last);
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
