//! The simulated world: a stream, a table, workers, and what is known of them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use serde_dynamo::{AttributeValue, Item};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::gate::Gate;
use super::mailing::{self, Mailer, Mailing};
use super::network::Network;
use super::witness::Witness;
use super::{Counts, Outcome, Scenario, weather};
use crate::clock::Clock;
use crate::consumer::Consumer;
use crate::decide::shard::ShardId;
use crate::engine::Counters;
use crate::handler::{Context, Failure, RecordHandler};
use crate::leases::memory::MemoryLeases;
use crate::leases::{Consistency, Epoch, Hold, InitialPosition, LeaseRow, View};
use crate::record::{Event, Record};
use crate::settings::{Settings, Timing};
use crate::source::memory::{Commit, MemoryStream};
use crate::source::{Batch, ShardIterator, SourceError};

/// How many past states of the table an eventually consistent look may still see.
const PAST: usize = 6;

/// How many different items are changed.
const KEYS: u64 = 12;

pub(super) struct World {
    pub stream: MemoryStream,
    pub table: MemoryLeases,
    state: Mutex<State>,
    origin: Instant,
    traced: bool,
    pub climate: Climate,
    pub mailing: Option<Mailing>,
}

/// What kind of bad weather a seed has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Climate {
    /// How many of a thousand calls take seconds.
    pub slow: u32,
    /// How many of a thousand calls are lost, one way or the other.
    pub lost: u32,
    /// How many of a thousand moments freeze a worker.
    pub frost: u32,
    /// How long the stream keeps a record.
    pub retention: Duration,
}

impl Climate {
    fn of(rng: &mut fastrand::Rng) -> Self {
        Self {
            slow: [5, 20, 100][rng.usize(..3)],
            lost: [5, 30, 100][rng.usize(..3)],
            frost: [25, 100][rng.usize(..2)],
            retention: Duration::from_secs(rng.u64(12..40)),
        }
    }
}

struct State {
    rng: fastrand::Rng,
    fair: bool,
    past: VecDeque<View>,
    witness: Witness,
    counts: Counts,
    violation: Option<String>,
    trace: String,
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let mut rng = fastrand::Rng::with_seed(scenario.seed);
        let mut climate = Climate::of(&mut rng);
        if scenario.mail.is_some() {
            climate.retention = mailing::RETENTION;
        }
        let state = State {
            rng,
            fair: false,
            past: VecDeque::from([View::default()]),
            witness: Witness::default(),
            counts: Counts::default(),
            violation: None,
            trace: String::new(),
        };
        Self {
            stream: MemoryStream::new(scenario.shards, 10),
            table: MemoryLeases::new(),
            state: Mutex::new(state),
            origin: Instant::now(),
            traced: scenario.traced,
            climate,
            mailing: scenario.mail.map(Mailing::new),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with_rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng, bool) -> T) -> T {
        let state = &mut *self.state();
        draw(&mut state.rng, state.fair)
    }

    pub fn witness<T>(&self, tell: impl FnOnce(&mut Witness) -> T) -> T {
        tell(&mut self.state().witness)
    }

    pub fn count(&self, what: &'static str) {
        self.state().counts.add(what);
    }

    fn count_many(&self, what: &'static str, count: u64) {
        self.state().counts.add_many(what, count);
    }

    /// A line of the trace.
    pub fn note(&self, worker: usize, what: &str, detail: impl std::fmt::Display) {
        if self.traced {
            let at = self.origin.elapsed().as_secs_f64();
            let line = &mut self.state().trace;
            let _ = writeln!(line, "{at:9.3} worker {worker} {what}: {detail}");
        }
    }

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
                describe_change(&mut state.trace, at, state.past.back(), &view);
            }
            let verdict = state.witness.table(&view);
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

    /// Commits a change to one of a few items.
    pub fn commit(&self) {
        if let Some(mailing) = &self.mailing {
            let ordered = mailing.commit(self);
            return ordered.map_or((), |ordered| self.append(ordered));
        }
        let key = self.with_rng(|rng, _| rng.u64(..KEYS));
        let id = AttributeValue::S(format!("item-{key}"));
        let keys = Item::from(std::collections::HashMap::from([("id".to_owned(), id)]));
        self.append(Commit {
            event: Event::Modify,
            keys: keys.clone(),
            old_image: None,
            new_image: Some(keys),
            created: self.now(),
        });
    }

    fn append(&self, commit: Commit) {
        let (record, shard) = self.stream.commit(commit);
        if let Some(shard) = shard {
            self.count("records");
            self.witness(|witness| witness.committed(&shard, &record));
        }
    }

    /// Some time in 2026, to which virtual time is added.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000) + self.origin.elapsed()
    }

    /// The shards that were ever opened are made known to the witness.
    pub fn shards_changed(&self) {
        for (shard, _, _) in self.stream.census() {
            self.witness(|witness| witness.born(&shard));
        }
    }

    fn settled(&self) -> Result<(), String> {
        let view = self.table.snapshot();
        self.witness(|witness| witness.unsettled(&view))?;
        let open = view.leases.values().filter(|row| !row.ended());
        if let Some(row) = open.clone().find(|row| row.owner.is_none()) {
            return Err(format!("{} is nobody's", row.shard));
        }
        let missing = |shard: &ShardId| view.leases.get(shard).is_none_or(LeaseRow::ended);
        if let Some(shard) = self.stream.open_shards().into_iter().find(missing) {
            return Err(format!("{shard} is open and not leased"));
        }
        self.mailing.as_ref().map_or(Ok(()), Mailing::recovered)
    }
}

/// A worker process: it can be started, crashed, frozen, and stopped.
pub(super) struct Worker {
    world: Arc<World>,
    pub index: usize,
    pace: f64,
    gate: Gate,
    counters: Arc<Counters>,
    process: Option<JoinHandle<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Worker {
    fn new(world: Arc<World>, index: usize) -> Self {
        // Clocks run up to 20 % apart.
        let pace = world.with_rng(|rng, _| 0.915 + 0.17 * rng.f64());
        Self {
            world,
            index,
            pace,
            gate: Gate::default(),
            counters: Arc::default(),
            process: None,
            stop: None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| !process.is_finished())
    }

    pub fn is_frozen(&self) -> bool {
        self.gate.is_closed()
    }

    pub fn start(&mut self) {
        let (seed, latest) = self.world.with_rng(|rng, _| (rng.u64(..), rng.bool()));
        let start = if latest {
            InitialPosition::Latest
        } else {
            InitialPosition::TrimHorizon
        };
        let mut settings = Settings {
            worker_id: format!("worker-{}", self.index),
            seed,
            start,
            concurrency: 4,
            timing: paced(self.pace, self.world.climate.retention),
            ..Settings::default()
        };
        if self.world.mailing.is_some() {
            settings.timing.handler_timeout = mailing::HANDLER_TIMEOUT;
        }
        let clock = self.world.clone();
        let network = Network::new(self.world.clone(), self.index);
        let mailer = Mailer::start(&self.world, network.clone(), seed);
        debug_assert!(mailer.is_ok());
        let handler = Fickle {
            world: self.world.clone(),
            worker: self.index,
            mailer: mailer.ok().flatten(),
        };
        let consumer = Consumer::new("stream", network.clone(), network, handler)
            .settings(settings)
            .clock(Clock::new(move || clock.now()));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        self.account();
        self.counters = consumer.counters();
        self.gate = Gate::default();
        self.stop = Some(stop);
        let run = async move {
            let ended = consumer
                .run(async { stopped.await.unwrap_or_default() })
                .await;
            debug_assert!(ended.is_ok());
        };
        self.process = Some(tokio::spawn(self.gate.clone().around(run)));
        self.world.note(
            self.index,
            "starts",
            format_args!("its clock at {:.3}", self.pace),
        );
    }

    /// Adds what its last process counted itself to the world's counts.
    fn account(&self) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let told = [
            ("lapses", of(&counters.lapses)),
            ("gaps", of(&counters.gaps)),
            ("takes", of(&counters.takes)),
            ("hand-overs", of(&counters.hand_overs)),
            ("refused writes", of(&counters.refused)),
        ];
        for (what, count) in told {
            self.world.count_many(what, count);
        }
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        if let Some(process) = self.process.take() {
            process.abort();
        }
        let index = self.index;
        self.world.witness(|witness| witness.crashed(index));
        self.world.note(self.index, "crashes", "");
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        self.world.note(self.index, "is told to stop", "");
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            let _ = stop.send(());
        }
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.world.note(self.index, "freezes", "");
        self.gate.close();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.world.note(self.index, "thaws", "");
        self.gate.open();
    }
}

fn paced(pace: f64, retention: Duration) -> Timing {
    let timing = Timing::default();
    Timing {
        lease_duration: timing.lease_duration.mul_f64(pace),
        heartbeat_interval: timing.heartbeat_interval.mul_f64(pace),
        look_interval: timing.look_interval.mul_f64(pace),
        listing_interval: Duration::from_secs(5),
        retention,
        ..timing
    }
}

/// A handler that takes its time and sometimes fails.
struct Fickle {
    world: Arc<World>,
    worker: usize,
    mailer: Option<Mailer>,
}

impl RecordHandler for Fickle {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let number = &record.sequence_number;
        let place = format!(
            "{number} of {} under epoch {}",
            context.shard(),
            context.epoch()
        );
        self.world.note(self.worker, "begins", &place);
        let verdict = self
            .world
            .witness(|witness| witness.begins(self.worker, record, context));
        self.world.judge(verdict);
        if let Some(mailer) = &self.mailer {
            mailer.handle(record, context).await?;
            self.world.note(self.worker, "settles", &place);
            self.world.count("handled");
            self.world.witness(|witness| witness.handled(record));
            return Ok(());
        }
        let (luck, millis) = self.world.with_rng(|rng, fair| {
            let luck = if fair { 999 } else { rng.u32(..1000) };
            (
                luck,
                if luck < 10 {
                    rng.u64(1_000..20_000)
                } else {
                    rng.u64(..40)
                },
            )
        });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        if (10..30).contains(&luck) {
            self.world.count("failed attempts");
            return Err(Failure::Retry(anyhow!("by the simulation")));
        }
        self.world.note(self.worker, "settles", &place);
        self.world.count("handled");
        self.world.witness(|witness| witness.handled(record));
        Ok(())
    }
}

pub(super) async fn run(scenario: &Scenario) -> Outcome {
    let world = Arc::new(World::new(scenario));
    world.shards_changed();
    let mut workers: Vec<_> = (0..scenario.workers)
        .map(|index| Worker::new(world.clone(), index))
        .collect();
    workers.iter_mut().for_each(Worker::start);
    weather::storm(&world, &mut workers, scenario.weather).await;
    weather::clear(&world, &mut workers);
    world.state().fair = true;
    let calm = Instant::now() + scenario.calm;
    let mut settled = world.settled();
    while settled.is_err() && Instant::now() < calm && !world.is_violated() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        settled = world.settled();
    }
    world.judge(settled.map_err(|left| format!("not settled after {:?}: {left}", scenario.calm)));
    workers.iter_mut().for_each(Worker::crash);
    workers.iter().for_each(Worker::account);
    let state = &mut *world.state();
    Outcome {
        violation: state.violation.take(),
        counts: std::mem::take(&mut state.counts),
        trace: std::mem::take(&mut state.trace),
    }
}

/// Writes down which rows changed.
fn describe_change(trace: &mut String, at: f64, before: Option<&View>, now: &View) {
    let old = |shard| before.and_then(|view| view.leases.get(shard));
    for (shard, row) in now
        .leases
        .iter()
        .filter(|(shard, row)| old(shard) != Some(row))
    {
        let owner = row.owner.as_ref().map_or("nobody", |owner| owner.as_str());
        let _ = writeln!(
            trace,
            "{at:9.3} table: {shard} is {owner}'s, epoch {}, {:?}",
            row.epoch, row.checkpoint
        );
    }
    let beat = |name| {
        before
            .and_then(|view| view.workers.get(name))
            .map(|row| row.beat)
    };
    for row in now
        .workers
        .values()
        .filter(|row| beat(&row.incarnation) != Some(row.beat))
    {
        let _ = writeln!(
            trace,
            "{at:9.3} table: {} beats {}",
            row.incarnation, row.beat
        );
    }
    for gap in now
        .gaps
        .iter()
        .filter(|gap| before.is_none_or(|view| !view.gaps.contains(gap)))
    {
        let _ = writeln!(trace, "{at:9.3} table: {gap:?}");
    }
    for row in &now.unreadable {
        let _ = writeln!(trace, "{at:9.3} table: {} is damaged", row.row);
    }
}
