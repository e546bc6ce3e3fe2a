//! A soak: whatever comes from outside is read or refused, and nothing panics. Each property is
//! tried 256 times; for a night, say how often:
//!
//! ```sh
//! PROPTEST_CASES=10000000 cargo test --test suite soak::
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aftercommit::filter::{Filter, Filters, Subject};
use aftercommit::internal::shard::ShardId;
use aftercommit::record::lambda_event::{read, read_all, write};
use aftercommit::record::{Position, Record};
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::source::{ShardIterator, SourceError, StreamSource as _};
use aftercommit::{Clock, Event};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::support::{arbitrary, clients};

const ARN: &str = "arn:aws:dynamodb:eu-central-1:1:table/orders/stream/2026-01-01T00:00:00.000";

/// Names and words that mean something somewhere.
const WORDS: &[&str] = &[
    "S",
    "N",
    "B",
    "BOOL",
    "NULL",
    "M",
    "L",
    "SS",
    "NS",
    "BS",
    "Keys",
    "NewImage",
    "dynamodb",
    "Records",
    "eventName",
    "INSERT",
    "REMOVE",
    "KEYS_ONLY",
    "$or",
    "numeric",
    "exists",
    "prefix",
    "suffix",
    "anything-but",
    "equals-ignore-case",
    "",
    "a",
    "300",
    "3E2",
    "-0",
    "1e999999999",
    "1E-999999999",
    "+1",
    "0x1",
    "NaN",
    "\u{0}",
    "\r\n",
    "99999999999999999999999999999999999999",
];

fn word() -> impl Strategy<Value = String> {
    let known = select(WORDS).prop_map(str::to_owned);
    prop_oneof![3 => known, 1 => any::<String>()]
}

/// Any JSON, often with words that are known here.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        5 => word().prop_map(Value::from),
        2 => arbitrary::attribute().prop_map(|value| serde_json::to_value(value).unwrap()),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

/// Every place in a value.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                places(inner, &format!("{here}/{}", escaped(name)), all);
            }
        }
        Value::Array(list) => {
            for (n, inner) in list.iter().enumerate() {
                places(inner, &format!("{here}/{n}"), all);
            }
        }
        _ => {}
    }
}

/// A record's event with something else in some places.
fn odd_event() -> impl Strategy<Value = Value> {
    let changes = prop::collection::vec((any::<Index>(), anything()), 0..4);
    (arbitrary::record(), changes).prop_map(|(record, changes)| {
        let mut event = write(&record, Some(ARN)).unwrap();
        for (at, other) in changes {
            let mut all = Vec::new();
            places(&event, "", &mut all);
            *event.pointer_mut(&all[at.index(all.len())]).unwrap() = other;
        }
        event
    })
}

/// A pattern in the shape of the value: the value may pass, and so may any of these.
fn pattern_of(value: &Value, others: &[Value]) -> Value {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let fields = map.iter().map(|(k, v)| (k.clone(), pattern_of(v, others)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(list) if list.iter().any(Value::is_object) => pattern_of(&list[0], others),
        Value::Object(_) | Value::Array(_) => json!([{"exists": false}]),
        scalar => Value::from([std::slice::from_ref(scalar), others].concat()),
    }
}

fn in_whole_seconds(record: &Record) -> Record {
    let since = record.created.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = Duration::from_secs(since.unwrap().as_secs());
    let created = SystemTime::UNIX_EPOCH + seconds;
    Record {
        created,
        ..record.clone()
    }
}

/// Asks a filter in every way.
fn ask(pattern: &str, record: &Record) -> Result<(), TestCaseError> {
    let filter = match Filter::parse(pattern) {
        Ok(filter) => filter,
        Err(error) => {
            let reported = error.to_string();
            prop_assert!(
                reported.starts_with("line ") && !reported.contains('\n'),
                "{}",
                reported
            );
            return Ok(());
        }
    };
    for remark in filter.remarks() {
        prop_assert!(!remark.to_string().is_empty());
    }
    let holds = filter.matches(Subject::new(record).from_stream(ARN));
    let mismatch = filter.mismatch(Subject::new(record).from_stream(ARN));
    prop_assert_eq!(mismatch.is_none(), holds);
    prop_assert!(mismatch.is_none_or(|mismatch| !mismatch.to_string().is_empty()));
    let filters = Filters::new([filter]);
    prop_assert_eq!(
        filters.matches(Subject::new(record).from_stream(ARN)),
        holds
    );
    Ok(())
}

proptest! {
    #[test]
    fn any_json_is_an_event_or_is_refused_in_a_line(event in anything()) {
        if let Err(error) = read_all(&event) {
            prop_assert!(!error.path.is_empty() && !error.problem.is_empty());
        }
    }

    #[test]
    fn what_is_read_of_an_odd_event_is_read_again_as_it_was(event in odd_event()) {
        if let Ok(received) = read(&event) {
            let stream = received.stream.as_deref();
            let reported = write(&received.record, stream).unwrap().to_string();
            let again = read(&serde_json::from_str(&reported).unwrap()).unwrap();
            prop_assert_eq!(again.stream.as_deref(), stream);
            prop_assert_eq!(again.record.key(), received.record.key());
            prop_assert_eq!(&again.record, &in_whole_seconds(&received.record));
        }
    }

    #[test]
    fn any_pattern_is_refused_or_answers_about_any_record(
        pattern in prop_oneof![
            anything().prop_map(|pattern| pattern.to_string()),
            word(),
        ],
        event in odd_event(),
    ) {
        if let Ok(received) = read(&event) {
            ask(&pattern, &received.record)?;
        }
    }

    #[test]
    fn a_pattern_of_a_records_shape_is_refused_or_answers(
        shape in odd_event(),
        others in prop::collection::vec(anything(), 0..3),
        event in odd_event(),
    ) {
        let pattern = pattern_of(&shape, &others).to_string();
        for event in [&shape, &event] {
            if let Ok(received) = read(event) {
                ask(&pattern, &received.record)?;
            }
        }
    }
}

/// A server whose stream holds one record: what was put there.
struct OneRecord {
    runtime: Runtime,
    record: Arc<Mutex<Value>>,
    stream: DynamoDbStream,
    iterator: ShardIterator,
}

async fn answer(State(record): State<Arc<Mutex<Value>>>, headers: HeaderMap) -> String {
    let target = headers["x-amz-target"].to_str().unwrap();
    if target.ends_with("GetShardIterator") {
        return json!({"ShardIterator": "it"}).to_string();
    }
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    json!({"Records": [*record], "NextShardIterator": "it"}).to_string()
}

impl OneRecord {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let record = Arc::new(Mutex::new(Value::Null));
        let routes = Router::new().route("/", post(answer));
        let routes = routes.with_state(Arc::clone(&record));
        let (stream, iterator) = runtime.block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = tokio::net::TcpListener::bind(any).await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(axum::serve(listener, routes).into_future());
            let stream = DynamoDbStream::new(clients::streams(&url), ARN, Clock::system());
            let shard = ShardId::new("shardId-1");
            let iterator = stream.iterator(&shard, &Position::Horizon).await.unwrap();
            (stream, iterator)
        });
        Self {
            runtime,
            record,
            stream,
            iterator,
        }
    }

    fn read(&self, record: Value) -> Result<Record, SourceError> {
        *self.record.lock().unwrap() = record;
        let batch = self.runtime.block_on(self.stream.read(&self.iterator));
        batch.map(|mut batch| batch.records.remove(0))
    }
}

/// As the service writes it, where it writes it otherwise than Lambda.
fn on_the_wire(mut event: Value) -> Value {
    if event.get("userIdentity").is_some() {
        event["userIdentity"] = json!({"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"});
    }
    event
}

#[test]
fn a_record_comes_over_the_wire_as_it_was() {
    let server = OneRecord::start();
    proptest!(|(mut record in arbitrary::record())| {
        // The service counts in a signed number.
        record.size_bytes >>= 1;
        let event = on_the_wire(write(&record, None).unwrap());
        prop_assert_eq!(server.read(event).unwrap(), record);
    });
}

#[test]
fn an_odd_record_comes_over_the_wire_or_is_an_error() {
    let server = OneRecord::start();
    proptest!(|(event in odd_event())| {
        if let Ok(record) = server.read(event) {
            prop_assert!(!record.by_ttl || record.event == Event::Remove);
            prop_assert!(!record.sequence_number.as_str().is_empty());
        }
    });
}
