//! Keys with dead letters: very many of them, and a worker that parks one after it lost its shard.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercommit::internal::shard::ShardId;
use aftercommit::record::SequenceNumber;
use aftercommit::record::StreamView;
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{Attempts, DeadLetters as _, Letter, Reason};
use aftercommit::{Consumer, Context, Event, Failure, Record, RecordHandler};
use serde_dynamo::{AttributeValue, Item};
use tokio::sync::watch;

use super::calls::Heard;
use super::stage::{Stage, eventually, letters_place, pass, place, secs};

/// A letter of an item that the stage commits under this key, written long ago.
fn letter(stage: &Stage, key: &str) -> Letter {
    let id = AttributeValue::S(format!("{key}, and a tail"));
    let keys = Item::from(HashMap::from([("id".to_owned(), id)]));
    let record = Record {
        event_id: "event-1".to_owned(),
        event: Event::Modify,
        keys: keys.clone(),
        new_image: Some(keys),
        old_image: None,
        sequence_number: SequenceNumber::parse("1").unwrap(),
        created: stage.now(),
        view: StreamView::NewAndOldImages,
        size_bytes: 100,
        by_ttl: false,
    };
    let shard = ShardId::new("shardId-of-long-ago");
    let attempts = Attempts::default();
    Letter::new(
        (&letters_place(), &shard),
        record,
        Reason::Rejected,
        attempts,
        stage.now(),
    )
}

#[tokio::test(start_paused = true)]
async fn very_many_parked_keys_delay_no_start_and_are_still_parked() {
    for parked in [3, 5_000] {
        let stage = Stage::new(2);
        let letters = MemoryDeadLetters::default();
        for n in 0..parked {
            letters
                .park(&letter(&stage, &format!("parked{n}")))
                .await
                .unwrap();
        }
        let free = stage.commit_many("free", 50);
        let last = format!("parked{}", parked - 1);
        stage.commit(&last, "behind its letter");
        stage.commit("parked0", "behind its letter");
        let consumer = stage.consumer_on("one", stage.stream.clone(), stage.leases.clone());
        let counters = consumer.counters();
        let consumer = consumer.dead_letters(letters.clone());
        tokio::spawn(consumer.run(std::future::pending()));
        eventually(secs(5), "the free ones", || stage.hand.sorted() == free).await;
        let followed = || counters.followed.load(Ordering::Relaxed) == 2;
        eventually(secs(1), "the parked ones", followed).await;
        // Once asked, a key stays known.
        let again = stage.commit_many("free", 50);
        let all = || stage.hand.done().len() == free.len() + again.len();
        eventually(secs(5), "the free ones again", all).await;
    }
}

/// Rejects what it is given, but only once it may; or handles it.
struct Clerk {
    rejects_when: Option<watch::Receiver<bool>>,
    handled: Arc<Mutex<Vec<String>>>,
    begun: Arc<AtomicBool>,
}

impl RecordHandler for Clerk {
    async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
        self.begun.store(true, Ordering::Relaxed);
        if let Some(when) = &self.rejects_when {
            let mut when = when.clone();
            when.wait_for(|may| *may).await.unwrap();
            return Err(Failure::reject("late, and wrong"));
        }
        let value = &record.new_image.as_ref().unwrap()["value"];
        let AttributeValue::S(value) = value else {
            panic!("{value:?}");
        };
        self.handled.lock().unwrap().push(value.clone());
        Ok(())
    }
}

/// What a worker that lost its shard thinks of a record that another one has handled counts nothing.
#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_its_shard_parks_no_key() {
    let stage = Stage::new(1);
    let letters = MemoryDeadLetters::default();
    let (may, when) = watch::channel(false);
    let (handled, cut_off) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let clerk = |rejects_when: Option<watch::Receiver<bool>>| Clerk {
        rejects_when,
        handled: Arc::clone(&handled),
        begun: Arc::default(),
    };
    let start = |name: &str, leases: Heard, clerk: Clerk| {
        let mut settings = stage.settings.clone();
        settings.worker_id = name.into();
        let consumer = Consumer::new(place(), stage.stream.clone(), leases).handler(clerk);
        let consumer = consumer.settings(settings).clock(stage.clock());
        let consumer = consumer.dead_letters(letters.clone());
        tokio::spawn(consumer.run(std::future::pending()));
    };
    stage.commit("a", "first");
    let one = clerk(Some(when));
    let begun = one.begun.clone();
    let leases = Heard::failing_while(&stage.leases, &cut_off, |_| true);
    start("one", leases, one);
    eventually(secs(10), "the handler", || begun.load(Ordering::Relaxed)).await;
    cut_off.store(true, Ordering::Relaxed);

    start("two", Heard::new(&stage.leases), clerk(None));
    let done = |count| handled.lock().unwrap().len() == count;
    eventually(secs(30), "the other worker", || done(1)).await;
    may.send_replace(true);
    pass(Duration::from_secs(5)).await;
    assert_eq!(letters.parked(&letters_place()).await.unwrap().keys, []);
    stage.commit("a", "second");
    eventually(secs(10), "the next record", || done(2)).await;
    assert_eq!(*handled.lock().unwrap(), ["first", "second"]);
}
