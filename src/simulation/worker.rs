//! A simulated worker process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use tokio::task::JoinHandle;

use super::clocks::Clocks;
use super::effects::{self, place};
use super::gate::Gate;
use super::letters::LinkedLetters;
use super::link::Link;
use super::mailer::Mailer;
use super::simulated_leases::SimulatedLeases;
use super::simulated_stream::SimulatedStream;
use super::trouble::Poison;
use super::witness::Witness;
use super::world::{World, mailing};
use crate::core::backoff::{AttemptLimits, Backoff};
use crate::core::filter::Filters;
use crate::core::record::Record;
use crate::engine::budget::Budget;
use crate::engine::consumer::{Consumer, clock_of};
use crate::engine::effect::Effect;
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::engine::progress::Counters;
use crate::engine::settings::{Settings, Timing};
use crate::stores::leases::{FORMAT, InitialPosition};

/// A worker process: it can be started, crashed, frozen, and stopped.
pub(super) struct Worker<H> {
    world: Arc<World>,
    handler: Arc<dyn Fn() -> H + Send + Sync>,
    pub index: usize,
    clocks: Clocks,
    blind: Arc<AtomicBool>,
    gate: Gate,
    counters: Arc<Counters>,
    process: Option<JoinHandle<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    budget: Budget,
}

impl<H: RecordHandler> Worker<H> {
    pub fn new(world: Arc<World>, handler: Arc<dyn Fn() -> H + Send + Sync>, index: usize) -> Self {
        let clocks = world.with_rng(|rng, _| Clocks::drawn(rng));
        Self {
            world,
            handler,
            index,
            clocks,
            blind: Arc::default(),
            gate: Gate::open_for(|_, _| {}),
            counters: Arc::default(),
            process: None,
            stop: None,
            budget: Budget::new(0),
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
        let (seed, latest, older) = self
            .world
            .with_rng(|rng, _| (rng.u64(..), rng.bool(), rng.bool()));
        // One is always of the newer version, so that no row is left that nobody reads.
        let newer = self.world.climate.mixed && (self.index == 0 || !older);
        let build = FORMAT + u32::from(newer);
        let start = if latest {
            InitialPosition::Latest
        } else {
            InitialPosition::TrimHorizon
        };
        let clock = self.clocks.wall(&self.world);
        let (world, blind) = (self.world.clone(), self.blind.clone());
        let link = Link::new(world, self.index, blind);
        let leases = SimulatedLeases::new(link.clone(), build, self.clocks);
        let stream = SimulatedStream::new(link.clone());
        let reported = clock_of(stream.clone(), leases.clone(), clock.clone());
        let settings = self.settings(seed, start);
        let budget = Budget::new(settings.memory_budget);
        self.budget = budget.clone();
        let mailer = Mailer::start(&self.world, link.clone(), reported, seed);
        let mailer = mailer.unwrap_or_else(|error| {
            let reported = format!("a worker cannot mail: {error:#}");
            self.world.judge(Err(reported));
            None
        });
        let handler = Watched {
            mailer,
            ..Watched::new(&self.world, self.index, 0, (self.handler)())
        };
        let filters = self.world.filters();
        let first = Effect::new(effects::name(0), handler).filters(filters.clone());
        let mut consumer = Consumer::new(place(), stream, leases).effect(first);
        let performs = self.world.effects(self.index);
        for number in 1..performs {
            let handler = Watched::new(&self.world, self.index, number, Idle);
            let effect = Effect::new(effects::name(number), handler);
            consumer = consumer.effect(effect.filters(filters.clone()));
        }
        let mut consumer = consumer
            .settings(settings)
            .budget(budget)
            .clock(clock)
            .simulated(self.world.simulated());
        if let Some(table) = &self.world.letters {
            consumer = consumer.dead_letters(LinkedLetters::new(link, table.clone()));
        }
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        self.account();
        self.counters = consumer.counters();
        self.gate = self.gate();
        self.stop = Some(stop);
        let world = self.world.clone();
        let run = async move {
            let stop = async { stopped.await.unwrap_or_default() };
            if let Err(error) = consumer.run(stop).await {
                world.judge(Err(format!("a worker does not start: {error:#}")));
            }
        };
        self.process = Some(tokio::spawn(self.gate.clone().around(run)));
        self.world.note(
            self.index,
            "starts",
            format_args!(
                "its clock at {:.3}, reading format {build}, {performs} effects",
                self.clocks.pace
            ),
        );
    }

    /// Whether a read waits for memory.
    pub fn lacks_memory(&self) -> bool {
        self.budget.waiting() > 0
    }

    fn settings(&self, seed: u64, start: InitialPosition) -> Settings {
        let climate = &self.world.climate;
        let usual = Settings::default();
        Settings {
            worker_id: format!("worker-{}", self.index),
            seed,
            start,
            concurrency: 4,
            memory_budget: climate.memory.unwrap_or(usual.memory_budget),
            on_gap: self.world.on_gap(),
            backoff: Backoff {
                cap: Duration::from_secs(10),
                ..usual.backoff
            },
            attempts: AttemptLimits {
                attempts: 3,
                age: Duration::from_secs(15),
            },
            timing: self.timing(),
            ..usual
        }
    }

    fn timing(&self) -> Timing {
        let retention = self.world.climate.retention;
        let mut timing = Timing {
            listing_interval: Duration::from_secs(5),
            retention,
            rescue_before_trim: retention / 6,
            handler_timeout: Duration::from_secs(30),
            ..self.clocks.timing()
        };
        if self.world.mailing.is_some() {
            timing.handler_timeout = mailing::HANDLER_TIMEOUT;
        }
        timing
    }

    /// Whoever takes a shard for its own, and trusts in it, must be the only one.
    fn gate(&self) -> Gate {
        let (world, index) = (self.world.clone(), self.index);
        Gate::open_for(move |hold, tenure| {
            let (shard, epoch) = (&hold.shard, hold.epoch);
            let owns = |witness: &mut Witness| witness.owners.owns(index, shard, epoch, tenure);
            let verdict = world.witness(0, owns);
            world.judge(verdict);
        })
    }

    /// Adds what its last process counted itself to the world's counts.
    pub fn account(&self) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let reported = [
            ("lapses", of(&counters.lapses)),
            ("gaps", of(&counters.gaps)),
            ("takes", of(&counters.takes)),
            ("hand-overs", of(&counters.hand_overs)),
            ("filtered records", of(&counters.filtered)),
            ("refused writes", of(&counters.refused)),
            ("failed reads", of(&counters.reads_failed)),
            ("throttled reads", of(&counters.reads_throttled)),
        ];
        for (what, count) in reported {
            self.world.count_many(what, count);
        }
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        if let Some(process) = self.process.take() {
            process.abort();
        }
        let index = self.index;
        self.world
            .witnesses(|witness| witness.owners.crashed(index));
        self.world.note(self.index, "crashes", "");
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        self.world.note(self.index, "is to stop", "");
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            let _ = stop.send(());
        }
    }

    /// Its looks at the lease table get there, or do not.
    pub fn sees(&self, sees: bool) {
        let what = if sees { "sees again" } else { "is blind" };
        self.world.note(self.index, what, "");
        self.blind.store(!sees, Ordering::Relaxed);
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

/// A handler that is watched, and that takes its time and sometimes fails before it begins. Where
/// orders are mailed, they are mailed in its place.
pub(super) struct Watched<H> {
    world: Arc<World>,
    worker: usize,
    effect: usize,
    /// What it wants of dead letters: those of an effect that their worker did not perform hold all.
    filters: Filters,
    mailer: Option<Mailer>,
    inner: H,
}

impl<H> Watched<H> {
    /// The same, of the records that pass the world's filters.
    pub fn wanted(self) -> Self {
        let filters = self.world.filters();
        Self { filters, ..self }
    }

    /// One that calls this handler, and mails nothing.
    pub fn new(world: &Arc<World>, worker: usize, effect: usize, inner: H) -> Self {
        Self {
            world: world.clone(),
            worker,
            effect,
            filters: Filters::default(),
            mailer: None,
            inner,
        }
    }
}

/// A handler that has nothing to do.
pub(super) struct Idle;

impl RecordHandler for Idle {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

impl<H: RecordHandler> RecordHandler for Watched<H> {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        if !self.filters.want(record, context.stream(), None) {
            return Ok(());
        }
        let number = &record.sequence_number;
        let place = format!(
            "{number} of {} under epoch {:?}",
            context.shard(),
            context.epoch()
        );
        self.world.note(self.worker, "begins", &place);
        let verdict = self.world.witness(self.effect, |witness| {
            witness.begins(self.worker, record, context)
        });
        self.world.judge(verdict);
        match &self.mailer {
            Some(mailer) => mailer.handle(record, context).await?,
            None => self.after_a_while(record, context).await?,
        }
        self.world.note(self.worker, "finishes", &place);
        self.world.count("handled");
        self.world
            .witness(self.effect, |witness| witness.handled(record));
        Ok(())
    }
}

impl<H: RecordHandler> Watched<H> {
    async fn after_a_while(&self, record: &Record, context: &Context) -> Result<(), Failure> {
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
        if let Some(failure) = self.world.trouble(|trouble| trouble.failure(luck)) {
            self.world.count("calls during an outage");
            return Err(failure);
        }
        match self.world.trouble(|trouble| trouble.of(&record.key())) {
            Some(Poison::Rejects) => return Err(Failure::reject("by the simulation")),
            Some(Poison::Fails) => return Err(Failure::retry("by the simulation")),
            Some(Poison::Panics) => std::panic::resume_unwind(Box::new("by the simulation")),
            Some(Poison::Hangs) => std::future::pending().await,
            None => {}
        }
        self.inner.handle(record, context).await
    }
}
