//! Several effects from one read: each has its own position and dead letters, and none holds another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters as _, EffectTable};
use aftercommit::stores::leases::{GapRow, LeaseRow};
use aftercommit::{Context, Effect, EffectName, Failure, Record, RecordHandler};
use serde_dynamo::AttributeValue;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::empty_letters::EmptyLetters;
use super::stage::{Stage, eventually, pass, place, secs};

/// What is wrong with an effect's dependency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    Nothing,
    /// Nobody listens, or the answer is 503.
    Dead,
    /// It asks for less, all the time: 429.
    Overloaded,
    /// Each answer takes this long.
    Slow(Duration),
}

/// Notes the values that it handles, while what it depends on is up.
#[derive(Clone, Default)]
struct Clerk {
    handled: Arc<Mutex<Vec<String>>>,
    trouble: Arc<Mutex<Trouble>>,
    /// How long it takes for a record.
    takes: Duration,
}

impl RecordHandler for Clerk {
    async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
        let trouble = *self.trouble.lock().unwrap();
        let takes = match trouble {
            Trouble::Dead => return Err(Failure::unavailable("nobody is there")),
            Trouble::Overloaded => return Err(Failure::overloaded("ask for less")),
            Trouble::Slow(time) => time,
            Trouble::Nothing => self.takes,
        };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let value = record.new_image.as_ref().unwrap().get("value");
        let Some(AttributeValue::S(value)) = value else {
            panic!("{value:?}");
        };
        self.handled.lock().unwrap().push(value.clone());
        Ok(())
    }
}

impl Clerk {
    fn values(&self) -> Vec<String> {
        self.handled.lock().unwrap().clone()
    }

    fn sorted(&self) -> Vec<String> {
        let mut values = self.values();
        values.sort();
        values
    }

    /// What was handled at least once.
    fn distinct(&self) -> Vec<String> {
        let mut values = self.sorted();
        values.dedup();
        values
    }

    fn is_in(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }
}

fn named(name: &str) -> EffectName {
    EffectName::new(name).unwrap()
}

/// A worker that performs these effects; it works until it is aborted.
fn start(
    stage: &Stage,
    worker: &str,
    effects: &[(&str, &Clerk)],
    letters: Option<&MemoryDeadLetters>,
) -> JoinHandle<anyhow::Result<()>> {
    let ((first, clerk), others) = effects.split_first().unwrap();
    let effect = |name: &str, clerk: &Clerk| Effect::new(named(name), clerk.clone());
    let (stream, leases) = (stage.stream.clone(), stage.leases.clone());
    let mut consumer = stage.consumer_with(worker, stream, leases, effect(first, clerk));
    for (name, clerk) in others {
        consumer = consumer.effect(effect(name, clerk));
    }
    if let Some(letters) = letters {
        consumer = consumer.dead_letters(letters.clone());
    }
    tokio::spawn(consumer.run(std::future::pending()))
}

async fn parked(letters: &MemoryDeadLetters, effect: &str) -> usize {
    let at = EffectTable::new(place(), named(effect));
    letters.parked(&at).await.unwrap().keys.len()
}

fn rows(stage: &Stage) -> Vec<LeaseRow> {
    stage.view().leases.into_values().collect()
}

/// A worker handles twenty records for the first effect and none for the second, which is down, notes
/// both positions, and dies. Returns the records.
async fn mail_is_ahead(stage: &Stage, effects: [(&str, &Clerk); 2]) -> Vec<String> {
    let [(_, mail), (_, search)] = effects;
    search.is_in(Trouble::Dead);
    let one = start(stage, "one", &effects, None);
    let names = stage.commit_many("order", 20);
    eventually(secs(10), "mail has all", || mail.sorted() == names).await;
    let is_ahead = || rows(stage)[0].report.ahead.contains_key(&named("mail"));
    eventually(secs(10), "its position is written", is_ahead).await;
    one.abort();
    names
}

#[tokio::test(start_paused = true)]
async fn every_effect_gets_every_record_from_one_read() {
    let stage = Stage::new(2);
    let (mail, search) = (Clerk::default(), Clerk::default());
    let _one = start(&stage, "one", &[("mail", &mail), ("search", &search)], None);
    let names = stage.commit_many("order", 30);
    let both = || mail.sorted() == names && search.sorted() == names;
    eventually(secs(30), "both have all", both).await;
    let effects = stage.view().group.unwrap().effects;
    let names: Vec<_> = effects.names().map(EffectName::as_str).collect();
    assert_eq!(names, ["mail", "search"]);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_down_keeps_its_own_position_and_holds_no_other() {
    let stage = Stage::new(1);
    let (mail, search) = (Clerk::default(), Clerk::default());
    let effects = [("mail", &mail), ("search", &search)];
    let names = mail_is_ahead(&stage, effects).await;

    search.is_in(Trouble::Nothing);
    let _two = start(&stage, "two", &effects, None);
    eventually(secs(60), "nothing is lost", || search.sorted() == names).await;
    assert_eq!(mail.sorted(), names, "it handles nothing again");
    let even = || rows(&stage)[0].report.ahead.is_empty();
    eventually(secs(10), "one position again", even).await;
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_down_overflows_into_its_dead_letters_which_return_in_order() {
    let mut stage = Stage::new(1);
    // Room for one read, which a few thousand waiting records fill.
    stage.settings.memory_budget = 6 << 20;
    let letters = MemoryDeadLetters::default();
    let (mail, search) = (Clerk::default(), Clerk::default());
    search.is_in(Trouble::Dead);
    let effects = [("mail", &mail), ("search", &search)];
    let _one = start(&stage, "one", &effects, Some(&letters));
    for round in 0..20 {
        for item in 0..400 {
            stage.commit(&format!("item{item}"), &format!("{item}-{round:02}"));
        }
    }
    let all = 20 * 400;
    let took = eventually(secs(60), "the other has all", || mail.values().len() == all).await;
    assert!(took < secs(30), "{took:?}");
    assert!(parked(&letters, "search").await > 0, "some were deferred");
    assert_eq!(parked(&letters, "mail").await, 0);

    search.is_in(Trouble::Nothing);
    let back = || search.values().len() >= all;
    eventually(Duration::from_mins(30), "all of them are back", back).await;
    let values = search.values();
    for item in ["0", "7", "399"] {
        let of_item = values.iter().filter(|value| {
            let (id, _) = value.split_once('-').unwrap();
            id == item
        });
        let mut of_item: Vec<_> = of_item.cloned().collect();
        of_item.dedup();
        let expected: Vec<_> = (0..20).map(|round| format!("{item}-{round:02}")).collect();
        assert_eq!(of_item, expected);
    }
    pass(Duration::from_mins(5)).await;
    assert_eq!(parked(&letters, "search").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shard_ends_although_one_of_its_effects_is_down() {
    let stage = Stage::new(1);
    let letters = MemoryDeadLetters::default();
    let (mail, search) = (Clerk::default(), Clerk::default());
    search.is_in(Trouble::Dead);
    let effects = [("mail", &mail), ("search", &search)];
    let _one = start(&stage, "one", &effects, Some(&letters));
    let mut names = stage.commit_many("before", 5);
    eventually(secs(10), "the first five", || mail.sorted() == names).await;
    let only = stage.stream.open_shards()[0].clone();
    stage.stream.end(&only, true);
    let after = stage.commit_many("later", 5);
    names.extend(after);
    names.sort();
    let took = eventually(secs(60), "its children are read", || mail.sorted() == names).await;
    assert!(took < secs(15), "{took:?}");
    search.is_in(Trouble::Nothing);
    let all = || search.sorted() == names;
    eventually(Duration::from_mins(10), "nothing is lost", all).await;
}

#[tokio::test(start_paused = true)]
async fn an_effect_joins_a_running_group_and_begins_with_what_is_committed_then() {
    let stage = Stage::new(2);
    let (mail, search) = (Clerk::default(), Clerk::default());
    let one = start(&stage, "one", &[("mail", &mail)], None);
    let early = stage.commit_many("early", 10);
    eventually(secs(10), "the first effect", || mail.sorted() == early).await;
    let _two = start(&stage, "two", &[("mail", &mail), ("search", &search)], None);
    let joined = || {
        let effects = stage.view().group.unwrap().effects;
        effects.get(&named("search")).is_some()
    };
    eventually(secs(30), "it joins", joined).await;
    let effects = stage.view().group.unwrap().effects;
    let since = effects.get(&named("search")).unwrap().since.unwrap();
    assert_eq!(effects.get(&named("mail")).unwrap().since, None);
    assert!(since > stage.now());
    pass(since.duration_since(stage.now()).unwrap() + secs(1)).await;
    let late = stage.commit_many("late", 10);
    eventually(secs(30), "what came later", || search.sorted() == late).await;
    eventually(secs(30), "the old version hands over", || {
        stage.owned_by("two") == 2
    })
    .await;
    let mut all = [early, late].concat();
    all.sort();
    assert_eq!(mail.sorted(), all);
    one.abort();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_perform_an_effect_keeps_its_records_for_it() {
    let stage = Stage::new(1);
    let letters = MemoryDeadLetters::default();
    let (mail, search) = (Clerk::default(), Clerk::default());
    let both = [("mail", &mail), ("search", &search)];
    let new = start(&stage, "new", &both, Some(&letters));
    let first = stage.commit_many("first", 5);
    eventually(secs(10), "both", || search.sorted() == first).await;
    // A deployment is rolled back: nobody performs the effect for a while.
    new.abort();
    let old = start(&stage, "old", &[("mail", &mail)], Some(&letters));
    let second = stage.commit_many("second", 5);
    let mut all = [first, second].concat();
    all.sort();
    eventually(secs(60), "the other effect", || mail.distinct() == all).await;
    let only = stage.stream.open_shards()[0].clone();
    stage.stream.end(&only, false);
    let third = stage.commit_many("third", 5);
    all.extend(third);
    all.sort();
    eventually(secs(60), "the shard's child", || mail.distinct() == all).await;
    assert_eq!(search.distinct().len(), 5);
    old.abort();
    let _new = start(&stage, "again", &both, Some(&letters));
    let nothing_lost = || search.distinct() == all;
    eventually(Duration::from_mins(10), "nothing is lost", nothing_lost).await;
    assert_eq!(stage.view().gaps, Vec::<GapRow>::new());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_stops_while_it_starts_hands_over_the_position_of_every_effect() {
    let stage = Stage::new(1);
    let (mail, search) = (Clerk::default(), Clerk::default());
    let effects = [("mail", &mail), ("search", &search)];
    let names = mail_is_ahead(&stage, effects).await;

    // The worker stops when it knows that the first effect has no dead letters; the store never answers
    // for the second effect.
    let effect = |name: &str, clerk: &Clerk| Effect::new(named(name), clerk.clone());
    let (stream, leases) = (stage.stream.clone(), stage.leases.clone());
    let two = stage
        .consumer_with("two", stream, leases, effect("mail", &mail))
        .effect(effect("search", &search))
        .dead_letters(EmptyLetters {
            silent: named("search"),
        });
    let (stop, stopped) = oneshot::channel::<()>();
    let two = tokio::spawn(two.run(async { stopped.await.unwrap_or_default() }));
    eventually(secs(60), "it begins", || stage.owned_by("two") == 1).await;
    pass(secs(1)).await;
    stop.send(()).unwrap();
    two.await.unwrap().unwrap();
    assert_eq!(stage.owned_by("two"), 0, "it has handed over");

    search.is_in(Trouble::Nothing);
    let _three = start(&stage, "three", &effects, None);
    eventually(secs(60), "nothing is lost", || search.sorted() == names).await;
    assert_eq!(mail.sorted(), names, "it handles nothing again");
}

/// How long an effect takes for all records of a shard, `takes` for each, beside another one with this
/// trouble.
async fn beside(trouble: Trouble, takes: Duration) -> Duration {
    let mut stage = Stage::new(1);
    stage.settings.memory_budget = 6 << 20;
    let letters = MemoryDeadLetters::default();
    let mail = Clerk {
        takes,
        ..Clerk::default()
    };
    let search = Clerk::default();
    search.is_in(trouble);
    let effects = [("mail", &mail), ("search", &search)];
    for round in 0..10 {
        for item in 0..1_000 {
            stage.commit(&format!("item{item}"), &format!("{item}-{round}"));
        }
    }
    let _one = start(&stage, "one", &effects, Some(&letters));
    let all = || mail.handled.lock().unwrap().len() == 10_000;
    let took = eventually(Duration::from_mins(10), "the other has all", all).await;
    let has_deferred = parked(&letters, "search").await > 0;
    assert_eq!(has_deferred, trouble != Trouble::Nothing, "{trouble:?}");
    assert_eq!(parked(&letters, "mail").await, 0);
    took
}

#[tokio::test(start_paused = true)]
async fn an_effect_in_trouble_slows_the_others_by_less_than_a_twentieth() {
    let (short, long) = (Duration::from_millis(20), Duration::from_millis(500));
    for (trouble, takes) in [
        (Trouble::Nothing, short),
        (Trouble::Dead, short),
        // Long enough for the healthy effect to seem slow beside the one in trouble.
        (Trouble::Dead, long),
        // It shows only after ten seconds whether an effect that is still served holds the others.
        (Trouble::Overloaded, long),
        (Trouble::Slow(secs(10)), long),
    ] {
        let took = beside(trouble, takes).await;
        // Sixteen at a time.
        let fastest = takes * 10_000 / 16;
        assert!(
            took < fastest.mul_f64(1.05),
            "{trouble:?}: {took:?}, {fastest:?} at best"
        );
    }
}
