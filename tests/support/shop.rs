//! A shop with its tables: commits orders, and checks in the end who got a mail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aftercommit::EffectName;
use aftercommit::internal::claim::{Entry, OnAmbiguous, State};
use aftercommit::stores::dead_letter::EffectTable;
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::tables::dynamodb::{
    TableStream, create_dead_letter_table, create_lease_table, create_ledger_table,
    create_orders_table,
};
use aftercommit::{Clock, Consumer, Group, GroupTable, Settings};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeValue, PutRequest, StreamSpecification, StreamViewType, WriteRequest,
};

use super::clients;
use super::mail_server::MailServer;
use super::orders::{rules, smtp_settings, worker};

/// The most items of one `BatchWriteItem`.
const BATCH: usize = 25;

/// How long a worker may be silent in these tests.
pub const LEASE: Duration = Duration::from_secs(1);

/// Tables of its own on a server.
pub struct Shop {
    pub url: String,
    pub client: Client,
    pub orders: String,
    pub leases: String,
    pub ledger: String,
    pub letters: String,
    pub arn: String,
}

impl Shop {
    pub async fn open(url: &str) -> Self {
        let client = clients::dynamodb(url);
        let id = fastrand::u64(..);
        let [orders, leases, ledger, letters] =
            ["orders", "leases", "ledger", "letters"].map(|kind| format!("{kind}-{id:016x}"));
        create_orders_table(&client, &orders).await.unwrap();
        create_lease_table(&client, &leases).await.unwrap();
        create_ledger_table(&client, &ledger).await.unwrap();
        create_dead_letter_table(&client, &letters).await.unwrap();
        let arn = TableStream::resolve(&client, &orders).await.unwrap().arn;
        Self {
            url: url.to_owned(),
            client,
            orders,
            leases,
            ledger,
            letters,
            arn,
        }
    }

    /// Commits the orders with these numbers.
    pub async fn place(&self, numbers: impl IntoIterator<Item = usize>) {
        self.put(numbers, "PLACED").await;
    }

    /// Commits that the orders with these numbers are shipped.
    pub async fn ship(&self, numbers: impl IntoIterator<Item = usize>) {
        self.put(numbers, "SHIPPED").await;
    }

    async fn put(&self, numbers: impl IntoIterator<Item = usize>, status: &str) {
        let numbers: Vec<_> = numbers.into_iter().collect();
        for some in numbers.chunks(BATCH) {
            let mut left: Vec<_> = some.iter().map(|n| write(*n, status)).collect();
            while !left.is_empty() {
                let batch = self.client.batch_write_item();
                let answer = batch.request_items(&self.orders, left).send().await;
                let rest = answer.unwrap().unprocessed_items.unwrap_or_default();
                left = rest.into_values().flatten().collect();
            }
        }
    }

    /// The group that confirms its orders.
    pub fn group_table(&self) -> GroupTable {
        GroupTable::new(Group::default(), &self.arn)
    }

    pub fn lease_store(&self) -> DynamoDbLeases {
        DynamoDbLeases::new(self.client.clone(), &self.leases, &self.group_table())
    }

    pub fn ledger(&self) -> DynamoDbLedger {
        let retention = Duration::from_hours(24 * 400);
        DynamoDbLedger::new(self.client.clone(), &self.ledger, retention)
    }

    /// The place of the dead letters of its confirmation.
    pub fn letters_at(&self) -> EffectTable {
        EffectTable::new(self.group_table(), EffectName::default())
    }

    pub fn dead_letters(&self) -> DynamoDbDeadLetters {
        DynamoDbDeadLetters::new(self.client.clone(), &self.letters)
    }

    /// How its workers work: quickly.
    pub fn settings(name: &str) -> Settings {
        let mut settings = Settings::default();
        settings.worker_id = name.into();
        settings.start = InitialPosition::TrimHorizon;
        settings.timing.lease_duration = LEASE;
        settings.timing.heartbeat_interval = LEASE / 5;
        settings.timing.look_interval = LEASE / 10;
        settings.timing.checkpoint_interval = LEASE / 5;
        settings
    }

    /// A worker in this process; dropping its future is a crash.
    pub fn worker(
        &self,
        name: &str,
        mails: &MailServer,
        policy: OnAmbiguous,
    ) -> Consumer<DynamoDbStream, DynamoDbLeases> {
        let source = DynamoDbStream::new(clients::streams(&self.url), &self.arn, Clock::system());
        let handler = worker(self.ledger(), smtp_settings(mails), rules(policy));
        Consumer::new(self.group_table(), source, self.lease_store())
            .handler(handler)
            .settings(Self::settings(name))
            .dead_letters(self.dead_letters())
    }

    /// All rows of the ledger.
    pub async fn all_rows(&self) -> BTreeMap<EffectKey, Entry> {
        let ledger = self.ledger();
        let mut rows = BTreeMap::new();
        let mut from = None;
        loop {
            let page = ledger.list(None, from.as_deref()).await.unwrap();
            rows.extend(page.entries);
            from = page.next;
            if from.is_none() {
                return rows;
            }
        }
    }

    /// The ledger's rows by order number.
    pub async fn rows(&self, orders: usize) -> BTreeMap<usize, Entry> {
        let mut rows = self.all_rows().await;
        let row = |n| {
            Some((
                n,
                rows.remove(&EffectKey::new(&EffectName::default(), &id(n)))?,
            ))
        };
        (0..orders).filter_map(row).collect()
    }

    /// Waits until nothing more is going to happen to any order.
    pub async fn finished(&self, orders: usize, policy: OnAmbiguous) -> BTreeMap<usize, Entry> {
        loop {
            let began = Instant::now();
            let rows = self.rows(orders).await;
            if rows.len() == orders && rows.values().all(|row| is_finished(row, policy)) {
                return rows;
            }
            // The workers need the server, too.
            tokio::time::sleep(began.elapsed() * 10).await;
        }
    }
}

/// Switches the stream of a table off, or one with this view on.
pub async fn specify_stream(client: &Client, table: &str, view: Option<StreamViewType>) {
    let stream = StreamSpecification::builder()
        .stream_enabled(view.is_some())
        .set_stream_view_type(view)
        .build()
        .unwrap();
    let update = client.update_table().table_name(table);
    update.stream_specification(stream).send().await.unwrap();
}

/// Whether nothing more is going to happen to the effect of this row.
pub fn is_finished(row: &Entry, policy: OnAmbiguous) -> bool {
    match row.state {
        State::Sent | State::Failed | State::Suppressed => true,
        State::Ambiguous => policy == OnAmbiguous::Park || row.doubtful.len() > 1,
        State::Sending | State::Retry => false,
    }
}

/// Every order has exactly one mail, or its row says that nobody could tell; nobody has more than
/// two, and nobody has two without a doubt that was written down. Returns how many were in doubt.
pub fn check(rows: &BTreeMap<usize, Entry>, mails: &MailServer, policy: OnAmbiguous) -> usize {
    let accepted = mails.by_recipient();
    let doubts = rows.iter().filter(|(n, row)| {
        let count = accepted.get(&address(**n)).copied().unwrap_or(0);
        is_doubt(&id(**n), row, count, policy)
    });
    let doubts = doubts.count();
    assert!(accepted.len() <= rows.len(), "mails to strangers");
    doubts
}

/// Whether an effect that took place `count` times was in doubt. If not, it took place once.
pub fn is_doubt(of: &str, row: &Entry, count: usize, policy: OnAmbiguous) -> bool {
    let most = match policy {
        OnAmbiguous::Resend => 2,
        OnAmbiguous::Park => 1,
    };
    if row.ambiguities == 0 {
        assert_eq!((row.state, count), (State::Sent, 1), "{of}: {row:?}");
        return false;
    }
    assert!(count <= most, "{of} took place {count} times: {row:?}");
    assert!(count > 0 || row.state == State::Ambiguous, "{of}: {row:?}");
    true
}

pub fn id(n: usize) -> String {
    format!("T-{n:06}")
}

pub fn address(n: usize) -> String {
    format!("customer-{n}@example.com")
}

fn write(n: usize, status: &str) -> WriteRequest {
    let put = PutRequest::builder()
        .item("id", AttributeValue::S(id(n)))
        .item("email", AttributeValue::S(address(n)))
        .item("status", AttributeValue::S(status.to_owned()))
        .item("total", AttributeValue::N("1999".to_owned()))
        .item("currency", AttributeValue::S("EUR".to_owned()));
    WriteRequest::builder()
        .put_request(put.build().unwrap())
        .build()
}
