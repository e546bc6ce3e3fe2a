//! A small stage for whole consumers: memory adapters, virtual time, a handler that can be held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::engine::Budget;
use aftercommit::internal::shard::ShardId;
use aftercommit::monitor::Counters;
use aftercommit::monitor::{Status, Watch};
use aftercommit::stores::dead_letter::EffectTable;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{InitialPosition, LeaseRow, LeaseStore, View};
use aftercommit::stores::source::StreamSource;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use aftercommit::{Effect, EffectName};
use serde_dynamo::{AttributeValue, Item};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a handler was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub worker: String,
    pub shard: ShardId,
    pub key: String,
    pub value: String,
}

/// Notes what it is given, and finishes only while its door is open.
#[derive(Clone)]
pub struct Hand {
    begun: Arc<Mutex<Vec<Seen>>>,
    done: Arc<Mutex<Vec<Seen>>>,
    door: Arc<watch::Sender<bool>>,
    takes: Duration,
    /// Whose records never get through the door.
    stuck: Arc<Mutex<Option<ShardId>>>,
}

impl Hand {
    pub fn begun(&self) -> Vec<Seen> {
        self.begun.lock().unwrap().clone()
    }

    pub fn done(&self) -> Vec<Seen> {
        self.done.lock().unwrap().clone()
    }

    /// The values that were handled, in the order in which they were.
    pub fn values(&self) -> Vec<String> {
        self.done().into_iter().map(|seen| seen.value).collect()
    }

    /// The values that were handled, sorted: to compare whatever the order was.
    pub fn sorted(&self) -> Vec<String> {
        let mut values = self.values();
        values.sort();
        values
    }

    pub fn shut(&self) {
        self.door.send_replace(false);
    }

    pub fn stick(&self, shard: &ShardId) {
        *self.stuck.lock().unwrap() = Some(shard.clone());
    }

    pub fn open(&self) {
        self.door.send_replace(true);
    }
}

impl RecordHandler for Hand {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let text = |item: &Item, name: &str| match item.get(name) {
            Some(AttributeValue::S(text)) => text.clone(),
            _ => String::new(),
        };
        let seen = Seen {
            worker: context.incarnation().split('/').next().unwrap().to_owned(),
            shard: context.shard().clone(),
            key: text(record.new_image.as_ref().unwrap(), "id"),
            value: text(record.new_image.as_ref().unwrap(), "value"),
        };
        self.begun.lock().unwrap().push(seen.clone());
        if self.stuck.lock().unwrap().as_ref() == Some(context.shard()) {
            std::future::pending::<()>().await;
        }
        let mut door = self.door.subscribe();
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        door.wait_for(|open| *open).await.unwrap();
        self.done.lock().unwrap().push(seen);
        Ok(())
    }
}

/// A stream, a lease table, a handler and a clock that runs with the virtual time.
pub struct Stage {
    pub stream: MemoryStream,
    pub leases: MemoryLeases,
    pub hand: Hand,
    pub settings: Settings,
    /// What its workers' machines show.
    pub wall: Clock,
    began: Instant,
    starts: std::cell::Cell<u64>,
}

impl Stage {
    /// A stream of `shards` shards that is read from its horizon.
    pub fn new(shards: u64) -> Self {
        let began = Instant::now();
        let mut settings = Settings::default();
        settings.start = InitialPosition::TrimHorizon;
        Self {
            stream: MemoryStream::new(shards, 10),
            leases: MemoryLeases::new().clock(clock_from(began)),
            wall: clock_from(began),
            hand: Hand {
                begun: Arc::default(),
                done: Arc::default(),
                door: Arc::new(watch::Sender::new(true)),
                takes: Duration::ZERO,
                stuck: Arc::default(),
            },
            settings,
            began,
            starts: std::cell::Cell::new(0),
        }
    }

    /// The same, with a handler that takes so long for every record.
    pub fn with_handler_taking(shards: u64, takes: Duration) -> Self {
        let mut stage = Self::new(shards);
        stage.hand.takes = takes;
        stage
    }

    pub fn now(&self) -> SystemTime {
        start_of_time() + self.began.elapsed()
    }

    /// Commits `value` to the item `key`; answers its shard.
    pub fn commit(&self, key: &str, value: &str) -> ShardId {
        let text = |name: &str, text: &str| (name.to_owned(), AttributeValue::S(text.to_owned()));
        // The stream places keys by a hash whose high bits see little of the last letters.
        let spread = format!("{key}, and a tail");
        let keys = Item::from(HashMap::from([text("id", &spread)]));
        let image = Item::from(HashMap::from([text("id", key), text("value", value)]));
        let (_, shard) = self.stream.commit(Commit {
            event: Event::Modify,
            keys,
            old_image: None,
            new_image: Some(image),
            created: self.now(),
        });
        shard.expect("an open shard takes the record")
    }

    /// Commits `count` items, `<prefix>0` and so on, each with its own name as value; answers the
    /// names, sorted.
    pub fn commit_many(&self, prefix: &str, count: usize) -> Vec<String> {
        let names: Vec<_> = (0..count).map(|i| format!("{prefix}{i:03}")).collect();
        for name in &names {
            self.commit(name, name);
        }
        names
    }

    /// A key whose records go to this shard while it is open.
    pub fn key_in(&self, shard: &ShardId, prefix: &str) -> String {
        let probe = |n: &u32| self.commit(&format!("{prefix}{n}"), "probe") == *shard;
        let n = (0..1000).find(probe).expect("one key in a thousand fits");
        format!("{prefix}{n}")
    }

    pub fn worker(&self, name: &str) -> Worker {
        self.worker_on(name, self.stream.clone(), self.leases.clone())
    }

    pub fn worker_on(
        &self,
        name: &str,
        source: impl StreamSource,
        leases: impl LeaseStore,
    ) -> Worker {
        let consumer = self.consumer_on(name, source, leases);
        let counters = consumer.counters();
        let status = self.status(&consumer);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(consumer.run(async { stopped.await.unwrap_or_default() }));
        Worker {
            counters,
            status,
            stop,
            task,
        }
    }

    /// Its status; no page is served, but it is looked at.
    pub fn status<S: StreamSource, L: LeaseStore>(&self, of: &Consumer<S, L>) -> Status {
        let status = Status::new(self.clock(), [Watch::of(of)]);
        let watched = status.clone();
        tokio::spawn(async move { watched.watch().await });
        status
    }

    pub fn clock(&self) -> Clock {
        clock_from(self.began)
    }

    /// A consumer that does not run yet.
    pub fn consumer_on<S: StreamSource, L: LeaseStore>(
        &self,
        name: &str,
        source: S,
        leases: L,
    ) -> Consumer<S, L> {
        let effect = Effect::new(EffectName::default(), self.hand.clone());
        self.consumer_with(name, source, leases, effect)
    }

    /// A consumer with this effect that does not run yet.
    pub fn consumer_with<S: StreamSource, L: LeaseStore>(
        &self,
        name: &str,
        source: S,
        leases: L,
        effect: Effect,
    ) -> Consumer<S, L> {
        self.starts.set(self.starts.get() + 1);
        let mut settings = self.settings.clone();
        settings.worker_id = name.into();
        settings.seed = self.starts.get();
        let budget = Budget::new(settings.memory_budget);
        Consumer::new(place(), source, leases)
            .effect(effect)
            .settings(settings)
            .clock(self.wall.clone())
            .budget(budget)
    }

    pub fn view(&self) -> View {
        self.leases.snapshot()
    }

    pub fn row(&self, shard: &ShardId) -> Option<LeaseRow> {
        self.view().leases.get(shard).cloned()
    }

    /// The worker that a shard's row names.
    pub fn owner(&self, shard: &ShardId) -> Option<String> {
        let owner = self.row(shard)?.owner?;
        Some(owner.worker().to_owned())
    }

    /// How many shards that have not ended each worker owns.
    pub fn owned_by(&self, worker: &str) -> usize {
        let view = self.view();
        let owners = view.leases.values().filter(|row| !row.ended());
        owners
            .filter(|row| row.owner.as_ref().is_some_and(|o| o.worker() == worker))
            .count()
    }
}

/// A consumer that runs.
pub struct Worker {
    pub counters: Arc<Counters>,
    pub status: Status,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Worker {
    /// Drains, hands over and leaves.
    pub async fn leave(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Tells it to leave and does not wait.
    pub fn begin_to_leave(self) -> JoinHandle<anyhow::Result<()>> {
        self.stop.send(()).unwrap();
        self.task
    }

    /// Crashes: nothing is written any more.
    pub async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// The place of the dead letters of its only effect.
pub fn letters_place() -> EffectTable {
    EffectTable::new(place(), EffectName::default())
}

/// The group on the table that every worker of a stage serves.
pub fn place() -> GroupTable {
    GroupTable::new(Group::default(), "arn")
}

fn clock_from(began: Instant) -> Clock {
    Clock::new(move || start_of_time() + began.elapsed())
}

fn start_of_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Lets virtual time pass.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Lets virtual time pass until it is so, and tells how long that took. It must be so within
/// `limit`.
pub async fn eventually(limit: Duration, what: &str, is_so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}
