//! A handler of your own: every new order is posted to a webhook, each item in its order,
//! however often the worker or the webhook fails. `cargo run --example webhook`
//!
//! It runs against an embedded DynamoDB and a webhook in this process, which is down at first.

// The handler, as the README shows it.
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::tables::dynamodb::TableStream;
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Order {
    id: String,
    total: u64,
}

struct Webhook(std::net::SocketAddr);

impl RecordHandler for Webhook {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        if record.event != Event::Insert {
            context.did_not_ask(); // Not our change: it says nothing about the webhook.
            return Ok(());
        }
        let order: Order = record.new_image()?; // A bad order becomes a dead letter that names the field.
        match post(self.0, &order).await? {
            200..=299 => Ok(()),
            429 => Err(Failure::overloaded("answer 429")),
            status @ 400..=499 => Err(Failure::reject(format!("answer {status}"))),
            status => Err(Failure::unavailable(format!("answer {status}"))),
        }
    }
}

async fn deliver(
    dynamodb: aws_sdk_dynamodb::Client,
    streams: aws_sdk_dynamodbstreams::Client,
    webhook: std::net::SocketAddr,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let arn = TableStream::resolve(&dynamodb, "orders").await?.arn;
    let orders = GroupTable::new(Group::new("webhook")?, &arn);
    let source = DynamoDbStream::new(streams, &arn, Clock::system());
    let leases = DynamoDbLeases::new(dynamodb.clone(), "aftercommit-leases", &orders);
    // Without dead letters, the first bad record holds its shard's checkpoint.
    let letters = DynamoDbDeadLetters::new(dynamodb, "aftercommit-dead-letters");
    let consumer = Consumer::new(orders, source, leases, Webhook(webhook));
    consumer.dead_letters(letters).run(shutdown).await
}
// End of the handler.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use aftercommit::stores::tables::dynamodb::{
    create_dead_letter_table, create_lease_table, create_orders_table,
};
use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post as on_post;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::clients;
use crate::support::embedded::Embedded;

#[path = "../tests/support/mod.rs"]
mod support;

const ORDERS: usize = 20;
/// How many calls the webhook answers with "503 Service Unavailable" before it is up.
const DOWN: usize = 5;

/// Posts an order. Its id goes along as the key by which the receiver knows it again: a record
/// may come more than once.
async fn post(to: SocketAddr, order: &Order) -> io::Result<u16> {
    let body = serde_json::to_string(order)?;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nIdempotency-Key: {}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        order.id,
        body.len()
    );
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.ok_or_else(|| io::Error::other("no HTTP answer"))
}

/// What the webhook heard.
#[derive(Default)]
struct Heard {
    calls: usize,
    orders: BTreeMap<String, usize>,
}

/// A webhook that is down at first; notifies when every order has come.
async fn webhook(all_came: Arc<Notify>) -> io::Result<(SocketAddr, Arc<Mutex<Heard>>)> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let state = heard.clone();
    let hear = move |headers: HeaderMap| async move {
        let key = headers.get("idempotency-key");
        let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
        let mut heard = state.lock().unwrap_or_else(PoisonError::into_inner);
        heard.calls += 1;
        if heard.calls <= DOWN {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        *heard.orders.entry(key.to_owned()).or_default() += 1;
        if heard.orders.len() == ORDERS {
            all_came.notify_one();
        }
        StatusCode::NO_CONTENT
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Router::new().route("/", on_post(hear));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok((address, heard))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_lease_table(&client, "aftercommit-leases").await?;
    create_dead_letter_table(&client, "aftercommit-dead-letters").await?;
    create_orders_table(&client, "orders").await?;
    let all_came = Arc::new(Notify::new());
    let (address, heard) = webhook(all_came.clone()).await?;

    let streams = clients::streams(server.url());
    let shutdown = async move { all_came.notified().await };
    let consuming = tokio::spawn(deliver(client.clone(), streams, address, shutdown));

    for n in 0..ORDERS {
        let put = client.put_item().table_name("orders");
        let put = put.item("id", AttributeValue::S(format!("W-{n:03}")));
        let put = put.item("total", AttributeValue::N((n * 100).to_string()));
        put.send().await?;
    }
    println!("{ORDERS} orders committed; the webhook is down for {DOWN} calls");
    consuming.await??;
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} calls, {} orders delivered",
        heard.calls,
        heard.orders.len()
    );
    Ok(())
}
