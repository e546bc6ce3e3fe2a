//! Lambda's event, and what a function's response to it means.

use serde_json::Value;

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

/// A record of the event.
pub(super) fn record(record: &Record, context: &Context) -> Result<Value, Failure> {
    lambda_event::write(record, Some(context.stream())).map_err(Failure::reject)
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
    /// The function wants these again.
    WantedAgain(BatchItemFailures),
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
            Some(failed) => return Self::WantedAgain(BatchItemFailures::of(failed)),
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
            // The event had one record, so every entry means it.
            Self::WantedAgain(_) => Err(wanted_again()),
            Self::Failed(failure) => Err(failure),
        }
    }

    /// What it means for an effect that takes place once. `receipt` is that of a response without one.
    pub fn effect(self, receipt: &str) -> Outcome {
        match self {
            Self::Done(own) => Outcome::Done(own.unwrap_or_else(|| receipt.to_owned())),
            Self::WantedAgain(_) => Outcome::Deferred(WANTED_AGAIN.to_owned(), wanted_again()),
            // It may have failed after it acted.
            Self::Failed(failure) => Outcome::Unknown(failure.to_string()),
        }
    }
}

/// Which records a function wants again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BatchItemFailures {
    /// All of them: an entry cannot be read, and Lambda takes that for a failure of everything.
    All,
    /// Those with these sequence numbers.
    Of(Vec<String>),
}

impl BatchItemFailures {
    fn of(failures: &Value) -> Self {
        let number = |entry: &Value| {
            let number = entry.get("itemIdentifier").and_then(Value::as_str);
            number
                .filter(|number| !number.is_empty())
                .map(str::to_owned)
        };
        let numbers = failures
            .as_array()
            .map(|entries| entries.iter().map(number));
        let numbers = numbers.and_then(Iterator::collect);
        numbers.map_or(Self::All, Self::Of)
    }
}

/// The failure of a record that a function wants again.
pub(super) fn wanted_again() -> Failure {
    Failure::retry(WANTED_AGAIN)
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
