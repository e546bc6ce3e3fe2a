//! A row of the ledger, as a line, as a page, or as JSON.

use std::fmt::Write as _;
use std::time::SystemTime;

use crate::confirmation::mail::message_id_local;
use crate::core::claim::{Entry, History, State, Step, StepKind};
use crate::stores::ledger::EffectKey;
use serde::Serialize;

use crate::cli::render::out::{moment, plain};

/// What the ledger knows about an effect: an order's email, or what a handler does for an id. JSON shows the fields as they are.
#[derive(Debug, Serialize)]
pub struct ShownEntry {
    pub order: String,
    effect: String,
    effect_key: String,
    pub state: &'static str,
    attempts: u64,
    fence: u64,
    revision: u64,
    claimant: Option<String>,
    claim_ends: Option<String>,
    first_claimed: Option<String>,
    changed: String,
    /// The reply with which it was accepted.
    receipt: Option<String>,
    reply: Option<String>,
    digest: Option<String>,
    /// `None`: it is not an email.
    message_id_local: Option<String>,
    ambiguities: u64,
    doubtful: Vec<u64>,
    accepted: Vec<u64>,
    second_acceptances: u64,
    released: bool,
    item: Option<ShownItem>,
    history: Vec<HistoryStep>,
    history_left_out: u64,
    pub advice: String,
    /// The history in words, oldest first.
    #[serde(skip)]
    pub events: Vec<(SystemTime, String)>,
}

/// The item of the row.
#[derive(Debug, Serialize)]
struct ShownItem {
    table: String,
    key: String,
    #[serde(skip)]
    words: String,
}

/// One step of an effect's history.
#[derive(Debug, Serialize)]
struct HistoryStep {
    at: String,
    what: &'static str,
    fence: Option<u64>,
    by: Option<String>,
    text: Option<String>,
}

impl ShownEntry {
    pub fn new(key: &EffectKey, entry: &Entry) -> Self {
        let claimant = entry.claimant.as_ref();
        Self {
            order: key.id().to_owned(),
            effect: key.effect().to_owned(),
            effect_key: key.as_str().to_owned(),
            state: entry.state.word(),
            attempts: entry.fence,
            fence: entry.fence,
            revision: entry.revision,
            claimant: claimant.map(|by| by.incarnation.clone()),
            claim_ends: claimant.map(|by| moment(by.deadline)),
            first_claimed: entry.first_claimed.map(moment),
            changed: moment(entry.changed),
            receipt: entry.reply.clone().filter(|_| entry.state == State::Sent),
            reply: entry.reply.clone(),
            digest: entry.digest.clone(),
            message_id_local: is_mail(entry).then(|| message_id_local(key)),
            ambiguities: entry.ambiguities.into(),
            doubtful: entry.doubtful.clone(),
            accepted: entry.accepted.clone(),
            second_acceptances: entry.second_acceptances() as u64,
            released: entry.released,
            item: entry.item.as_ref().map(|item| ShownItem {
                table: item.table.clone(),
                key: item.key.clone(),
                words: item.to_string(),
            }),
            history: entry.history.steps().iter().map(HistoryStep::new).collect(),
            history_left_out: entry.history.left_out(),
            advice: advice(key, entry),
            events: events(&entry.history),
        }
    }

    /// One line: order or id, state, effect, attempts, last change, receipt or last reply.
    pub fn line(&self) -> String {
        let (reply, attempts) = (
            self.reply.as_deref().unwrap_or("-"),
            self.attempts.to_string(),
        );
        let parts = [
            &self.order,
            self.state,
            &self.effect,
            &attempts,
            &self.changed,
            reply,
        ];
        parts.map(plain).join("\t") + "\n"
    }

    /// Everything, as text.
    pub fn page(&self) -> String {
        let mut text = format!("order {}: {}\n\n", plain(&self.order), self.state);
        let mut row = |name: &str, value: &str| {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{name:<20}{}", plain(value));
        };
        row("effect", &self.effect);
        row("effect key", &self.effect_key);
        if let Some(item) = &self.item {
            row("item", &item.words);
        }
        row("last change", &self.changed);
        row(
            "first claim",
            self.first_claimed.as_deref().unwrap_or("never"),
        );
        row("attempts", &self.attempts.to_string());
        if let (Some(by), Some(ends)) = (&self.claimant, &self.claim_ends) {
            row("last claimant", by);
            row("its claim ends", ends);
        }
        match &self.receipt {
            Some(receipt) => row("receipt", receipt),
            None => row("last reply", self.reply.as_deref().unwrap_or("none")),
        }
        row("ambiguities", &self.ambiguities.to_string());
        row("claims in doubt", &numbers(&self.doubtful));
        row("claims accepted", &numbers(&self.accepted));
        row("second acceptances", &self.second_acceptances.to_string());
        if let Some(local) = &self.message_id_local {
            row("Message-ID", &format!("<{local}@...>"));
        }
        text.push('\n');
        for (at, what) in &self.events {
            let _ = writeln!(text, "{}  {}", moment(*at), plain(what));
        }
        format!("{text}\n{}\n", self.advice)
    }
}

impl HistoryStep {
    fn new(step: &Step) -> Self {
        Self {
            at: moment(step.at),
            what: step.kind.word(),
            fence: step.fence,
            by: step.by.clone(),
            text: step.text.clone(),
        }
    }
}

/// A history in words. A line marks the steps in the middle that were not kept.
fn events(history: &History) -> Vec<(SystemTime, String)> {
    let mut events = Vec::new();
    for (n, step) in history.steps().iter().enumerate() {
        if history.missing_after() == Some(n) {
            let left_out = history.left_out();
            events.push((step.at, format!("({left_out} steps are not kept)")));
        }
        events.push((step.at, in_words(step)));
    }
    events
}

fn in_words(step: &Step) -> String {
    let by = step.by.as_deref().unwrap_or("(unknown)");
    let text = step.text.as_deref().unwrap_or("no reason recorded");
    let claim = step
        .fence
        .map_or_else(String::new, |fence| format!("claim {fence}: "));
    match step.kind {
        StepKind::Claimed => format!("claim {} by {by}", step.fence.unwrap_or_default()),
        StepKind::Accepted => format!("{claim}accepted: {text}"),
        StepKind::Refused => format!("{claim}refused: {text}"),
        StepKind::Deferred => format!("{claim}certainly not accepted: {text}"),
        StepKind::Doubted => {
            format!("{claim}AMBIGUOUS, unknown whether it was accepted: {text}")
        }
        StepKind::TurnedAway => format!("refused before any claim: {text}"),
        StepKind::Suppressed => format!("SUPPRESSED, deliberately not performed: {text}"),
        StepKind::Resolved => format!("resolved by {by} as {text}"),
        StepKind::Rewritten | StepKind::Closed => format!("{claim}{text}"),
        StepKind::Moved => format!("the row now belongs to another item: {text}"),
    }
}

fn numbers(claims: &[u64]) -> String {
    let claims: Vec<_> = claims
        .iter()
        .map(|fence| format!("claim {fence}"))
        .collect();
    if claims.is_empty() {
        return "none".to_owned();
    }
    claims.join(", ")
}

/// Only an email has a recipient. A row without an item is that of an order which an operator released.
fn is_mail(entry: &Entry) -> bool {
    let item = entry.item.as_ref();
    item.is_none_or(|item| item.recipient.is_some())
}

/// What a state means, and what to do next.
pub fn advice(key: &EffectKey, entry: &Entry) -> String {
    if is_mail(entry) {
        mail_advice(entry)
    } else {
        handler_advice(key, entry)
    }
}

/// The advice for an effect of a handler.
fn handler_advice(key: &EffectKey, entry: &Entry) -> String {
    let (id, times) = (key.id(), entry.accepted.len());
    match entry.state {
        State::Sending => mail_advice(entry),
        State::Sent if entry.second_acceptances() > 0 => {
            format!("The handler performed it {times} times. It is not performed again.")
        }
        State::Sent => "The handler performed it. It is not performed again.".to_owned(),
        State::Failed => {
            "The handler refused it for good, so it did not take place. Fix the cause, then \
             run `aftercommit dead-letters redrive`."
                .to_owned()
        }
        State::Retry if entry.released => format!(
            "An operator released it, and it has not taken place yet. The next change of its item \
             performs it, or a redrive if it has a dead letter. If you perform it yourself, record that \
             with `aftercommit ledger resolve {id} --sent --note TEXT`."
        ),
        State::Retry => {
            "It certainly did not take place. The worker that has its record tries again by \
             itself. If the record is a dead letter, run `aftercommit dead-letters redrive`."
                .to_owned()
        }
        State::Ambiguous if entry.doubtful.is_empty() => format!(
            "It certainly did not take place, but that came to light after its record may have been \
             handled. A worker that still has the record performs it by itself. If no worker has it, \
             perform it yourself and run `aftercommit ledger resolve {id} --sent --note TEXT`."
        ),
        State::Ambiguous => format!(
            "It is unknown whether it took place. With `--on-ambiguous resend` a worker that has the \
             record performs it a second time, never a third; with `park` no worker does. Ask the \
             receiver whether it knows the idempotency key {key}, then run `aftercommit ledger resolve \
             {id} --sent --note TEXT`, or with `--send` in place of `--sent` to allow it again."
        ),
        State::Suppressed => {
            "It was deliberately not performed; the last reply says why. A later change \
             of the item decides again."
                .to_owned()
        }
    }
}

/// The advice for an email.
pub fn mail_advice(entry: &Entry) -> String {
    match entry.state {
        State::Sending => {
            let until = entry.claimant.as_ref().map(|by| moment(by.deadline));
            format!(
                "A worker claimed it and may be performing it now. Wait: a worker that finds the claimant \
                 dead marks it AMBIGUOUS. If it is still SENDING after {}, resolve it with \
                 `aftercommit ledger resolve`.",
                until.as_deref().unwrap_or("a while")
            )
        }
        State::Sent if entry.second_acceptances() > 0 => format!(
            "The mail server accepted {} emails for it, all with the same Message-ID. No more are sent.",
            entry.accepted.len()
        ),
        State::Sent => "The email was sent. No other is sent.".to_owned(),
        State::Failed => "The mail server refused it for good, so nothing was sent. Fix the cause, then \
             send it with `aftercommit send ORDER`, or with `aftercommit dead-letters redrive` if it \
             has a dead letter."
            .to_owned(),
        State::Retry if entry.released => "An operator released it, and it is not sent yet. Send it \
             with `aftercommit send ORDER`, or give it up with `aftercommit ledger resolve ORDER \
             --skip --note TEXT`."
            .to_owned(),
        State::Retry => "It was certainly not accepted. The worker that has its record tries again by \
             itself. If no worker has it, send it with `aftercommit send ORDER`."
            .to_owned(),
        State::Ambiguous if entry.doubtful.is_empty() => {
            "It was certainly not accepted, but that came to light after its record may have been \
             handled. A worker that still has the record sends it by itself. If no worker has it, send \
             it with `aftercommit ledger resolve ORDER --send --note TEXT`."
                .to_owned()
        }
        State::Ambiguous => "It is unknown whether the mail server accepted it. With `--on-ambiguous \
             resend` a worker that has the record sends it a second time, never a third; with `park` no \
             worker sends it. Look for the Message-ID in the mail server's log, then run `aftercommit \
             ledger resolve ORDER --sent --note TEXT`, or `--send` in place of `--sent`."
            .to_owned(),
        State::Suppressed => "It was deliberately not sent; the last reply says why. A later change of \
             the order decides again; `aftercommit send ORDER` sends it now."
            .to_owned(),
    }
}
