//! A handler with set answers, and batches for it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::engine::lambda::{Answer, Function};
use aftercommit::internal::dependency::{Dependency, Limits};
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{Envelope, Reason, Selection};
use aftercommit::{Context, Failure, Group, GroupTable, Record, RecordHandler};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::lambda_events::event;
use crate::support::letters;

pub const STREAM: &str =
    "arn:aws:dynamodb:eu-central-1:1:table/orders/stream/2026-01-01T00:00:00.000";

/// The group on the table of the stream with this ARN.
pub fn place(arn: &str) -> GroupTable {
    GroupTable::new(Group::default(), arn)
}

/// Long enough for everything.
pub const LONG: Duration = Duration::from_mins(5);

type Does = Box<dyn Fn(&Record, &Context) -> Result<(), Failure> + Send + Sync>;

/// Remembers its records, and answers as it is set to.
pub struct Desk {
    pub calls: Mutex<Vec<(String, u32)>>,
    takes: Duration,
    does: Does,
}

impl RecordHandler for Desk {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let number = record.sequence_number.to_string();
        self.calls.lock().unwrap().push((number, context.attempt()));
        tokio::time::sleep(self.takes).await;
        (self.does)(record, context)
    }
}

impl Desk {
    pub fn new(
        does: impl Fn(&Record, &Context) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::slow(Duration::from_millis(10), does)
    }

    pub fn slow(
        takes: Duration,
        does: impl Fn(&Record, &Context) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (calls, does) = (Mutex::default(), Box::new(does) as Does);
        Arc::new(Self { calls, takes, does })
    }

    /// The sequence numbers of first attempts, in their order.
    pub fn begun(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let first = calls.iter().filter(|(_, attempt)| *attempt == 1);
        first.map(|(number, _)| number.clone()).collect()
    }
}

/// Records 1, 2, 3... of these keys, committed this long ago.
pub fn records(keys: &str, age: Duration) -> Vec<Record> {
    let numbered = keys.chars().zip(1..);
    let record = |(key, number): (char, u64)| Record {
        created: SystemTime::now() - age,
        ..letters::record(&key.to_string(), number)
    };
    numbered.map(record).collect()
}

pub fn batch(keys: &str) -> Value {
    event(STREAM, &records(keys, Duration::ZERO))
}

pub fn old(keys: &str, hours: u64) -> Value {
    event(STREAM, &records(keys, Duration::from_hours(hours)))
}

fn is(record: &Record, key: &str) -> bool {
    record.key().as_str().ends_with(&format!("S{key}"))
}

pub fn failing(
    key: &'static str,
    failure: impl Fn() -> Failure + Send + Sync + 'static,
) -> Arc<Desk> {
    Desk::new(move |record, _| {
        if is(record, key) {
            Err(failure())
        } else {
            Ok(())
        }
    })
}

pub fn retry() -> Failure {
    Failure::Retry(anyhow::anyhow!("not now"))
}

pub fn function(desk: &Arc<Desk>) -> (Function<Arc<Desk>>, Arc<MemoryDeadLetters>) {
    let letters = Arc::new(MemoryDeadLetters::default());
    let mail_server = Dependency::new(&Limits::default(), fastrand::Rng::with_seed(7));
    let function = Function::new(place(STREAM), desk.clone())
        .dead_letters(letters.clone())
        .dependency(mail_server);
    (function, letters)
}

pub async fn handled(function: &Function<Arc<Desk>>, event: &Value, time: Duration) -> Answer {
    let answer = function.handle(event, Instant::now() + time).await;
    answer.unwrap()
}

pub async fn parked(letters: &MemoryDeadLetters) -> Vec<(String, Reason)> {
    let all = letters::listed(letters, &Selection::default()).await;
    let reported = |letter: &Envelope| (letter.id.sequence_number.to_string(), letter.reason);
    let mut all: Vec<_> = all.iter().map(reported).collect();
    all.sort();
    all
}

/// The example of AWS's developer guide.
///
/// Source: [the event](https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html).
pub fn documented() -> Value {
    let arn = "arn:aws:dynamodb:us-east-1:123456789012:table/ExampleTableWithStream/stream/2015-06-27T00:48:05.899";
    let record = |id: &str, name: &str, dynamodb: Value| {
        json!({"eventID": id, "eventVersion": "1.0", "dynamodb": dynamodb, "awsRegion": "us-west-2",
            "eventName": name, "eventSourceARN": arn, "eventSource": "aws:dynamodb"})
    };
    let (keys, new) = (
        json!({"Id": {"N": "101"}}),
        json!({"Message": {"S": "New item!"}, "Id": {"N": "101"}}),
    );
    let changed = json!({"Message": {"S": "This item has changed"}, "Id": {"N": "101"}});
    let view = "NEW_AND_OLD_IMAGES";
    json!({"Records": [
        record("1", "INSERT", json!({"Keys": keys, "NewImage": new, "StreamViewType": view,
            "SequenceNumber": "111", "SizeBytes": 26})),
        record("2", "MODIFY", json!({"OldImage": new, "SequenceNumber": "222", "Keys": keys,
            "SizeBytes": 59, "NewImage": changed, "StreamViewType": view})),
        record("3", "REMOVE", json!({"Keys": keys, "StreamViewType": view, "SizeBytes": 38,
            "SequenceNumber": "333", "OldImage": changed})),
    ]})
}
