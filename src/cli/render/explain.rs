//! Everything that is known about one order, as text or as JSON.

use std::fmt::Write as _;
use std::time::SystemTime;

use crate::stores::dead_letter::Letter;
use serde::Serialize;
use serde_json::Value;

use crate::cli::render::out::{moment, plain};
use crate::cli::render::{dead_letter, ledger};

/// What is known about an order. JSON shows the fields as they are.
#[derive(Debug, Serialize)]
pub struct OrderExplanation {
    pub order: String,
    pub events: Vec<HistoryEvent>,
    pub ledger: Option<ledger::ShownEntry>,
    pub dead_letters: Vec<dead_letter::ShownLetter>,
    /// Shards in which the order's record may wait.
    pub waits: Vec<WaitingShard>,
    /// The item as it is in its table now, as plain JSON.
    pub item: Option<Value>,
    /// The place of the item, if it is known.
    #[serde(skip)]
    pub place: Option<ItemPlace>,
    #[serde(skip)]
    pub waits_as: WaitsAs,
}

/// An event in the order's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEvent {
    at: String,
    what: String,
}

/// A shard with waiting records.
#[derive(Debug, Serialize)]
pub struct WaitingShard {
    pub shard: String,
    /// When the oldest waiting record was committed.
    pub oldest_committed: Option<String>,
    pub last_error: Option<String>,
}

/// The table of an item, and its key in readable form.
#[derive(Debug)]
pub struct ItemPlace {
    pub table: String,
    pub key: String,
}

/// Where the order's record may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsAs {
    /// As an open dead letter.
    DeadLetter,
    /// In its shard.
    InShard,
    /// Nowhere.
    Nothing,
}

/// All events, oldest first.
pub fn events(row: Option<&ledger::ShownEntry>, letters: &[Letter]) -> Vec<HistoryEvent> {
    let mut events: Vec<_> = row.iter().flat_map(|row| row.events.clone()).collect();
    events.extend(letters.iter().flat_map(of_letter));
    events.sort_by_key(|event| event.0);
    let event = |(at, what)| HistoryEvent {
        at: moment(at),
        what,
    };
    events.into_iter().map(event).collect()
}

fn of_letter(letter: &Letter) -> Vec<(SystemTime, String)> {
    let envelope = &letter.envelope;
    let sequence = &envelope.id.sequence_number;
    let (what, shard) = (envelope.event, &envelope.shard);
    let mut events = vec![(
        envelope.created,
        format!("{what} committed, as record {sequence} of shard {shard}"),
    )];
    for attempt in envelope.attempts.last() {
        let error = &attempt.error;
        events.push((attempt.at, format!("attempt failed: {error}")));
    }
    let made = envelope.attempts.made();
    events.push((
        envelope.written,
        format!("dead letter ({}, attempts {made})", envelope.reason),
    ));
    for deed in &envelope.deeds {
        let why = deed.why.as_ref();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        events.push((deed.at, format!("{} by {}{why}", deed.what.word(), deed.by)));
    }
    events
}

impl OrderExplanation {
    /// Everything, as text.
    pub fn text(&self) -> anyhow::Result<String> {
        let mut text = format!("order {}\n\n", plain(&self.order));
        // Writing into a String cannot fail.
        for event in &self.events {
            let _ = writeln!(text, "{}  {}", event.at, plain(&event.what));
        }
        if let Some(row) = &self.ledger {
            let _ = writeln!(text, "\nThe ledger says {}. {}", row.state, row.advice);
        } else {
            text += "\nThe ledger does not know it: nothing was ever started for it, or its row has expired.\n";
        }
        text += &self.waiting();
        match (&self.place, &self.item) {
            (Some(place), Some(item)) => {
                let _ = writeln!(text, "\nIts item in table {} is now\n{item:#}", place.table);
            }
            (Some(place), None) => {
                let _ = writeln!(text, "\nIts item is no longer in table {}.", place.table);
            }
            (None, _) => {}
        }
        for letter in &self.dead_letters {
            let whole = serde_json::to_string_pretty(letter)?;
            let _ = writeln!(text, "\nIts dead letter\n{whole}");
        }
        Ok(text)
    }

    /// What the order waits for.
    fn waiting(&self) -> String {
        match (self.waits_as, &self.place) {
            (WaitsAs::DeadLetter, Some(place)) => format!(
                "It waits as a dead letter: fix the cause, then run `aftercommit dead-letters redrive \
                 --key {}`.\n",
                plain(&place.key)
            ),
            (WaitsAs::InShard, _) => self.waiting_in_shard(),
            _ => String::new(),
        }
    }

    fn waiting_in_shard(&self) -> String {
        let mut text = String::new();
        for one in &self.waits {
            let since = one
                .oldest_committed
                .as_ref()
                .map_or_else(String::new, |at| {
                    format!("; the oldest record there was committed at {at}")
                });
            let error = one.last_error.as_deref().unwrap_or("none is known");
            let _ = writeln!(
                text,
                "It may wait in shard {}{since}; last error: {}",
                plain(&one.shard),
                plain(error)
            );
        }
        if self.ledger.is_none() && text.is_empty() {
            text += "No shard reports records that wait: the order was not selected by the filters, was \
                     committed before the group began, or was lost in a gap. `aftercommit send ORDER` \
                     sends it.\n";
        }
        text
    }
}
