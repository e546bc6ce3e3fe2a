//! What the plan says, done: leases taken, shard tasks started, shards handed over.

use tracing::info;

use super::complain;
use super::fleet::Fleet;
use super::tasks::{Draining, Finished};
use crate::decide::lease::Action;
use crate::decide::shard::ShardId;
use crate::gate::left_out;
use crate::handler::RecordHandler;
use crate::leases::{Checkpoint, Hold, Incarnation, LeaseRow, LeaseStore, Report, Take};
use crate::progress::Counters;
use crate::record::Position;
use crate::shard_task::Ended;
use crate::source::StreamSource;
use crate::trust::Generation;

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Fleet<S, L, H> {
    /// Does what the plan says about the last look, and starts the tasks of what is mine.
    pub(super) fn act(&mut self) {
        if self.trust.tenure().is_none() || !self.agreement.holds() && self.leaving.is_none() {
            return;
        }
        let now = self.now();
        let (live, actions) = {
            let member = self.member();
            let live = member.live(&self.sight, now, self.leaving.is_some());
            let actions = member.plan(&self.sight, &live, now);
            (live, actions)
        };
        let me = self.member().me().clone();
        self.listing.elect(&live, &self.sight, &me);
        self.engine.progress.set_lister(self.listing.is_mine());
        self.wanted.clear();
        let mut dead = Vec::new();
        for action in actions {
            match action {
                Action::Take(take) => self.wanted.push_back(take),
                Action::HandOver(shard, to) => self.give_up(&shard, to),
                Action::Bury(name, beat) => dead.push((name, Some(beat))),
            }
        }
        if !dead.is_empty() && self.listing.is_mine() {
            self.bury(dead);
        }
        self.tend();
    }

    /// Starts the tasks of the shards that are mine and have none.
    fn tend(&mut self) {
        if self.group_row.is_none() {
            return;
        }
        let (me, owned) = {
            let member = self.member();
            let owned = member
                .owned()
                .map(|shard| (shard.clone(), member.owns(shard)));
            (member.me().clone(), owned.collect::<Vec<_>>())
        };
        for (shard, epoch) in owned {
            let row = self.rows.get(&shard).filter(|row| Some(row.epoch) == epoch);
            let row = row.filter(|_| !self.tasks.is_running(&shard));
            if let (Some(row), Some(tenure)) = (row, self.trust.tenure()) {
                self.tasks.start(&self.engine, row, me.clone(), tenure);
            }
        }
    }

    fn give_up(&mut self, shard: &ShardId, to: Option<Incarnation>) {
        let (me, given) = {
            let mut member = self.member();
            (member.me().clone(), member.give_up(shard))
        };
        let Some(epoch) = given else {
            return;
        };
        info!(%shard, to = ?to, "handing over");
        let reached = match self.tasks.drain(shard, to.clone()) {
            Draining::Told if !left_out!(HandOverTooEarly) => return,
            Draining::Halted(position, report) => Some((position, report)),
            // No task has touched it: the row's own checkpoint stands.
            Draining::NoTask | Draining::Told => self.of_row(shard),
        };
        let hold = Hold {
            shard: shard.clone(),
            owner: me,
            epoch,
        };
        match reached {
            Some((position, report)) => {
                let call = self.engine.hand_over(hold, to, position, report);
                self.calls.push(call);
            }
            None => self.member().gave_up(shard),
        }
    }

    /// How far a shard is by its row.
    fn of_row(&self, shard: &ShardId) -> Option<(Position, Report)> {
        let row = self.rows.get(shard)?;
        match &row.checkpoint {
            Checkpoint::At(position) => Some((position.clone(), row.report.clone())),
            Checkpoint::End { .. } => None,
        }
    }

    pub(super) fn took(
        &mut self,
        take: &Take,
        generation: Generation,
        result: anyhow::Result<Option<LeaseRow>>,
    ) {
        self.taking.remove(&take.shard);
        match result {
            Ok(Some(row)) => {
                let now = self.now();
                let valid = generation == self.trust.generation() && self.trust.tenure().is_some();
                let valid = valid && take.owner == *self.member().me();
                if !valid {
                    self.member().heard(&take.shard, row.epoch);
                } else if self.member().gain(&take.shard, row.epoch, now).is_some() {
                    let from = take.from.as_ref().map(|(owner, _)| owner.as_str());
                    info!(shard = %take.shard, epoch = row.epoch, from, "took a lease");
                    Counters::add(&self.engine.progress.counters.takes);
                    self.rows.insert(take.shard.clone(), row);
                    self.tend();
                }
                if self.leaving.is_some() {
                    self.look_now();
                }
            }
            Ok(None) => {}
            Err(error) => complain("taking a lease", &error),
        }
    }

    pub(super) fn handed_over(
        &mut self,
        shard: &ShardId,
        to: Option<&Incarnation>,
        result: anyhow::Result<Option<()>>,
    ) {
        self.member().gave_up(shard);
        match result {
            Ok(Some(())) => {
                info!(%shard, to = ?to, "handed over");
                Counters::add(&self.engine.progress.counters.hand_overs);
            }
            Ok(None) => {}
            Err(error) => complain("handing a shard over", &error),
        }
    }

    pub(super) fn ended(&mut self, finished: Finished) {
        self.note_lapse();
        let Finished { hold, to, ended } = finished;
        let shard = hold.shard.clone();
        match ended {
            Ended::Drained(position, report) => {
                self.calls
                    .push(self.engine.hand_over(hold, to, position, report));
            }
            Ended::Finished | Ended::Refused => {
                if matches!(ended, Ended::Refused) {
                    Counters::add(&self.engine.progress.counters.refused);
                }
                let mut member = self.member();
                member.gave_up(&shard);
                if member.owns(&shard) == Some(hold.epoch) {
                    member.lose(&shard);
                }
                drop(member);
                self.look_now();
            }
            Ended::Abandoned => {
                self.member().gave_up(&shard);
                self.tend();
            }
            Ended::Halted(..) => {}
        }
    }
}
