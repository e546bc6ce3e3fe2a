//! Streams and tables of a real server: records as they come, shards, and tables that cannot be
//! followed.

use std::time::{Duration, SystemTime};

use aftercommit::internal::shard::ShardId;
use aftercommit::record::{Position, SequenceNumber, StreamView};
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::source::{ShardIterator, SourceError, StreamSource as _};
use aftercommit::stores::tables::dynamodb::{
    Created, ResolveError, TableStream, create_lease_table, create_ledger_table,
    create_orders_table,
};
use aftercommit::{Clock, Event, Record};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType, StreamSpecification, StreamViewType,
};

use crate::support::clients;
use crate::support::embedded::Embedded;

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

async fn put(client: &Client, table: &str, id: &str, total: &str) {
    let put = client.put_item().table_name(table);
    let put = put.item("id", text(id));
    let put = put.item("total", AttributeValue::N(total.to_owned()));
    put.send().await.unwrap();
}

fn stream_of(server_url: &str, arn: &str) -> DynamoDbStream {
    DynamoDbStream::new(clients::streams(server_url), arn, Clock::system())
}

/// All records of all shards, read until nothing comes.
async fn records(stream: &DynamoDbStream) -> Vec<Record> {
    let mut all = Vec::new();
    for shard in stream.describe(None).await.unwrap().shards {
        let iterator = stream.iterator(&shard.id, &Position::Horizon).await;
        let mut next = Some(iterator.unwrap());
        while let Some(iterator) = next {
            let batch = stream.read(&iterator).await.unwrap();
            next = batch.next.filter(|_| !batch.records.is_empty());
            all.extend(batch.records);
        }
    }
    all
}

async fn orders(server_url: &str, table: &str) -> (Client, DynamoDbStream) {
    let client = clients::dynamodb(server_url);
    create_orders_table(&client, table).await.unwrap();
    let found = TableStream::resolve(&client, table).await.unwrap();
    (client, stream_of(server_url, &found.arn))
}

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Order {
    id: String,
    total: u64,
}

async fn records_say_what_happened(server_url: &str, table: &str) {
    let (client, stream) = orders(server_url, table).await;
    // DynamoDB Local (and so LocalStack) rounds the creation time down to the minute, the service
    // to the second.
    let began = SystemTime::now() - Duration::from_mins(1);
    put(&client, table, "o-1", "1").await;
    put(&client, table, "o-1", "2").await;
    let delete = client.delete_item().table_name(table);
    delete.key("id", text("o-1")).send().await.unwrap();

    let records = records(&stream).await;
    let events: Vec<_> = records.iter().map(|record| record.event).collect();
    assert_eq!(events, [Event::Insert, Event::Modify, Event::Remove]);
    let order = |total| Order {
        id: "o-1".to_owned(),
        total,
    };
    assert_eq!(records[0].new_image::<Order>().unwrap(), order(1));
    assert!(records[0].old_image.is_none());
    assert_eq!(records[1].old_image::<Order>().unwrap(), order(1));
    assert_eq!(records[1].new_image::<Order>().unwrap(), order(2));
    assert_eq!(records[2].old_image::<Order>().unwrap(), order(2));
    assert!(records[2].new_image.is_none());
    let mut ids: Vec<_> = records.iter().map(|record| &record.event_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "event ids are unique");
    let numbers: Vec<_> = records
        .iter()
        .map(|record| &record.sequence_number)
        .collect();
    assert!(numbers.is_sorted() && numbers[0] < numbers[2]);
    for record in &records {
        assert_eq!(record.key(), records[0].key());
        assert_eq!(record.keys.inner().len(), 1);
        assert_eq!(record.view, StreamView::NewAndOldImages);
        assert!(!record.by_ttl);
        assert!(record.size_bytes > 0);
        let created = record.created;
        assert!(
            created > began && created < began + Duration::from_mins(3),
            "{created:?} and {began:?}"
        );
    }
}

async fn reading_continues_after_a_position(server_url: &str, table: &str) {
    let (client, stream) = orders(server_url, table).await;
    for n in 0..5 {
        put(&client, table, &format!("o-{n}"), "1").await;
    }
    let all = records(&stream).await;
    let description = stream.describe(None).await.unwrap();
    let shard = &description.shards[0];
    assert_eq!(
        description.streams[0].view,
        Some(StreamView::NewAndOldImages)
    );
    let position = Position::After(all[2].sequence_number.clone());
    let iterator = stream.iterator(&shard.id, &position).await.unwrap();
    let batch = stream.read(&iterator).await.unwrap();
    assert_eq!(batch.records, all[3..]);
    assert!(batch.next.is_some(), "the shard is open");
    // The only shard has no parent, even if the server ignores the filter.
    assert_eq!(stream.children(&shard.id).await.unwrap(), []);
}

#[tokio::test]
async fn records_say_what_happened_on_embedded() {
    let server = Embedded::start();
    records_say_what_happened(server.url(), "orders").await;
}

#[tokio::test]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn records_say_what_happened_on_localstack() {
    let table = format!("orders-{:016x}", fastrand::u64(..));
    records_say_what_happened(&clients::localstack_url(), &table).await;
}

#[tokio::test]
async fn reading_continues_after_a_position_on_embedded() {
    let server = Embedded::start();
    reading_continues_after_a_position(server.url(), "orders").await;
}

#[tokio::test]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn reading_continues_after_a_position_on_localstack() {
    let table = format!("orders-{:016x}", fastrand::u64(..));
    reading_continues_after_a_position(&clients::localstack_url(), &table).await;
}

#[tokio::test]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn a_disabled_streams_shard_ends_after_its_last_record() {
    let url = clients::localstack_url();
    let table = format!("orders-{:016x}", fastrand::u64(..));
    let (client, stream) = orders(&url, &table).await;
    put(&client, &table, "o-1", "1").await;
    let off = StreamSpecification::builder().stream_enabled(false).build();
    let update = client.update_table().table_name(&table);
    let update = update.stream_specification(off.unwrap());
    update.send().await.unwrap();
    let shard = stream.describe(None).await.unwrap().shards.remove(0);
    let mut next = stream.iterator(&shard.id, &Position::Horizon).await.ok();
    let mut seen = 0;
    while let Some(iterator) = next {
        let batch = stream.read(&iterator).await.unwrap();
        seen += batch.records.len();
        next = batch.next;
    }
    assert_eq!(seen, 1);
    let error = TableStream::resolve(&client, &table).await.unwrap_err();
    assert!(matches!(error, ResolveError::NoStream { .. }), "{error}");
}

#[tokio::test]
async fn a_stream_or_a_shard_that_is_not_there_is_gone() {
    let server = Embedded::start();
    let (_, stream) = orders(server.url(), "orders").await;
    let nowhere = stream.arn().replace("table/orders", "table/no-orders");
    let nowhere = stream_of(server.url(), &nowhere);
    let shard = ShardId::new("shardId-00000000000000000001-00000001");
    let error = nowhere.describe(None).await.unwrap_err();
    assert!(matches!(error, SourceError::Gone), "{error:?}");
    let error = nowhere.iterator(&shard, &Position::Horizon).await;
    assert!(matches!(error, Err(SourceError::Gone)), "{error:?}");
}

#[tokio::test]
async fn a_senseless_iterator_is_an_error_that_says_why() {
    let server = Embedded::start();
    let (_, stream) = orders(server.url(), "orders").await;
    let senseless = ShardIterator("no iterator".to_owned());
    let error = stream.read(&senseless).await.unwrap_err();
    assert!(matches!(error, SourceError::Other(_)), "{error:?}");
    assert!(error.to_string().contains("ValidationException"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_error_not_a_missing_stream() {
    // Bound and dropped: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let arn = "arn:aws:dynamodb:eu-central-1:000000000000:table/t/stream/x";
    let error = stream_of(&url, arn).describe(None).await.unwrap_err();
    assert!(matches!(error, SourceError::Other(_)), "{error:?}");
    let error = TableStream::resolve(&clients::dynamodb(&url), "t").await;
    assert!(matches!(error, Err(ResolveError::Call(_))), "{error:?}");
}

async fn table_with(client: &Client, name: &str, view: Option<StreamViewType>) {
    let key = |name: &str, kind| {
        let key = KeySchemaElement::builder().attribute_name(name);
        key.key_type(kind).build().unwrap()
    };
    let attribute = |name: &str| {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        let attribute = attribute.attribute_type(ScalarAttributeType::S);
        attribute.build().unwrap()
    };
    let stream = view.map(|view| {
        let stream = StreamSpecification::builder().stream_enabled(true);
        stream.stream_view_type(view).build().unwrap()
    });
    client
        .create_table()
        .table_name(name)
        .key_schema(key("shop", KeyType::Hash))
        .key_schema(key("order", KeyType::Range))
        .attribute_definitions(attribute("shop"))
        .attribute_definitions(attribute("order"))
        .billing_mode(BillingMode::PayPerRequest)
        .set_stream_specification(stream)
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_table_is_resolved_to_its_stream_view_and_key() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    table_with(&client, "shops", Some(StreamViewType::NewImage)).await;
    let found = TableStream::resolve(&client, "shops").await.unwrap();
    assert_eq!(found.table, "shops");
    assert!(found.arn.contains("table/shops/stream/"), "{}", found.arn);
    assert_eq!(found.view, StreamView::NewImage);
    assert_eq!(found.partition_key, "shop");
    assert_eq!(found.sort_key.as_deref(), Some("order"));
    assert_eq!(found.clone().with_new_images().unwrap(), found);
}

#[tokio::test]
async fn a_table_that_cannot_be_followed_says_why_and_how_to_fix_it() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    let missing = TableStream::resolve(&client, "nothing").await.unwrap_err();
    assert!(matches!(missing, ResolveError::NoTable { .. }), "{missing}");
    assert!(missing.to_string().contains("table nothing does not exist"));

    table_with(&client, "quiet", None).await;
    let quiet = TableStream::resolve(&client, "quiet").await.unwrap_err();
    assert!(matches!(quiet, ResolveError::NoStream { .. }), "{quiet}");
    assert!(quiet.to_string().contains("--table-name quiet"), "{quiet}");

    for (name, view) in [
        ("keys", StreamViewType::KeysOnly),
        ("old", StreamViewType::OldImage),
    ] {
        table_with(&client, name, Some(view)).await;
        let found = TableStream::resolve(&client, name).await.unwrap();
        let blind = found.with_new_images().unwrap_err();
        assert!(matches!(blind, ResolveError::NoNewImages { .. }), "{blind}");
    }
}

#[tokio::test]
async fn a_view_without_images_still_brings_the_keys() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    table_with(&client, "keys", Some(StreamViewType::KeysOnly)).await;
    let put = client.put_item().table_name("keys");
    let put = put.item("shop", text("s")).item("order", text("o"));
    put.item("secret", text("x")).send().await.unwrap();
    let found = TableStream::resolve(&client, "keys").await.unwrap();
    let records = records(&stream_of(server.url(), &found.arn)).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event, Event::Insert);
    assert_eq!(records[0].view, StreamView::KeysOnly);
    assert_eq!(records[0].keys.inner().len(), 2);
    assert_eq!(
        (&records[0].new_image, &records[0].old_image),
        (&None, &None)
    );
}

async fn tables_are_made_once(client: &Client, name: &str) {
    let lease = format!("{name}-leases");
    let ledger = format!("{name}-ledger");
    let orders = format!("{name}-orders");
    for expected in [Created::Created, Created::Existed] {
        assert_eq!(create_lease_table(client, &lease).await.unwrap(), expected);
        assert_eq!(
            create_ledger_table(client, &ledger).await.unwrap(),
            expected
        );
        assert_eq!(
            create_orders_table(client, &orders).await.unwrap(),
            expected
        );
    }
    let error = create_ledger_table(client, &lease).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(r#"["group_table", "row"]"#), "{text}");
}

#[tokio::test]
async fn tables_are_made_once_on_embedded() {
    let server = Embedded::start();
    tables_are_made_once(&clients::dynamodb(server.url()), "t").await;
}

#[tokio::test]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn tables_are_made_once_on_localstack() {
    let name = format!("t-{:016x}", fastrand::u64(..));
    tables_are_made_once(&clients::dynamodb(&clients::localstack_url()), &name).await;
}

#[tokio::test]
async fn a_position_behind_the_end_brings_nothing_yet() {
    let server = Embedded::start();
    let (client, stream) = orders(server.url(), "orders").await;
    put(&client, "orders", "o-1", "1").await;
    let last = records(&stream).await.pop().unwrap();
    let shard = stream.describe(None).await.unwrap().shards.remove(0);
    let position = Position::After(last.sequence_number);
    let iterator = stream.iterator(&shard.id, &position).await.unwrap();
    let batch = stream.read(&iterator).await.unwrap();
    assert_eq!(batch.records, []);
    let next = batch.next.unwrap();
    put(&client, "orders", "o-2", "1").await;
    let batch = stream.read(&next).await.unwrap();
    let key = batch.records[0].new_image::<Order>().unwrap();
    assert_eq!(key.id, "o-2");
    let earlier = SequenceNumber::parse("0").unwrap();
    assert!(batch.records[0].sequence_number > earlier);
}
