//! A stream that is served as fast as it can be: every page is written before the first call.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const ARN: &str =
    "arn:aws:dynamodb:eu-central-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000";

/// As many records as a call of the service answers at most.
const PAGE: usize = 1_000;

/// The pages of every shard.
struct Stream {
    shards: Vec<Vec<Bytes>>,
}

impl Stream {
    /// Orders of about 1 KB, dealt to the shards.
    fn new(records: usize, shards: usize) -> Self {
        let of_shard = |shard: usize| {
            let orders: Vec<_> = (shard..records).step_by(shards).collect();
            let pages = orders.chunks(PAGE).enumerate();
            let page = |(number, orders): (usize, &[usize])| page(shard, number, orders);
            let mut pages: Vec<_> = pages.map(page).collect();
            pages.push(empty(shard, pages.len()));
            pages
        };
        Self {
            shards: (0..shards).map(of_shard).collect(),
        }
    }

    fn answer(&self, operation: &str, request: &Value) -> Bytes {
        match operation {
            "DescribeStream" => self.described(),
            "GetShardIterator" => {
                let shard = request["ShardId"].as_str().unwrap_or_default();
                let shard = shard.rsplit('-').next().unwrap_or_default();
                let shard: usize = shard.parse().unwrap_or_default();
                json!({ "ShardIterator": format!("{shard}/0") }).to_string().into()
            }
            "GetRecords" => {
                let iterator = request["ShardIterator"].as_str().unwrap_or_default();
                let (shard, page) = iterator.split_once('/').unwrap_or_default();
                let pages = shard.parse().ok().and_then(|shard: usize| self.shards.get(shard));
                let page = page.parse().ok().zip(pages).and_then(|(page, pages): (usize, _)| pages.get(page));
                page.cloned().unwrap_or_else(|| Bytes::from_static(b"{\"Records\":[]}"))
            }
            _ => json!({ "Streams": [{ "StreamArn": ARN, "TableName": "orders", "StreamLabel": "2026-01-01T00:00:00.000" }] })
                .to_string()
                .into(),
        }
    }

    fn described(&self) -> Bytes {
        let shard = |number: usize| {
            json!({
                "ShardId": shard_id(number),
                "SequenceNumberRange": { "StartingSequenceNumber": sequence(number, 0) },
            })
        };
        let shards: Vec<_> = (0..self.shards.len()).map(shard).collect();
        let description = json!({
            "StreamArn": ARN,
            "StreamLabel": "2026-01-01T00:00:00.000",
            "StreamStatus": "ENABLED",
            "StreamViewType": "NEW_IMAGE",
            "TableName": "orders",
            "CreationRequestDateTime": 1_767_225_600,
            "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
            "Shards": shards,
        });
        json!({ "StreamDescription": description })
            .to_string()
            .into()
    }
}

pub fn shard_id(number: usize) -> String {
    format!("shardId-00000001700000000000-{number:08}")
}

fn sequence(shard: usize, order: usize) -> String {
    format!("1{shard:03}{order:017}")
}

fn page(shard: usize, number: usize, orders: &[usize]) -> Bytes {
    let mut page = String::from("{\"Records\":[");
    for (position, order) in orders.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let record = record(shard, *order);
        let _ = write!(page, "{comma}{record}");
    }
    let _ = write!(page, "],\"NextShardIterator\":\"{shard}/{}\"}}", number + 1);
    page.into()
}

/// The page behind the last one, which never ends.
fn empty(shard: usize, number: usize) -> Bytes {
    format!("{{\"Records\":[],\"NextShardIterator\":\"{shard}/{number}\"}}").into()
}

fn record(shard: usize, order: usize) -> Value {
    let id = json!({ "id": { "S": format!("order-{order}") } });
    let mut image = json!({
        "email": { "S": format!("customer-{order}@example.com") },
        "status": { "S": "PLACED" },
        "total": { "N": "1999" },
        "currency": { "S": "EUR" },
        "items": { "L": [
            { "M": { "name": { "S": "A tin of tea" }, "quantity": { "N": "2" }, "price": { "N": "799" } } },
            { "M": { "name": { "S": "Postage" }, "quantity": { "N": "1" }, "price": { "N": "401" } } },
        ] },
        "note": { "S": "x".repeat(600) },
    });
    image["id"] = id["id"].clone();
    json!({
        "awsRegion": "eu-central-1",
        "eventID": format!("{order:032}"),
        "eventName": "INSERT",
        "eventSource": "aws:dynamodb",
        "eventVersion": "1.1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_767_225_600,
            "Keys": id,
            "NewImage": image,
            "SequenceNumber": sequence(shard, order),
            "SizeBytes": 1_000,
            "StreamViewType": "NEW_IMAGE",
        },
    })
}

/// Serves on a port that it prints as its first line, until it is killed.
pub async fn serve(records: usize, shards: usize) -> anyhow::Result<()> {
    let stream = Arc::new(Stream::new(records, shards));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let app = Router::new().fallback(call).with_state(stream);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn call(
    State(stream): State<Arc<Stream>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next());
    let request = serde_json::from_slice(&body).unwrap_or_default();
    let answer = stream.answer(operation.unwrap_or_default(), &request);
    let mut response = Response::new(Body::from(answer));
    let content = "application/x-amz-json-1.0".parse();
    if let Ok(content) = content {
        response.headers_mut().insert("content-type", content);
    }
    response
}
