//! A dependency that is down while many records need nothing of it. Virtual time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters as _, Reason, Selection};
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::MemoryStream;
use aftercommit::{Consumer, Context, Failure, Group, GroupTable, Record, RecordHandler, Settings};
use serde_dynamo::AttributeValue;
use tokio::time::{Instant, sleep};

use crate::handler::numbered;

/// How long the dependency is down.
const OUTAGE: Duration = Duration::from_mins(10);

/// Every tenth record needs a dependency, which is down at first.
#[derive(Clone)]
struct Shop {
    began: Instant,
    served: Arc<Mutex<Vec<String>>>,
}

impl RecordHandler for Shop {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let Some(AttributeValue::S(id)) = record.keys.get("id") else {
            return Err(Failure::reject("no id"));
        };
        if !id.ends_with('0') {
            context.did_not_ask();
            return Ok(());
        }
        if self.began.elapsed() < OUTAGE {
            return Err(Failure::unavailable("it is down"));
        }
        self.served.lock().unwrap().push(id.clone());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_need_nothing_of_what_is_down_burn_no_attempts_of_those_that_do() {
    let shop = Shop {
        began: Instant::now(),
        served: Arc::default(),
    };
    let (stream, letters) = (MemoryStream::new(1, 100), MemoryDeadLetters::default());
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    settings.attempts.attempts = 3;
    settings.seed = 7;
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "arn"),
        stream.clone(),
        MemoryLeases::new(),
    )
    .handler(shop.clone())
    .settings(settings)
    .dead_letters(letters.clone());
    let _running = tokio::spawn(consumer.run(std::future::pending()));
    for number in 0..500 {
        stream.commit(numbered(number, SystemTime::now()));
        sleep(Duration::from_secs(1)).await;
    }
    sleep(OUTAGE).await;
    let all = Selection::default();
    assert_eq!(letters.list(&all, None).await.unwrap().letters.len(), 0);
    assert_eq!(shop.served.lock().unwrap().len(), 50);
}

/// What a server says to everybody while it is unwell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwell {
    /// 451 to MAIL, such as a relay whose filter is away.
    PutsOff,
    /// 550 to everybody, such as a sender address that is not allowed.
    Refuses,
    /// Hangs up after the final dot; the record waits for its reply.
    BreaksOff,
    /// The same; the record is finished, and the effect waits for a person.
    BreaksOffForGood,
}

/// Serves everybody but while it is unwell, and one address never.
#[derive(Clone)]
struct Server {
    began: Instant,
    unwell: Unwell,
    lasts: Duration,
    served: Arc<Mutex<Vec<String>>>,
    doubts: Arc<Mutex<Vec<String>>>,
}

/// The address that the server refuses, well or not.
const NOBODY: &str = "order-7";

impl RecordHandler for Server {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let Some(AttributeValue::S(id)) = record.keys.get("id") else {
            return Err(Failure::reject("no id"));
        };
        if self.began.elapsed() >= self.lasts {
            if id == NOBODY {
                return Err(Failure::refused("550 no such mailbox"));
            }
            self.served.lock().unwrap().push(id.clone());
            return Ok(());
        }
        let doubt = || {
            self.doubts.lock().unwrap().push(id.clone());
            context.is_in_doubt("hung up after the final dot");
        };
        match self.unwell {
            Unwell::PutsOff => Err(Failure::retry("451 try later")),
            Unwell::Refuses => Err(Failure::refused("550 not your sender")),
            Unwell::BreaksOff => {
                doubt();
                Err(Failure::retry("no reply"))
            }
            Unwell::BreaksOffForGood => {
                doubt();
                Ok(())
            }
        }
    }
}

/// Commits 100 orders, one every four seconds, to a server that is unwell for so long, and 20 more when it
/// is well. Says which orders became dead letters, how many were served, and how many were in doubt.
async fn unwell(unwell: Unwell, lasts: Duration) -> (Vec<Reason>, usize, usize) {
    let server = Server {
        began: Instant::now(),
        unwell,
        lasts,
        served: Arc::default(),
        doubts: Arc::default(),
    };
    let (stream, letters) = (MemoryStream::new(1, 100), MemoryDeadLetters::default());
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    settings.seed = 7;
    // Hours pass: heartbeats and empty reads are most of what a run costs.
    settings.timing.lease_duration = Duration::from_secs(100);
    settings.timing.heartbeat_interval = Duration::from_secs(20);
    settings.timing.look_interval = Duration::from_secs(10);
    settings.timing.idle_max = Duration::from_secs(10);
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "arn"),
        stream.clone(),
        MemoryLeases::new(),
    )
    .handler(server.clone());
    let consumer = consumer.settings(settings).dead_letters(letters.clone());
    let _running = tokio::spawn(consumer.run(std::future::pending()));
    for number in 0..100 {
        stream.commit(numbered(number, SystemTime::now()));
        sleep(Duration::from_secs(4)).await;
    }
    sleep(lasts).await;
    for number in 100..120 {
        sleep(Duration::from_mins(5)).await;
        stream.commit(numbered(number, SystemTime::now()));
    }
    sleep(Duration::from_mins(5)).await;
    let letters = letters.list(&Selection::default(), None).await.unwrap();
    let reasons = letters.letters.iter().map(|letter| letter.reason);
    let mut doubts = server.doubts.lock().unwrap().clone();
    doubts.sort();
    doubts.dedup();
    let count = server.served.lock().unwrap().len();
    (reasons.collect(), count, doubts.len())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_everybody_wrongly_for_long_costs_no_record() {
    let minutes = [3, 60, 19 * 60].map(Duration::from_mins);
    for how in [Unwell::PutsOff, Unwell::Refuses] {
        for lasts in minutes {
            let (letters, served, _) = unwell(how, lasts).await;
            // The one address that is always refused, and nothing else.
            assert_eq!(letters, [Reason::Rejected], "{how:?} for {lasts:?}");
            assert_eq!(served, 119, "{how:?} for {lasts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_off_after_it_may_have_acted_puts_few_effects_in_doubt() {
    for how in [Unwell::BreaksOff, Unwell::BreaksOffForGood] {
        for (minutes, most) in [(1, 3), (3, 5), (60, 12)] {
            let (letters, served, doubts) = unwell(how, Duration::from_mins(minutes)).await;
            assert!(letters.len() <= 1, "{how:?} for {minutes} min: {letters:?}");
            assert!(
                (1..=most).contains(&doubts),
                "{how:?} for {minutes} min: {doubts} doubts"
            );
            let lost = match how {
                Unwell::BreaksOffForGood => doubts,
                _ => 0,
            };
            assert!(
                served + lost + 1 >= 120,
                "{how:?} for {minutes} min: {served} served"
            );
        }
    }
}
