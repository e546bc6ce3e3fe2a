//! One member of a fleet: which workers are alive, who owns each shard, and what to do about it.
//!
//! [`Fleet`] reads no clock and makes no calls. The caller reports what happened ([`FleetEvent`]), and
//! turns each [`Command`] into a call to the lease table, the stream or a shard's task. There is no
//! leader: each member decides from the same rows, by conditional writes that may lose their race.
//!
//! # The protocol
//!
//! **Heartbeats.** Each start of a process has a name of its own ([`Incarnation`]) and a row, whose
//! `beat` it raises every `heartbeat_interval`. No clocks are compared: a worker that sees the same
//! beat for a whole `lease_duration`, on its own monotonic clock, knows that the other is dead
//! ([`membership`]).
//!
//! **Looks.** Each member reads the heartbeats about once a second. It reads the leases as often while
//! there is something to do or there are few of them, else once in a lease duration (`looks.rs`). The
//! rows show which workers are alive, and so which shards each should have ([`assign`]): every member
//! computes the same answer. It takes free leases and those of dead workers, and gives away shards that
//! belong to others ([`plan`]).
//!
//! **Takes.** A take raises the lease's epoch. It applies only if the owner and the epoch are still the
//! ones that were seen, and if a dead owner's beat has not moved since. Every later write of the owner
//! demands owner and epoch, so a worker that lost its lease can write nothing.
//!
//! **Trust.** A frozen worker would begin records of a shard that another worker has taken, until its
//! next write fails. So it trusts its leases for a fifth less than others wait, counted from the
//! beginning of its last heartbeat, and for three times as long from the beginning of its last
//! consistent look, because a deleted row is replaced after three lease durations ([`validity`]). When
//! either runs out, all of its leases are void. Only a consistent look that began after the answer to
//! the next heartbeat shows which are still its own ([`holdings`]).
//!
//! **Hand-over.** A shard that is given away is drained first: no more records begin, running ones end,
//! and one write stores the checkpoint, the next owner and a higher epoch. A worker that leaves does
//! this with all of its shards, then looks once more for leases in its name, such as a take whose
//! answer was lost.
//!
//! **Repair.** A shard's end creates its children's leases. One member finds whatever was missed: it
//! compares the stream's listing with the lease table once a minute ([`repair`], [`lineage`]). It also
//! archives the leases of ended shards whose children have leases: only this comparison needs them.
//!
//! # The states of a worker, and of a shard in its eyes
//!
//! ```text
//!               heartbeat           consistent look
//!   start --> [no trust] -------> [beating] -------> [trusted] --leave--> [draining] --> left
//!                 ^                   |                  |                     |
//!                 +---- no heartbeat for 0.8 lease durations, or no consistent look for 2.4; or my
//!                       row is gone (it is then another incarnation)
//!
//!                  take, or a look that names me
//!   [another's or free] ------------------------> [mine] --plan--> [draining] --> [given]
//!            ^                                      |                  |             |
//!            +-- lapse, refused write, or a look that shows another ---+-------------+
//! ```
//!
//! Without trust a worker owns, takes and starts nothing. In every state it beats and looks.

use std::sync::Arc;
use std::time::Duration;

use super::Now;
use crate::core::claim::Liveness;
use crate::core::shard::ShardId;

pub mod absences;
pub mod assign;
mod contact;
#[cfg(test)]
mod describe;
pub mod events;
#[cfg(test)]
mod golden;
mod heartbeat;
pub mod holdings;
pub mod horizon;
mod identity;
mod leaving;
pub mod lineage;
pub mod listed;
mod listing;
mod looks;
pub mod membership;
pub mod plan;
pub mod repair;
pub mod rows;
pub mod rules;
mod shards;
pub mod snapshot;
mod step;
mod streams;
mod tasks;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod upkeep;
pub mod validity;

use contact::Contact;
use events::{Beat, CallResult, Command, Failed, FleetEvent, Note, Outbox};
use identity::Differs;
use leaving::{Departure, Leaving};
use looks::Begun;
use rows::GroupRow;
use rules::{FleetRule, FleetRules};
use shards::{AfterTask, Shards};
use snapshot::{Reach, Snapshot, View};
use terms::{Incarnation, Lease};
use upkeep::{Look, Upkeep};
use validity::Validity;

/// One member of a fleet.
#[derive(Debug)]
pub struct Fleet {
    rules: FleetRules,
    rng: fastrand::Rng,
    out: Outbox,
    contact: Contact,
    shards: Shards,
    upkeep: Upkeep,
    leaving: Option<Leaving>,
}

impl Fleet {
    /// A worker that has seen nothing. `nonce` must never repeat for its name.
    pub fn new(rules: FleetRules, nonce: u64, rng: fastrand::Rng, now: Duration) -> Self {
        let by_name = rules.left_out == Some(FleetRule::NothingByName);
        let nonce = if by_name { 0 } else { nonce };
        let me = Incarnation::new(&rules.worker_id, nonce);
        Self {
            rng,
            out: Outbox::default(),
            contact: Contact::new(&rules, now),
            shards: Shards::new(me, &rules),
            upkeep: Upkeep::new(&rules, now),
            leaving: None,
            rules,
        }
    }

    /// This member's incarnation.
    pub fn me(&self) -> &Incarnation {
        self.shards.members.me()
    }

    /// Whether another process may still be acting.
    pub fn liveness(&self, name: &Incarnation) -> Liveness {
        self.shards.members.liveness(name)
    }

    /// Whether this worker has to list the stream.
    pub fn is_lister(&self) -> bool {
        self.upkeep.listing.is_mine()
    }

    /// The trust in all leases.
    pub fn validity(&self) -> &Validity {
        &self.contact.validity
    }

    /// The lease of a shard, if it is mine.
    pub fn lease(&self, shard: &ShardId, now: Duration) -> Option<Lease> {
        let until = self.contact.validity.until().filter(|until| now < *until)?;
        let epoch = self.shards.holdings.owns(shard)?;
        let hold = self.shards.hold(shard, epoch);
        Some(Lease { hold, until })
    }

    /// The stream answered this worker, perhaps to a read of a shard.
    pub fn reached_the_stream(&mut self) {
        self.upkeep.listing.reached();
    }

    /// Handles an event.
    pub fn handle(&mut self, event: FleetEvent, now: Now) {
        self.pass(now.elapsed);
        match event {
            FleetEvent::Heartbeat(answer) => self.beaten(answer, now.elapsed),
            FleetEvent::Snapshot(result) => self.looked(result, now),
            FleetEvent::Bootstrapped(result) => self.bootstrapped(result.ok(), now),
            FleetEvent::EffectsChanged(answer) => {
                self.upkeep.agreement.changed(answer == Ok(Some(())));
                self.contact.looks.hurry(now.elapsed);
            }
            FleetEvent::Took(shard, answer) => {
                let trusted = self.contact.trusted();
                if let Some(took) = self.shards.took(&shard, answer, trusted, now.elapsed) {
                    self.out.note(took);
                    self.tend();
                }
                if self.leaving.is_some() {
                    self.contact.looks.hurry(now.elapsed);
                }
            }
            FleetEvent::HandedOver(shard) => self.shards.holdings.gave_up(&shard),
            FleetEvent::Listed(result) => {
                let (rules, rng) = (&self.rules, &mut self.rng);
                if self.upkeep.listed(result, now.elapsed, rules, rng) {
                    self.contact.looks.hurry(now.elapsed);
                }
            }
            FleetEvent::Repaired(result) => {
                self.upkeep.repaired();
                if result.is_ok() {
                    self.contact.looks.hurry(now.elapsed);
                }
            }
            FleetEvent::Stopped(shard, how) => {
                match self.shards.stopped(&shard, how, &mut self.out) {
                    AfterTask::Nothing => {}
                    AfterTask::Look => self.contact.looks.hurry(now.elapsed),
                    AfterTask::Tend => self.tend(),
                }
            }
            FleetEvent::Leave => self.leave(now.elapsed),
        }
    }

    /// What to do now. Ask until there is nothing left, after every event and at [`Fleet::wake_at`].
    pub fn poll(&mut self, now: Now) -> Option<Command> {
        self.pass(now.elapsed);
        if self.out.is_empty() {
            if self.has_left(now.elapsed) {
                return Some(Command::Left);
            }
            self.begin_calls(now.elapsed);
        }
        self.out.pop()
    }

    /// When something is due, if nothing else happens before.
    pub fn wake_at(&self, now: Duration) -> Duration {
        let limit = self.leaving.map(|leaving| leaving.limit);
        let dues = self.contact.due(now, &self.rules).into_iter().chain(limit);
        dues.fold(self.upkeep.listing.due(now), Duration::min)
    }

    /// A lapse of trust, however short, voids everything. It has to be noticed before anything is done.
    fn pass(&mut self, now: Duration) {
        if self.contact.has_lapsed(now) {
            self.contact.looks.plan_is_done(false, now, &self.rules);
            self.shards.lapse(&mut self.out);
        }
    }

    fn begin_calls(&mut self, now: Duration) {
        if let Some((beat, registered)) = self.contact.begin_beat(now, &self.rules) {
            self.out.push(Command::Heartbeat(Beat {
                incarnation: self.me().clone(),
                beat,
                draining: self.leaving.is_some(),
                unable_to_list: self.upkeep.listing.is_unable(),
                registered,
            }));
        }
        let is_last = self.leaving.is_some_and(|leaving| leaving.is_empty());
        let reach = self.upkeep.reach();
        if let Some(begun) = self.contact.begin_look(is_last, reach, &self.rules, now) {
            let (reach, how) = (begun.reach, begun.consistency());
            self.out.push(Command::Look(reach, how));
        }
        if let Some(generation) = self.contact.trusted() {
            self.shards.begin_takes(generation, &mut self.out);
        }
        let (rules, rng, out) = (&self.rules, &mut self.rng, &mut self.out);
        let (upkeep, shards) = (&mut self.upkeep, &self.shards);
        upkeep.begin_listing(shards, now, rules, rng, out);
    }

    fn beaten(&mut self, answer: CallResult<()>, now: Duration) {
        let (rules, rng) = (&self.rules, &mut self.rng);
        if self.contact.beaten(answer, now, rules, rng) {
            return;
        }
        // My row is gone: leases in its name belong to nobody now.
        let me = Incarnation::new(&self.rules.worker_id, self.rng.u64(..));
        self.out.note(Note::Reborn(me.clone()));
        self.contact.be_reborn(now);
        self.pass(now);
        self.shards.reborn(me);
    }

    fn looked(&mut self, result: Result<Arc<View>, Failed>, now: Now) {
        let Some(begun) = self.contact.looks.end() else {
            return;
        };
        let (rules, rng) = (&self.rules, &mut self.rng);
        let Ok(view) = result else {
            return self
                .contact
                .look_failed(begun.reach, now.elapsed, rules, rng);
        };
        self.contact.looks.succeeded(begun, &view);
        if begun.reach == Reach::Workers {
            return self.watched(&view, now.elapsed);
        }
        let vouches = self.contact.vouches(begun, rules);
        let trusted = vouches && (begun.consistent || self.contact.validity.is_open());
        self.take_in(begun, view.clone(), now);
        self.shards.see(trusted, now.elapsed, &mut self.out);
        let death = self.shards.members.next_death(now.elapsed);
        self.contact.looks.expect_death(death);
        if vouches && begun.consistent {
            self.contact.renew(begun, now.elapsed, &self.rules);
            let look = Look {
                view: &view,
                reach: begun.reach,
                holdings: &self.shards.holdings,
                rules: &self.rules,
                now,
            };
            self.upkeep.see(&look, &mut self.out);
            if !self.upkeep.is_done() {
                self.contact.looks.prove_absences(begun, &self.rules);
            }
        }
        self.act(now.elapsed);
    }

    /// A look at the heartbeats alone. If the live workers have changed, the leases are looked at next.
    fn watched(&mut self, seen: &View, now: Duration) {
        let changed = self.shards.see_workers(seen, self.leaving.is_some(), now);
        let looks = &mut self.contact.looks;
        looks.expect_death(self.shards.members.next_death(now));
        if changed {
            looks.hurry(now);
        }
    }

    /// Handles what a look shows, whoever owns the shards.
    fn take_in(&mut self, begun: Begun, view: Arc<View>, now: Now) {
        let out = &mut self.out;
        self.contact.looks.report_newer(&view, out);
        let agrees = self.upkeep.remember(&view, begun, now, out);
        self.shards.remember(Snapshot {
            view,
            began: begun.at,
            consistent: begun.consistent,
        });
        if agrees.is_err() {
            self.leave(now.elapsed);
        }
    }

    fn bootstrapped(&mut self, row: Option<GroupRow>, now: Now) {
        match self.upkeep.bootstrapped(row, now.time, &mut self.out) {
            Ok(true) => self.contact.looks.hurry(now.elapsed),
            Ok(false) => {}
            Err(Differs) => self.leave(now.elapsed),
        }
    }

    /// Carries out the plan from the last look, and starts the tasks of my shards.
    fn act(&mut self, now: Duration) {
        let may_act = self.upkeep.agreement.holds() || self.leaving.is_some();
        if self.contact.trusted().is_none() || !may_act {
            self.contact.looks.plan_is_done(false, now, &self.rules);
            return;
        }
        let looks = &mut self.contact.looks;
        let changed = self.shards.count_live(self.leaving.is_some(), now);
        let gives = changed || looks.all_have_looked(now, &self.rules);
        let done = self.shards.follow_plan(gives, now, &mut self.out);
        let done = done && self.upkeep.is_done() && self.leaving.is_none();
        looks.plan_is_done(done, now, &self.rules);
        if done {
            self.shards.all_are_shared();
        }
        self.upkeep.elect(&self.shards, now, &mut self.out);
        self.tend();
    }

    /// Starts the tasks of my shards, once the group's row is known.
    fn tend(&mut self) {
        let group = self.upkeep.group.as_ref();
        if let Some(generation) = group.and(self.contact.trusted()) {
            self.shards.tend(generation, &mut self.out);
        }
    }

    fn leave(&mut self, now: Duration) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Leaving::new(now, &self.rules));
        self.out.note(Note::Leaving);
        self.contact.hurry(now);
        self.act(now);
    }

    /// Whether a leaving worker has left.
    fn has_left(&mut self, now: Duration) -> bool {
        let Some(leaving) = &mut self.leaving else {
            return false;
        };
        let step = leaving.step(&self.shards, self.contact.is_registered(), now);
        if step == Departure::LookAgain {
            self.contact.looks.hurry(now);
        }
        step == Departure::Left
    }
}
