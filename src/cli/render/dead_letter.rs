//! A dead letter: one struct, shown as a line or as JSON.

use crate::record::lambda_event;
use crate::stores::dead_letter::{Envelope, Letter};
use serde::Serialize;
use serde_json::Value;

use crate::cli::render::out::{moment, plain};

/// A dead letter. JSON shows the fields as they are.
#[derive(Debug, Serialize)]
pub struct ShownLetter {
    group: String,
    effect: String,
    stream: String,
    shard: String,
    key: String,
    sequence_number: String,
    event: String,
    committed: String,
    written: String,
    reason: &'static str,
    open: bool,
    attempts_made: u64,
    attempts: Vec<ShownAttempt>,
    deeds: Vec<ShownDeed>,
    /// The record in the form in which AWS Lambda receives records, if it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Value>,
}

/// A failed attempt.
#[derive(Debug, Serialize)]
struct ShownAttempt {
    at: String,
    error: String,
}

/// What an operator or a redrive did with the letter.
#[derive(Debug, Serialize)]
struct ShownDeed {
    at: String,
    by: String,
    what: &'static str,
    note: Option<String>,
}

impl ShownLetter {
    /// The letter without its record.
    pub fn new(letter: &Envelope) -> Self {
        let attempts = letter.attempts.last().map(|attempt| ShownAttempt {
            at: moment(attempt.at),
            error: attempt.error.clone(),
        });
        let deeds = letter.deeds.iter().map(|deed| ShownDeed {
            at: moment(deed.at),
            by: deed.by.clone(),
            what: deed.what.word(),
            note: deed.why.clone(),
        });
        Self {
            group: letter.id.at.at.group().as_str().to_owned(),
            effect: letter.id.at.effect.as_str().to_owned(),
            stream: letter.id.stream().to_string(),
            shard: letter.shard.as_str().to_owned(),
            key: letter.key_in_words(),
            sequence_number: letter.id.sequence_number.as_str().to_owned(),
            event: letter.event.to_string(),
            committed: moment(letter.created),
            written: moment(letter.written),
            reason: letter.reason.word(),
            open: letter.open,
            attempts_made: letter.attempts.made().into(),
            attempts: attempts.collect(),
            deeds: deeds.collect(),
            record: None,
        }
    }

    /// The letter with its record.
    pub fn with_record(letter: &Letter) -> serde_json::Result<Self> {
        let stream = letter.envelope.id.stream();
        Ok(Self {
            record: Some(lambda_event::write(&letter.record, Some(&stream))?),
            ..Self::new(&letter.envelope)
        })
    }

    /// One line: when it was written, key, sequence number, event, reason, attempts, last error.
    pub fn line(&self) -> String {
        let error = self.attempts.last().map_or("-", |attempt| &attempt.error);
        let state = match self.deeds.last() {
            Some(deed) if !self.open => format!(", {} by {}", deed.what, deed.by),
            _ => String::new(),
        };
        let parts = [
            &*self.written,
            &self.key,
            &self.sequence_number,
            &self.event,
            &format!("{}{state}", self.reason),
            &format!("attempts {}", self.attempts_made),
            error,
        ];
        parts.map(plain).join("\t") + "\n"
    }
}
