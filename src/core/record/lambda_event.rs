//! Records in the JSON form in which AWS Lambda passes them.
//!
//! Source: [the event](https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html).

use crate::core::millis::since_1970;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde_dynamo::{AttributeValue as A, Item};
use serde_json::{Map, Value, json};

use super::{Event, Record, SequenceNumber, StreamView};

/// A record, and the stream that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The record.
    pub record: Record,
    /// The stream's ARN (`eventSourceARN`), if it is named.
    pub stream: Option<String>,
}

/// Why JSON is not a record. It contains names but never values, which may be a customer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct NotARecord {
    /// Where, such as `Records[3].dynamodb.NewImage`.
    pub path: String,
    /// What is wrong there, and what was expected.
    pub problem: String,
}

impl NotARecord {
    fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        let (path, problem) = (path.into(), problem.into());
        Self { path, problem }
    }
}

/// Reads all records of an event with `Records`, or a single record.
///
/// # Errors
///
/// The first record that cannot be read, as in [`read`].
pub fn read_all(event: &Value) -> Result<Vec<Received>, NotARecord> {
    match event.get("Records") {
        None => Ok(vec![read(event)?]),
        Some(Value::Array(records)) => {
            let records = records.iter().enumerate();
            records
                .map(|(n, record)| {
                    read(record).map_err(|error| {
                        let path = format!("Records[{n}].{}", error.path);
                        NotARecord { path, ..error }
                    })
                })
                .collect()
        }
        Some(_) => Err(NotARecord::new("Records", "expected a list")),
    }
}

/// Reads one record. Missing fields are derived where possible: the view and the event from the images,
/// the event's id from the sequence number, the time as 1970.
///
/// # Errors
///
/// There is no change (`dynamodb`) or no sequence number, or a field has the wrong type.
pub fn read(record: &Value) -> Result<Received, NotARecord> {
    let outer = EventFields::of(record, "")?;
    let change = record.get("dynamodb").ok_or_else(|| {
        NotARecord::new("dynamodb", "not there: is this a DynamoDB stream record?")
    })?;
    let change = EventFields::of(change, "dynamodb")?;
    let sequence_number = change
        .text("SequenceNumber")?
        .ok_or_else(|| NotARecord::new("dynamodb.SequenceNumber", "not there"))?;
    let sequence_number = SequenceNumber::parse(sequence_number)
        .map_err(|_| NotARecord::new("dynamodb.SequenceNumber", "expected 1 to 40 digits"))?;
    let new_image = change.item("NewImage")?;
    let old_image = change.item("OldImage")?;
    let view = match change.text("StreamViewType")? {
        Some(word) => StreamView::from_word(word).ok_or_else(|| {
            NotARecord::new("dynamodb.StreamViewType", "expected a stream view type")
        })?,
        None => match (&new_image, &old_image) {
            (Some(_), Some(_)) => StreamView::NewAndOldImages,
            (Some(_), None) => StreamView::NewImage,
            (None, Some(_)) => StreamView::OldImage,
            (None, None) => StreamView::KeysOnly,
        },
    };
    let event = match outer.text("eventName")? {
        Some("INSERT") => Event::Insert,
        Some("MODIFY") => Event::Modify,
        Some("REMOVE") => Event::Remove,
        Some(_) => {
            let problem = "expected INSERT, MODIFY or REMOVE";
            return Err(NotARecord::new("eventName", problem));
        }
        None if view.has_new_image() && new_image.is_none() => Event::Remove,
        None if view == StreamView::NewAndOldImages && old_image.is_none() => Event::Insert,
        None => Event::Modify,
    };
    let event_id = outer.text("eventID")?.unwrap_or(sequence_number.as_str());
    Ok(Received {
        record: Record {
            event_id: event_id.to_owned(),
            event,
            keys: change.keys()?,
            new_image,
            old_image,
            created: change.time("ApproximateCreationDateTime")?,
            view,
            size_bytes: change.whole("SizeBytes")?,
            by_ttl: event == Event::Remove && by_ttl(record.get("userIdentity")),
            sequence_number,
        },
        stream: outer.text("eventSourceARN")?.map(str::to_owned),
    })
}

/// When a record was committed, even if it cannot be read.
#[cfg(feature = "lambda")]
pub(crate) fn created(record: &Value) -> Option<SystemTime> {
    let change = EventFields::of(record.get("dynamodb")?, "dynamodb").ok()?;
    let created = change.time("ApproximateCreationDateTime").ok()?;
    Some(created).filter(|created| *created != SystemTime::UNIX_EPOCH)
}

/// Some tools write the names in upper case, as the Streams API does.
fn by_ttl(identity: Option<&Value>) -> bool {
    let Some(identity) = identity else {
        return false;
    };
    let is = |lower: &str, upper: &str, wanted: &str| {
        let value = identity.get(lower).or_else(|| identity.get(upper));
        value.and_then(Value::as_str) == Some(wanted)
    };
    is("type", "Type", "Service") && is("principalId", "PrincipalId", "dynamodb.amazonaws.com")
}

/// The fields of a JSON object. `null` counts as missing.
struct EventFields<'a> {
    of: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> EventFields<'a> {
    fn of(value: &'a Value, path: &'a str) -> Result<Self, NotARecord> {
        let name = if path.is_empty() { "the record" } else { path };
        let of = value
            .as_object()
            .ok_or_else(|| NotARecord::new(name, "expected an object"))?;
        Ok(Self { of, path })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.of.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, problem: impl Into<String>) -> NotARecord {
        let dot = if self.path.is_empty() { "" } else { "." };
        NotARecord::new(format!("{}{dot}{name}", self.path), problem)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, NotARecord> {
        let value = self.get(name);
        value
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| self.wrong(name, "expected a text"))
            })
            .transpose()
    }

    fn item(&self, name: &str) -> Result<Option<Item>, NotARecord> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let attributes = value
            .as_object()
            .ok_or_else(|| self.wrong(name, "attributes were expected"))?;
        let read = attributes.iter().map(|(attribute, value)| {
            // The message of serde contains the value.
            let value = serde_json::from_value::<A>(value.clone()).map_err(|_| {
                let problem = "expected a value under its type letter, such as {\"S\": \"text\"}";
                self.wrong(&format!("{name}.{attribute}"), problem)
            })?;
            Ok((attribute.clone(), value))
        });
        let read: HashMap<_, _> = read.collect::<Result<_, _>>()?;
        Ok(Some(read.into()))
    }

    /// The item's key. Types that a DynamoDB key cannot have are rejected: such keys could not be told
    /// apart.
    ///
    /// Source: [key attributes](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html#HowItWorks.DataTypes).
    fn keys(&self) -> Result<Item, NotARecord> {
        let keys = self.item("Keys")?.unwrap_or_default();
        let fits = |value| matches!(value, &A::S(_) | &A::N(_) | &A::B(_));
        if keys.inner().values().all(fits) {
            return Ok(keys);
        }
        Err(self.wrong("Keys", "a key attribute is expected to be S, N or B"))
    }

    fn whole(&self, name: &str) -> Result<u64, NotARecord> {
        match self.get(name) {
            None => Ok(0),
            Some(value) => value
                .as_u64()
                .ok_or_else(|| self.wrong(name, "expected a whole number")),
        }
    }

    fn time(&self, name: &str) -> Result<SystemTime, NotARecord> {
        let since = match self.get(name) {
            None => Some(Duration::ZERO),
            Some(value) => value.as_u64().map(Duration::from_secs).or_else(|| {
                let seconds = value.as_f64()?;
                Duration::try_from_secs_f64(seconds).ok()
            }),
        };
        since
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
            .ok_or_else(|| self.wrong(name, "expected seconds since 1970"))
    }
}

/// The record as JSON, always the same for the same record. Times are in whole seconds, as in the
/// stream. Everything else is exact (binary as base64, numbers as text).
///
/// # Errors
///
/// None that is known: JSON can hold everything that DynamoDB stores.
pub fn write(record: &Record, stream: Option<&str>) -> Result<Value, serde_json::Error> {
    let mut change = json!({
        "ApproximateCreationDateTime": since_1970(record.created).as_secs(),
        "Keys": serde_json::to_value(&record.keys)?,
        "SequenceNumber": record.sequence_number.as_str(),
        "SizeBytes": record.size_bytes,
        "StreamViewType": record.view.to_string(),
    });
    for (name, image) in [
        ("NewImage", &record.new_image),
        ("OldImage", &record.old_image),
    ] {
        if let Some(image) = image {
            change[name] = serde_json::to_value(image)?;
        }
    }
    let mut event = json!({
        "eventID": record.event_id,
        "eventName": record.event.to_string(),
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "dynamodb": change,
    });
    if let Some(stream) = stream {
        event["eventSourceARN"] = stream.into();
        if let Some(region) = stream.split(':').nth(3) {
            event["awsRegion"] = region.into();
        }
    }
    if record.by_ttl {
        event["userIdentity"] = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
    }
    Ok(event)
}
