//! Handlers that fail, hang, panic, and depend on something that is down for up to two days, while
//! workers crash and shards split. Virtual time; each seed is a world of its own.
//!
//! A failing seed is reported; `AFTERCOMMIT_REPLAY=SEED cargo test --test simulation failing` runs it
//! alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::engine::redrive::{How, RedrivenKey, redrive};
use aftercommit::stores::dead_letter::EffectTable;
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters as _, Reason};
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use anyhow::anyhow;
use serde_dynamo::{AttributeValue, Item};
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod judge;
mod plan;

use plan::{Plan, Poison};

const SEEDS: u64 = 100;
const KEYS: usize = 10;
const ATTEMPTS: u32 = 4;
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// What happened to the records of a key, by number.
#[derive(Debug, Default)]
struct Journal {
    handled: BTreeMap<(usize, usize), Duration>,
    /// How many attempts were burned: what the dependency puts off is none.
    failed: BTreeMap<(usize, usize), u32>,
    wrong: Option<String>,
}

/// The world that handlers see.
#[derive(Clone)]
struct World {
    plan: Arc<Plan>,
    began: Instant,
    journal: Arc<Mutex<Journal>>,
    mended: Arc<Mutex<bool>>,
    rng: Arc<Mutex<fastrand::Rng>>,
}

impl World {
    fn new(plan: Plan) -> Self {
        Self {
            rng: Arc::new(Mutex::new(fastrand::Rng::with_seed(!plan.seed))),
            plan: Arc::new(plan),
            began: Instant::now(),
            journal: Arc::default(),
            mended: Arc::default(),
        }
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.began.elapsed()
    }

    fn clock(&self) -> Clock {
        let world = self.clone();
        Clock::new(move || world.now())
    }

    fn begins(&self, key: usize, number: usize) {
        let journal = &mut *self.journal.lock().unwrap();
        let before = (0..number).find(|n| !journal.handled.contains_key(&(key, *n)));
        if let Some(before) = before {
            let at = self.began.elapsed();
            journal.wrong.get_or_insert(format!(
                "at {at:?}: record {number} of key {key} begins before record {before} is handled"
            ));
        }
    }

    fn fails(&self, key: usize, number: usize) {
        let journal = &mut *self.journal.lock().unwrap();
        *journal.failed.entry((key, number)).or_default() += 1;
    }

    fn is_down(&self) -> bool {
        self.plan.outage.contains(&self.began.elapsed())
    }

    fn poison(&self, key: usize) -> Option<Poison> {
        let poison = self.plan.poison.get(&key).copied();
        poison.filter(|_| !*self.mended.lock().unwrap())
    }
}

/// The group, on the simulated table.
/// The place of the dead letters of its only effect.
fn letters_place() -> EffectTable {
    EffectTable::new(place(), EffectName::default())
}

fn place() -> GroupTable {
    GroupTable::new(Group::default(), "stream")
}

fn number(item: &Item, name: &str) -> usize {
    match item.get(name) {
        Some(AttributeValue::N(number)) => number.parse().unwrap(),
        _ => panic!("{item:?}"),
    }
}

impl RecordHandler for World {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let image = record.new_image.as_ref().unwrap();
        let (key, number) = (number(image, "key"), number(image, "number"));
        self.begins(key, number);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let poison = self.poison(key);
        if poison.is_none() && self.is_down() {
            return Err(Failure::unavailable("down"));
        }
        // Never as often as would make it a dead letter.
        let by_chance = context.attempt() < 3 && self.rng.lock().unwrap().u32(..20) == 0;
        if poison.is_some() || by_chance {
            self.fails(key, number);
        }
        match poison {
            Some(Poison::Rejects) => return Err(Failure::reject("a bad record")),
            Some(Poison::Fails) => return Err(Failure::Retry(anyhow!("it fails"))),
            Some(Poison::Panics) => std::panic::resume_unwind(Box::new("it panics")),
            Some(Poison::Hangs) => std::future::pending().await,
            None if by_chance => return Err(Failure::Retry(anyhow!("by chance"))),
            None => {}
        }
        let at = self.began.elapsed();
        let journal = &mut *self.journal.lock().unwrap();
        journal.handled.entry((key, number)).or_insert(at);
        Ok(())
    }
}

/// Workers, a stream that keeps records for 24 hours, and an operator.
struct Run {
    world: World,
    stream: MemoryStream,
    leases: MemoryLeases,
    letters: MemoryDeadLetters,
    workers: Vec<JoinHandle<anyhow::Result<()>>>,
    starts: u64,
}

impl Run {
    fn new(world: World) -> Self {
        Self {
            stream: MemoryStream::new(world.plan.shards, 10),
            leases: MemoryLeases::new(),
            letters: MemoryDeadLetters::default(),
            workers: Vec::new(),
            starts: 0,
            world,
        }
    }

    fn start(&mut self) -> JoinHandle<anyhow::Result<()>> {
        self.starts += 1;
        let mut settings = Settings::default();
        settings.worker_id = format!("worker-{}", self.starts);
        settings.seed = self.world.plan.seed ^ (self.starts << 40);
        settings.start = InitialPosition::TrimHorizon;
        settings.concurrency = 4;
        settings.attempts.attempts = ATTEMPTS;
        settings.timing.lease_duration = Duration::from_secs(100);
        settings.timing.heartbeat_interval = Duration::from_secs(20);
        settings.timing.look_interval = Duration::from_secs(10);
        settings.timing.handler_timeout = MINUTE;
        settings.timing.idle_max = MINUTE;
        let (stream, leases) = (self.stream.clone(), self.leases.clone());
        let consumer = Consumer::new(place(), stream, leases)
            .handler(self.world.clone())
            .settings(settings)
            .clock(self.world.clock())
            .dead_letters(self.letters.clone());
        tokio::spawn(consumer.run(std::future::pending()))
    }

    async fn until(&self, time: Duration) {
        tokio::time::sleep_until(self.world.began + time).await;
    }

    /// Commits, splits, crashes and trims as planned.
    async fn storm(&mut self) {
        let plan = self.world.plan.clone();
        let mut numbers = [0; KEYS];
        let (mut commits, mut ends, mut crashes) = (
            plan.commits.iter().peekable(),
            plan.ends.iter().peekable(),
            plan.crashes.iter().peekable(),
        );
        let span = plan.outage.end + HOUR;
        let mut now = Duration::ZERO;
        while now < span {
            now += MINUTE;
            self.until(now).await;
            while let Some((_, key)) = commits.next_if(|(at, _)| *at <= now) {
                self.commit(*key, numbers[*key]);
                numbers[*key] += 1;
            }
            if let Some((_, split)) = ends.next_if(|(at, _)| *at <= now) {
                let shards = self.stream.open_shards();
                self.stream.end(&shards[0], *split);
            }
            if crashes.next_if(|at| **at <= now).is_some() {
                self.workers.remove(0).abort();
                let worker = self.start();
                self.workers.push(worker);
            }
            if now.as_secs().is_multiple_of(3600) {
                self.trim();
            }
        }
    }

    fn commit(&self, key: usize, number: usize) {
        let value = |number: usize| AttributeValue::N(number.to_string());
        let id = AttributeValue::S(format!("item {key}, and a tail"));
        let image = HashMap::from([
            ("id".to_owned(), id.clone()),
            ("key".to_owned(), value(key)),
            ("number".to_owned(), value(number)),
        ]);
        self.stream.commit(Commit {
            event: Event::Modify,
            keys: HashMap::from([("id".to_owned(), id)]).into(),
            old_image: None,
            new_image: Some(image.into()),
            created: self.world.now(),
        });
    }

    /// What is older than 24 hours leaves the stream.
    fn trim(&self) {
        let time = self.world.now() - 24 * HOUR;
        for (shard, _, _) in self.stream.census() {
            self.stream.trim(&shard.id, time);
        }
    }

    /// Mends what was wrong, and redrives all that is left.
    async fn mend(&self) {
        *self.world.mended.lock().unwrap() = true;
        let mut rng = fastrand::Rng::with_seed(self.world.plan.seed);
        for _ in 0..20 {
            let parked = self.letters.parked(&letters_place()).await.unwrap().keys;
            let keys: Vec<_> = parked
                .into_iter()
                .map(|parked| RedrivenKey {
                    at: letters_place(),
                    key: parked.key,
                })
                .collect();
            let how = How::new("operator", "operator/1", self.world.clock());
            redrive(&self.letters, &self.world, keys, (&how, &mut rng), |_| {}).await;
            tokio::time::sleep(10 * MINUTE).await;
        }
    }
}

async fn run(seed: u64) -> Result<BTreeSet<Reason>, String> {
    let world = World::new(Plan::of(seed));
    let mut run = Run::new(world.clone());
    for _ in 0..world.plan.workers {
        let worker = run.start();
        run.workers.push(worker);
    }
    run.storm().await;
    // What was rescued comes back by itself.
    tokio::time::sleep(2 * HOUR).await;
    run.trim();
    run.check_healthy().await?;
    let reasons = run.check_letters().await?;
    run.mend().await;
    run.check_all()?;
    let parked = run.letters.parked(&letters_place()).await.unwrap().keys;
    if !parked.is_empty() {
        return Err(format!("still parked: {parked:?}"));
    }
    let wrong = world.journal.lock().unwrap().wrong.take();
    wrong.map_or(Ok(reasons), Err)
}

fn play(seed: u64) -> BTreeSet<Reason> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let played = runtime.block_on(run(seed));
    played.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}\n{:?}", Plan::of(seed)))
}

#[test]
fn whatever_fails_nothing_is_lost_and_each_key_stays_in_order() {
    if let Ok(seed) = std::env::var("AFTERCOMMIT_REPLAY") {
        play(seed.parse().unwrap());
        return;
    }
    let half = |half: u64| move || (half * SEEDS / 2..(half + 1) * SEEDS / 2).flat_map(play);
    let seen: BTreeSet<_> = std::thread::scope(|scope| {
        let halves = [0, 1].map(half);
        let halves = halves.map(|half| scope.spawn(move || half().collect::<BTreeSet<_>>()));
        halves
            .into_iter()
            .flat_map(|half| half.join().unwrap())
            .collect()
    });
    // The seeds have it all in store.
    for reason in [
        Reason::Rejected,
        Reason::Exhausted,
        Reason::Rescued,
        Reason::Followed,
    ] {
        assert!(seen.contains(&reason), "no record was {reason}");
    }
}
