//! Records with any content.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use aftercommit::internal::shard::ShardId;
use aftercommit::record::SequenceNumber;
use aftercommit::record::{Position, StreamView};
use aftercommit::stores::source::StreamSource as _;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::tables::dynamodb::{TableStream, create_orders_table};
use aftercommit::{Clock, Event, Record};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue as Sdk;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use serde_dynamo::{AttributeValue, Item};

use crate::support::clients;
use crate::support::embedded::Embedded;

/// Any value that an item may hold, a few levels deep. Sets come sorted.
fn value() -> impl Strategy<Value = AttributeValue> {
    let text = "[a-zß✓\u{0}-\u{1f}\"\\\\]{0,12}";
    let texts = proptest::collection::btree_set("[a-z]{1,5}", 1..4);
    let numbers = proptest::collection::btree_set(any::<i32>(), 1..4);
    let bytes = proptest::collection::vec(any::<u8>(), 0..9);
    let binaries =
        proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..4), 1..3);
    let leaf = prop_oneof![
        text.prop_map(AttributeValue::S),
        any::<i64>().prop_map(|n| AttributeValue::N(n.to_string())),
        any::<bool>().prop_map(AttributeValue::Bool),
        Just(AttributeValue::Null(true)),
        bytes.prop_map(AttributeValue::B),
        texts.prop_map(|set| AttributeValue::Ss(set.into_iter().collect())),
        numbers.prop_map(|set| AttributeValue::Ns(strings(&set))),
        binaries.prop_map(|set| AttributeValue::Bs(set.into_iter().collect())),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(AttributeValue::L),
            proptest::collection::hash_map("[a-z.#:]{1,6}", inner, 0..4)
                .prop_map(AttributeValue::M),
        ]
    })
}

fn strings(set: &BTreeSet<i32>) -> Vec<String> {
    let mut all: Vec<_> = set.iter().map(ToString::to_string).collect();
    all.sort();
    all
}

fn sdk(value: &AttributeValue) -> Sdk {
    match value.clone() {
        AttributeValue::S(s) => Sdk::S(s),
        AttributeValue::N(n) => Sdk::N(n),
        AttributeValue::B(b) => Sdk::B(Blob::new(b)),
        AttributeValue::Bool(b) => Sdk::Bool(b),
        AttributeValue::Null(n) => Sdk::Null(n),
        AttributeValue::M(m) => Sdk::M(m.iter().map(|(k, v)| (k.clone(), sdk(v))).collect()),
        AttributeValue::L(l) => Sdk::L(l.iter().map(sdk).collect()),
        AttributeValue::Ss(s) => Sdk::Ss(s),
        AttributeValue::Ns(n) => Sdk::Ns(n),
        AttributeValue::Bs(b) => Sdk::Bs(b.into_iter().map(Blob::new).collect()),
    }
}

/// With its sets sorted: their order means nothing.
fn sorted(value: AttributeValue) -> AttributeValue {
    match value {
        AttributeValue::Ss(mut set) => {
            set.sort();
            AttributeValue::Ss(set)
        }
        AttributeValue::Ns(mut set) => {
            set.sort();
            AttributeValue::Ns(set)
        }
        AttributeValue::Bs(mut set) => {
            set.sort();
            AttributeValue::Bs(set)
        }
        AttributeValue::L(list) => AttributeValue::L(list.into_iter().map(sorted).collect()),
        AttributeValue::M(map) => {
            AttributeValue::M(map.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        other => other,
    }
}

#[tokio::test]
async fn whatever_an_item_holds_comes_through_the_stream_as_it_was_committed() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_orders_table(&client, "orders").await.unwrap();
    let mut runner = TestRunner::deterministic();
    let mut committed = Vec::new();
    for n in 0..200 {
        let value = value().new_tree(&mut runner).unwrap().current();
        let put = client.put_item().table_name("orders");
        let put = put.item("id", Sdk::S(n.to_string()));
        put.item("value", sdk(&value)).send().await.unwrap();
        committed.push(value);
    }
    let arn = TableStream::resolve(&client, "orders").await.unwrap().arn;
    let stream = DynamoDbStream::new(clients::streams(server.url()), &arn, Clock::system());
    let shard: ShardId = stream.describe(None).await.unwrap().shards.remove(0).id;
    let iterator = stream.iterator(&shard, &Position::Horizon).await.unwrap();
    let records = stream.read(&iterator).await.unwrap().records;
    assert_eq!(records.len(), committed.len());
    for (record, value) in records.into_iter().zip(committed) {
        let mut image = record.new_image.unwrap().into_inner();
        assert_eq!(sorted(image.remove("value").unwrap()), value);
    }
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only whether it decodes counts")]
struct Typed {
    value: u64,
}

fn record(value: AttributeValue) -> Record {
    let item: Item = HashMap::from([("value".to_owned(), value)]).into();
    Record {
        event_id: "event".to_owned(),
        event: Event::Insert,
        keys: item.clone(),
        new_image: Some(item),
        old_image: None,
        sequence_number: SequenceNumber::parse("1").unwrap(),
        created: SystemTime::UNIX_EPOCH,
        view: StreamView::NewImage,
        size_bytes: 1,
        by_ttl: false,
    }
}

proptest! {
    #[test]
    fn a_record_decodes_or_says_why_whatever_is_in_it(value in value()) {
        let fits = matches!(&value, AttributeValue::N(n) if n.parse::<u64>().is_ok());
        let record = record(value);
        prop_assert!(record.new_image::<serde::de::IgnoredAny>().is_ok());
        match record.new_image::<Typed>() {
            Ok(_) => prop_assert!(fits),
            Err(error) => prop_assert!(!fits && !error.to_string().is_empty()),
        }
        prop_assert!(!record.key().as_str().is_empty());
    }

    #[test]
    fn sequence_numbers_are_ordered_as_numbers(a in "[0-9]{1,40}", b in "[0-9]{1,40}") {
        let number = |text: &str| SequenceNumber::parse(text).unwrap();
        let padded = format!("{a:0>40}").cmp(&format!("{b:0>40}"));
        prop_assert_eq!(number(&a).cmp(&number(&b)), padded);
        prop_assert_eq!(number(&a) == number(&b), padded.is_eq());
        prop_assert_eq!(number(&a).to_string(), a);
    }

    #[test]
    fn an_invalid_sequence_number_is_refused(text in "[0-9]{0,39}[^0-9][0-9]{0,39}|[0-9]{41,60}|") {
        prop_assert!(SequenceNumber::parse(text).is_err());
    }
}

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code)]
struct Line {
    price: u64,
}

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code)]
struct Order {
    lines: Vec<Line>,
}

#[test]
fn an_image_that_does_not_fit_names_the_item_and_the_field() {
    use std::collections::HashMap;

    let mut record = crate::support::letters::record("A-1", 7);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let line = |price| AttributeValue::M(HashMap::from([("price".to_owned(), price)]));
    let lines = AttributeValue::L(vec![
        line(AttributeValue::N("5".to_owned())),
        line(text("5")),
    ]);
    let image = HashMap::from([("lines".to_owned(), lines)]);
    record.new_image = Some(image.into());
    let reported = record.new_image::<Order>().unwrap_err().to_string();
    assert!(
        reported.starts_with("the new image of id=A-1 does not fit at lines[1].price: "),
        "{reported}"
    );
    record.new_image = Some(Item::from(HashMap::<String, AttributeValue>::new()));
    let reported = record.new_image::<Order>().unwrap_err().to_string();
    assert!(
        reported.contains("id=A-1") && reported.contains("lines"),
        "{reported}"
    );
}

#[test]
fn a_padded_number_sorts_as_a_text_as_the_number_does() {
    let number = |digits: &str| SequenceNumber::parse(digits).unwrap();
    let longest = "9".repeat(SequenceNumber::MAX_DIGITS);
    let sorted = ["0", "7", "007", "10", "99", "100", &longest];
    for two in sorted.windows(2) {
        let (low, high) = (number(two[0]), number(two[1]));
        assert_eq!(low.cmp(&high), low.padded().cmp(&high.padded()), "{two:?}");
    }
}
