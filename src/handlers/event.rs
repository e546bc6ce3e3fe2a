//! Lambda's event with one record, and what a function's response to it means.

use serde_json::{Value, json};

use crate::core::record::{Record, TRACEPARENT, lambda_event};
use crate::engine::handler::{Context, Failure};

/// What a handler says of a failure is cut after this many characters.
const LONGEST_REASON: usize = 300;

/// The event with this record alone.
pub(super) fn event(record: &Record, context: &Context) -> Result<Value, Failure> {
    let record = lambda_event::write(record, Some(context.stream()));
    Ok(json!({"Records": [record.map_err(Failure::reject)?]}))
}

/// What a handler gets beside the event: headers over HTTP, the client context of a function.
pub(super) fn headers(
    key: &str,
    record: &Record,
    context: &Context,
) -> impl Iterator<Item = (&'static str, String)> {
    let always = [
        ("idempotency-key", key.to_owned()),
        (
            "aftercommit-sequence-number",
            record.sequence_number.as_str().to_owned(),
        ),
        ("aftercommit-attempt", context.attempt().to_string()),
    ];
    let epoch = context
        .epoch()
        .map(|epoch| ("aftercommit-epoch", epoch.to_string()));
    let trace = record
        .traceparent()
        .map(|trace| (TRACEPARENT, trace.to_owned()));
    always.into_iter().chain(epoch).chain(trace)
}

/// What a function's response means. It is a success, whatever it is, unless it says otherwise as Lambda
/// has it.
///
/// Source: [partial failures](https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html).
pub(super) fn outcome(response: &[u8]) -> Result<(), Failure> {
    let Ok(Value::Object(response)) = serde_json::from_slice(response) else {
        return Ok(());
    };
    let there = |name: &str| response.get(name).filter(|value| !value.is_null());
    if there("errorMessage").is_some() || there("errorType").is_some() {
        return Err(failed(&Value::Object(response)));
    }
    match there("batchItemFailures") {
        None => Ok(()),
        Some(Value::Array(failed)) if failed.is_empty() => Ok(()),
        // The event had one record, so every entry means it, and Lambda takes an entry that it cannot
        // read for a failure of everything.
        Some(_) => Err(Failure::retry(
            "the handler reported the record in batchItemFailures",
        )),
    }
}

/// A function's error, as runtimes report it.
pub(super) fn failed(error: &Value) -> Failure {
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let what = [text("errorType"), text("errorMessage")];
    let what: Vec<_> = what.into_iter().filter(|text| !text.is_empty()).collect();
    Failure::retry(format!("the function failed: {}", words(&what.join(": "))))
}

/// Text for a log and a table: one line, short, without control characters and without what names a
/// person.
pub(super) fn words(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let words = text.split_whitespace().map(|word| match word {
        word if word.contains('@') => "<address>",
        word => word,
    });
    let text = words.collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
