//! What holds for every history: several members with clocks of their own, calls that are late, lost or
//! applied without an answer, and one lease table that decides.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::Fleet;
use super::events::{Command, FleetEvent, Stopped};
use super::golden::{now, rules};
use super::rows::Report;
use super::rules::{FleetRule, FleetRules};
use super::snapshot::Consistency;
use super::terms::{Epoch, Lease};
use crate::core::position::Position;
use crate::core::shard::ShardId;
use crate::stores::leases::LeaseStore;
use crate::stores::leases::memory::MemoryLeases;

mod calls;
mod cost;

use calls::{Call, applied, failed};

const SHARDS: [&str; 4] = ["a", "b", "c", "d"];
const STEP: Duration = Duration::from_millis(100);

/// How long members freeze and leave, and calls are late or lost.
const ROUGH: Duration = Duration::from_secs(200);

/// How long it is calm then. A freeze that began before ends within 20 s, a listing is due within a
/// minute, and a dead worker is noticed within two looks of 10 s and a lease duration.
const CALM: Duration = Duration::from_mins(2);

/// A member, and what it has under way.
struct Worker {
    fleet: Fleet,
    /// Its clock: where it began, and by how much it is fast.
    began: Duration,
    pace: f64,
    /// Until then it is not run.
    frozen_until: Duration,
    calls: Vec<Call>,
    /// When each task ends, and how.
    running: BTreeMap<ShardId, (Duration, Stopped)>,
    gone: bool,
    /// The highest epoch of each shard that it ever saw in an answer.
    seen: BTreeMap<ShardId, Epoch>,
    /// Whether it was trusted last, when it lost trust last, and whether a consistent look that began
    /// later was answered.
    trusted: bool,
    lost_at: Duration,
    looked_since: bool,
}

struct Play {
    leases: MemoryLeases,
    workers: Vec<Worker>,
    elapsed: Duration,
    rng: fastrand::Rng,
    /// From now on no worker freezes or leaves, and calls are quick and succeed.
    calm: bool,
}

impl Worker {
    fn new(name: &str, seed: u64, elapsed: Duration, rules: impl Fn(&str) -> FleetRules) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let pace = 0.95 + 0.1 * rng.f64();
        let nonce = rng.u64(..);
        Self {
            fleet: Fleet::new(rules(name), nonce, rng, Duration::ZERO),
            began: elapsed,
            pace,
            frozen_until: elapsed,
            calls: Vec::new(),
            running: BTreeMap::new(),
            gone: false,
            seen: BTreeMap::new(),
            trusted: false,
            lost_at: elapsed,
            looked_since: false,
        }
    }

    /// Its own clock.
    fn clock(&self, elapsed: Duration) -> Duration {
        elapsed.saturating_sub(self.began).mul_f64(self.pace)
    }

    fn leases(&self, elapsed: Duration) -> Vec<Lease> {
        let clock = self.clock(elapsed);
        let leases = SHARDS.map(|shard| self.fleet.lease(&ShardId::new(shard), clock));
        leases.into_iter().flatten().collect()
    }
}

impl Play {
    fn new(seed: u64, left_out: Option<FleetRule>) -> Self {
        // Every other history is that of a large table.
        let few_rows = if seed.is_multiple_of(2) { 100 } else { 0 };
        let rules = |name: &str| FleetRules {
            few_rows,
            left_out,
            ..rules(name)
        };
        let workers = ["one", "two", "three"].iter().zip(seed..);
        let workers = workers.map(|(name, seed)| Worker::new(name, seed, Duration::ZERO, rules));
        Self {
            leases: MemoryLeases::new(),
            workers: workers.collect(),
            elapsed: Duration::ZERO,
            rng: fastrand::Rng::with_seed(seed),
            calm: false,
        }
    }

    /// After [`CALM`] each shard has an owner, and each worker its share.
    fn run(mut self) -> Result<(), String> {
        self.play(ROUGH)?;
        self.calm = true;
        self.play(CALM)?;
        let elapsed = self.elapsed;
        let leases = self.workers.iter().map(|worker| worker.leases(elapsed));
        let mut held: Vec<_> = leases.map(|leases| leases.len()).collect();
        held.sort_unstable();
        if held == [1, 1, 2] {
            return Ok(());
        }
        Err(format!("after {CALM:?} of calm the members hold {held:?}"))
    }

    fn play(&mut self, time: Duration) -> Result<(), String> {
        let end = self.elapsed + time;
        while self.elapsed < end {
            self.elapsed += STEP;
            for at in 0..self.workers.len() {
                self.turn(at);
                self.check()?;
            }
        }
        Ok(())
    }

    /// Nobody holds what another holds.
    fn check(&self) -> Result<(), String> {
        let mut held = BTreeSet::new();
        for worker in &self.workers {
            for lease in worker.leases(self.elapsed) {
                let (shard, epoch) = (lease.hold.shard.clone(), lease.hold.epoch);
                if !held.insert(shard.clone()) {
                    return Err(format!("two hold {shard} at {:?}", self.elapsed));
                }
                if worker.seen.get(&shard).is_some_and(|seen| epoch < *seen) {
                    return Err(format!("{shard} is held under {epoch}, and more was seen"));
                }
                if !worker.looked_since {
                    return Err(format!("{shard} is held without a look since the lapse"));
                }
            }
        }
        Ok(())
    }

    fn turn(&mut self, at: usize) {
        self.apply(at);
        let elapsed = self.elapsed;
        let calm = self.calm;
        let worker = &mut self.workers[at];
        if worker.frozen_until > elapsed {
            return;
        }
        if !calm && self.rng.u32(..400) == 0 {
            let time = Duration::from_millis(self.rng.u64(1_000..20_000));
            worker.frozen_until = elapsed + time;
            return;
        }
        if worker.gone && (calm || self.rng.u32(..50) == 0) {
            // Another process of that name.
            let name = worker.fleet.me().worker().to_owned();
            *worker = Worker::new(&name, self.rng.u64(..), elapsed, rules);
        }
        self.answer(at);
        self.stop_tasks(at);
        if !self.workers[at].gone && !calm && self.rng.u32(..600) == 0 {
            let worker = &mut self.workers[at];
            let now = now(worker.clock(elapsed));
            worker.fleet.handle(FleetEvent::Leave, now);
        }
        self.follow(at);
    }

    /// The table gets what it is to get now, whether or not the worker runs.
    fn apply(&mut self, at: usize) {
        let (elapsed, leases) = (self.elapsed, self.leases.clone());
        for call in &mut self.workers[at].calls {
            if call.applied_at.is_some_and(|at| at <= elapsed) {
                call.applied_at = None;
                call.answer = Some(applied(&leases, call.command.clone()));
            }
        }
        let done = |call: &Call| call.answered && call.applied_at.is_none();
        self.workers[at].calls.retain(|call| !done(call));
    }

    fn answer(&mut self, at: usize) {
        let elapsed = self.elapsed;
        let worker = &mut self.workers[at];
        let now = now(worker.clock(elapsed));
        for index in 0..worker.calls.len() {
            let call = &mut worker.calls[index];
            if call.answered || call.answered_at > elapsed {
                continue;
            }
            call.answered = true;
            let answer = call.answer.take().filter(|_| !call.fails);
            let event = answer.unwrap_or_else(|| failed(&call.command));
            let is_look = matches!(call.command, Command::Look(_, Consistency::Strong));
            let began = call.began;
            lose(worker, elapsed);
            let showed = is_look && matches!(event, FleetEvent::Snapshot(Ok(_)));
            worker.looked_since |= showed && began >= worker.lost_at;
            note_epochs(&mut worker.seen, &event);
            worker.fleet.handle(event, now);
            lose(worker, elapsed);
        }
    }

    fn stop_tasks(&mut self, at: usize) {
        let elapsed = self.elapsed;
        let worker = &mut self.workers[at];
        let ended = worker.running.extract_if(.., |_, (end, _)| *end <= elapsed);
        let ended: Vec<_> = ended.collect();
        let now = now(worker.clock(elapsed));
        for (shard, (_, how)) in ended {
            worker.fleet.handle(FleetEvent::Stopped(shard, how), now);
        }
    }

    fn follow(&mut self, at: usize) {
        let elapsed = self.elapsed;
        let worker = &mut self.workers[at];
        if worker.gone {
            return;
        }
        let clock = worker.clock(elapsed);
        loop {
            lose(worker, elapsed);
            let Some(command) = worker.fleet.poll(now(clock)) else {
                return;
            };
            let soon = elapsed + Duration::from_millis(self.rng.u64(..3_000));
            match command {
                Command::Left => {
                    let me = worker.fleet.me().clone();
                    let removed = self.leases.remove_worker(&me, None).now_or_never();
                    removed.unwrap().unwrap();
                    worker.gone = true;
                    return;
                }
                Command::Note(_) => {}
                Command::StartShard(start) => {
                    let never = Duration::from_hours(1);
                    let task = (never, Stopped::Abandoned);
                    worker.running.insert(start.hold.shard, task);
                }
                Command::Drain(shard) => {
                    if let Some(task) = worker.running.get_mut(&shard) {
                        *task = (soon, Stopped::Drained(Position::Horizon, Report::default()));
                    }
                }
                Command::Abandon(shard) => {
                    if let Some(task) = worker.running.get_mut(&shard) {
                        *task = (soon, Stopped::Abandoned);
                    }
                }
                command => {
                    let call = if self.calm {
                        Call::quick(command, elapsed, &mut self.rng)
                    } else {
                        Call::new(command, elapsed, &mut self.rng)
                    };
                    worker.calls.push(call);
                }
            }
        }
    }
}

/// Notices that trust was lost, as the member is about to.
fn lose(worker: &mut Worker, elapsed: Duration) {
    let clock = worker.clock(elapsed);
    let until = worker.fleet.validity().until();
    let trusted = until.is_some_and(|until| clock < until);
    if worker.trusted && !trusted {
        worker.looked_since = false;
        worker.lost_at = elapsed;
    }
    worker.trusted = trusted;
}

fn note_epochs(seen: &mut BTreeMap<ShardId, Epoch>, event: &FleetEvent) {
    let mut note = |shard: &ShardId, epoch: Epoch| {
        let highest = seen.entry(shard.clone()).or_default();
        *highest = epoch.max(*highest);
    };
    match event {
        FleetEvent::Snapshot(Ok(view)) => {
            for (shard, row) in &view.leases {
                note(shard, row.epoch);
            }
        }
        FleetEvent::Took(shard, Ok(Some(row))) => note(shard, row.epoch),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_two_members_hold_one_shard_and_in_calm_each_holds_its_share(seed in any::<u64>()) {
        prop_assert_eq!(Play::new(seed, None).run(), Ok(()));
    }
}

/// The history is rough enough to miss a rule.
#[test]
fn a_history_shows_each_rule_of_ownership_that_is_left_out() {
    for rule in [
        FleetRule::RereadAfterLapse,
        FleetRule::FreshLook,
        FleetRule::NoStaleEpoch,
    ] {
        let rough = |seed| Play::new(seed, Some(rule)).play(ROUGH);
        assert!((0..2_000).any(|seed| rough(seed).is_err()), "{rule:?}");
    }
}
