//! Parses an event as far as possible, so that one odd record does not lose the others.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use crate::core::record::lambda_event::{NotARecord, created, read};
use crate::core::record::{Record, SequenceNumber};

/// The records of an event.
pub(super) struct Records {
    /// The readable records before the first unreadable one, in the shard's order.
    pub read: Vec<Record>,
    /// The first that cannot be read.
    pub unread: Option<Unread>,
    /// The stream's ARN, if it is named.
    pub stream: Option<Arc<str>>,
}

/// An unreadable record, with what is known about it.
pub(super) struct Unread {
    pub error: NotARecord,
    pub number: Option<SequenceNumber>,
    pub created: Option<SystemTime>,
}

/// The ARN of the stream that an event's records come from.
pub(super) fn stream(event: &Value) -> Option<&str> {
    event.pointer("/Records/0/eventSourceARN")?.as_str()
}

impl Records {
    /// Parses an event. A record without a commit time counts as new: no record is given up because of
    /// an unknown age.
    pub fn of(event: &Value, now: SystemTime) -> Self {
        let mut records = Self {
            read: Vec::new(),
            unread: None,
            stream: stream(event).map(Arc::from),
        };
        let Some(all) = event.get("Records").and_then(Value::as_array) else {
            let (path, problem) = ("Records".to_owned(), "expected a list".to_owned());
            records.unread = Some(Unread {
                error: NotARecord { path, problem },
                number: None,
                created: None,
            });
            return records;
        };
        for (n, value) in all.iter().enumerate() {
            match read(value) {
                Ok(received) => {
                    let mut record = received.record;
                    if record.created == SystemTime::UNIX_EPOCH {
                        record.created = now;
                    }
                    records.read.push(record);
                }
                Err(error) => {
                    let path = format!("Records[{n}].{}", error.path);
                    let number = value.pointer("/dynamodb/SequenceNumber");
                    let number = number.and_then(Value::as_str).map(SequenceNumber::parse);
                    records.unread = Some(Unread {
                        error: NotARecord { path, ..error },
                        number: number.and_then(Result::ok),
                        created: created(value),
                    });
                    break;
                }
            }
        }
        records
            .read
            .sort_by(|a, b| a.sequence_number.cmp(&b.sequence_number));
        records
    }
}
