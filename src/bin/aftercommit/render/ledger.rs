//! A row of the ledger, told to people and to scripts.

use std::fmt::Write as _;
use std::time::SystemTime;

use aftercommit::confirmation::mail::message_id_local;
use aftercommit::decide::claim::{Entry, History, State, Step, StepKind};
use aftercommit::ledger::EffectKey;
use serde_json::{Value, json};

use crate::render::out::moment;

/// Without what a terminal would act on: the words are a mail server's.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

/// A step of an effect's history in words.
pub fn step(step: &Step) -> String {
    let by = step.by.as_deref().unwrap_or("(unknown)");
    let text = step.text.as_deref().unwrap_or("no words");
    let claim = step
        .fence
        .map_or_else(String::new, |fence| format!("claim {fence}: "));
    match step.kind {
        StepKind::Claimed => format!("claim {} by {by}", step.fence.unwrap_or_default()),
        StepKind::Accepted => format!("{claim}the mail server accepted it: {text}"),
        StepKind::Refused => format!("{claim}the mail server refused it: {text}"),
        StepKind::Deferred => format!("{claim}certainly not accepted: {text}"),
        StepKind::Doubted => {
            format!("{claim}AMBIGUOUS, nobody can tell whether it was accepted: {text}")
        }
        StepKind::TurnedAway => format!("refused before any claim: {text}"),
        StepKind::Suppressed => format!("SUPPRESSED, deliberately not sent: {text}"),
        StepKind::Resolved => format!("resolved by {by} as {text}"),
        StepKind::Rewritten => format!("{claim}{text}"),
        StepKind::Moved => format!("the row stands for another item: {text}"),
    }
}

/// An effect's history, oldest first. Steps between the first and the last ones may be missing, which
/// a line says.
pub fn history(history: &History) -> Vec<(SystemTime, String)> {
    let mut told = Vec::new();
    for (n, one) in history.steps().iter().enumerate() {
        if history.missing_after() == Some(n) {
            told.push((
                one.at,
                format!("({} steps are not kept)", history.left_out()),
            ));
        }
        told.push((one.at, step(one)));
    }
    told
}

/// Everything, for a script.
pub fn json(key: &EffectKey, entry: &Entry) -> Value {
    let claimant = entry.claimant.as_ref();
    let steps = entry.history.steps().iter().map(|one| {
        json!({
            "at": moment(one.at),
            "what": one.kind.word(),
            "fence": one.fence,
            "by": one.by,
            "text": one.text,
        })
    });
    let item = entry.item.as_ref();
    json!({
        "order": key.id(),
        "effect": key.effect(),
        "effect_key": key.as_str(),
        "state": entry.state.word(),
        "fence": entry.fence,
        "revision": entry.revision,
        "claimant": claimant.map(|by| &by.incarnation),
        "claim_ends": claimant.map(|by| moment(by.deadline)),
        "first_claimed": entry.first_claimed.map(moment),
        "changed": moment(entry.changed),
        "reply": entry.reply,
        "digest": entry.digest,
        "message_id_local": message_id_local(key),
        "ambiguities": entry.ambiguities,
        "doubtful": entry.doubtful,
        "accepted": entry.accepted,
        "second_acceptances": entry.second_acceptances(),
        "released": entry.released,
        "item": item.map(|item| json!({"table": item.table, "key": item.key})),
        "history": steps.collect::<Vec<_>>(),
        "history_left_out": entry.history.left_out(),
        "advice": advice(entry).trim_end(),
    })
}

/// The row in a line.
pub fn line(key: &EffectKey, entry: &Entry) -> String {
    let reply = entry.reply.as_deref().unwrap_or("-");
    format!(
        "{}\t{}\t{}\t{}\t{}\n",
        plain(key.id()),
        entry.state,
        plain(key.effect()),
        moment(entry.changed),
        plain(reply)
    )
}

/// Everything, for people.
pub fn full(key: &EffectKey, entry: &Entry) -> String {
    let mut text = format!("order {}: {}\n\n", plain(key.id()), entry.state);
    let mut say = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<20}{}", plain(value));
    };
    let moment_or_never = |time: Option<_>| time.map_or_else(|| "never".to_owned(), moment);
    say("effect", key.effect());
    if let Some(item) = &entry.item {
        say("item", &item.to_string());
    }
    say("last change", &moment(entry.changed));
    say("first claim", &moment_or_never(entry.first_claimed));
    say("fence", &format!("{} (claims so far)", entry.fence));
    if let Some(by) = &entry.claimant {
        say("last claimant", &by.incarnation);
        say("its claim ends", &moment(by.deadline));
    }
    say("last word", entry.reply.as_deref().unwrap_or("none"));
    say("ambiguities", &entry.ambiguities.to_string());
    say("claims in doubt", &fences(&entry.doubtful));
    say("claims accepted", &fences(&entry.accepted));
    let second = entry.second_acceptances();
    say("second acceptances", &second.to_string());
    say("Message-ID", &format!("<{}@...>", message_id_local(key)));
    if let Some(item) = &entry.item {
        say("item", &item.to_string());
    }
    text.push('\n');
    for (at, what) in history(&entry.history) {
        let _ = writeln!(text, "{}  {}", moment(at), plain(&what));
    }
    text + "\n" + &advice(entry)
}

fn fences(all: &[u64]) -> String {
    let all: Vec<_> = all.iter().map(|fence| format!("fence {fence}")).collect();
    if all.is_empty() {
        return "none".to_owned();
    }
    all.join(", ")
}

/// What that means, and what to do next.
pub fn advice(entry: &Entry) -> String {
    let words = match entry.state {
        State::Sending => {
            let until = entry.claimant.as_ref().map(|by| moment(by.deadline));
            format!(
                "A worker claimed it and may be sending it now. Wait: a worker that finds the claimant \
                 dead calls the order AMBIGUOUS. If it is still SENDING after {}, resolve it with \
                 `aftercommit ledger resolve`.",
                until.as_deref().unwrap_or("a while")
            )
        }
        State::Sent if entry.second_acceptances() > 0 => format!(
            "The mail server accepted {} emails for it, all with the same Message-ID. No more are sent.",
            entry.accepted.len()
        ),
        State::Sent => "The email is out. No other is sent.".to_owned(),
        State::Failed => "The mail server refused it for good, so nothing was sent. Fix the cause, then \
             send it with `aftercommit send ORDER`, or with `aftercommit dead-letters redrive` if it \
             has a dead letter."
            .to_owned(),
        State::Retry if entry.released => "An operator released it, and it is not sent yet. Send it \
             with `aftercommit send ORDER`, or give it up with `aftercommit ledger resolve ORDER \
             --skip --note TEXT`."
            .to_owned(),
        State::Retry => "It was certainly not accepted. The worker that has its record tries again by \
             itself. If none has, send it with `aftercommit send ORDER`."
            .to_owned(),
        State::Ambiguous if entry.doubtful.is_empty() => {
            "It was certainly not accepted, but that came to light after its record may have been \
             handled. A worker that still has the record sends it by itself. If none has, send it with \
             `aftercommit ledger resolve ORDER --send --note TEXT`."
                .to_owned()
        }
        State::Ambiguous => "Nobody can tell whether the mail server accepted it. With `--on-ambiguous \
             resend` a worker that has the record sends it a second time, never a third; with `park` \
             none does. Look for the Message-ID in the mail server's log, then say `aftercommit ledger \
             resolve ORDER --sent --note TEXT`, or `--send` in place of `--sent`."
            .to_owned(),
        State::Suppressed => "It was deliberately not sent, for the reason in its last word. A later \
             change of the order decides again; `aftercommit send ORDER` sends it now."
            .to_owned(),
    };
    words + "\n"
}
