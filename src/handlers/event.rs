//! Lambda's event with one record, and what a function's response to it means.

use serde_json::{Value, json};

use crate::core::record::{Record, TRACEPARENT, lambda_event};
use crate::engine::handler::{Context, Failure};
use crate::handlers::key::visible;
use crate::once::Outcome;
use crate::stores::ledger::EffectKey;

/// The header with the effect key.
pub(super) const KEY_HEADER: &str = "idempotency-key";

const WANTED_AGAIN: &str = "the handler reported the record in batchItemFailures";

/// What a handler says of a failure is cut after this many characters.
const LONGEST_REASON: usize = 300;

/// The event with this record alone.
pub(super) fn event(record: &Record, context: &Context) -> Result<Value, Failure> {
    let record = lambda_event::write(record, Some(context.stream()));
    Ok(json!({"Records": [record.map_err(Failure::reject)?]}))
}

/// What a handler gets beside the event: headers over HTTP, the client context of a function.
pub(super) fn headers(
    key: &EffectKey,
    record: &Record,
    context: &Context,
) -> impl Iterator<Item = (&'static str, String)> {
    let always = [
        (KEY_HEADER, visible(key.as_str())),
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

/// What a function's response says about the record.
///
/// Source: [partial failures](https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html).
pub(super) enum FunctionResponse {
    /// It is done, with the `receipt` of the response.
    Done(Option<String>),
    /// It is in `batchItemFailures`: the function wants it again.
    WantedAgain,
    /// The function failed, for this reason.
    Failed(Failure),
}

impl FunctionResponse {
    /// Everything is a success unless it says otherwise as Lambda has it.
    pub fn of(response: &[u8]) -> Self {
        let Ok(Value::Object(response)) = serde_json::from_slice(response) else {
            return Self::Done(None);
        };
        let there = |name: &str| response.get(name).filter(|value| !value.is_null());
        if there("errorMessage").is_some() || there("errorType").is_some() {
            return Self::Failed(failed(&Value::Object(response)));
        }
        match there("batchItemFailures") {
            None => {}
            Some(Value::Array(failed)) if failed.is_empty() => {}
            // The event had one record, so every entry means it, and Lambda takes an entry that it cannot
            // read for a failure of everything.
            Some(_) => return Self::WantedAgain,
        }
        Self::Done(there("receipt").map(|receipt| match receipt {
            Value::String(text) => words(text),
            other => words(&other.to_string()),
        }))
    }

    /// What it means for the record.
    pub fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::Done(_) => Ok(()),
            Self::WantedAgain => Err(Failure::retry(WANTED_AGAIN)),
            Self::Failed(failure) => Err(failure),
        }
    }

    /// What it means for an effect that takes place once. `receipt` is that of a response without one.
    pub fn effect(self, receipt: &str) -> Outcome {
        match self {
            Self::Done(own) => Outcome::Done(own.unwrap_or_else(|| receipt.to_owned())),
            Self::WantedAgain => {
                Outcome::Deferred(WANTED_AGAIN.to_owned(), Failure::retry(WANTED_AGAIN))
            }
            // It may have failed after it acted.
            Self::Failed(failure) => Outcome::Unknown(failure.to_string()),
        }
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
