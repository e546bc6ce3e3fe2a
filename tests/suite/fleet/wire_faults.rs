//! The stream source over the wire, where calls are throttled and fail.

use aftercommit::Clock;
use aftercommit::internal::shard::ShardId;
use aftercommit::record::Position;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::stores::source::{SourceError, StreamSource as _};
use aws_sdk_dynamodbstreams::config::retry::RetryConfig;

use crate::fleet::wire_streams::Shop;
use crate::support::clients;
use crate::support::streams_server::{Fault, Operation};

/// The stream through a client that tries only once, so that a single fault shows.
fn impatient(shop: &Shop) -> DynamoDbStream {
    let streams = clients::streams(shop.server.url());
    let config = streams.config().to_builder();
    let config = config.retry_config(RetryConfig::disabled()).build();
    let streams = aws_sdk_dynamodbstreams::Client::from_conf(config);
    DynamoDbStream::new(streams, shop.stream.arn(), Clock::system())
}

/// Each operation through the source, as its error.
async fn error_of(
    stream: &DynamoDbStream,
    shard: &ShardId,
    operation: Operation,
) -> Option<SourceError> {
    match operation {
        Operation::DescribeStream => stream.describe(None).await.err(),
        Operation::GetShardIterator => stream.iterator(shard, &Position::Horizon).await.err(),
        Operation::GetRecords => {
            let iterator = stream.iterator(shard, &Position::Horizon).await;
            stream.read(&iterator.unwrap()).await.err()
        }
        // Only a source that follows a table asks for its streams.
        Operation::ListStreams => None,
    }
}

const OPERATIONS: [Operation; 3] = [
    Operation::DescribeStream,
    Operation::GetShardIterator,
    Operation::GetRecords,
];

#[tokio::test]
async fn throttles_of_every_operation_are_reported_as_such() {
    let shop = Shop::open(1).await;
    let stream = impatient(&shop);
    let shard = shop.id(&shop.only_shard());
    for operation in OPERATIONS {
        for fault in [Fault::LimitExceeded, Fault::Throttling] {
            shop.server.fail(operation, fault, 1);
            let error = error_of(&stream, &shard, operation).await;
            let throttled = matches!(error, Some(SourceError::Throttled(_)));
            assert!(throttled, "{operation:?} {fault:?}: {error:?}");
            let error = error_of(&stream, &shard, operation).await;
            assert!(error.is_none(), "{operation:?} {fault:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_servers_own_error_is_neither_trimmed_nor_gone() {
    let shop = Shop::open(1).await;
    let stream = impatient(&shop);
    let shard = shop.id(&shop.only_shard());
    for operation in OPERATIONS {
        shop.server.fail(operation, Fault::Internal, 1);
        let error = error_of(&stream, &shard, operation).await.unwrap();
        assert!(matches!(error, SourceError::Other(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("InternalServerError"), "{text}");
    }
}

#[tokio::test]
async fn one_throttle_is_waited_out_by_the_sdk() {
    let shop = Shop::open(1).await;
    let shard = shop.id(&shop.only_shard());
    for operation in OPERATIONS {
        let before = shop.server.calls(operation).len();
        shop.server.fail(operation, Fault::LimitExceeded, 1);
        let error = error_of(&shop.stream, &shard, operation).await;
        assert!(error.is_none(), "{operation:?}: {error:?}");
        assert_eq!(shop.server.calls(operation).len(), before + 2);
    }
}
