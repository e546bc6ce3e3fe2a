//! The whole engine over the wire: a fleet reads a stream that splits, hides, expires, throttles
//! and trims, with its leases in the embedded DynamoDB.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercommit::record::ItemKey;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::leases::{Consistency, InitialPosition, LeaseStore as _, View};
use aftercommit::stores::source::dynamodb::DynamoDbStream;

use aftercommit::record::SequenceNumber;
use aftercommit::stores::tables::dynamodb::create_lease_table;
use aftercommit::{Consumer, Context, Failure, Group, GroupTable, Record, RecordHandler, Settings};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::fleet::wire_streams::Shop;
use crate::support::streams_server::{
    Children, FILTER_IGNORED, Fault, HIDDEN_CHILD, NO_CHILDREN, Operation,
};
use crate::support::wiretap::Wiretap;

/// What the handlers of a fleet have seen, in the order in which they saw it.
#[derive(Clone)]
pub struct Seen {
    records: Arc<Mutex<Vec<Record>>>,
    distinct: watch::Sender<usize>,
}

impl Seen {
    pub fn new() -> Self {
        Self {
            records: Arc::default(),
            distinct: watch::Sender::new(0),
        }
    }

    fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }

    /// Resolves when this many different records were handled.
    pub async fn reaches(&self, count: usize) {
        let mut distinct = self.distinct.subscribe();
        let reached = distinct.wait_for(|seen| *seen >= count);
        let reached = tokio::time::timeout(Duration::from_mins(1), reached).await;
        reached.expect("all records are handled in time").unwrap();
    }
}

impl RecordHandler for Seen {
    async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
        let mut records = self.records.lock().unwrap();
        records.push(record.clone());
        let numbers: BTreeSet<_> = records.iter().map(|r| &r.sequence_number).collect();
        self.distinct.send_replace(numbers.len());
        Ok(())
    }
}

/// A running worker.
pub struct Worker {
    leave: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Worker {
    fn start(shop: &Shop, leases: &DynamoDbLeases, name: &str, seen: &Seen) -> Self {
        Self::follow(&shop.stream, leases, name, seen)
    }

    /// A worker that follows this stream, or this table.
    pub fn follow(
        source: &DynamoDbStream,
        leases: &DynamoDbLeases,
        name: &str,
        seen: &Seen,
    ) -> Self {
        let mut settings = Settings::default();
        settings.worker_id = name.into();
        settings.start = InitialPosition::TrimHorizon;
        settings.timing.look_interval = Duration::from_millis(100);
        settings.timing.listing_interval = Duration::from_secs(2);
        settings.timing.idle_max = Duration::from_millis(200);
        let at = place(source.arn());
        let consumer = Consumer::new(at, source.clone(), leases.clone()).handler(seen.clone());
        let (leave, left) = oneshot::channel();
        let left = async move { left.await.unwrap_or_default() };
        let task = tokio::spawn(consumer.settings(settings).run(left));
        Self { leave, task }
    }

    /// Drains and waits for the end.
    pub async fn leave(self) {
        self.leave.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn leases(shop: &Shop) -> DynamoDbLeases {
    create_lease_table(&shop.client, "leases").await.unwrap();
    DynamoDbLeases::new(shop.client.clone(), "leases", &place(shop.stream.arn()))
}

fn place(arn: &str) -> GroupTable {
    GroupTable::new(Group::default(), arn)
}

async fn look(leases: &DynamoDbLeases) -> View {
    leases.look(Consistency::Strong).await.unwrap()
}

fn total(record: &Record) -> u32 {
    let image = record.new_image.as_ref().unwrap();
    let serde_dynamo::AttributeValue::N(total) = &image["total"] else {
        panic!("not a number");
    };
    total.parse().unwrap()
}

#[tokio::test]
async fn every_order_is_handled_in_order_through_splits_rollovers_and_throttles() {
    let shop = Shop::open(2).await;
    let leases = leases(&shop).await;
    let seen = Seen::new();
    let one = Worker::start(&shop, &leases, "one", &seen);
    let two = Worker::start(&shop, &leases, "two", &seen);
    let server = &shop.server;
    for round in 1..=6 {
        shop.order(0..30, round).await;
        let open = server.open_shards();
        match round {
            1 => drop(server.split(&open[0])),
            2 => {
                server.hide_new_shards();
                server.roll_over(&open[0]);
                server.meets(HIDDEN_CHILD, 1).await;
                server.open_shards_are_read().await;
                server.expire_iterators();
                server.meets("ExpiredIteratorException", 1).await;
            }
            3 => {
                // Some of the round's records wait in a shard that nobody can see yet. On a busy machine
                // its parent's children may have been given up: another shard ends and asks.
                server.answer_children(Children::FilterIgnored);
                server.reveal();
                server.roll_over(&open[0]);
                server.meets(FILTER_IGNORED, 1).await;
            }
            4 => {
                server.fail(Operation::GetRecords, Fault::LimitExceeded, 5);
                server.meets("LimitExceededException", 5).await;
                server.fail(Operation::DescribeStream, Fault::Throttling, 3);
                server.meets("ThrottlingException", 3).await;
                server.open_shards_are_read().await;
                server.fail(Operation::GetShardIterator, Fault::Internal, 3);
                server.expire_iterators();
                server.meets("InternalServerError", 3).await;
            }
            5 => {
                server.answer_no_children(2);
                server.split(&open[0]);
                server.roll_over(&open[1]);
                server.expire_iterators();
                server.meets(NO_CHILDREN, 2).await;
            }
            _ => {}
        }
    }
    seen.reaches(30 * 6).await;
    one.leave().await;
    two.leave().await;

    let mut of_key: BTreeMap<ItemKey, Vec<u32>> = BTreeMap::new();
    let mut numbers: BTreeSet<SequenceNumber> = BTreeSet::new();
    for record in seen.records() {
        if numbers.insert(record.sequence_number.clone()) {
            of_key.entry(record.key()).or_default().push(total(&record));
        }
    }
    assert_eq!(of_key.len(), 30);
    for (key, totals) in of_key {
        assert_eq!(totals, [1, 2, 3, 4, 5, 6], "{key:?}");
    }
    let view = look(&leases).await;
    assert!(view.workers.is_empty(), "both have left");
    assert_eq!(view.gaps, []);
    let open = server.open_shards();
    for (shard, row) in &view.leases {
        let closed = !open.iter().any(|id| id == shard.id());
        assert!(closed || !row.ended(), "{shard} ended while it was open");
    }
    for id in &open {
        assert!(view.leases.keys().any(|shard| shard.id() == id), "{id}");
    }
}

/// A worker reads five records and leaves. Returns the last of them.
async fn five_are_read(shop: &Shop, leases: &DynamoDbLeases) -> SequenceNumber {
    let before = Seen::new();
    let worker = Worker::start(shop, leases, "one", &before);
    shop.order(0..5, 1).await;
    before.reaches(5).await;
    worker.leave().await;
    before.records()[4].sequence_number.clone()
}

/// The lease table a day later by the server's clock: unread records may have been trimmed.
fn a_day_later(shop: &Shop) -> DynamoDbLeases {
    let (wiretap, client) = Wiretap::on(&shop.client);
    wiretap.set_ahead(Duration::from_hours(25));
    DynamoDbLeases::new(client, "leases", &place(shop.stream.arn()))
}

#[tokio::test]
async fn what_was_trimmed_unread_is_written_down_as_a_gap() {
    let shop = Shop::open(1).await;
    let leases = leases(&shop).await;
    let shard = shop.only_shard();

    let last = five_are_read(&shop, &leases).await;
    // While nobody reads, six more records come and the first four of them are trimmed.
    shop.order(5..11, 1).await;
    shop.server.trim(&shard, 9);

    // A day later: trimmed records may have been unread.
    let after = Seen::new();
    let worker = Worker::start(&shop, &a_day_later(&shop), "one", &after);
    after.reaches(2).await;
    worker.leave().await;
    shop.server.meets("TrimmedDataAccessException", 1).await;

    let gaps = look(&leases).await.gaps;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let first = after.records()[0].sequence_number.clone();
    assert_eq!(gaps[0].shard.id(), shard);
    assert_eq!(gaps[0].last_handled, Some(last));
    assert_eq!(gaps[0].first_after, Some(first));
    assert_eq!(after.records().len(), 2);
}

#[tokio::test]
async fn a_shard_that_the_stream_forgot_is_a_gap_and_its_child_continues() {
    let shop = Shop::open(1).await;
    let leases = leases(&shop).await;
    let parent = shop.only_shard();

    let last = five_are_read(&shop, &leases).await;
    // While nobody reads, three more records come, the shard ends, and a day later it is gone.
    shop.order(5..8, 1).await;
    let child = shop.server.roll_over(&parent);
    shop.order(8..11, 1).await;
    shop.server.forget(&parent);

    let after = Seen::new();
    let worker = Worker::start(&shop, &a_day_later(&shop), "one", &after);
    after.reaches(3).await;
    worker.leave().await;
    shop.server.meets("ResourceNotFoundException", 1).await;

    let view = look(&leases).await;
    // The child is first read a day late: its first records may be lost as well.
    let gaps = view
        .gaps
        .iter()
        .map(|gap| (gap.shard.id(), gap.last_handled.clone()));
    assert_eq!(
        gaps.collect::<Vec<_>>(),
        [(&*parent, Some(last)), (&*child, None)]
    );
    assert_eq!(after.records().len(), 3);
    let reading = view.leases.values().filter(|row| !row.ended());
    assert_eq!(
        reading.map(|row| row.shard.id()).collect::<Vec<_>>(),
        [child]
    );
}
