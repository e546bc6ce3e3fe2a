//! The shards of one worker: what it takes, starts, drains and gives away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::events::{CallResult, Command, HandOver, Note, Outbox, ShardStart, Stopped};
use super::holdings::{Holdings, Sight};
use super::membership::{Members, REMOVED_AFTER};
use super::plan::{Move, Plan, Planner};
use super::rows::{Checkpoint, LeaseRow, Report};
use super::rules::{FleetRule, FleetRules};
use super::snapshot::{Snapshot, View};
use super::tasks::{Draining, EndedTask, ShardTasks};
use super::terms::{Epoch, Hold, Incarnation, Take};
use super::validity::Generation;
use crate::core::position::Position;
use crate::core::shard::ShardId;

/// How many takes are in flight at once.
const TAKES: usize = 32;

/// What a worker knows about the shards, and what it does with them.
#[derive(Debug)]
pub(super) struct Shards {
    pub members: Members,
    pub holdings: Holdings,
    pub snapshot: Snapshot,
    /// The workers that the shards are shared among, and those when each shard last had its right
    /// owner.
    live: BTreeSet<Incarnation>,
    shared_among: BTreeSet<Incarnation>,
    tasks: ShardTasks,
    /// The newest row of every shard, which says where to start.
    rows: BTreeMap<ShardId, LeaseRow>,
    wanted: VecDeque<Take>,
    taking: BTreeMap<ShardId, (Take, Generation)>,
    left_out: Option<FleetRule>,
}

/// What follows from the end of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterTask {
    /// Nothing.
    Nothing,
    /// The lease table has changed: look at it.
    Look,
    /// The shard may still be mine: start its task again.
    Tend,
}

impl Shards {
    pub fn new(me: Incarnation, rules: &FleetRules) -> Self {
        let (patience, left_out) = (rules.lease_duration, rules.left_out);
        let remembered = patience.saturating_mul(REMOVED_AFTER);
        Self {
            members: Members::new(me, patience).performing(rules.effects.clone()),
            holdings: Holdings::new(remembered, left_out),
            snapshot: Snapshot::default(),
            live: BTreeSet::new(),
            shared_among: BTreeSet::new(),
            tasks: ShardTasks::default(),
            rows: BTreeMap::new(),
            wanted: VecDeque::new(),
            taking: BTreeMap::new(),
            left_out,
        }
    }

    /// The lease of mine with this epoch.
    pub fn hold(&self, shard: &ShardId, epoch: Epoch) -> Hold {
        Hold {
            shard: shard.clone(),
            owner: self.members.me().clone(),
            epoch,
        }
    }

    /// The shards that have ended, by the newest rows.
    pub fn ended(&self) -> BTreeSet<ShardId> {
        let ended = self.rows.values().filter(|row| row.ended());
        ended.map(|row| row.shard.clone()).collect()
    }

    /// All shards that have a row.
    pub fn known(&self) -> impl Iterator<Item = &ShardId> {
        self.rows.keys()
    }

    /// Whether nothing is mine, no task works, and no call is in flight that could make a shard mine.
    pub fn is_empty(&self) -> bool {
        let owns_nothing = !self.holdings.is_giving() && self.holdings.owned().next().is_none();
        owns_nothing && self.tasks.is_empty() && self.taking.is_empty()
    }

    /// Whether a consistent look that began after `since` saw no lease in my name.
    pub fn is_gone_since(&self, since: Duration) -> bool {
        let Snapshot {
            view,
            began,
            consistent,
        } = &self.snapshot;
        let mut owners = view.leases.values().map(|row| row.owner.as_ref());
        let me = Some(self.members.me());
        *consistent && *began >= since && !owners.any(|owner| owner == me)
    }

    /// Trust lapsed: nothing is mine, and no task may begin anything.
    pub fn lapse(&mut self, out: &mut Outbox) {
        if self.holdings.owned().next().is_some() {
            out.note(Note::Lapsed);
        }
        self.holdings.lapse();
        self.wanted.clear();
        for shard in self.tasks.shards() {
            self.abandon(&shard, out);
        }
    }

    /// I joined again under this name. Trust has lapsed.
    pub fn reborn(&mut self, me: Incarnation) {
        self.holdings.lapse();
        self.members.reborn(me);
    }

    fn abandon(&mut self, shard: &ShardId, out: &mut Outbox) {
        if self.tasks.abandon(shard) {
            out.push(Command::Abandon(shard.clone()));
        }
    }

    /// A look was answered.
    pub fn remember(&mut self, snapshot: Snapshot) {
        let (view, consistent) = (snapshot.view.clone(), snapshot.consistent);
        self.snapshot = snapshot;
        if consistent {
            self.rows.retain(|shard, _| view.leases.contains_key(shard));
        }
        for (shard, row) in &view.leases {
            let known = self.rows.get(shard);
            if consistent || known.is_none_or(|known| known.epoch <= row.epoch) {
                self.rows.insert(shard.clone(), row.clone());
            }
        }
    }

    /// A look at the heartbeats alone was answered. Returns whether other workers are alive than those
    /// that the shards are shared among.
    pub fn see_workers(&mut self, seen: &View, leaving: bool, now: Duration) -> bool {
        Arc::make_mut(&mut self.snapshot.view).update_workers(seen);
        self.members.see(&self.snapshot.view, now);
        self.members.live(&self.snapshot.view, now, leaving) != self.live
    }

    /// Counts the live workers: the shards are shared among them from now on. Returns whether they are
    /// others than when each shard last had its right owner.
    pub fn count_live(&mut self, leaving: bool, now: Duration) -> bool {
        self.live = self.members.live(&self.snapshot.view, now, leaving);
        self.live != self.shared_among
    }

    /// Each shard has its right owner.
    pub fn all_are_shared(&mut self) {
        self.shared_among.clone_from(&self.live);
    }

    /// The workers that the shards are shared among.
    pub fn live(&self) -> &BTreeSet<Incarnation> {
        &self.live
    }

    /// Handles what the last look says about the workers and my shards. `trusted`: trust holds and
    /// nothing has lapsed since before the look began.
    pub fn see(&mut self, trusted: bool, now: Duration, out: &mut Outbox) {
        self.members.see(&self.snapshot.view, now);
        let lost = self.holdings.see(Sight {
            me: self.members.me(),
            snapshot: &self.snapshot,
            trusted,
            now,
        });
        for shard in lost {
            self.abandon(&shard, out);
        }
    }

    /// Carries out the plan. `gives`: the workers that are to get shards of mine know that. Requires
    /// trust. Returns whether each lease has its right owner.
    pub fn follow_plan(&mut self, gives: bool, now: Duration, out: &mut Outbox) -> bool {
        let planner = Planner {
            view: &self.snapshot.view,
            members: &self.members,
            holdings: &self.holdings,
            left_out: self.left_out,
        };
        let Plan { actions, done } = planner.plan(&self.live, now);
        self.wanted.clear();
        for action in actions {
            match action {
                Move::Take(take) => self.wanted.push_back(take),
                Move::HandOver(shard, to) if gives => self.give_up(&shard, to, out),
                Move::HandOver(..) => {}
            }
        }
        done && self.taking.is_empty()
    }

    /// Starts the tasks of my shards that have none. Requires trust.
    pub fn tend(&mut self, generation: Generation, out: &mut Outbox) {
        let owned = self.holdings.owned().filter_map(|(shard, epoch)| {
            let row = self.rows.get(shard)?;
            let is_new = row.epoch == epoch && !row.ended() && !self.tasks.is_running(shard);
            is_new.then(|| (self.hold(shard, epoch), row.clone()))
        });
        for (hold, row) in owned.collect::<Vec<_>>() {
            self.tasks.start(hold.clone());
            let start = ShardStart {
                hold,
                row,
                generation,
            };
            out.push(Command::StartShard(Box::new(start)));
        }
    }

    /// Begins the planned takes.
    pub fn begin_takes(&mut self, generation: Generation, out: &mut Outbox) {
        while self.taking.len() < TAKES {
            let Some(take) = self.wanted.pop_front() else {
                return;
            };
            if !self.taking.contains_key(&take.shard) {
                let in_flight = (take.clone(), generation);
                self.taking.insert(take.shard.clone(), in_flight);
                out.push(Command::Take(take));
            }
        }
    }

    /// A take was answered. `trusted`: the generation, if there is trust now. A take from another
    /// generation is void, but its epoch counts. Returns whether the shard is mine now.
    pub fn took(
        &mut self,
        shard: &ShardId,
        answer: CallResult<Box<LeaseRow>>,
        trusted: Option<Generation>,
        now: Duration,
    ) -> Option<Note> {
        let (take, began) = self.taking.remove(shard)?;
        let row = answer.ok().flatten()?;
        if trusted != Some(began) || take.owner != *self.members.me() {
            self.holdings.heard(shard, row.epoch);
            return None;
        }
        let epoch = self.holdings.gain(shard, row.epoch, now)?;
        self.rows.insert(shard.clone(), *row);
        let from = take.from.map(|(owner, _)| owner);
        Some(Note::Took(shard.clone(), epoch, from))
    }

    fn give_up(&mut self, shard: &ShardId, to: Option<Incarnation>, out: &mut Outbox) {
        let Some(epoch) = self.holdings.give_up(shard) else {
            return;
        };
        out.note(Note::HandingOver(shard.clone(), to.clone()));
        let reached = match self.tasks.drain(shard, to.clone()) {
            Draining::Asked => {
                out.push(Command::Drain(shard.clone()));
                if self.left_out != Some(FleetRule::DrainFirst) {
                    return;
                }
                self.of_row(shard)
            }
            Draining::Halted(position, report) => {
                out.push(Command::Abandon(shard.clone()));
                Some((position, report))
            }
            // No task has touched it: the row's own checkpoint holds.
            Draining::NoTask => self.of_row(shard),
        };
        let Some(reached) = reached else {
            self.holdings.gave_up(shard);
            return;
        };
        hand_over(self.hold(shard, epoch), to, reached, out);
    }

    /// How far a shard has been handled, according to its row.
    fn of_row(&self, shard: &ShardId) -> Option<(Position, Report)> {
        let row = self.rows.get(shard)?;
        match &row.checkpoint {
            Checkpoint::At(position) => Some((position.clone(), row.report.clone())),
            Checkpoint::End { .. } => None,
        }
    }

    /// A shard's task ended.
    pub fn stopped(&mut self, shard: &ShardId, how: Stopped, out: &mut Outbox) -> AfterTask {
        let halted = matches!(how, Stopped::Halted(..));
        let Some(EndedTask { hold, to, how }) = self.tasks.stopped(shard, how) else {
            return AfterTask::Nothing;
        };
        if halted && !matches!(how, Stopped::Halted(..)) {
            out.push(Command::Abandon(shard.clone()));
        }
        match how {
            Stopped::Drained(position, report) => {
                hand_over(hold, to, (position, report), out);
                AfterTask::Nothing
            }
            Stopped::Finished | Stopped::Refused => {
                self.holdings.gave_up(shard);
                self.holdings.lose(shard, hold.epoch);
                AfterTask::Look
            }
            Stopped::Abandoned => {
                self.holdings.gave_up(shard);
                AfterTask::Tend
            }
            Stopped::Halted(..) => AfterTask::Nothing,
        }
    }
}

fn hand_over(
    hold: Hold,
    to: Option<Incarnation>,
    (position, report): (Position, Report),
    out: &mut Outbox,
) {
    let command = HandOver {
        hold,
        to,
        position,
        report,
    };
    out.push(Command::HandOver(Box::new(command)));
}
