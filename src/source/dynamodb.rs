//! DynamoDB Streams through the AWS SDK.
//!
//! Errors are told apart by the error code that the SDK decoded, never by their text: the text of
//! an `SdkError` is only "service error".

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::primitives::Blob;
use aws_sdk_dynamodbstreams::types as sdk;
use aws_sdk_dynamodbstreams::types::{AttributeValue as Sdk, ShardFilter, ShardFilterType};
use serde_dynamo::{AttributeValue, Item};

use super::{Batch, Description, ShardIterator, SourceError, StreamSource};
use crate::clock::Clock;
use crate::decide::shard::{Shard, ShardId};
use crate::record::{Event, Position, Record, SequenceNumber, StreamView};

/// Between two pages of a listing: 4 calls a second at most, so that one listing leaves more than
/// half of the account's 10 `DescribeStream` calls a second to everybody else.
///
/// Source: [DescribeStream](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_DescribeStream.html).
const BETWEEN_PAGES: Duration = Duration::from_millis(250);

/// The most records that one `GetRecords` returns.
///
/// Source: [GetRecords](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const RECORDS_PER_READ: i32 = 1000;

/// One table's stream.
#[derive(Debug, Clone)]
pub struct DynamoDbStream {
    client: Client,
    arn: Arc<str>,
    clock: Clock,
}

impl DynamoDbStream {
    /// The stream named by `arn`. A stream that was disabled and enabled again is another stream
    /// with another ARN.
    ///
    /// `clock` dates a record that comes without a creation time: it counts as created when it was
    /// read, so that nothing takes it for older than it is and skips it.
    pub fn new(client: Client, arn: &str, clock: Clock) -> Self {
        Self {
            client,
            arn: arn.into(),
            clock,
        }
    }

    /// The stream's ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// All pages of a listing, with the view that the first one tells.
    async fn listing(
        &self,
        filter: Option<ShardFilter>,
    ) -> Result<(Option<sdk::StreamViewType>, Vec<Shard>), SourceError> {
        let mut shards = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .client
                .describe_stream()
                .stream_arn(&*self.arn)
                .set_shard_filter(filter.clone())
                .set_exclusive_start_shard_id(after)
                .send()
                .await
                .map_err(failed)?;
            let stream = page
                .stream_description
                .ok_or_else(|| odd("DescribeStream answered without a description"))?;
            shards.extend(
                stream
                    .shards
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(shard),
            );
            after = stream.last_evaluated_shard_id;
            if after.is_none() {
                return Ok((stream.stream_view_type, shards));
            }
            tokio::time::sleep(BETWEEN_PAGES).await;
        }
    }
}

impl StreamSource for DynamoDbStream {
    async fn describe(&self) -> Result<Description, SourceError> {
        let (view, shards) = self.listing(None).await?;
        let view = view
            .as_ref()
            .and_then(|view| StreamView::from_word(view.as_str()))
            .ok_or_else(|| odd("DescribeStream answered without a known view type"))?;
        Ok(Description { view, shards })
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let filter = ShardFilter::builder()
            .r#type(ShardFilterType::ChildShards)
            .shard_id(parent.as_str())
            .build();
        let (_, mut shards) = self.listing(Some(filter)).await?;
        // Some servers ignore the filter and answer with every shard, the parent among them.
        shards.retain(|shard| shard.parent.as_ref() == Some(parent));
        Ok(shards)
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &Position,
    ) -> Result<ShardIterator, SourceError> {
        let request = self
            .client
            .get_shard_iterator()
            .stream_arn(&*self.arn)
            .shard_id(shard.as_str());
        let request = match position {
            Position::Horizon => request.shard_iterator_type(sdk::ShardIteratorType::TrimHorizon),
            Position::After(last) => request
                .shard_iterator_type(sdk::ShardIteratorType::AfterSequenceNumber)
                .sequence_number(last.as_str()),
        };
        let answer = request.send().await.map_err(failed)?;
        answer
            .shard_iterator
            .map(ShardIterator)
            .ok_or_else(|| odd("GetShardIterator answered without an iterator"))
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<Batch, SourceError> {
        let answer = self
            .client
            .get_records()
            .shard_iterator(&iterator.0)
            .limit(RECORDS_PER_READ)
            .send()
            .await
            .map_err(failed)?;
        let read_at = self.clock.now();
        let records = answer.records.unwrap_or_default();
        let records: Result<_, _> = records.into_iter().map(|r| record(r, read_at)).collect();
        Ok(Batch {
            records: records.map_err(SourceError::Other)?,
            next: answer.next_shard_iterator.map(ShardIterator),
        })
    }
}

fn odd(what: &'static str) -> SourceError {
    SourceError::Other(anyhow!(what))
}

fn failed<E, R>(error: SdkError<E, R>) -> SourceError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match error.code() {
        Some("ExpiredIteratorException") => SourceError::Expired,
        Some("TrimmedDataAccessException") => SourceError::Trimmed,
        Some("ResourceNotFoundException") => SourceError::Gone,
        Some(
            code @ ("LimitExceededException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingException"),
        ) => SourceError::Throttled(code.to_owned()),
        _ => SourceError::Other(error.into()),
    }
}

fn shard(shard: sdk::Shard) -> Option<Shard> {
    Some(Shard {
        id: ShardId::new(shard.shard_id?),
        parent: shard.parent_shard_id.map(ShardId::new),
    })
}

/// Only a record that has no place in its shard is an error: without a sequence number it could
/// neither be checkpointed nor told from the next one. Whatever else is missing is filled in, so
/// that one odd record never stops its shard.
fn record(record: sdk::Record, read_at: SystemTime) -> anyhow::Result<Record> {
    let change = record
        .dynamodb
        .context("a stream record came without its change")?;
    let sequence_number = change
        .sequence_number
        .context("a stream record came without a sequence number")?;
    let sequence_number = SequenceNumber::parse(sequence_number)?;
    let new_image = change.new_image.map(item);
    let old_image = change.old_image.map(item);
    let view = change
        .stream_view_type
        .and_then(|view| StreamView::from_word(view.as_str()))
        .unwrap_or(match (&new_image, &old_image) {
            (Some(_), Some(_)) => StreamView::NewAndOldImages,
            (Some(_), None) => StreamView::NewImage,
            (None, Some(_)) => StreamView::OldImage,
            (None, None) => StreamView::KeysOnly,
        });
    let event = match record.event_name {
        Some(sdk::OperationType::Insert) => Event::Insert,
        Some(sdk::OperationType::Remove) => Event::Remove,
        Some(sdk::OperationType::Modify) => Event::Modify,
        _ => match (&new_image, &old_image) {
            (Some(_), None) if view == StreamView::NewAndOldImages => Event::Insert,
            (None, _) if view.has_new_image() => Event::Remove,
            _ => Event::Modify,
        },
    };
    let by_ttl = record.user_identity.is_some_and(|identity| {
        identity.r#type.as_deref() == Some("Service")
            && identity.principal_id.as_deref() == Some("dynamodb.amazonaws.com")
    });
    Ok(Record {
        event_id: record
            .event_id
            .unwrap_or_else(|| sequence_number.to_string()),
        event,
        keys: item(change.keys.unwrap_or_default()),
        new_image,
        old_image,
        created: change
            .approximate_creation_date_time
            .and_then(|time| SystemTime::try_from(time).ok())
            .unwrap_or(read_at),
        sequence_number,
        view,
        size_bytes: change
            .size_bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0),
        by_ttl: by_ttl && event == Event::Remove,
    })
}

fn item(attributes: HashMap<String, Sdk>) -> Item {
    let attributes = attributes.into_iter();
    let attributes: HashMap<_, _> = attributes.map(|(n, v)| (n, value(v))).collect();
    attributes.into()
}

/// Written out because `serde_dynamo`'s own conversion panics at a type that the SDK does not know
/// yet. Such a value becomes NULL: its record still comes, and a handler that needs it says so.
fn value(value: Sdk) -> AttributeValue {
    match value {
        Sdk::S(s) => AttributeValue::S(s),
        Sdk::N(n) => AttributeValue::N(n),
        Sdk::B(b) => AttributeValue::B(b.into_inner()),
        Sdk::Bool(b) => AttributeValue::Bool(b),
        Sdk::Null(null) => AttributeValue::Null(null),
        Sdk::M(m) => AttributeValue::M(item(m).into_inner()),
        Sdk::L(l) => AttributeValue::L(l.into_iter().map(self::value).collect()),
        Sdk::Ss(ss) => AttributeValue::Ss(ss),
        Sdk::Ns(ns) => AttributeValue::Ns(ns),
        Sdk::Bs(bs) => AttributeValue::Bs(bs.into_iter().map(Blob::into_inner).collect()),
        _ => {
            tracing::warn!("an attribute has a type that this build does not know: read as NULL");
            AttributeValue::Null(true)
        }
    }
}
