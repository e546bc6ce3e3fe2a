//! A letter in the shape in which Lambda tells of records that it gave up.
//!
//! Lambda tells a queue or a topic of a failed batch without the records, and a bucket with them,
//! as `payload`. Here a batch is one record, and the payload is there wherever it fits. What Lambda
//! has no field for stands under `aftercommit`.
//!
//! Source: [on-failure destinations](https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html).

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Letter, Reason};
use crate::core::record::lambda_event;

/// The longest message, in bytes of UTF-8: what a topic takes, and a queue unless it is set to more.
///
/// Sources: [Publish](https://docs.aws.amazon.com/sns/latest/api/API_Publish.html),
/// [MaximumMessageSize](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html).
pub(super) const LONGEST: usize = 256 << 10;

/// The message of a letter: the same for the same letter, and at most [`LONGEST`].
pub(super) fn message(letter: &Letter) -> Result<String, serde_json::Error> {
    let stream = letter.envelope.id.stream();
    let record = lambda_event::write(&letter.record, Some(&stream))?;
    let payload = json!({ "Records": [record] }).to_string();
    let mut told = without_payload(letter);
    told["payload"] = payload.as_str().into();
    let whole = safe(&told.to_string());
    if whole.len() <= LONGEST {
        return Ok(whole);
    }
    told["payload"] = Value::Null;
    told["aftercommit"]["payloadLeftOut"] = format!(
        "the record's {} bytes do not fit into a message: read it with `aftercommit dead-letters \
         show --key KEY --json`, with the key that stands here",
        payload.len()
    )
    .into();
    Ok(safe(&told.to_string()))
}

fn without_payload(letter: &Letter) -> Value {
    let of = &letter.envelope;
    let last = of.attempts.last().next_back();
    let error = last.map(|attempt| attempt.error.as_str());
    let number = of.id.sequence_number.as_str();
    let created = seconds(of.created);
    json!({
        "requestContext": {
            "requestId": letter.record.event_id,
            "functionArn": "aftercommit",
            "condition": condition(of.reason),
            "approximateInvokeCount": of.attempts.made(),
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": env!("CARGO_PKG_VERSION"),
            "functionError": "Handled",
        },
        "version": "1.0",
        "timestamp": humantime::format_rfc3339_millis(of.written).to_string(),
        "DDBStreamBatchInfo": {
            "shardId": of.shard.id(),
            "startSequenceNumber": number,
            "endSequenceNumber": number,
            "approximateArrivalOfFirstRecord": created,
            "approximateArrivalOfLastRecord": created,
            "batchSize": 1,
            "streamArn": &*of.id.stream(),
        },
        "aftercommit": {
            "reason": of.reason.word(),
            "key": of.key_in_words(),
            "error": error,
        },
    })
}

/// Lambda's word where it has one.
fn condition(reason: Reason) -> &'static str {
    match reason {
        Reason::Exhausted => "RetryAttemptsExhausted",
        other => other.word(),
    }
}

fn seconds(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Without the two characters that JSON allows and a queue does not: they are escaped. All others
/// that it refuses are escaped in JSON anyway.
///
/// Source: [message content](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html).
fn safe(json: &str) -> String {
    json.replace('\u{fffe}', "\\ufffe")
        .replace('\u{ffff}', "\\uffff")
}
