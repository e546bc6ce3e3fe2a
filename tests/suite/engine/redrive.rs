//! Redriving: the order of each key, what stops it, and what is written down.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::engine::redrive::{How, RedriveStep, RedrivenKey, Summary, redrive};
use aftercommit::internal::shard::ShardId;
use aftercommit::record::SequenceNumber;
use aftercommit::record::StreamView;
use aftercommit::stores::dead_letter::EffectTable;
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{Attempts, DeadLetters as _, Letter, Reason, Selection};
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::MemoryStream;
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler,
};
use serde_dynamo::AttributeValue;

/// What the handler does with a record; without a word it handles it.
#[derive(Debug, Clone, Copy)]
enum Act {
    Fail,
    Panic,
    Hang,
    Down,
    /// How many times it fails before it handles the record.
    Busy(u32),
}

/// Answers as it is set to, and remembers its records.
#[derive(Default)]
struct Scripted {
    acts: Mutex<BTreeMap<String, Act>>,
    seen: Mutex<Vec<(String, u32)>>,
    /// Letters that come while it handles the record of this number.
    comes: Option<(String, Letter, MemoryDeadLetters)>,
}

impl RecordHandler for Scripted {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let number = record.sequence_number.to_string();
        assert!(context.may_act() && context.incarnation() == "~redrive/1");
        assert_eq!(context.stream(), "stream");
        assert_eq!(context.shard().as_str(), "shardId-1");
        let seen = (number.clone(), context.attempt());
        self.seen.lock().unwrap().push(seen);
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Some((when, letter, letters)) = &self.comes
            && *when == number
        {
            letters.follow(letter).await.unwrap().unwrap();
        }
        let act = self.acts.lock().unwrap().get(&number).copied();
        match act {
            None | Some(Act::Busy(0)) => Ok(()),
            Some(Act::Fail) => Err(Failure::reject("no such order")),
            Some(Act::Panic) => panic!("at the record"),
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Down) => Err(Failure::unavailable("no mail server")),
            Some(Act::Busy(times)) => {
                self.acts
                    .lock()
                    .unwrap()
                    .insert(number, Act::Busy(times - 1));
                Err(Failure::Busy(Duration::from_secs(1)))
            }
        }
    }
}

impl Scripted {
    fn that(acts: &[(&str, Act)]) -> Self {
        let acts = acts
            .iter()
            .map(|(number, act)| ((*number).to_owned(), *act));
        Self {
            acts: Mutex::new(acts.collect()),
            ..Self::default()
        }
    }

    fn seen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(number, _)| number.clone()).collect()
    }
}

fn place() -> EffectTable {
    let group = GroupTable::new(Group::default(), "stream");
    EffectTable::new(group, EffectName::default())
}

fn letter(key: &str, number: u64) -> Letter {
    let keys = HashMap::from([("id".to_owned(), AttributeValue::S(key.to_owned()))]);
    let record = Record {
        event_id: String::new(),
        event: Event::Insert,
        keys: keys.into(),
        new_image: None,
        old_image: None,
        sequence_number: SequenceNumber::parse(number.to_string()).unwrap(),
        created: SystemTime::UNIX_EPOCH,
        view: StreamView::KeysOnly,
        size_bytes: 1,
        by_ttl: false,
    };
    let mut attempts = Attempts::default();
    attempts.push(SystemTime::UNIX_EPOCH, "first");
    let origin = (&place(), &ShardId::new("shardId-1"));
    Letter::new(
        origin,
        record,
        Reason::Exhausted,
        attempts,
        SystemTime::UNIX_EPOCH,
    )
}

async fn with(all: &[(&str, u64)]) -> MemoryDeadLetters {
    let letters = MemoryDeadLetters::default();
    for (key, number) in all {
        letters.park(&letter(key, *number)).await.unwrap();
    }
    letters
}

fn how(parallel: usize) -> How {
    let clock = Clock::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(9));
    let mut how = How::new("ada", "redrive/1", clock);
    how.parallel = parallel;
    how
}

async fn run(
    letters: &MemoryDeadLetters,
    handler: &Scripted,
    how: How,
) -> (Summary, Vec<RedriveStep>) {
    let parked = letters.parked(&place()).await.unwrap().keys;
    let keys = parked.into_iter().map(|parked| RedrivenKey {
        at: place(),
        key: parked.key,
    });
    let mut steps = Vec::new();
    let mut rng = fastrand::Rng::with_seed(1);
    let reported = |step: &RedriveStep| steps.push(step.clone());
    let summary = redrive(letters, handler, keys.collect(), (&how, &mut rng), reported).await;
    (summary, steps)
}

async fn open(letters: &MemoryDeadLetters) -> Vec<(String, u32)> {
    let page = letters.list(&Selection::default(), None).await.unwrap();
    let all = page.letters.iter();
    all.map(|one| (one.id.sequence_number.to_string(), one.attempts.made()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_key_is_handled_in_order_and_free_again() {
    let all = [("a", 1), ("b", 2), ("a", 3), ("a", 20), ("b", 4), ("c", 5)];
    let letters = with(&all).await;
    let handler = Scripted::default();
    let (summary, steps) = run(&letters, &handler, how(8)).await;
    let expected = Summary {
        redriven: 6,
        free: 3,
        ..Summary::default()
    };
    assert_eq!(summary, expected);
    assert_eq!(steps.len(), 9);
    let seen = handler.seen();
    let of = |numbers: &[&str]| -> Vec<String> {
        let mut of = seen.clone();
        of.retain(|number| numbers.contains(&number.as_str()));
        of
    };
    assert_eq!(of(&["1", "3", "20"]), ["1", "3", "20"]);
    assert_eq!(of(&["2", "4"]), ["2", "4"]);
    // Keys go side by side.
    assert_eq!(
        seen[..3]
            .iter()
            .filter(|n| ["1", "2", "5"].contains(&n.as_str()))
            .count(),
        3
    );
    assert_eq!(letters.parked(&place()).await.unwrap().keys, []);
    let all = Selection {
        closed_too: true,
        ..Selection::default()
    };
    let closed = letters.list(&all, None).await.unwrap().letters;
    assert!(closed.iter().all(|one| one.deeds[0].by == "ada"));
}

#[tokio::test(start_paused = true)]
async fn a_key_stops_at_its_first_failure_and_the_others_continue() {
    for (act, reported) in [
        (Act::Fail, "no such order"),
        (Act::Panic, "the handler panicked: at the record"),
        (Act::Hang, "the handler took longer than 900s"),
    ] {
        let letters = with(&[("a", 1), ("a", 2), ("a", 3), ("b", 4)]).await;
        let handler = Scripted::that(&[("2", act)]);
        let (summary, steps) = run(&letters, &handler, how(8)).await;
        let expected = Summary {
            redriven: 2,
            free: 1,
            stopped: 1,
            untried: 0,
            taken: 0,
        };
        assert_eq!(summary, expected);
        assert!(
            steps
                .iter()
                .any(|step| matches!(step, RedriveStep::Stopped { why, .. } if why == reported))
        );
        let left = [("2".to_owned(), 2), ("3".to_owned(), 1)];
        assert_eq!(open(&letters).await, left);
        let parked = letters.parked(&place()).await.unwrap().keys;
        assert_eq!(parked[0].letters, 2);
        let first = letters
            .next_of(&place(), &parked[0].key)
            .await
            .unwrap()
            .unwrap();
        let last = first.envelope.attempts.last().next_back().unwrap().clone();
        assert_eq!(last.error, reported);
        // The next redrive continues where this one stopped, with the next attempt.
        let again = Scripted::default();
        let (summary, _) = run(&letters, &again, how(8)).await;
        assert_eq!((summary.redriven, summary.free), (2, 1));
        let seen = again.seen.lock().unwrap().clone();
        assert_eq!(seen, [("2".to_owned(), 3), ("3".to_owned(), 2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_process_redrives_is_left_to_it() {
    let letters = with(&[("a", 1)]).await;
    let (hangs, other) = (Scripted::that(&[("1", Act::Hang)]), Scripted::default());
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut how = how(1);
        how.incarnation = "~redrive/2".into();
        run(&letters, &other, how).await
    };
    let ((first, _), (second, _)) = tokio::join!(run(&letters, &hangs, how(1)), later);
    assert_eq!((first.stopped, second.taken), (1, 1));
    assert!(other.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_down_burns_no_attempt_and_soon_begins_no_other_key() {
    let all = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)];
    let letters = with(&all).await;
    let handler = Scripted::that(&["2", "3", "4", "5", "6"].map(|n| (n, Act::Down)));
    let (summary, _) = run(&letters, &handler, how(1)).await;
    let expected = Summary {
        redriven: 1,
        free: 1,
        stopped: 3,
        untried: 2,
        taken: 0,
    };
    assert_eq!(summary, expected);
    assert_eq!(handler.seen(), ["1", "2", "3", "4"]);
    assert!(
        open(&letters)
            .await
            .iter()
            .all(|(_, attempts)| *attempts == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn letters_that_alone_find_their_dependency_down_hold_no_other_key_up() {
    let all = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)];
    let letters = with(&all).await;
    let handler = Scripted::that(&["1", "2", "4", "5"].map(|n| (n, Act::Down)));
    let (summary, _) = run(&letters, &handler, how(1)).await;
    assert_eq!(
        (summary.redriven, summary.stopped, summary.untried),
        (2, 4, 0)
    );
    assert_eq!(handler.seen(), ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_waits_a_while_for_another_worker() {
    let letters = with(&[("a", 1)]).await;
    let (summary, _) = run(&letters, &Scripted::that(&[("1", Act::Busy(5))]), how(1)).await;
    assert_eq!((summary.redriven, summary.free), (1, 1));
    let letters = with(&[("a", 1)]).await;
    let handler = Scripted::that(&[("1", Act::Busy(1000))]);
    let (summary, _) = run(&letters, &handler, how(1)).await;
    assert_eq!((summary.redriven, summary.stopped), (0, 1));
    assert_eq!(handler.seen().len(), 60);
    assert_eq!(open(&letters).await, [("1".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_comes_meanwhile_is_redriven_too() {
    let letters = with(&[("a", 1), ("a", 2)]).await;
    let handler = Scripted {
        comes: Some(("2".to_owned(), letter("a", 7), letters.clone())),
        ..Scripted::default()
    };
    let (summary, _) = run(&letters, &handler, how(1)).await;
    assert_eq!(handler.seen(), ["1", "2", "7"]);
    assert_eq!((summary.redriven, summary.free), (3, 1));
    assert_eq!(letters.parked(&place()).await.unwrap().keys, []);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_comes_late_before_those_that_are_closed_is_redriven_too() {
    let letters = with(&[("a", 5), ("a", 7)]).await;
    let handler = Scripted {
        comes: Some(("7".to_owned(), letter("a", 2), letters.clone())),
        ..Scripted::default()
    };
    let (summary, _) = run(&letters, &handler, how(1)).await;
    assert_eq!(handler.seen(), ["5", "7", "2"]);
    assert_eq!((summary.redriven, summary.free), (3, 1));
    assert_eq!(letters.parked(&place()).await.unwrap().keys, []);
}

#[tokio::test(start_paused = true)]
async fn nothing_to_do_is_done_at_once() {
    let (summary, steps) = run(&with(&[]).await, &Scripted::default(), how(1)).await;
    assert_eq!((summary, steps), (Summary::default(), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn letters_that_used_up_their_attempts_are_redriven_as_fast_as_the_handler_goes() {
    let all: Vec<_> = (1..=200).map(|number| ("a", number)).collect();
    let letters = with(&all).await;
    let began = tokio::time::Instant::now();
    let (summary, _) = run(&letters, &Scripted::default(), how(1)).await;
    assert_eq!((summary.redriven, summary.free), (200, 1));
    // The handler takes 5 ms.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// Finds every record bad.
struct Refuses;

impl RecordHandler for Refuses {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        Err(Failure::reject("no such order"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_rescued_record_whose_redrive_fails_for_good_counts_as_one_that_failed() {
    let letters = MemoryDeadLetters::default();
    let place = crate::support::letters::place();
    let record = crate::support::letters::record("a", 1);
    let rescued = crate::support::letters::letter_of(&place, record, Reason::Rescued);
    letters.park(&rescued).await.unwrap();
    let consumer = Consumer::new(
        place.at.clone(),
        MemoryStream::new(1, 10),
        MemoryLeases::new(),
    )
    .handler(Refuses);
    let consumer = consumer.dead_letters(letters.clone());
    let progress = consumer.progress();
    let failed = || progress.counters().dead_letters.load(Ordering::Relaxed);
    let working = tokio::spawn(consumer.run(std::future::pending()));
    while failed() == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(
        failed(),
        1,
        "it is tried once, and then left to an operator"
    );
    let parked = letters.parked(&place).await.unwrap().keys;
    assert_eq!(parked[0].reason, Some(Reason::Rejected));
    working.abort();
}
