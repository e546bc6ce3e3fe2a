//! The simulated world: a stream, a table, workers, and what is known of them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::changes::{self, Commits};
use super::climate::Climate;
use super::effects;
use super::trace::describe_change;
use super::trouble::Trouble;
use super::witness::Witness;
use super::{Counts, Flaw, Scenario, SimulationOutcome};
use crate::core::filter::Filters;
use crate::core::shard::ShardId;
use crate::engine::settings::OnGap;
use crate::engine::simulated::Simulated;
use crate::stores::dead_letter::DeadLetters;
use crate::stores::dead_letter::memory::MemoryDeadLetters;
use crate::stores::leases::memory::MemoryLeases;
use crate::stores::leases::{Consistency, Epoch, Hold, LeaseRow, View};
use crate::stores::source::memory::{Commit, MemoryStream};
use crate::stores::source::{Batch, ShardIterator, SourceError};

pub mod mailing;
pub mod streams;

use mailing::Mailing;
use streams::StreamHistory;

/// How many past states of the table an eventually consistent look may still see.
const PAST: usize = 6;

/// How many changes are made to reach every shard.
const LAST_COMMITS: usize = 60;

/// A shard stays listed for longer than any packet is under way, as the service's 24 hours are.
pub(super) const LATE: Duration = Duration::from_secs(25);

pub(super) struct World {
    pub stream: MemoryStream,
    pub table: MemoryLeases,
    /// The dead letters, in a world that has any.
    pub letters: Option<MemoryDeadLetters>,
    trouble: Mutex<Trouble>,
    state: Mutex<WorldState>,
    origin: Instant,
    traced: bool,
    pub climate: Climate,
    commits: Commits,
    pub mailing: Option<Mailing>,
    /// What is deliberately broken.
    pub flaw: Option<Flaw>,
    pub streams: Mutex<StreamHistory>,
}

struct WorldState {
    rng: fastrand::Rng,
    fair: bool,
    past: VecDeque<View>,
    /// One for each effect.
    witnesses: Vec<Witness>,
    counts: Counts,
    violation: Option<String>,
    trace: String,
}

impl World {
    pub fn new(scenario: &Scenario, commits: Commits) -> Self {
        let mut rng = fastrand::Rng::with_seed(scenario.seed);
        let mut climate = Climate::of(&mut rng).with_effects_of(scenario.seed);
        if scenario.mail.is_some() {
            climate.retention = mailing::RETENTION;
            climate.replaced = 0;
            (climate.letters, climate.failing) = (false, false);
            (climate.filtered, climate.halts) = (false, false);
            climate.effects = 1;
        }
        let state = WorldState {
            rng,
            fair: false,
            past: VecDeque::from([View::default()]),
            witnesses: {
                let witness = |effect| Witness::new(effects::name(effect), climate.retention);
                (0..climate.effects).map(witness).collect()
            },
            counts: Counts::default(),
            violation: None,
            trace: String::new(),
        };
        let streams = StreamHistory::new(start_of_time());
        let first = MemoryStream::labelled(streams.newest(), start_of_time(), scenario.shards, 10);
        Self {
            stream: first,
            table: MemoryLeases::new(),
            letters: climate.letters.then(MemoryDeadLetters::default),
            trouble: Mutex::default(),
            streams: Mutex::new(streams),
            state: Mutex::new(state),
            origin: Instant::now(),
            traced: scenario.traced,
            flaw: scenario.flaw,
            climate,
            commits,
            mailing: scenario.mail.map(Mailing::new),
        }
    }

    /// Whether what is simulated has this flaw.
    pub fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// What the simulation changes of each consumer, beside its gate.
    pub fn simulated(&self) -> Simulated {
        Simulated {
            fleet: self.flaw.and_then(Flaw::of_fleet),
            pipeline: self.flaw.and_then(Flaw::of_pipeline),
            few_rows: Some(self.climate.few_rows),
            few_parked: Some(self.climate.few_parked),
        }
    }

    fn state(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with_rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng, bool) -> T) -> T {
        let state = &mut *self.state();
        draw(&mut state.rng, state.fair)
    }

    pub fn trouble<T>(&self, change: impl FnOnce(&mut Trouble) -> T) -> T {
        change(&mut self.trouble.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many effects a worker performs if it starts now: two versions of a worker differ in them. In
    /// the end all perform all.
    pub fn effects(&self, worker: usize) -> usize {
        if self.climate.effects == 1 {
            return 1;
        }
        let early = self.age() < self.climate.joins;
        let older = self.with_rng(|rng, _| rng.bool()) && worker > 0;
        let first_only = (early || older) && !self.state().fair;
        if first_only { 1 } else { self.climate.effects }
    }

    /// What a worker does at a gap. Once the weather has cleared, it continues behind it.
    pub fn on_gap(&self) -> OnGap {
        if self.climate.halts && !self.state().fair {
            OnGap::Halt
        } else {
            OnGap::Continue
        }
    }

    /// What the handler gets.
    pub fn filters(&self) -> Filters {
        Filters::new(self.climate.filtered.then(changes::no_noise).flatten())
    }

    /// How many keys are parked.
    pub fn parked(&self) -> usize {
        let of_effect = |effect| {
            // In memory it is there at once.
            let letters = self.letters.as_ref()?;
            let page = letters
                .parked(&effects::letters_of(effect))
                .now_or_never()?;
            page.ok().map(|page| page.keys.len())
        };
        (0..self.climate.effects).filter_map(of_effect).sum()
    }

    /// Tells the witness of an effect.
    pub fn witness<T>(&self, effect: usize, report: impl FnOnce(&mut Witness) -> T) -> T {
        report(&mut self.state().witnesses[effect])
    }

    /// Tells the witnesses of all effects.
    pub fn witnesses(&self, mut report: impl FnMut(&mut Witness)) {
        self.state().witnesses.iter_mut().for_each(&mut report);
    }

    /// Asks the witnesses of all effects. The first promise that is broken counts.
    pub fn ask(&self, ask: impl FnMut(&mut Witness) -> Result<(), String>) -> Result<(), String> {
        self.state().witnesses.iter_mut().try_for_each(ask)
    }

    pub fn count(&self, what: &'static str) {
        self.state().counts.add(what);
    }

    pub fn count_many(&self, what: &'static str, count: u64) {
        self.state().counts.add_many(what, count);
    }

    /// A line of the trace.
    pub fn note(&self, worker: usize, what: &str, detail: impl std::fmt::Display) {
        self.log(format_args!("worker {worker} {what}: {detail}"));
    }

    /// A line of the trace about nobody.
    pub fn log(&self, what: impl std::fmt::Display) {
        if self.traced {
            let at = self.origin.elapsed().as_secs_f64();
            let _ = writeln!(self.state().trace, "{at:9.3} {what}");
        }
    }

    /// Notes the first promise that is broken.
    pub fn judge(&self, verdict: Result<(), String>) {
        if let Err(broken) = verdict {
            let at = self.origin.elapsed().as_secs_f64();
            let state = &mut *self.state();
            state
                .violation
                .get_or_insert(format!("at {at:.3} s: {broken}"));
        }
    }

    /// A checkpoint was accepted: it must be the owner's.
    pub fn judge_checkpoint(&self, hold: &Hold, now: Option<Epoch>) {
        if now != Some(hold.epoch) {
            let Hold {
                shard,
                owner,
                epoch,
            } = hold;
            self.judge(Err(format!(
                "{owner} checkpointed {shard} under epoch {epoch} in {now:?}"
            )));
        }
    }

    pub fn is_violated(&self) -> bool {
        self.state().violation.is_some()
    }

    /// A call was applied: if it changed the table, the promises are checked.
    pub fn applied(&self, what: &'static str) {
        if matches!(
            what,
            "look" | "read" | "swap" | "iterator" | "describe" | "children"
        ) {
            return;
        }
        self.table_changed();
    }

    pub fn table_changed(&self) {
        let view = self.table.snapshot();
        let verdict = {
            let state = &mut *self.state();
            if state.past.back() == Some(&view) {
                return;
            }
            if self.traced {
                let at = self.origin.elapsed().as_secs_f64();
                let before = state.past.back().cloned().unwrap_or_default();
                describe_change(&mut state.trace, at, &before, &view);
            }
            let now = self.now();
            let mut witnesses = state.witnesses.iter_mut();
            let verdict = witnesses.try_for_each(|witness| witness.table(&view, now));
            state.past.push_back(view);
            if state.past.len() > PAST {
                state.past.pop_front();
            }
            verdict
        };
        self.judge(verdict);
    }

    /// What a look sees: the truth, or sometimes the past.
    pub fn view(&self, consistency: Consistency) -> View {
        let state = &mut *self.state();
        let back = match consistency {
            Consistency::Eventual if state.rng.u32(..10) < 4 => state.rng.usize(0..=3),
            _ => 0,
        };
        let at = state.past.len().saturating_sub(1 + back);
        state.past.get(at).cloned().unwrap_or_default()
    }

    /// Sometimes a batch comes empty, or again, or its iterator has expired.
    pub fn distort(&self, from: ShardIterator, mut batch: Batch) -> Result<Batch, SourceError> {
        let luck = self.with_rng(|rng, fair| if fair { 999 } else { rng.u32(..1000) });
        match luck {
            0..=4 => {
                self.count("expired iterators");
                return Err(SourceError::Expired);
            }
            5..=24 => {
                self.count("empty batches");
                batch = Batch {
                    records: Vec::new(),
                    next: Some(from),
                };
            }
            25..=34 => {
                self.count("duplicate batches");
                batch.next = Some(from);
            }
            _ => {}
        }
        Ok(batch)
    }

    /// Commits a change, if there is one now; answers in which shard it is.
    pub fn commit(&self) -> Option<ShardId> {
        let commit = if let Some(mailing) = &self.mailing {
            mailing.commit(self)?
        } else {
            let now = self.now();
            let commit = self.with_rng(|rng, _| (self.commits)(rng, now));
            Commit {
                created: now,
                ..commit
            }
        };
        let (record, shard) = self.stream.commit(commit);
        let shard = shard?;
        self.count("records");
        let noise = self.climate.filtered && changes::is_noise(&record);
        self.witnesses(|witness| witness.committed(&shard, &record, noise));
        Some(shard)
    }

    /// Commits changes until every open shard has one, or chance will not have it so.
    pub fn commit_everywhere(&self) {
        let mut quiet: BTreeSet<_> = self.stream.open_shards().into_iter().collect();
        for _ in 0..LAST_COMMITS {
            if quiet.is_empty() {
                break;
            }
            if let Some(shard) = self.commit() {
                quiet.remove(&shard);
            }
        }
    }

    /// From now on nothing goes wrong by chance.
    pub fn clear_up(&self) {
        self.state().fair = true;
        self.trouble(Trouble::end);
    }

    /// What became of it.
    pub fn outcome(&self) -> SimulationOutcome {
        let state = &mut *self.state();
        SimulationOutcome {
            violation: state.violation.take(),
            counts: std::mem::take(&mut state.counts),
            trace: std::mem::take(&mut state.trace),
        }
    }

    /// For how long it has been there.
    pub fn age(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The service's time: some time in 2026, to which virtual time is added.
    pub fn now(&self) -> SystemTime {
        start_of_time() + self.age()
    }

    /// The shards that were ever opened are made known to the witness.
    pub fn shards_changed(&self) {
        for (shard, _, _) in self.stream.census() {
            self.witnesses(|witness| witness.born(&shard));
        }
    }

    /// Whether everything is handled or recorded as lost, and all shards are shared among `workers`.
    pub fn finished(&self, workers: usize) -> Result<(), String> {
        let view = self.table.snapshot();
        self.ask(|witness| witness.unfinished(&view))?;
        match self.parked() {
            0 => {}
            parked => return Err(format!("{parked} keys are parked")),
        }
        self.witness(0, |witness| witness.owners.shared(&view, workers))?;
        let missing = |shard: &ShardId| view.leases.get(shard).is_none_or(LeaseRow::ended);
        if let Some(shard) = self.stream.open_shards().into_iter().find(missing) {
            return Err(format!("{shard} is open and not leased"));
        }
        self.mailing.as_ref().map_or(Ok(()), Mailing::recovered)
    }
}

fn start_of_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}
