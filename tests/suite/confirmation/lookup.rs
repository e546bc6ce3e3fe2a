//! The order read back and the suppression list, on a real table.

use std::time::{Duration, SystemTime};

use aftercommit::confirmation::dynamodb::{DynamoDbLookup, SuppressionList};
use aftercommit::confirmation::lookup::{Current, Lookup, address_hash};
use aftercommit::stores::tables::dynamodb::{create_orders_table, create_suppression_table};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_dynamo::to_item;

use crate::support::clients;
use crate::support::embedded::Embedded;

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
