//! A dependency that is down while many records need nothing of it. Virtual time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::dead_letter::memory::MemoryDeadLetters;
use aftercommit::dead_letter::{DeadLetters as _, Selection};
use aftercommit::decide::retry::AttemptLimits;
use aftercommit::leases::InitialPosition;
use aftercommit::leases::memory::MemoryLeases;
use aftercommit::source::memory::MemoryStream;
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
    let settings = Settings {
        start: InitialPosition::TrimHorizon,
        attempts: AttemptLimits {
            attempts: 3,
            ..AttemptLimits::default()
        },
        seed: 7,
        ..Settings::default()
    };
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "arn"),
        stream.clone(),
        MemoryLeases::new(),
        shop.clone(),
    )
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
