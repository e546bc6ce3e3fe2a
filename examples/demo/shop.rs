//! A shop: commits orders to its table, some with a payment in the same transaction.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use tokio::time::{MissedTickBehavior, interval};

pub const ORDERS: &str = "orders";
pub const PAYMENTS: &str = "payments";

/// One in this many orders is committed in a transaction.
const TRANSACTED: usize = 4;

/// The address to which order number `n` is confirmed: a different one for each, to tell mails apart.
pub fn address(n: usize) -> String {
    format!("customer-{n}@example.com")
}

/// The id of order number `n`.
pub fn id(n: usize) -> String {
    format!("D-{n:06}")
}

/// Commits `orders` orders, `rate` of them a second.
pub async fn trade(client: Client, orders: usize, rate: f64) -> anyhow::Result<()> {
    let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
    // A late order is followed by the next at once, so that the rate holds.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..orders {
        pace.tick().await;
        if n % TRANSACTED == 0 {
            let put = |entry: Put| TransactWriteItem::builder().put(entry).build();
            let order = Put::builder().table_name(ORDERS).set_item(Some(order(n)));
            let payment = Put::builder()
                .table_name(PAYMENTS)
                .set_item(Some(payment(n)));
            let transaction = client.transact_write_items();
            let transaction = transaction.transact_items(put(order.build()?));
            transaction
                .transact_items(put(payment.build()?))
                .send()
                .await?;
        } else {
            let put = client.put_item().table_name(ORDERS);
            put.set_item(Some(order(n))).send().await?;
        }
    }
    Ok(())
}

fn order(n: usize) -> HashMap<String, AttributeValue> {
    let quantity = n % 3 + 1;
    let line = [
        ("name", AttributeValue::S("Coffee, 500 g".to_owned())),
        ("quantity", AttributeValue::N(quantity.to_string())),
        ("unit_price", AttributeValue::N("1450".to_owned())),
    ];
    let line = line.map(|(name, value)| (name.to_owned(), value));
    let item = [
        ("id", AttributeValue::S(id(n))),
        ("email", AttributeValue::S(address(n))),
        ("name", AttributeValue::S(format!("Customer {n}"))),
        (
            "total",
            AttributeValue::N((quantity * 1450 + 490).to_string()),
        ),
        ("currency", AttributeValue::S("EUR".to_owned())),
        (
            "lines",
            AttributeValue::L(vec![AttributeValue::M(line.into())]),
        ),
    ];
    item.map(|(name, value)| (name.to_owned(), value)).into()
}

fn payment(n: usize) -> HashMap<String, AttributeValue> {
    let item = [
        ("id".to_owned(), AttributeValue::S(format!("P-{n:06}"))),
        ("order".to_owned(), AttributeValue::S(id(n))),
    ];
    item.into()
}
