//! The order read back and the suppression list, on a real table.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aftercommit::confirmation::dynamodb::{DynamoDbLookup, SuppressionList};
use aftercommit::confirmation::lookup::{Current, Lookup, address_hash};
use aftercommit::stores::tables::dynamodb::{create_orders_table, create_suppression_table};
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::StreamExt as _;
use serde_dynamo::to_item;

use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::wiretap::{Refusal, Wiretap};

#[tokio::test]
async fn an_order_is_read_again_as_it_is_now() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_orders_table(&client, "orders").await.unwrap();
    let lookup = DynamoDbLookup::new().refetching(client.clone(), "orders");
    let keys = to_item(serde_json::json!({ "id": "o1" })).unwrap();
    assert_eq!(lookup.order(&keys).await.unwrap(), Current::Gone);
    let put = client.put_item().table_name("orders");
    let put = put.item("id", AttributeValue::S("o1".into()));
    put.item("total", AttributeValue::N("5".into()))
        .send()
        .await
        .unwrap();
    let item = to_item(serde_json::json!({ "id": "o1", "total": 5 })).unwrap();
    assert_eq!(lookup.order(&keys).await.unwrap(), Current::Item(item));
    let unasked = DynamoDbLookup::new();
    assert_eq!(unasked.order(&keys).await.unwrap(), Current::AsRecorded);
}

#[tokio::test]
async fn an_address_is_spared_while_it_is_on_the_list() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_suppression_table(&client, "list").await.unwrap();
    let list = SuppressionList::new(client.clone(), "list");
    let lookup = DynamoDbLookup::new().sparing(list.clone());
    let ann = "ann@example.com".parse().unwrap();
    let hash = address_hash(&ann);
    assert!(!lookup.is_suppressed(&hash).await.unwrap());
    let since = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    assert!(list.add(&ann, "bounced", since).await.unwrap());
    assert!(!list.add(&ann, "again", since).await.unwrap());
    assert!(lookup.is_suppressed(&hash).await.unwrap());
    let (all, next) = list.page(None).await.unwrap();
    assert_eq!((all.len(), next), (1, None));
    assert_eq!(
        (&all[0].hash, all[0].reason.as_str(), all[0].since),
        (&hash, "bounced", since)
    );
    list.remove(&ann).await.unwrap();
    list.remove(&ann).await.unwrap();
    assert!(!lookup.is_suppressed(&hash).await.unwrap());
}

/// The calls that reading these orders takes, so many at a time, by operation.
async fn calls(orders: usize, at_a_time: usize) -> BTreeMap<String, usize> {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_orders_table(&client, "orders").await.unwrap();
    for number in 0..orders {
        let id = AttributeValue::S(format!("o{number}"));
        let put = client.put_item().table_name("orders").item("id", id);
        put.send().await.unwrap();
    }
    let (wiretap, client) = Wiretap::on(&client);
    let lookup = DynamoDbLookup::new().refetching(client, "orders");
    let reads = (0..orders).map(|number| {
        let keys = to_item(serde_json::json!({ "id": format!("o{number}") })).unwrap();
        let lookup = &lookup;
        async move {
            assert_eq!(lookup.order(&keys).await.unwrap(), Current::Item(keys));
        }
    });
    let reads = futures_util::stream::iter(reads).buffer_unordered(at_a_time);
    reads.collect::<Vec<()>>().await;
    let mut calls = BTreeMap::new();
    for request in wiretap.taken() {
        *calls.entry(request.operation).or_default() += 1;
    }
    calls
}

#[tokio::test]
async fn a_thousand_orders_are_read_in_ten_calls_if_a_hundred_are_wanted_at_a_time() {
    assert_eq!(
        calls(1000, 100).await,
        [("BatchGetItem".to_owned(), 10)].into()
    );
    assert_eq!(calls(100, 1).await, [("GetItem".to_owned(), 100)].into());
}

#[tokio::test]
async fn orders_that_a_shared_call_leaves_out_or_fails_for_are_read_one_by_one() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_orders_table(&client, "orders").await.unwrap();
    let (wiretap, client) = Wiretap::on(&client);
    wiretap.refuse("BatchGetItem", Refusal::Throttled, usize::MAX);
    let lookup = DynamoDbLookup::new().refetching(client, "orders");
    let keys = ["a", "b"].map(|id| to_item(serde_json::json!({ "id": id })).unwrap());
    let read = futures_util::future::join_all(keys.iter().map(|keys| lookup.order(keys))).await;
    assert!(
        read.iter()
            .all(|read| *read.as_ref().unwrap() == Current::Gone),
        "{read:?}"
    );
    // A key that does not fit the table fails alone.
    let wrong = to_item(serde_json::json!({ "id": 7 })).unwrap();
    let keys = [&keys[0], &wrong, &keys[1]];
    let read = futures_util::future::join_all(keys.map(|keys| lookup.order(keys))).await;
    let read: Vec<_> = read.iter().map(Result::is_ok).collect();
    assert_eq!(read, [true, false, true]);
}
