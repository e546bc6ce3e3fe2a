//! A row of the ledger, told to people and to scripts.

use std::fmt::Write as _;

use aftercommit::confirmation::mail::message_id_local;
use aftercommit::decide::claim::{Entry, SettledAs, Settlement, State};
use aftercommit::ledger::EffectKey;
use serde_json::{Value, json};

use crate::out::moment;

/// Without what a terminal would act on: the words are a mail server's.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

fn verdict(settlement: &Settlement) -> &'static str {
    match settlement.verdict {
        SettledAs::Sent => "SENT",
        SettledAs::Resend => "RESEND",
    }
}

/// Everything, for a script.
pub fn json(key: &EffectKey, entry: &Entry) -> Value {
    let claimant = entry.claimant.as_ref();
    let settlements = entry.settlements.iter().map(|one| {
        json!({
            "by": one.by,
            "at": moment(one.at),
            "reason": one.reason,
            "verdict": verdict(one),
        })
    });
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
        "settlements": settlements.collect::<Vec<_>>(),
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
    for one in &entry.settlements {
        let (at, verdict) = (moment(one.at), verdict(one));
        say(
            "settled",
            &format!("{verdict} by {} at {at}: {}", one.by, one.reason),
        );
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
                "A worker claimed it and may be sending it now. Wait: a worker that finds it dead \
                 calls the order AMBIGUOUS. If it still stands so after {}, it can be settled.",
                until.as_deref().unwrap_or("a while")
            )
        }
        State::Sent if entry.second_acceptances() > 0 => format!(
            "The mail server accepted {} emails for it, all with the same Message-ID. Nothing is \
             sent any more.",
            entry.accepted.len()
        ),
        State::Sent => "The email is out. Nothing is sent any more.".to_owned(),
        State::Failed => {
            "The mail server refused it for good. Mend the cause, then release it with \
             `aftercommit ledger settle ORDER --resend --reason TEXT` and send it with \
             `aftercommit ledger send ORDER`."
                .to_owned()
        }
        State::Retry => "It was certainly not accepted, or an operator released it. A worker that \
             has the order in hand tries again by itself; after a release by an operator none has: \
             send it with `aftercommit ledger send ORDER --table TABLE` and the mail settings of \
             `aftercommit run`."
            .to_owned(),
        State::Ambiguous if entry.doubtful.is_empty() => {
            "It was certainly not accepted, which came to light only after its record may have been \
             settled. A worker that still has the order in hand sends it by itself. If none has, \
             release it with `aftercommit ledger settle ORDER --resend --reason TEXT` and send it with \
             `aftercommit ledger send ORDER`."
                .to_owned()
        }
        State::Ambiguous => {
            "Nobody can tell whether the mail server accepted it. Under the policy \
             `resend` a worker that has the order in hand sends it a second time, never a third; \
             under `park` none does. Look for the Message-ID in the mail server's log, then say \
             `aftercommit ledger settle ORDER --sent --reason TEXT` or `... --resend ...`."
                .to_owned()
        }
        State::Suppressed => {
            "It was deliberately not sent, for the reason in its last word.".to_owned()
        }
    };
    words + "\n"
}
