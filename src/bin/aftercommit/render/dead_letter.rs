//! A dead letter, told to people and to scripts.

use aftercommit::dead_letter::{Envelope, Letter};
use aftercommit::record::lambda_event;
use serde_json::{Value, json};

use crate::render::ledger::plain;
use crate::render::out::moment;

/// The letter in a line.
pub fn line(letter: &Envelope) -> String {
    let error = letter.attempts.last().next_back();
    let error = error.map_or("-", |attempt| attempt.error.as_str());
    let state = match letter.deeds.last() {
        Some(deed) if !letter.open => format!(", {} by {}", deed.what.word(), deed.by),
        _ => String::new(),
    };
    let parts = [
        moment(letter.written),
        letter.key_in_words(),
        letter.id.sequence_number.to_string(),
        letter.event.to_string(),
        format!("{}{state}", letter.reason),
        format!("attempts {}", letter.attempts.made()),
        error.to_owned(),
    ];
    parts.map(|part| plain(&part)).join("\t") + "\n"
}

/// The letter without its record, for a script.
pub fn json(letter: &Envelope) -> Value {
    let attempts = letter.attempts.last();
    let attempts = attempts.map(|one| json!({"at": moment(one.at), "error": one.error}));
    let deeds = letter.deeds.iter().map(
        |one| json!({"at": moment(one.at), "by": one.by, "what": one.what.word(), "note": one.why}),
    );
    json!({
        "group": letter.id.at.group().as_str(),
        "stream": &*letter.id.stream(),
        "shard": letter.shard.as_str(),
        "key": letter.key_in_words(),
        "sequence_number": letter.id.sequence_number.as_str(),
        "event": letter.event.to_string(),
        "committed": moment(letter.created),
        "written": moment(letter.written),
        "reason": letter.reason.word(),
        "open": letter.open,
        "attempts_made": letter.attempts.made(),
        "attempts": attempts.collect::<Value>(),
        "deeds": deeds.collect::<Value>(),
    })
}

/// The letter with its record, which has the shape in which Lambda hands records over.
pub fn json_in_full(letter: &Letter) -> serde_json::Result<Value> {
    let mut whole = json(&letter.envelope);
    let stream = letter.envelope.id.stream();
    whole["record"] = lambda_event::write(&letter.record, Some(&stream))?;
    Ok(whole)
}
