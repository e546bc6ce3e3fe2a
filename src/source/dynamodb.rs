//! DynamoDB Streams through the AWS SDK.
//!
//! Errors are told apart by the error code that the SDK decoded, never by their text: the text of
//! an `SdkError` is only "service error".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::http::HttpResponse;
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::primitives::Blob;
use aws_sdk_dynamodbstreams::types as sdk;
use aws_sdk_dynamodbstreams::types::{AttributeValue as Sdk, ShardFilter, ShardFilterType};
use serde_dynamo::{AttributeValue, Item};

use super::streams::dynamodb::TableStreams;
use super::{Batch, Description, ListedStream, ShardIterator, SourceError, StreamSource};
use crate::aws_error::AwsError;
use crate::clock::dynamodb::Dates;
use crate::clock::{Clock, ServiceTime};
use crate::decide::shard::{Shard, ShardId};
use crate::record::{Event, Position, Record, SequenceNumber, StreamView};

/// Between two pages of listings of one process, whichever of its streams and tasks wants them: 4
/// calls a second at most, which leaves more than half of the account's 10 `DescribeStream` calls a
/// second to everybody else. Looking for a shard's children is one more call each and does not wait.
///
/// Source: [DescribeStream](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_DescribeStream.html).
const BETWEEN_PAGES: Duration = Duration::from_millis(250);

/// When this process may ask for the next page.
static NEXT_PAGE: Mutex<Option<Instant>> = Mutex::new(None);

/// A client like this one, and the service's time as the answers to its calls carry it.
fn with_service_time(client: &Client) -> (Client, ServiceTime) {
    let time = ServiceTime::default();
    let config = client.config().to_builder();
    let config = config.interceptor(Dates(time.clone()));
    (Client::from_conf(config.build()), time)
}

/// Waits until a page of a listing may be asked for.
async fn page_turn() {
    let now = Instant::now();
    let wait = {
        let mut next = NEXT_PAGE.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + BETWEEN_PAGES);
        turn - now
    };
    tokio::time::sleep(wait).await;
}

/// The most records that one `GetRecords` returns.
///
/// Source: [GetRecords](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const RECORDS_PER_READ: i32 = 1000;

/// One table's stream, or all that it has one after another.
#[derive(Debug, Clone)]
pub struct DynamoDbStream {
    client: Client,
    /// The stream's ARN, or the table's.
    arn: Arc<str>,
    streams: Streams,
    /// Streams without new images are not read.
    needs_new_images: bool,
    time: ServiceTime,
    /// For answers that do not carry the service's time.
    own: Clock,
}

/// Which streams.
#[derive(Debug, Clone)]
enum Streams {
    /// The one with this label.
    Pinned(Arc<str>),
    /// Those that the table has.
    OfTable(TableStreams),
}

impl DynamoDbStream {
    /// The stream named by `arn`, and no other. A stream that was disabled and enabled again is
    /// another stream with another ARN.
    ///
    /// A record that comes without a creation time counts as created when it was read, so that
    /// nothing takes it for older than it is and skips it. `clock` dates it where the answer does
    /// not say when it was given.
    pub fn new(client: Client, arn: &str, clock: Clock) -> Self {
        let (client, time) = with_service_time(&client);
        Self {
            client,
            arn: arn.into(),
            streams: Streams::Pinned(label_of(arn).into()),
            needs_new_images: false,
            time,
            own: clock,
        }
    }

    /// All streams of a table: the one that it has, those that it had and that still hold records,
    /// and those that it will have. `table` is its name or ARN, as the calls are to name it.
    pub fn of_table(
        client: Client,
        tables: aws_sdk_dynamodb::Client,
        (table, arn): (&str, &str),
        clock: Clock,
    ) -> Self {
        let (client, time) = with_service_time(&client);
        Self {
            client,
            arn: arn.into(),
            streams: Streams::OfTable(TableStreams::new(tables, table, arn)),
            needs_new_images: false,
            time,
            own: clock,
        }
    }

    /// Reads no stream whose records carry no new image; it is named in [`Description::trouble`].
    #[must_use]
    pub fn with_new_images(self) -> Self {
        Self {
            needs_new_images: true,
            ..self
        }
    }

    /// The ARN of the stream with this label.
    fn arn_of(&self, label: Option<&str>) -> String {
        match (&self.streams, label) {
            (Streams::OfTable(_), Some(label)) => format!("{}/stream/{label}", self.arn),
            _ => self.arn.to_string(),
        }
    }

    /// The stream's ARN; the table's where all of its streams are read.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Adds a stream that was described, and its shards if its records can be used; answers why
    /// they cannot.
    fn add(
        &self,
        all: &mut Description,
        stream: ListedStream,
        shards: Vec<Shard>,
    ) -> Option<String> {
        let unfit = |view: &StreamView| self.needs_new_images && !view.has_new_image();
        let unfit = stream.view.filter(unfit);
        let label = stream.label.clone();
        all.streams.push(stream);
        let Some(view) = unfit else {
            all.shards.extend(shards);
            return None;
        };
        Some(format!(
            "the stream {label} of {} carries {view}, not the new image, and is not read: switch it \
             off and switch one on with NEW_AND_OLD_IMAGES; what is committed until then is lost",
            self.arn
        ))
    }

    /// All pages of a stream's listing, with what the first one tells of the stream.
    async fn listing(
        &self,
        label: &str,
        filter: Option<ShardFilter>,
    ) -> Result<(ListedStream, Vec<Shard>), SourceError> {
        let mut shards = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .client
                .describe_stream()
                .stream_arn(self.arn_of(Some(label)))
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
                    .filter_map(|one| shard(label, one)),
            );
            after = stream.last_evaluated_shard_id;
            if after.is_none() {
                let view = stream.stream_view_type;
                let created = stream.creation_request_date_time;
                let listed = ListedStream {
                    label: label.into(),
                    created: created.and_then(|time| SystemTime::try_from(time).ok()),
                    view: view.and_then(|view| StreamView::from_word(view.as_str())),
                };
                return Ok((listed, shards));
            }
            page_turn().await;
        }
    }
}

impl StreamSource for DynamoDbStream {
    fn service_time(&self) -> Option<SystemTime> {
        self.time.now()
    }

    async fn describe(&self, from: Option<&str>) -> Result<Description, SourceError> {
        let of_table = match &self.streams {
            Streams::Pinned(label) => {
                page_turn().await;
                let (listed, shards) = self.listing(label, None).await?;
                return Ok(Description {
                    streams: vec![listed],
                    shards,
                    trouble: None,
                });
            }
            Streams::OfTable(of_table) => of_table,
        };
        let found = of_table.find(&self.client).await?;
        let mut all = Description {
            trouble: found.trouble,
            ..Description::default()
        };
        let mut unusable = None;
        for label in found.labels {
            if from.is_some_and(|from| *label < *from) {
                let (created, view) = (None, None);
                let stream = ListedStream {
                    label,
                    created,
                    view,
                };
                all.streams.push(stream);
                continue;
            }
            page_turn().await;
            match self.listing(&label, None).await {
                Ok((stream, shards)) => unusable = self.add(&mut all, stream, shards),
                // The service lists a stream for a while after it has dropped it.
                Err(SourceError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        // Only the newest stream tells what becomes of what is committed now.
        all.trouble = all.trouble.or(unusable);
        Ok(all)
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let filter = ShardFilter::builder()
            .r#type(ShardFilterType::ChildShards)
            .shard_id(parent.id())
            .build();
        let label = match &self.streams {
            Streams::Pinned(label) => label,
            Streams::OfTable(_) => parent.label().unwrap_or_default(),
        };
        let (_, mut shards) = self.listing(label, Some(filter)).await?;
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
            .stream_arn(self.arn_of(shard.label()))
            .shard_id(shard.id());
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
        let read_at = self.time.now().unwrap_or_else(|| self.own.now());
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

pub(super) fn failed<E>(error: SdkError<E, HttpResponse>) -> SourceError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match ProvideErrorMetadata::code(&error) {
        Some("ExpiredIteratorException") => SourceError::Expired,
        Some("TrimmedDataAccessException") => SourceError::Trimmed,
        Some("ResourceNotFoundException") => SourceError::Gone,
        Some(
            code @ ("LimitExceededException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingException"),
        ) => SourceError::Throttled(code.to_owned()),
        _ => SourceError::Other(AwsError::from(error).into()),
    }
}

/// The last part of a stream's ARN.
fn label_of(arn: &str) -> &str {
    arn.split_once("/stream/").map_or(arn, |(_, label)| label)
}

fn shard(label: &str, shard: sdk::Shard) -> Option<Shard> {
    let named = |id: String| ShardId::of_stream(label, &id);
    Some(Shard {
        id: named(shard.shard_id?),
        parent: shard.parent_shard_id.map(named),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aws_sdk_dynamodbstreams::primitives::DateTime;
    use aws_sdk_dynamodbstreams::types::{Identity, StreamRecord};

    use super::*;

    fn read_at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000)
    }

    fn with(change: sdk::builders::StreamRecordBuilder) -> sdk::Record {
        sdk::Record::builder().dynamodb(change.build()).build()
    }

    #[test]
    fn a_record_with_little_but_its_place_still_comes() {
        let change = StreamRecord::builder().sequence_number("300");
        let record = record(with(change), read_at()).unwrap();
        assert_eq!(record.sequence_number.as_str(), "300");
        assert_eq!(record.event_id, "300");
        assert_eq!(record.created, read_at(), "nothing takes it for old");
        assert_eq!(record.view, StreamView::KeysOnly);
        assert_eq!(record.event, Event::Modify);
        assert_eq!(record.size_bytes, 0);
    }

    #[test]
    fn a_record_without_a_place_is_an_error() {
        let nowhere = record(with(StreamRecord::builder()), read_at());
        assert!(nowhere.unwrap_err().to_string().contains("sequence number"));
        let empty = record(sdk::Record::builder().build(), read_at());
        assert!(empty.unwrap_err().to_string().contains("change"));
        let change = StreamRecord::builder().sequence_number("12a");
        assert!(record(with(change), read_at()).is_err());
    }

    #[test]
    fn an_event_that_is_not_named_follows_from_the_images() {
        let change = || {
            let change = StreamRecord::builder().sequence_number("1");
            change.stream_view_type(sdk::StreamViewType::NewAndOldImages)
        };
        let one = Sdk::S("x".to_owned());
        let event = |change| record(with(change), read_at()).unwrap().event;
        assert_eq!(event(change().new_image("id", one.clone())), Event::Insert);
        assert_eq!(event(change().old_image("id", one.clone())), Event::Remove);
        let both = change().new_image("id", one.clone()).old_image("id", one);
        assert_eq!(event(both), Event::Modify);
    }

    #[test]
    fn a_removal_by_time_to_live_is_told_from_a_callers() {
        let removal = |kind: &str, principal: &str| {
            let time = DateTime::from_secs(1_790_000_000);
            let change = StreamRecord::builder().sequence_number("1");
            let change = change.approximate_creation_date_time(time).build();
            let by = Identity::builder().r#type(kind).principal_id(principal);
            let removal = sdk::Record::builder().event_name(sdk::OperationType::Remove);
            let removal = removal.dynamodb(change).user_identity(by.build());
            record(removal.build(), read_at()).unwrap()
        };
        let ours = removal("Service", "dynamodb.amazonaws.com");
        assert!(ours.by_ttl);
        let seconds = ours.created.duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(seconds.unwrap().as_secs(), 1_790_000_000);
        assert!(!removal("AssumedRole", "somebody").by_ttl);
    }

    #[test]
    fn every_type_of_attribute_is_kept() {
        let blob = || Blob::new([0, 255]);
        let text = || "x".to_owned();
        let all = HashMap::from([
            ("s".to_owned(), Sdk::S(text())),
            ("n".to_owned(), Sdk::N("12345678901234567890.5".to_owned())),
            ("b".to_owned(), Sdk::B(blob())),
            ("bool".to_owned(), Sdk::Bool(true)),
            ("null".to_owned(), Sdk::Null(true)),
            (
                "l".to_owned(),
                Sdk::L(vec![Sdk::S(text()), Sdk::Bool(false)]),
            ),
            (
                "m".to_owned(),
                Sdk::M(HashMap::from([(text(), Sdk::S(text()))])),
            ),
            ("ss".to_owned(), Sdk::Ss(vec![text()])),
            ("ns".to_owned(), Sdk::Ns(vec!["1".to_owned()])),
            ("bs".to_owned(), Sdk::Bs(vec![blob()])),
        ]);
        let expected: Item = all.clone().into();
        assert_eq!(item(all), expected);
    }
}
