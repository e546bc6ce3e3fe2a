//! The stream source over the wire, where a stream does what no emulator does: shards split, roll
//! over and disappear, data is trimmed, iterators expire.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aftercommit::internal::shard::{Shard, ShardId};
use aftercommit::record::SequenceNumber;
use aftercommit::record::{ItemKey, Position};
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::source::{SourceError, StreamSource as _};
use aftercommit::stores::tables::dynamodb::{TableStream, create_orders_table};
use aftercommit::{Clock, Record};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::streams_server::{Children, Operation, StreamsServer};

/// A table of orders whose stream is served in virtual shards.
pub struct Shop {
    pub client: Client,
    pub server: StreamsServer,
    pub stream: DynamoDbStream,
    _embedded: Embedded,
}

impl Shop {
    pub async fn open(shards: u16) -> Self {
        let embedded = Embedded::start();
        let client = clients::dynamodb(embedded.url());
        create_orders_table(&client, "orders").await.unwrap();
        let found = TableStream::resolve(&client, "orders").await.unwrap();
        let server = StreamsServer::start(&embedded, &found.arn, shards);
        let streams = clients::streams(server.url());
        Self {
            client,
            stream: DynamoDbStream::new(streams, &found.arn, Clock::system()),
            server,
            _embedded: embedded,
        }
    }

    /// Writes orders `range`, each with this total.
    pub async fn order(&self, range: std::ops::Range<u32>, total: u32) {
        order(&self.client, range, total).await;
    }

    pub fn only_shard(&self) -> String {
        let mut open = self.server.open_shards();
        assert_eq!(open.len(), 1);
        open.remove(0)
    }

    /// The id of a shard, qualified by its stream.
    pub fn id(&self, shard: &str) -> ShardId {
        let (_, label) = self.stream.arn().split_once("/stream/").unwrap();
        ShardId::of_stream(label, shard)
    }

    fn child(&self, of: &str, shard: &str) -> Shard {
        Shard {
            id: self.id(shard),
            parent: Some(self.id(of)),
        }
    }

    async fn listed(&self) -> Vec<Shard> {
        self.stream.describe(None).await.unwrap().shards
    }

    /// All records of a shard from a position, and whether the shard has ended.
    async fn read(&self, shard: &str, from: &Position) -> (Vec<Record>, bool) {
        let iterator = self.stream.iterator(&self.id(shard), from).await.unwrap();
        let mut next = Some(iterator);
        let mut records = Vec::new();
        while let Some(iterator) = next {
            let batch = self.stream.read(&iterator).await.unwrap();
            let empty = batch.records.is_empty();
            records.extend(batch.records);
            if empty && batch.next.is_some() {
                return (records, false);
            }
            next = batch.next;
        }
        (records, true)
    }
}

/// Writes orders `range`, each with this total.
pub async fn order(client: &Client, range: std::ops::Range<u32>, total: u32) {
    for n in range {
        let put = client.put_item().table_name("orders");
        let put = put.item("id", AttributeValue::S(format!("o-{n}")));
        let put = put.item("total", AttributeValue::N(total.to_string()));
        put.send().await.unwrap();
    }
}

fn after(record: &Record) -> Position {
    Position::After(record.sequence_number.clone())
}

#[tokio::test]
async fn a_split_sends_each_key_on_to_one_child_in_order() {
    let shop = Shop::open(1).await;
    shop.order(0..40, 1).await;
    let parent = shop.only_shard();
    let [left, right] = shop.server.split(&parent);
    shop.order(0..40, 2).await;
    shop.order(0..40, 3).await;

    let (before, ended) = shop.read(&parent, &Position::Horizon).await;
    assert!(ended, "the parent ends behind its last record");
    assert_eq!(before.len(), 40);
    let mut of_key: BTreeMap<ItemKey, Vec<(String, u32)>> = BTreeMap::new();
    for shard in [&left, &right] {
        let (records, ended) = shop.read(shard, &Position::Horizon).await;
        assert!(!ended && !records.is_empty());
        for record in records {
            let total = record.new_image.as_ref().unwrap()["total"].clone();
            let serde_dynamo::AttributeValue::N(total) = total else {
                panic!("not a number");
            };
            let seen = of_key.entry(record.key()).or_default();
            seen.push((shard.clone(), total.parse().unwrap()));
        }
    }
    assert_eq!(of_key.len(), 40);
    for (key, seen) in of_key {
        let shard = &seen[0].0;
        let expected = [(shard.clone(), 2), (shard.clone(), 3)];
        assert_eq!(seen, expected, "{key:?}");
    }
}

#[tokio::test]
async fn the_lineage_is_listed_over_generations() {
    let shop = Shop::open(2).await;
    let [first, second]: [String; 2] = shop.server.open_shards().try_into().unwrap();
    let [left, right] = shop.server.split(&first);
    let rolled = shop.server.roll_over(&left);
    let root = |name: &str| Shard {
        id: shop.id(name),
        parent: None,
    };
    let expected = [
        root(&first),
        root(&second),
        shop.child(&first, &left),
        shop.child(&first, &right),
        shop.child(&left, &rolled),
    ];
    assert_eq!(shop.listed().await, expected);
    // A parent that is gone is still named.
    shop.server.forget(&first);
    assert_eq!(shop.listed().await, expected[1..]);
}

#[tokio::test]
async fn a_listing_reads_all_pages_and_leaves_calls_to_others() {
    let shop = Shop::open(7).await;
    shop.server.page_size(2);
    // A busy machine delays calls, and so only lengthens what is measured.
    let began = Instant::now();
    assert_eq!(shop.listed().await.len(), 7);
    let took = began.elapsed();
    assert_eq!(shop.server.calls(Operation::DescribeStream).len(), 4);
    let least = Duration::from_millis(3 * 200);
    assert!(took >= least, "four calls in {took:?}: below 5 a second");
}

#[tokio::test]
async fn only_children_are_answered_whatever_the_server_makes_of_the_filter() {
    let shop = Shop::open(2).await;
    let [parent, other]: [String; 2] = shop.server.open_shards().try_into().unwrap();
    let [left, right] = shop.server.split(&parent);
    shop.server.split(&other);
    shop.server.roll_over(&left);
    let expected = [shop.child(&parent, &left), shop.child(&parent, &right)];
    for how in [Children::Filtered, Children::FilterIgnored] {
        shop.server.answer_children(how);
        let children = shop.stream.children(&shop.id(&parent)).await.unwrap();
        assert_eq!(children, expected, "{how:?}");
        let none = shop.stream.children(&shop.id(&right)).await.unwrap();
        assert_eq!(none, [], "{how:?}");
    }
    // Over pages too.
    shop.server.page_size(3);
    let children = shop.stream.children(&shop.id(&parent)).await.unwrap();
    assert_eq!(children, expected);
}

#[tokio::test]
async fn children_may_be_invisible_or_unanswered_for_a_while() {
    let shop = Shop::open(1).await;
    let parent = shop.only_shard();
    shop.server.hide_new_shards();
    let next = shop.server.roll_over(&parent);
    assert_eq!(shop.stream.children(&shop.id(&parent)).await.unwrap(), []);
    assert_eq!(shop.listed().await.len(), 1);
    shop.server.reveal();
    shop.server.answer_no_children(1);
    assert_eq!(shop.stream.children(&shop.id(&parent)).await.unwrap(), []);
    let children = shop.stream.children(&shop.id(&parent)).await.unwrap();
    assert_eq!(children, [shop.child(&parent, &next)]);
}

#[tokio::test]
async fn a_rollover_ends_the_shard_only_when_all_of_it_was_read() {
    let shop = Shop::open(1).await;
    shop.order(0..5, 1).await;
    shop.server.batch_size(2);
    let parent = shop.only_shard();
    let iterator = shop
        .stream
        .iterator(&shop.id(&parent), &Position::Horizon)
        .await;
    let mut next = Some(iterator.unwrap());
    shop.server.roll_over(&parent);
    let mut sizes = Vec::new();
    while let Some(iterator) = next {
        let batch = shop.stream.read(&iterator).await.unwrap();
        sizes.push(batch.records.len());
        next = batch.next;
    }
    assert_eq!(sizes, [2, 2, 1]);
    // Behind its last record an ended shard says so at once.
    let (all, _) = shop.read(&parent, &Position::Horizon).await;
    let (rest, ended) = shop.read(&parent, &after(&all[4])).await;
    assert!(rest.is_empty() && ended);
}

#[tokio::test]
async fn an_expired_iterator_is_made_again_from_the_position() {
    let shop = Shop::open(1).await;
    shop.order(0..3, 1).await;
    let shard = shop.id(&shop.only_shard());
    let iterator = shop.stream.iterator(&shard, &Position::Horizon).await;
    let batch = shop.stream.read(&iterator.unwrap()).await.unwrap();
    assert_eq!(batch.records.len(), 3);
    shop.server.expire_iterators();
    shop.order(3..4, 1).await;
    let error = shop.stream.read(&batch.next.unwrap()).await.unwrap_err();
    assert!(matches!(error, SourceError::Expired), "{error:?}");
    let position = after(&batch.records[2]);
    let iterator = shop.stream.iterator(&shard, &position).await.unwrap();
    let batch = shop.stream.read(&iterator).await.unwrap();
    assert_eq!(batch.records.len(), 1);
}

#[tokio::test]
async fn a_position_that_was_trimmed_is_reported_and_the_horizon_continues_after_it() {
    let shop = Shop::open(1).await;
    shop.order(0..6, 1).await;
    let shard = shop.only_shard();
    let (all, _) = shop.read(&shard, &Position::Horizon).await;
    shop.server.trim(&shard, 4);
    let position = after(&all[1]);
    let error = shop.stream.iterator(&shop.id(&shard), &position).await;
    assert!(matches!(error, Err(SourceError::Trimmed)), "{error:?}");
    let (rest, _) = shop.read(&shard, &Position::Horizon).await;
    assert_eq!(rest, all[4..]);
    // What is still held is found from any position in it.
    let (rest, _) = shop.read(&shard, &after(&all[4])).await;
    assert_eq!(rest, all[5..]);
}

#[tokio::test]
async fn an_iterator_whose_record_was_trimmed_meanwhile_says_trimmed() {
    let shop = Shop::open(1).await;
    shop.order(0..6, 1).await;
    let shard = shop.only_shard();
    let iterator = shop
        .stream
        .iterator(&shop.id(&shard), &Position::Horizon)
        .await;
    shop.server.trim(&shard, 2);
    assert_eq!(shop.server.holds(&shard), 4);
    let error = shop.stream.read(&iterator.unwrap()).await.unwrap_err();
    assert!(matches!(error, SourceError::Trimmed), "{error:?}");
}

#[tokio::test]
async fn a_shard_that_the_stream_forgot_is_gone() {
    let shop = Shop::open(1).await;
    shop.order(0..2, 1).await;
    let parent = shop.only_shard();
    let iterator = shop
        .stream
        .iterator(&shop.id(&parent), &Position::Horizon)
        .await;
    shop.server.roll_over(&parent);
    shop.server.forget(&parent);
    let read = shop.stream.read(&iterator.unwrap()).await.unwrap_err();
    assert!(matches!(read, SourceError::Gone), "{read:?}");
    let anew = shop
        .stream
        .iterator(&shop.id(&parent), &Position::Horizon)
        .await;
    assert!(matches!(anew, Err(SourceError::Gone)), "{anew:?}");
    let children = shop.stream.children(&shop.id(&parent)).await;
    assert!(matches!(children, Err(SourceError::Gone)), "{children:?}");
    let streams = clients::streams(shop.server.url());
    let nowhere = DynamoDbStream::new(streams, "arn:another", Clock::system());
    let described = nowhere.describe(None).await.unwrap_err();
    assert!(matches!(described, SourceError::Gone), "{described:?}");
}

#[tokio::test]
async fn a_read_asks_for_as_many_records_as_the_service_gives() {
    let shop = Shop::open(1).await;
    let items = (0..1001_u32).collect::<Vec<_>>();
    for chunk in items.chunks(25) {
        use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
        let puts = chunk.iter().map(|n| {
            let put = PutRequest::builder().item("id", AttributeValue::S(format!("o-{n}")));
            let put = put.build().unwrap();
            WriteRequest::builder().put_request(put).build()
        });
        let write = shop.client.batch_write_item();
        let write = write.request_items("orders", puts.collect());
        write.send().await.unwrap();
    }
    let shard = shop.id(&shop.only_shard());
    let iterator = shop.stream.iterator(&shard, &Position::Horizon).await;
    let batch = shop.stream.read(&iterator.unwrap()).await.unwrap();
    assert_eq!(batch.records.len(), 1000);
    let batch = shop.stream.read(&batch.next.unwrap()).await.unwrap();
    assert_eq!(batch.records.len(), 1);
    let number: &SequenceNumber = &batch.records[0].sequence_number;
    assert_eq!(number.as_str().len(), 21);
}
