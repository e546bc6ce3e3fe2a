//! Events as an event source mapping hands them over.

use aftercommit::Clock;
use aftercommit::record::lambda_event::write;
use aftercommit::record::{Position, Record};
use aftercommit::stores::source::StreamSource as _;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use serde_json::{Value, json};

use super::clients;
use super::shop::Shop;

/// A batch of records of a stream.
pub fn event(stream: &str, records: &[Record]) -> Value {
    let records = records.iter().map(|record| write(record, Some(stream)));
    json!({ "Records": records.collect::<Result<Vec<_>, _>>().unwrap() })
}

/// All that a shop's stream holds now. Its server has one shard.
pub async fn records(shop: &Shop) -> Vec<Record> {
    let source = DynamoDbStream::new(clients::streams(&shop.url), &shop.arn, Clock::system());
    let shards = source.describe(None).await.unwrap().shards;
    assert_eq!(shards.len(), 1);
    let mut iterator = source
        .iterator(&shards[0].id, &Position::Horizon)
        .await
        .unwrap();
    let mut all = Vec::new();
    loop {
        let batch = source.read(&iterator).await.unwrap();
        if batch.records.is_empty() {
            return all;
        }
        all.extend(batch.records);
        match batch.next {
            Some(next) => iterator = next,
            None => return all,
        }
    }
}
