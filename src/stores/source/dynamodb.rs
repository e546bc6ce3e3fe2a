//! DynamoDB Streams through the AWS SDK.
//!
//! Errors are distinguished by the error code that the SDK decoded, never by their text: the text of an
//! `SdkError` is only "service error".

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::anyhow;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::http::HttpResponse;
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::types as sdk;
use aws_sdk_dynamodbstreams::types::{ShardFilter, ShardFilterType};

use super::{Batch, Description, ListedStream, ShardIterator, SourceError, StreamSource};
use crate::core::record::{Position, StreamView};
use crate::core::shard::{Shard, ShardId};
use crate::stores::aws_error::AwsError;
use crate::stores::clock::dynamodb::Dates;
use crate::stores::clock::{Clock, ServiceTime};

mod record;
mod streams;

use record::record;
use streams::TableStreams;

/// The time between two pages of listings in one process, for all of its streams and tasks: at most 4
/// calls a second, which leaves more than half of the account's 10 `DescribeStream` calls a second to
/// others. The search for a shard's children is one more call each, and does not wait.
///
/// Source: [DescribeStream](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_DescribeStream.html).
const BETWEEN_PAGES: Duration = Duration::from_millis(250);

/// When this process may read the next page.
static NEXT_PAGE: Mutex<Option<Instant>> = Mutex::new(None);

/// The client, and the service's time from the answers to its calls. Like
/// [`crate::stores::clock::dynamodb::with_service_time`]: the SDK has a client type of its own for each
/// service.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the returned client replaces it"
)]
fn with_service_time(client: Client) -> (Client, ServiceTime) {
    let time = ServiceTime::default();
    let config = client.config().to_builder();
    let config = config.interceptor(Dates(time.clone()));
    (Client::from_conf(config.build()), time)
}

/// Waits until the next page of a listing may be read.
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

/// One stream of a table, or all of its streams one after another.
#[derive(Debug, Clone)]
pub struct DynamoDbStream {
    client: Client,
    /// The stream's ARN, or the table's.
    arn: Arc<str>,
    streams: Streams,
    /// Streams without new images are not read.
    needs_new_images: bool,
    time: ServiceTime,
    /// The clock for answers without the service's time.
    own: Clock,
}

/// Which streams to read.
#[derive(Debug, Clone)]
enum Streams {
    /// The stream with this label.
    Pinned(Arc<str>),
    /// All streams that the table has.
    OfTable(TableStreams),
}

impl DynamoDbStream {
    /// Only the stream with this `arn`. A stream that was disabled and enabled again is another stream
    /// with another ARN.
    ///
    /// A record without a creation time counts as created when it was read, so that it is not
    /// considered old and skipped. `clock` dates it if the answer has no time.
    pub fn new(client: Client, arn: &str, clock: Clock) -> Self {
        let (client, time) = with_service_time(client);
        Self {
            client,
            arn: arn.into(),
            streams: Streams::Pinned(label_of(arn).into()),
            needs_new_images: false,
            time,
            own: clock,
        }
    }

    /// All streams of a table: the present one, earlier ones that still hold records, and later ones.
    /// `table` is its name or ARN, as used in calls.
    pub fn of_table(
        client: Client,
        tables: aws_sdk_dynamodb::Client,
        (table, arn): (&str, &str),
        clock: Clock,
    ) -> Self {
        let (client, time) = with_service_time(client);
        Self {
            client,
            arn: arn.into(),
            streams: Streams::OfTable(TableStreams::new(tables, table, arn)),
            needs_new_images: false,
            time,
            own: clock,
        }
    }

    /// Reads no stream whose records have no new image. [`Description::trouble`] names such a stream.
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

    /// The stream's ARN, or the table's if all of its streams are read.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Adds a described stream, and its shards if its records can be used. Returns why they cannot.
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
            "the stream {label} of {} carries {view}, not the new image, and is not read: disable it \
             and enable one with NEW_AND_OLD_IMAGES; changes until then are lost",
            self.arn
        ))
    }

    /// All pages of a stream's listing, and the description from the first page.
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
        // Only the newest stream shows what happens to new changes.
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
        // Some servers ignore the filter and return every shard, including the parent.
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
