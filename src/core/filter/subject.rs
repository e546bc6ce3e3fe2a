//! A record viewed as the event that Lambda would pass, without building that event.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_dynamo::AttributeValue;
use serde_json::{Value, json};

use crate::core::record::{Event, Record, StreamView};

/// What a filter looks at: a record, and its stream if a pattern asks for `eventSourceARN` or
/// `awsRegion` (without a stream, those fields are missing).
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    record: &'a Record,
    stream: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// A record of an unknown stream.
    pub fn new(record: &'a Record) -> Self {
        Self {
            record,
            stream: None,
        }
    }

    /// The same record, from the stream with this ARN.
    #[must_use]
    pub fn from_stream(mut self, arn: &'a str) -> Self {
        self.stream = Some(arn);
        self
    }
}

impl<'a> From<&'a Record> for Subject<'a> {
    fn from(record: &'a Record) -> Self {
        Self::new(record)
    }
}

/// A part of the event.
#[derive(Debug, Clone, Copy)]
pub(super) enum RecordView<'a> {
    Missing,
    Event(Subject<'a>),
    Change(&'a Record),
    /// The `userIdentity` of a removal by time to live.
    ByTtl,
    Image(&'a HashMap<String, AttributeValue>),
    Attribute(&'a AttributeValue),
    Attributes(&'a [AttributeValue]),
    Texts(&'a [String]),
    Numbers(&'a [String]),
    Blobs(&'a [Vec<u8>]),
    Text(&'a str),
    Digits(&'a str),
    Blob(&'a [u8]),
    Number(u64),
    Truth(bool),
}

/// A value without members.
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    /// A DynamoDB number: text in the event, but a number when it is compared with one.
    Digits(&'a str),
    Number(u64),
    Truth(bool),
}

/// What a part of the event is.
pub(super) enum Sort<'a> {
    Missing,
    Object,
    /// With this many elements.
    List(usize),
    Scalar(Scalar<'a>),
}

impl<'a> RecordView<'a> {
    pub(super) fn sort(self) -> Sort<'a> {
        match self {
            Self::Missing => Sort::Missing,
            Self::Event(_)
            | Self::Change(_)
            | Self::ByTtl
            | Self::Image(_)
            | Self::Attribute(_) => Sort::Object,
            Self::Attributes(list) => Sort::List(list.len()),
            Self::Texts(list) | Self::Numbers(list) => Sort::List(list.len()),
            Self::Blobs(list) => Sort::List(list.len()),
            Self::Text(text) => Sort::Scalar(Scalar::Text(text.into())),
            Self::Digits(digits) => Sort::Scalar(Scalar::Digits(digits)),
            Self::Blob(bytes) => Sort::Scalar(Scalar::Text(STANDARD.encode(bytes).into())),
            Self::Number(number) => Sort::Scalar(Scalar::Number(number)),
            Self::Truth(truth) => Sort::Scalar(Scalar::Truth(truth)),
        }
    }

    /// The element of a list.
    pub(super) fn element(self, n: usize) -> Self {
        let found = match self {
            Self::Attributes(list) => list.get(n).map(RecordView::Attribute),
            Self::Texts(list) => list.get(n).map(|text| RecordView::Text(text)),
            Self::Numbers(list) => list.get(n).map(|digits| RecordView::Digits(digits)),
            Self::Blobs(list) => list.get(n).map(|bytes| RecordView::Blob(bytes)),
            _ => None,
        };
        found.unwrap_or(RecordView::Missing)
    }

    /// The field of an object; missing if this is not an object.
    pub(super) fn field(self, name: &str) -> Self {
        let found = match self {
            Self::Event(subject) => event_field(subject, name),
            Self::Change(record) => change_field(record, name),
            Self::ByTtl => match name {
                "type" => Some(RecordView::Text("Service")),
                "principalId" => Some(RecordView::Text("dynamodb.amazonaws.com")),
                _ => None,
            },
            Self::Image(image) => image.get(name).map(RecordView::Attribute),
            Self::Attribute(attribute) => {
                let (letter, value) = typed(attribute);
                (letter == name).then_some(value)
            }
            _ => None,
        };
        found.unwrap_or(RecordView::Missing)
    }

    /// The part as JSON.
    pub(super) fn json(self) -> Value {
        match self {
            Self::Missing => Value::Null,
            Self::Event(_) => self.object(EVENT_FIELDS),
            Self::Change(_) => self.object(CHANGE_FIELDS),
            Self::ByTtl => self.object(&["type", "principalId"]),
            Self::Image(image) => image
                .iter()
                .map(|(name, value)| (name.clone(), RecordView::Attribute(value).json()))
                .collect(),
            Self::Attribute(attribute) => {
                let (letter, value) = typed(attribute);
                json!({ letter: value.json() })
            }
            Self::Attributes(_) | Self::Texts(_) | Self::Numbers(_) | Self::Blobs(_) => {
                let Sort::List(len) = self.sort() else {
                    return Value::Null;
                };
                (0..len).map(|n| self.element(n).json()).collect()
            }
            Self::Text(text) | Self::Digits(text) => text.into(),
            Self::Blob(bytes) => STANDARD.encode(bytes).into(),
            Self::Number(number) => number.into(),
            Self::Truth(truth) => truth.into(),
        }
    }

    fn object(self, names: &[&str]) -> Value {
        names
            .iter()
            .map(|name| (*name, self.field(name)))
            .filter(|(_, value)| !matches!(value, RecordView::Missing))
            .map(|(name, value)| (name.to_owned(), value.json()))
            .collect()
    }
}

/// The fields of the event.
pub(super) const EVENT_FIELDS: &[&str] = &[
    "eventID",
    "eventName",
    "eventVersion",
    "eventSource",
    "awsRegion",
    "dynamodb",
    "eventSourceARN",
    "userIdentity",
];

/// The fields of `dynamodb`.
pub(super) const CHANGE_FIELDS: &[&str] = &[
    "ApproximateCreationDateTime",
    "Keys",
    "NewImage",
    "OldImage",
    "SequenceNumber",
    "SizeBytes",
    "StreamViewType",
];

fn event_field<'a>(subject: Subject<'a>, name: &str) -> Option<RecordView<'a>> {
    let Subject { record, stream } = subject;
    Some(match name {
        "eventID" => RecordView::Text(&record.event_id),
        "eventName" => RecordView::Text(match record.event {
            Event::Insert => "INSERT",
            Event::Modify => "MODIFY",
            Event::Remove => "REMOVE",
        }),
        "eventVersion" => RecordView::Text("1.1"),
        "eventSource" => RecordView::Text("aws:dynamodb"),
        "awsRegion" => RecordView::Text(stream?.split(':').nth(3)?),
        "dynamodb" => RecordView::Change(record),
        "eventSourceARN" => RecordView::Text(stream?),
        "userIdentity" if record.by_ttl => RecordView::ByTtl,
        _ => return None,
    })
}

fn change_field<'a>(record: &'a Record, name: &str) -> Option<RecordView<'a>> {
    Some(match name {
        "ApproximateCreationDateTime" => {
            let since = record.created.duration_since(SystemTime::UNIX_EPOCH);
            RecordView::Number(since.unwrap_or_default().as_secs())
        }
        "Keys" => RecordView::Image(record.keys.inner()),
        "NewImage" => RecordView::Image(record.new_image.as_ref()?.inner()),
        "OldImage" => RecordView::Image(record.old_image.as_ref()?.inner()),
        "SequenceNumber" => RecordView::Text(record.sequence_number.as_str()),
        "SizeBytes" => RecordView::Number(record.size_bytes),
        "StreamViewType" => RecordView::Text(match record.view {
            StreamView::KeysOnly => "KEYS_ONLY",
            StreamView::OldImage => "OLD_IMAGE",
            StreamView::NewImage => "NEW_IMAGE",
            StreamView::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }),
        _ => return None,
    })
}

/// The type letter and the value behind it.
fn typed(attribute: &AttributeValue) -> (&'static str, RecordView<'_>) {
    match attribute {
        AttributeValue::S(text) => ("S", RecordView::Text(text)),
        AttributeValue::N(digits) => ("N", RecordView::Digits(digits)),
        AttributeValue::B(bytes) => ("B", RecordView::Blob(bytes)),
        AttributeValue::Bool(truth) => ("BOOL", RecordView::Truth(*truth)),
        AttributeValue::Null(null) => ("NULL", RecordView::Truth(*null)),
        AttributeValue::M(map) => ("M", RecordView::Image(map)),
        AttributeValue::L(list) => ("L", RecordView::Attributes(list)),
        AttributeValue::Ss(texts) => ("SS", RecordView::Texts(texts)),
        AttributeValue::Ns(numbers) => ("NS", RecordView::Numbers(numbers)),
        AttributeValue::Bs(blobs) => ("BS", RecordView::Blobs(blobs)),
    }
}
