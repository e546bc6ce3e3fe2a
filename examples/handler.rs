//! A handler in another language: commits orders, and posts each to the URL that is given.
//!
//!     python3 examples/python/handler.py 8080 &
//!     cargo run --example handler -- http://127.0.0.1:8080/
//!
//! It runs against an embedded DynamoDB in this process. `aftercommit run --handler URL` does the same with a
//! table of yours.

use std::time::Duration;

use aftercommit::handlers::http::{HttpHandler, HttpSettings};
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::tables::dynamodb::{
    TableStream, create_dead_letter_table, create_lease_table, create_orders_table,
};
use aftercommit::{Clock, Consumer, EffectName, Group, GroupTable, Settings};
use anyhow::Context as _;
use aws_sdk_dynamodb::types::AttributeValue;
use tokio_util::sync::CancellationToken;

use crate::support::clients;
use crate::support::embedded::Embedded;

#[path = "../tests/support/mod.rs"]
mod support;

const ORDERS: u64 = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("name the handler's URL")?;
    let handler = HttpHandler::new(HttpSettings::new(url.parse()?))?;
    let handler = handler.effect(EffectName::new("placed")?);

    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_lease_table(&client, "aftercommit-leases").await?;
    create_dead_letter_table(&client, "aftercommit-dead-letters").await?;
    create_orders_table(&client, "orders").await?;
    let arn = TableStream::resolve(&client, "orders").await?.arn;
    let orders = GroupTable::new(Group::new("placed")?, &arn);
    let source = DynamoDbStream::new(clients::streams(server.url()), &arn, Clock::system());
    let leases = DynamoDbLeases::new(client.clone(), "aftercommit-leases", &orders);
    let letters = DynamoDbDeadLetters::new(client.clone(), "aftercommit-dead-letters");
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    let consumer = Consumer::new(orders, source, leases)
        .handler(handler)
        .settings(settings)
        .dead_letters(letters);
    let counters = consumer.counters();
    let stop = CancellationToken::new();
    let consuming = tokio::spawn(consumer.run(stop.clone().cancelled_owned()));

    for n in 0..ORDERS {
        let put = client.put_item().table_name("orders");
        let put = put
            .item("id", AttributeValue::S(format!("order-{n}")))
            .item("email", AttributeValue::S("ada@example.com".to_owned()));
        put.send().await?;
    }
    println!("{ORDERS} orders committed; each is posted to {url}");
    while counters.handled.load(std::sync::atomic::Ordering::Relaxed) < ORDERS {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    consuming.await??;
    println!("{ORDERS} orders handled");
    Ok(())
}
