//! A letter in the format in which Lambda reports failed records.
//!
//! Lambda sends a message about a failed batch to a queue or topic without the records, and to a bucket
//! with them, as `payload`. Here a batch is one record, and the payload is included if it fits. Fields
//! that Lambda does not have are under `aftercommit`.
//!
//! Source: [on-failure destinations](https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html).

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Letter, Reason};
use crate::core::record::lambda_event;

/// The longest message, in bytes of UTF-8: the limit of a topic, and of a queue by default.
///
/// Sources: [Publish](https://docs.aws.amazon.com/sns/latest/api/API_Publish.html),
/// [MaximumMessageSize](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html).
pub(super) const LONGEST: usize = 256 << 10;

/// The message of a letter. Always the same for the same letter, and at most [`LONGEST`].
pub(super) fn message(letter: &Letter) -> Result<String, serde_json::Error> {
    let stream = letter.envelope.id.stream();
    let record = lambda_event::write(&letter.record, Some(&stream))?;
    let payload = json!({ "Records": [record] }).to_string();
    let mut document = without_payload(letter);
    document["payload"] = payload.as_str().into();
    let whole = safe(&document.to_string());
    if whole.len() <= LONGEST {
        return Ok(whole);
    }
    document["payload"] = Value::Null;
    document["aftercommit"]["payloadLeftOut"] = format!(
        "the record's {} bytes do not fit into a message: read it with `aftercommit dead-letters \
         show --key KEY --json`, with the key in this message",
        payload.len()
    )
    .into();
    Ok(safe(&document.to_string()))
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

/// Lambda's word, if it has one.
fn condition(reason: Reason) -> &'static str {
    match reason {
        Reason::Exhausted => "RetryAttemptsExhausted",
        other => other.word(),
    }
}

fn seconds(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Escapes the two characters that JSON allows and a queue rejects. JSON escapes all others that it
/// rejects anyway.
///
/// Source: [message content](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html).
fn safe(json: &str) -> String {
    json.replace('\u{fffe}', "\\ufffe")
        .replace('\u{ffff}', "\\uffff")
}
