//! A table that is followed over the wire, through all of its streams.

use aftercommit::internal::shard::ShardId;
use aftercommit::record::Position;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::leases::{Consistency, LeaseStore as _};
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::source::{Description, SourceError, StreamSource as _};
use aftercommit::stores::tables::dynamodb::{TableStream, create_lease_table, create_orders_table};
use aftercommit::{Clock, Group, GroupTable};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::StreamViewType;
use aws_sdk_dynamodbstreams::config::retry::RetryConfig;

use crate::fleet::wire_fleet::{Seen, Worker};
use crate::fleet::wire_streams::order;
use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::shop::specify_stream;
use crate::support::streams_server::{Fault, Operation, StreamsServer};

/// A table whose streams are served in virtual shards.
struct Table {
    client: Client,
    server: StreamsServer,
    source: DynamoDbStream,
    /// The ARN of its first stream.
    first: String,
    _embedded: Embedded,
}

impl Table {
    async fn open(shards: u16) -> Self {
        let embedded = Embedded::start();
        let client = clients::dynamodb(embedded.url());
        create_orders_table(&client, "orders").await.unwrap();
        let first = TableStream::resolve(&client, "orders").await.unwrap().arn;
        let server = StreamsServer::start(&embedded, &first, shards);
        let streams = clients::streams(server.url());
        // A single fault shows.
        let config = streams.config().to_builder();
        let config = config.retry_config(RetryConfig::disabled()).build();
        let streams = aws_sdk_dynamodbstreams::Client::from_conf(config);
        let (table, _) = first.split_once("/stream/").unwrap();
        let named = ("orders", table);
        let source = DynamoDbStream::of_table(streams, client.clone(), named, Clock::system());
        Self {
            client,
            server,
            source: source.with_new_images(),
            first,
            _embedded: embedded,
        }
    }

    async fn switch_off(&self) {
        self.server.switch_off();
        specify_stream(&self.client, "orders", None).await;
    }

    /// Switches a stream on; answers its ARN.
    async fn switch_on(&self, view: StreamViewType, shards: u16) -> String {
        specify_stream(&self.client, "orders", Some(view)).await;
        let arn = TableStream::resolve(&self.client, "orders")
            .await
            .unwrap()
            .arn;
        self.server.switch_on(&arn, shards);
        arn
    }

    async fn replace(&self) -> String {
        self.switch_off().await;
        self.switch_on(StreamViewType::NewAndOldImages, 1).await
    }

    async fn describe(&self) -> Description {
        self.source.describe(None).await.unwrap()
    }
}

/// The labels of the streams that were found, oldest first.
fn labels(found: &Description) -> Vec<&str> {
    let labels = found.streams.iter().map(|stream| &*stream.label);
    labels.collect()
}

fn label(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

fn shards_of<'a>(found: &'a Description, arn: &str) -> Vec<&'a ShardId> {
    let shards = found.shards.iter().map(|shard| &shard.id);
    shards
        .filter(|shard| shard.label() == Some(label(arn)))
        .collect()
}

#[tokio::test]
async fn a_second_stream_is_found_and_both_are_read_each_by_its_own_arn() {
    let table = Table::open(2).await;
    order(&table.client, 0..10, 1).await;
    let second = table.replace().await;
    order(&table.client, 10..15, 1).await;
    let found = table.describe().await;
    assert_eq!(labels(&found), [label(&table.first), label(&second)]);
    assert_eq!(found.trouble, None);
    let mut read = Vec::new();
    for arn in [&table.first, &second] {
        let mut records = 0;
        for shard in shards_of(&found, arn) {
            let iterator = table.source.iterator(shard, &Position::Horizon).await;
            let batch = table.source.read(&iterator.unwrap()).await.unwrap();
            records += batch.records.len();
            assert_eq!(batch.next.is_none(), *arn == table.first, "only it ended");
        }
        read.push(records);
    }
    assert_eq!(read, [10, 5]);
    // An earlier stream that is read to its end is named only.
    let later = table.source.describe(Some(label(&second))).await.unwrap();
    assert_eq!(labels(&later).len(), 2);
    assert!(shards_of(&later, &table.first).is_empty());
    assert_eq!(shards_of(&later, &second).len(), 1);
}

#[tokio::test]
async fn every_page_of_the_list_of_streams_is_read() {
    let table = Table::open(1).await;
    let mut arns = vec![table.first.clone()];
    for _ in 0..4 {
        arns.push(table.replace().await);
    }
    table.server.streams_per_page(2);
    let before = table.server.calls(Operation::ListStreams).len();
    let found = table.describe().await;
    assert_eq!(
        labels(&found),
        arns.iter().map(|arn| label(arn)).collect::<Vec<_>>()
    );
    let calls = table.server.calls(Operation::ListStreams).len() - before;
    assert_eq!(calls, 3);
}

#[tokio::test]
async fn the_streams_of_other_tables_are_not_followed_whatever_the_server_lists() {
    let table = Table::open(1).await;
    let others = [
        // Another table, and one of the same name in another account.
        table
            .first
            .replace("table/orders/", "table/orders-archive/"),
        table.first.replace("000000000000", "123456789012"),
    ];
    for other in &others {
        assert_ne!(*other, table.first);
        table.server.list_stranger(other);
    }
    assert_eq!(labels(&table.describe().await), [label(&table.first)]);
}

#[tokio::test]
async fn the_present_stream_is_found_before_it_is_listed() {
    let table = Table::open(1).await;
    let second = table.replace().await;
    table.server.do_not_list(&second);
    let found = table.describe().await;
    assert_eq!(labels(&found), [label(&table.first), label(&second)]);
    assert_eq!(shards_of(&found, &second).len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_listed_and_gone_is_left_out() {
    let table = Table::open(1).await;
    let second = table.replace().await;
    table.server.forget_stream(&table.first);
    table.server.list_stranger(&table.first);
    assert_eq!(labels(&table.describe().await), [label(&second)]);
    let shard = ShardId::of_stream(label(&table.first), "shardId-1");
    let gone = table.source.iterator(&shard, &Position::Horizon).await;
    assert!(matches!(gone, Err(SourceError::Gone)), "{gone:?}");
}

#[tokio::test]
async fn a_throttle_of_any_call_fails_the_listing_as_a_throttle() {
    let table = Table::open(1).await;
    table.server.streams_per_page(1);
    table.replace().await;
    for operation in [Operation::ListStreams, Operation::DescribeStream] {
        table.server.fail(operation, Fault::LimitExceeded, 1);
        let throttled = table.source.describe(None).await;
        let is_throttle = matches!(throttled, Err(SourceError::Throttled(_)));
        assert!(is_throttle, "{operation:?}: {throttled:?}");
        assert_eq!(table.describe().await.streams.len(), 2, "{operation:?}");
    }
}

#[tokio::test]
async fn a_table_without_a_usable_stream_says_what_to_do() {
    let table = Table::open(1).await;
    table.switch_off().await;
    let off = table.describe().await;
    assert_eq!(
        labels(&off),
        [label(&table.first)],
        "it is listed for a day"
    );
    assert_eq!(shards_of(&off, &table.first).len(), 1);
    let trouble = off.trouble.unwrap();
    let what_to_do = "StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES";
    assert!(trouble.contains(what_to_do), "{trouble}");

    let blind = table.switch_on(StreamViewType::KeysOnly, 1).await;
    let found = table.describe().await;
    assert_eq!(labels(&found), [label(&table.first), label(&blind)]);
    assert!(
        shards_of(&found, &blind).is_empty(),
        "its records are no use"
    );
    let trouble = found.trouble.unwrap();
    assert!(trouble.contains("KEYS_ONLY"), "{trouble}");
}

#[tokio::test]
async fn a_group_reads_its_table_through_a_replaced_stream_without_a_gap() {
    let table = Table::open(2).await;
    create_lease_table(&table.client, "leases").await.unwrap();
    let at = GroupTable::new(Group::default(), &table.first);
    let leases = DynamoDbLeases::new(table.client.clone(), "leases", &at);
    let seen = Seen::new();
    let worker = Worker::follow(&table.source, &leases, "one", &seen);
    order(&table.client, 0..20, 1).await;
    seen.reaches(20).await;
    table.replace().await;
    order(&table.client, 0..20, 2).await;
    seen.reaches(40).await;
    worker.leave().await;
    let view = leases.look(Consistency::Strong).await.unwrap();
    assert_eq!(view.gaps, []);
    assert_eq!(view.streams.len(), 2);
}
