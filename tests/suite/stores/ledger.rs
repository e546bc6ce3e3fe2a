//! The ledger as DynamoDB stores it: expiry, rows of a newer build, pages, rows that need attention.

use std::time::{Duration, SystemTime};

use aftercommit::internal::claim::{Attention, Entry, State};
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger as _, Swap};
use aftercommit::stores::tables::dynamodb::create_ledger_table;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::StreamExt as _;

use crate::stores::contract_ledger::{at, claimed, effect, listed, sent};
use crate::support::server::{Server, on_each_server};
use crate::support::wiretap::Wiretap;

const RETENTION: Duration = Duration::from_hours(24 * 30);

on_each_server! {
    OnServer::on;
    a_row_expires_when_its_retention_has_passed_since_its_last_change,
    nobody_makes_a_row_expire_sooner,
    a_row_of_a_newer_build_is_neither_read_nor_overwritten,
    a_listing_continues_over_pages_and_past_rows_that_cannot_be_read,
    what_needs_attention_is_counted_and_listed_until_it_is_resolved,
    a_hundred_rows_that_are_wanted_at_a_time_are_read_in_one_call,
}

/// A ledger on a server.
pub struct OnServer {
    server: Server,
    table: String,
}

impl OnServer {
    /// Makes the table on a server.
    pub async fn on(server: Server) -> Self {
        let table = "ledger-under-test".to_owned();
        create_ledger_table(&server.client, &table).await.unwrap();
        Self { server, table }
    }

    pub fn ledger(&self) -> DynamoDbLedger {
        DynamoDbLedger::new(self.server.client.clone(), &self.table, RETENTION)
    }

    async fn set(&self, key: &EffectKey, name: &str, value: AttributeValue) {
        let update = self.server.client.update_item().table_name(&self.table);
        update
            .key("effect", AttributeValue::S(key.as_str().to_owned()))
            .update_expression("SET #name = :value")
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .unwrap();
    }
}

async fn a_row_expires_when_its_retention_has_passed_since_its_last_change(server: OnServer) {
    let key = effect();
    let claim = claimed(1);
    server.ledger().swap(&key, None, &claim).await.unwrap();
    server
        .ledger()
        .swap(&key, Some(1), &sent(&claim))
        .await
        .unwrap();
    let get = server.server.client.get_item().table_name(&server.table);
    let get = get.key("effect", AttributeValue::S(key.as_str().to_owned()));
    let row = get.send().await.unwrap().item.unwrap();
    let expected = at(2) + RETENTION;
    let seconds = expected.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seconds = AttributeValue::N(seconds.as_secs().to_string());
    assert_eq!(row["expires"], seconds);
    let ttl = server.server.client.describe_time_to_live();
    let ttl = ttl.table_name(&server.table).send().await.unwrap();
    let attribute = ttl.time_to_live_description.unwrap().attribute_name;
    assert_eq!(attribute.as_deref(), Some("expires"));
}

async fn nobody_makes_a_row_expire_sooner(server: OnServer) {
    let client = &server.server.client;
    let with = |retention| DynamoDbLedger::new(client.clone(), &server.table, retention);
    let key = effect();
    let expires = async || {
        let get = client.get_item().table_name(&server.table);
        let get = get.key("effect", AttributeValue::S(key.as_str().to_owned()));
        get.send().await.unwrap().item.unwrap().remove("expires")
    };
    let claim = claimed(1);
    let long = with(RETENTION * 2);
    long.swap(&key, None, &claim).await.unwrap();
    let set = expires().await;
    assert!(set.is_some());
    let short = with(RETENTION);
    // A try that is repeated is one.
    for _ in 0..2 {
        let swap = short.swap(&key, Some(1), &sent(&claim)).await.unwrap();
        assert_eq!(swap, Swap::Written);
        assert_eq!(expires().await, set);
    }
    assert_eq!(short.read(&key).await.unwrap(), Some(sent(&claim)));
    let lost = short.swap(&key, Some(1), &claimed(2)).await.unwrap();
    assert_eq!(lost, Swap::Lost(Some(sent(&claim))));
    // Nor one that is kept forever.
    let other = effect();
    let forever = with(Duration::MAX);
    forever.swap(&other, None, &claim).await.unwrap();
    short.swap(&other, Some(1), &sent(&claim)).await.unwrap();
    let get = client.get_item().table_name(&server.table);
    let get = get.key("effect", AttributeValue::S(other.as_str().to_owned()));
    let row = get.send().await.unwrap().item.unwrap();
    assert_eq!(row.get("expires"), None);
    assert_eq!(row["state"], AttributeValue::S("SENT".to_owned()));
}

async fn a_row_of_a_newer_build_is_neither_read_nor_overwritten(server: OnServer) {
    let ledger = server.ledger();
    let key = effect();
    let claim = claimed(1);
    ledger.swap(&key, None, &claim).await.unwrap();
    server
        .set(&key, "format", AttributeValue::N("2".to_owned()))
        .await;
    let read = ledger.read(&key).await.unwrap_err();
    let text = format!("{read:#}");
    assert!(
        text.contains(key.as_str()) && text.contains("format 2"),
        "{text}"
    );
    ledger.swap(&key, Some(1), &sent(&claim)).await.unwrap_err();
    server
        .set(&key, "format", AttributeValue::N("1".to_owned()))
        .await;
    assert_eq!(ledger.read(&key).await.unwrap(), Some(claim));
}

async fn a_listing_continues_over_pages_and_past_rows_that_cannot_be_read(server: OnServer) {
    let ledger = server.ledger();
    let mut mine = std::collections::BTreeSet::new();
    // A page ends after 1 MB: these are several.
    for nonce in 0..40 {
        let entry = Entry {
            digest: Some("x".repeat(64 * 1024)),
            ..claimed(nonce)
        };
        let key = effect();
        ledger.swap(&key, None, &entry).await.unwrap();
        mine.insert(key);
    }
    let damaged = effect();
    let wrong = AttributeValue::Bool(true);
    server.set(&damaged, "state", wrong).await;
    let first = ledger.list(None, None).await.unwrap();
    assert!(first.next.is_some() && first.entries.len() < 40);
    let mut all = listed(&ledger, None).await;
    assert!(!all.iter().any(|(key, _)| *key == damaged));
    all.retain(|(key, _)| mine.contains(key));
    let keys: std::collections::BTreeSet<_> = all.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!((all.len(), keys), (40, mine));
}

async fn what_needs_attention_is_counted_and_listed_until_it_is_resolved(server: OnServer) {
    // If no other claim is in doubt.
    let server = OnServer {
        table: format!("ledger-{:016x}", fastrand::u64(..)),
        ..server
    };
    let created = create_ledger_table(&server.server.client, &server.table).await;
    created.unwrap();
    let ledger = server.ledger();
    let needed = async || {
        let needed = ledger.attention().await.unwrap();
        let mut listed = Vec::new();
        for why in [
            Attention::Ambiguous,
            Attention::Resending,
            Attention::Released,
        ] {
            let page = ledger.list_needing(why, None).await.unwrap();
            listed.extend(page.entries.into_iter().map(|(key, _)| (why, key)));
        }
        (needed.ambiguous, needed.released, listed)
    };
    let (key, first) = (effect(), claimed(1));
    ledger.swap(&key, None, &first).await.unwrap();
    assert_eq!(needed().await, (0, 0, vec![]));
    let doubt = Entry {
        state: State::Ambiguous,
        revision: 2,
        ..first
    };
    ledger.swap(&key, Some(1), &doubt).await.unwrap();
    let listed = vec![(Attention::Ambiguous, key.clone())];
    assert_eq!(needed().await, (1, 0, listed));
    // The worker that has its record sends it again.
    let again = Entry {
        resends: true,
        revision: 3,
        ..doubt
    };
    ledger.swap(&key, Some(2), &again).await.unwrap();
    let listed = vec![(Attention::Resending, key.clone())];
    assert_eq!(needed().await, (0, 0, listed));
    assert_eq!(ledger.attention().await.unwrap().resending, 1);
    let released = Entry {
        state: State::Retry,
        released: true,
        revision: 4,
        ..again
    };
    ledger.swap(&key, Some(3), &released).await.unwrap();
    let listed = vec![(Attention::Released, key.clone())];
    assert_eq!(needed().await, (0, 1, listed));
    let sent = Entry {
        released: false,
        ..sent(&released)
    };
    ledger.swap(&key, Some(4), &sent).await.unwrap();
    assert_eq!(needed().await, (0, 0, vec![]));
}

async fn a_hundred_rows_that_are_wanted_at_a_time_are_read_in_one_call(on: OnServer) {
    let there = effect();
    let written = on.ledger().swap(&there, None, &claimed(1)).await.unwrap();
    assert_eq!(written, Swap::Written);
    let (wiretap, client) = Wiretap::on(&on.server.client);
    let ledger = DynamoDbLedger::new(client, &on.table, RETENTION);
    let reads = (0..1000).map(|number| {
        let key = if number % 2 == 0 {
            there.clone()
        } else {
            effect()
        };
        let ledger = &ledger;
        async move { (number, ledger.read(&key).await.unwrap().is_some()) }
    });
    let reads = futures_util::stream::iter(reads).buffer_unordered(100);
    let read: Vec<_> = reads.collect().await;
    assert!(
        read.iter()
            .all(|(number, found)| *found == (number % 2 == 0))
    );
    let calls = wiretap.taken();
    assert!(
        calls.iter().all(|call| call.operation == "BatchGetItem"),
        "{calls:?}"
    );
    assert_eq!(calls.len(), 10, "1,000 alone");
}
