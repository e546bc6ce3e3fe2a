//! A projection: a second table that shows each order as it is now, kept by a handler.
//! `cargo run --example projection`
//!
//! Records may come twice, and a worker that was frozen may write late. Each row carries the version
//! of the record that it shows, and a write under [`Context::NEWER`] never puts an older state over
//! a newer one. It runs against an embedded DynamoDB in this process.

use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::tables::dynamodb::{
    TableStream, create_dead_letter_table, create_lease_table, create_orders_table,
};
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler,
};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::support::clients;
use crate::support::embedded::Embedded;

#[path = "../tests/support/mod.rs"]
mod support;

const TOTALS: &str = "order-totals";
const ORDERS: u32 = 20;
const CHANGES: u32 = 5;

#[derive(Deserialize)]
struct Order {
    total: u64,
}

/// Keeps a row with the total of each order.
struct Projection(Client);

impl RecordHandler for Projection {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let version = AttributeValue::S(context.version(record));
        let put = self.0.put_item().table_name(TOTALS);
        let put = put
            .item("order", AttributeValue::S(record.key().as_str().to_owned()))
            .item("version", version.clone());
        // A removed order keeps its row, or a late write would bring it back. Give such rows a time
        // to live of some days.
        let put = if record.event == Event::Remove {
            put.item("removed", AttributeValue::Bool(true))
        } else {
            let order: Order = record.new_image()?;
            put.item("total", AttributeValue::N(order.total.to_string()))
        };
        let written = put
            .condition_expression(Context::NEWER)
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":version", version)
            .send()
            .await;
        match written {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(PutItemError::is_conditional_check_failed_exception) =>
            {
                Ok(()) // The row is newer already.
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn create_totals(client: &Client) -> anyhow::Result<()> {
    let order = AttributeDefinition::builder().attribute_name("order");
    let order = order.attribute_type(ScalarAttributeType::S).build()?;
    let key = KeySchemaElement::builder().attribute_name("order");
    let key = key.key_type(KeyType::Hash).build()?;
    let table = client.create_table().table_name(TOTALS);
    let table = table.attribute_definitions(order).key_schema(key);
    table
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await?;
    Ok(())
}

/// How many orders the projection shows with their last total.
async fn shown(client: &Client) -> anyhow::Result<usize> {
    let rows = client.scan().table_name(TOTALS).send().await?;
    let last = AttributeValue::N((CHANGES * 100).to_string());
    let shown = rows.items().iter();
    Ok(shown.filter(|row| row.get("total") == Some(&last)).count())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_orders_table(&client, "orders").await?;
    create_lease_table(&client, "aftercommit-leases").await?;
    create_dead_letter_table(&client, "aftercommit-dead-letters").await?;
    create_totals(&client).await?;

    let arn = TableStream::resolve(&client, "orders").await?.arn;
    let orders = GroupTable::new(Group::new("projection")?, &arn);
    let streams = clients::streams(server.url());
    let source = DynamoDbStream::new(streams, &arn, Clock::system());
    let leases = DynamoDbLeases::new(client.clone(), "aftercommit-leases", &orders);
    let letters = DynamoDbDeadLetters::new(client.clone(), "aftercommit-dead-letters");
    let consumer = Consumer::new(orders, source, leases, Projection(client.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let consuming = tokio::spawn(consumer.dead_letters(letters).run(stopped));

    for change in 1..=CHANGES {
        for n in 0..ORDERS {
            let put = client.put_item().table_name("orders");
            let put = put.item("id", AttributeValue::S(format!("P-{n:03}")));
            let put = put.item("total", AttributeValue::N((change * 100).to_string()));
            put.send().await?;
        }
    }
    println!("{ORDERS} orders, each written {CHANGES} times");
    while shown(&client).await? < ORDERS as usize {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    println!("the projection shows the last total of each");
    drop(stop);
    consuming.await??;
    Ok(())
}
