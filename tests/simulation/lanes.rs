//! What some records of a shard may cost the others, and what gets through at most. Virtual time.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::filter::{Filter, Filters};
use aftercommit::internal::backoff::AttemptLimits;
use aftercommit::internal::dependency::{Dependency, Limits};
use aftercommit::record::Position;
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters as _, Envelope, Reason, Selection};
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{Checkpoint, InitialPosition};
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use aftercommit::{Effect, EffectName};
use anyhow::anyhow;
use serde_dynamo::AttributeValue;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_mins(1);
const BAD: &str = "bad";

/// What is wrong with the records of the bad key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poison {
    Rejects,
    Fails,
    Panics,
    /// Before there is a future.
    PanicsAtOnce,
    Hangs,
    /// The dependency looks down from there.
    HangsUp,
}

/// The world that the handler sees.
#[derive(Clone)]
struct World {
    poison: Poison,
    takes: Duration,
    began: Instant,
    /// When each good key was handled.
    handled: Arc<Mutex<BTreeMap<String, Duration>>>,
}

fn id(record: &Record) -> String {
    match record.keys.get("id") {
        Some(AttributeValue::S(id)) => id.clone(),
        _ => panic!("{record:?}"),
    }
}

impl RecordHandler for World {
    fn handle(
        &self,
        record: &Record,
        _: &Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        let id = id(record);
        let poison = (id == BAD).then_some(self.poison);
        if poison == Some(Poison::PanicsAtOnce) {
            std::panic::resume_unwind(Box::new("it panics at once"));
        }
        async move {
            tokio::time::sleep(self.takes).await;
            match poison {
                Some(Poison::Rejects) => return Err(Failure::reject("a bad record")),
                Some(Poison::Fails) => return Err(Failure::Retry(anyhow!("it fails"))),
                Some(Poison::Hangs) => std::future::pending().await,
                Some(Poison::HangsUp) => return Err(Failure::unavailable("hung up")),
                Some(_) => std::panic::resume_unwind(Box::new("it panics")),
                None => {}
            }
            let at = self.began.elapsed();
            self.handled.lock().unwrap().entry(id).or_insert(at);
            Ok(())
        }
    }
}

type Worker = Consumer<MemoryStream, MemoryLeases>;

/// The stream, and what a worker writes.
struct Run {
    world: World,
    stream: MemoryStream,
    leases: MemoryLeases,
    letters: MemoryDeadLetters,
}

impl Run {
    fn new(poison: Poison, takes: Duration, shards: u64) -> Self {
        Self {
            world: World {
                poison,
                takes,
                began: Instant::now(),
                handled: Arc::default(),
            },
            stream: MemoryStream::new(shards, 1000),
            leases: MemoryLeases::new(),
            letters: MemoryDeadLetters::default(),
        }
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.world.began.elapsed()
    }

    fn effect(&self) -> Effect {
        Effect::new(EffectName::default(), self.world.clone())
    }

    fn worker(&self, concurrency: usize, attempts: AttemptLimits) -> Worker {
        self.worker_with(self.effect(), concurrency, attempts)
    }

    fn worker_with(&self, effect: Effect, concurrency: usize, attempts: AttemptLimits) -> Worker {
        let began = self.now();
        let origin = Instant::now();
        let mut settings = Settings::default();
        settings.start = InitialPosition::TrimHorizon;
        settings.seed = 7;
        settings.concurrency = concurrency;
        settings.attempts = attempts;
        settings.timing.handler_timeout = Duration::from_secs(2);
        settings.timing.idle_max = Duration::from_millis(50);
        settings.timing.idle_min = Duration::from_millis(50);
        let (stream, leases) = (self.stream.clone(), self.leases.clone());
        Consumer::new(GroupTable::new(Group::default(), "stream"), stream, leases)
            .effect(effect)
            .settings(settings)
            .clock(Clock::new(move || began + origin.elapsed()))
            .dead_letters(self.letters.clone())
    }

    fn commit(&self, id: &str, event: Event) -> Record {
        let keys = HashMap::from([("id".to_owned(), AttributeValue::S(id.to_owned()))]);
        let commit = Commit {
            event,
            keys: keys.clone().into(),
            old_image: None,
            new_image: Some(keys.into()),
            created: self.now(),
        };
        self.stream.commit(commit).0
    }

    fn handled(&self) -> BTreeMap<String, Duration> {
        self.world.handled.lock().unwrap().clone()
    }

    async fn letters(&self) -> Vec<Envelope> {
        let page = self.letters.list(&Selection::default(), None).await;
        page.unwrap().letters
    }

    /// Commits good orders, one each `every`, among them now and then one of the bad key; then says
    /// how long each good one took.
    async fn among_good_ones(&self, orders: u32, every: Duration) -> Vec<Duration> {
        let mut committed = BTreeMap::new();
        for n in 0..orders {
            if n % 40 == 0 {
                self.commit(BAD, Event::Insert);
            }
            let id = format!("good {n}");
            self.commit(&id, Event::Insert);
            committed.insert(id, self.world.began.elapsed());
            tokio::time::sleep(every).await;
        }
        tokio::time::sleep(MINUTE).await;
        let handled = self.handled();
        let mut took: Vec<_> = committed
            .into_iter()
            .map(|(id, at)| {
                let done = handled.get(&id);
                let done = done.unwrap_or_else(|| panic!("{:?}: {id}", self.world.poison));
                (at, done.saturating_sub(at))
            })
            .collect();
        took.sort_unstable();
        took.into_iter().map(|(_, took)| took).collect()
    }
}

fn start(worker: Worker) -> JoinHandle<anyhow::Result<()>> {
    tokio::spawn(worker.run(std::future::pending()))
}

/// Starts a worker, and waits until it has its shard.
async fn begin(worker: Worker) {
    start(worker);
    tokio::time::sleep(Duration::from_secs(20)).await;
}

#[tokio::test(start_paused = true)]
async fn a_poison_key_delays_no_other_key_by_more_than_its_own_lane() {
    for (poison, reason) in [
        (Poison::Rejects, Reason::Rejected),
        (Poison::Fails, Reason::TooOld),
        (Poison::Panics, Reason::Exhausted),
        (Poison::PanicsAtOnce, Reason::Exhausted),
        (Poison::Hangs, Reason::Exhausted),
    ] {
        let run = Run::new(poison, Duration::from_millis(10), 1);
        let mut attempts = AttemptLimits {
            attempts: 3,
            ..AttemptLimits::default()
        };
        if poison == Poison::Fails {
            attempts.age = Duration::from_secs(2);
        }
        // Two lanes: a key that hangs leaves one for all others.
        begin(run.worker(2, attempts)).await;
        let took = run.among_good_ones(200, Duration::from_millis(50)).await;
        let worst = took.iter().max().unwrap();
        assert!(*worst < Duration::from_millis(300), "{poison:?}: {worst:?}");
        let letters = run.letters().await;
        let first = letters.iter().min_by_key(|letter| letter.id.clone());
        assert_eq!(first.unwrap().reason, reason, "{poison:?}");
        assert_eq!(letters.len(), 5, "{poison:?}: the others of its key follow");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recipient_that_always_hangs_up_is_given_up_and_holds_the_others_back_only_at_first() {
    let run = Run::new(Poison::HangsUp, Duration::from_millis(10), 1);
    let attempts = AttemptLimits {
        age: MINUTE,
        ..AttemptLimits::default()
    };
    begin(run.worker(16, attempts)).await;
    let took = run.among_good_ones(200, Duration::from_millis(500)).await;
    let worst = took.iter().max().unwrap();
    assert!(*worst < Duration::from_secs(5), "{worst:?}");
    let late = took.iter().rposition(|took| took.as_millis() > 300);
    assert!(late.is_some_and(|last| last < 50), "{late:?} {took:?}");
    let letters = run.letters().await;
    let first = letters.iter().min_by_key(|letter| letter.id.clone());
    assert_eq!(first.unwrap().reason, Reason::TooOld);
    assert_eq!(letters.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_for_longer_than_it_may_is_too_old() {
    let run = Run::new(Poison::Fails, Duration::from_millis(10), 1);
    let limits = AttemptLimits {
        attempts: u32::MAX,
        age: 10 * MINUTE,
    };
    begin(run.worker(2, limits)).await;
    run.commit(BAD, Event::Insert);
    let committed = run.now();
    tokio::time::sleep(9 * MINUTE).await;
    assert_eq!(run.letters().await, []);
    tokio::time::sleep(7 * MINUTE).await;
    let letters = run.letters().await;
    assert_eq!(letters[0].reason, Reason::TooOld);
    let age = letters[0].written.duration_since(committed).unwrap();
    // The longest wait between two attempts is five minutes.
    assert!(age >= 10 * MINUTE && age < 16 * MINUTE, "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_handles_what_its_filters_let_through_and_counts_and_passes_the_rest() {
    let run = Run::new(Poison::Rejects, Duration::from_millis(10), 1);
    let inserts = Filter::parse(r#"{"eventName": ["INSERT"]}"#).unwrap();
    let effect = run.effect().filters(Filters::new([inserts]));
    let worker = run.worker_with(effect, 4, AttemptLimits::default());
    let counters = worker.counters();
    start(worker);
    for n in 0..10 {
        run.commit(&format!("good {n}"), Event::Insert);
        run.commit(&format!("changed {n}"), Event::Modify);
    }
    run.commit(BAD, Event::Remove);
    let last = run.commit("the last one", Event::Modify);
    tokio::time::sleep(MINUTE).await;
    let handled: Vec<_> = run.handled().into_keys().collect();
    let inserted: Vec<_> = (0..10).map(|n| format!("good {n}")).collect();
    assert_eq!(handled, inserted);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(
        (count(&counters.handled), count(&counters.filtered)),
        (10, 12)
    );
    assert_eq!(run.letters().await, []);
    let leases = run.leases.snapshot().leases;
    let reached = Position::After(last.sequence_number);
    assert_eq!(leases.len(), 1);
    let at = leases.values().map(|lease| &lease.checkpoint).next();
    assert_eq!(at, Some(&Checkpoint::At(reached)));
}

/// What a worker handles in ten seconds of more records than that, four at a time in all shards.
async fn at_a_limit_of_four(shards: u64) -> Vec<String> {
    let run = Run::new(Poison::Rejects, Duration::from_millis(5), shards);
    for n in 0..20_000 {
        run.commit(&format!("{n}"), Event::Insert);
    }
    let mut limits = Limits::default();
    limits.at_once = 4;
    let dependency = Dependency::new(&limits, fastrand::Rng::with_seed(1));
    let effect = run.effect().dependency(dependency);
    let working = start(run.worker_with(effect, 16, AttemptLimits::default()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = run.handled();
    tokio::time::sleep(Duration::from_secs(10)).await;
    working.abort();
    let mut handled = run.handled();
    handled.retain(|id, _| !before.contains_key(id));
    handled.into_keys().collect()
}

#[tokio::test(start_paused = true)]
async fn what_runs_at_a_time_is_used_to_the_full() {
    // Four at a time, 5 ms each: 800 a second.
    let handled = at_a_limit_of_four(1).await;
    assert!(handled.len() > 7200, "{} in 10 s", handled.len());
}

#[tokio::test(start_paused = true)]
async fn shards_at_the_limit_get_their_turns_alike() {
    let handled = at_a_limit_of_four(3).await;
    assert!(handled.len() > 7200, "{} in 10 s", handled.len());
    let stream = MemoryStream::new(3, 1);
    let mut of_shards = BTreeMap::<_, usize>::new();
    for id in &handled {
        let keys = HashMap::from([("id".to_owned(), AttributeValue::S(id.clone()))]);
        let (_, shard) = stream.commit(Commit {
            event: Event::Insert,
            keys: keys.into(),
            old_image: None,
            new_image: None,
            created: SystemTime::UNIX_EPOCH,
        });
        *of_shards.entry(shard).or_default() += 1;
    }
    let fair = handled.len() / 3;
    assert_eq!(of_shards.len(), 3);
    let is_fair = |count: &usize| *count > fair * 9 / 10;
    assert!(of_shards.values().all(is_fair), "{of_shards:?}");
}
