//! A call of a program, whichever way it is called.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::core::record::Record;
use crate::engine::BatchRecord;
use crate::engine::handler::{Context, Failure};
use crate::handlers::body::BodyFormat;
use crate::handlers::event::{self, KEY_HEADER};
use crate::handlers::key::{Keys, visible};
use crate::stores::ledger::EffectKey;

/// A call that is still to be made: a request over HTTP, or the invocation of a function.
#[derive(Debug, Clone)]
pub(super) struct ProgramCall {
    /// The body of the request; the function's event.
    pub body: Vec<u8>,
    /// The request's headers; the function's client context.
    pub headers: Vec<(&'static str, String)>,
    /// The ARN of the stream.
    pub stream: String,
    /// When the caller stops waiting.
    pub ends: Option<Instant>,
}

/// A change of a batch.
pub(super) struct BatchPart<'a> {
    /// Its place in the batch that the handler got.
    pub place: usize,
    pub of: &'a BatchRecord,
    key: EffectKey,
    change: Value,
}

impl ProgramCall {
    /// The call for one change.
    pub fn of_one(
        keys: &Keys,
        format: BodyFormat,
        (record, context): (&Record, &Context),
    ) -> Result<Self, Failure> {
        let key = keys.of(record, context)?;
        Ok(Self {
            body: format.alone(format.change(record, context)?),
            headers: event::headers(&key, record, context).collect(),
            stream: context.stream().to_owned(),
            ends: context.attempt_ends(),
        })
    }

    /// The call for a batch of changes. What a single change has in headers, each has in a member
    /// `aftercommit`.
    pub fn of_several(format: BodyFormat, parts: &[BatchPart<'_>]) -> Self {
        let first = parts.first().map(|part| &part.of.context);
        let contexts = parts.iter().map(|part| &part.of.context);
        Self {
            body: format.several(parts.iter().map(|part| part.change.clone()).collect()),
            headers: match parts {
                [one] => {
                    let BatchRecord { record, context } = one.of;
                    event::headers(&one.key, record, context).collect()
                }
                several => vec![(KEY_HEADER, visible(&key_of(several)))],
            },
            stream: first
                .map(|context| context.stream().to_owned())
                .unwrap_or_default(),
            ends: contexts.filter_map(Context::attempt_ends).min(),
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| *known == name);
        header.map(|(_, value)| &**value)
    }

    /// The effect key, as a header may carry it.
    pub fn key(&self) -> &str {
        self.header(KEY_HEADER).unwrap_or_default()
    }
}

impl<'a> BatchPart<'a> {
    /// This change, at this place in its batch.
    pub fn of(
        keys: &Keys,
        format: BodyFormat,
        (place, of): (usize, &'a BatchRecord),
    ) -> Result<Self, Failure> {
        let BatchRecord { record, context } = of;
        let key = keys.of(record, context)?;
        let mut change = format.change(record, context)?;
        let facts = event::headers(&key, record, context);
        let facts = facts.map(|(name, value)| (name.to_owned(), Value::from(value)));
        let facts = Value::Object(facts.collect());
        if let Value::Object(members) = &mut change {
            members.insert("aftercommit".to_owned(), facts);
        }
        Ok(Self {
            place,
            of,
            key,
            change,
        })
    }
}

/// An effect key for a batch: the same for the same changes.
fn key_of(batch: &[BatchPart<'_>]) -> String {
    let keys = batch.iter().map(|part| part.key.as_str());
    let hash = Sha256::digest(keys.collect::<Vec<_>>().join("\n"));
    let effect = batch.first().map_or("", |part| part.key.effect());
    format!("{effect}#batch-{}", URL_SAFE_NO_PAD.encode(&hash[..16]))
}
