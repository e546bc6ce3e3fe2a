//! The faults of a mail server that tests put it through, and what each of them comes to where it
//! strikes once.

#![allow(dead_code, clippy::unwrap_used)]

use std::time::Duration;

use aftercommit::Failure;
use aftercommit::internal::claim::State;

use super::mail_server::{Act, Step};

/// What a handler reported to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    Retry,
    Reject,
    Refused,
    Unavailable,
    Overloaded,
    Busy,
}

use Ended::{Busy, Done, Overloaded, Refused, Reject, Retry, Unavailable};

pub fn reported(result: &Result<(), Failure>) -> Ended {
    match result {
        Ok(()) => Done,
        Err(Failure::Retry(_)) => Retry,
        Err(Failure::Reject(_)) => Reject,
        Err(Failure::Refused(_)) => Refused,
        Err(Failure::Unavailable(_)) => Unavailable,
        Err(Failure::Overloaded(_)) => Overloaded,
        Err(Failure::Busy(_)) => Busy,
        Err(other) => panic!("{other}"),
    }
}

/// One line of the table.
pub struct Case {
    pub step: Step,
    pub act: Act,
    /// The server took the mail before the fault.
    pub kept: bool,
    /// What the first worker tells the engine: under `resend`, and under `park`.
    pub reported: [Ended; 2],
    /// What the ledger says then; `None`: nothing.
    pub state: Option<State>,
    /// What the next worker tells the engine: under `resend`, and under `park`.
    pub next: [Ended; 2],
    /// How many mails were accepted in the end: under `resend`, and under `park`.
    pub mails: [usize; 2],
}

/// Faults before the claim: certainly not sent, nothing in the ledger, any worker continues.
fn before_the_claim(step: Step, act: Act) -> Case {
    Case {
        step,
        act,
        kept: false,
        reported: [Unavailable; 2],
        state: None,
        next: [Done, Done],
        mails: [1, 1],
    }
}

/// The server wants fewer connections.
fn asks_for_less(step: Step) -> Case {
    Case {
        reported: [Overloaded; 2],
        ..before_the_claim(step, Act::Say("421 4.3.2 closing"))
    }
}

/// The server says no to the envelope.
fn at_the_envelope(step: Step, reply: &'static str, reported: Ended, state: Option<State>) -> Case {
    Case {
        reported: [reported; 2],
        state,
        ..before_the_claim(step, Act::Say(reply))
    }
}

/// After the claim, and certainly not accepted.
fn not_accepted(step: Step, act: Act, reported: Ended) -> Case {
    Case {
        reported: [reported; 2],
        state: Some(State::Retry),
        ..before_the_claim(step, act)
    }
}

/// After the claim, and refused for good. A repeated attempt is deliberate.
fn refused(step: Step, reply: &'static str) -> Case {
    Case {
        reported: [Refused; 2],
        state: Some(State::Failed),
        ..before_the_claim(step, Act::Say(reply))
    }
}

/// The outcome is unknown. `resend` sends once more, `park` waits for an operator, and its record does
/// not.
fn ambiguous(act: Act, kept: bool) -> Case {
    let first = usize::from(kept);
    Case {
        kept,
        reported: [Retry, Done],
        state: Some(State::Ambiguous),
        mails: [first + 1, first],
        ..before_the_claim(Step::Dot, act)
    }
}

/// The fault does no harm.
fn harmless(step: Step, act: Act) -> Case {
    Case {
        reported: [Done; 2],
        state: Some(State::Sent),
        ..before_the_claim(step, act)
    }
}

fn breaks() -> [Act; 5] {
    [
        Act::Close,
        Act::Reset,
        Act::Silence,
        Act::Half,
        Act::Garbage,
    ]
}

/// Up to the reply to RCPT.
fn of_the_envelope() -> Vec<Case> {
    let mut table = vec![before_the_claim(Step::Connect, Act::Close)];
    for step in [
        Step::Tls,
        Step::Greeting,
        Step::Ehlo,
        Step::StartTls,
        Step::Auth,
        Step::Mail,
        Step::Rcpt,
    ] {
        table.extend(breaks().map(|act| before_the_claim(step, act)));
    }
    for step in [Step::Greeting, Step::Ehlo, Step::StartTls] {
        for reply in ["450 4.3.2 not now", "554 5.3.2 never", "354 what"] {
            table.push(before_the_claim(step, Act::Say(reply)));
        }
        table.push(asks_for_less(step));
    }
    for reply in ["535 5.7.8 wrong password", "354 what"] {
        table.push(before_the_claim(Step::Auth, Act::Say(reply)));
    }
    table.push(asks_for_less(Step::Auth));
    table.push(Case {
        reported: [Overloaded; 2],
        ..before_the_claim(Step::Auth, Act::Say("454 4.7.0 try later"))
    });
    for step in [Step::Mail, Step::Rcpt] {
        table.push(asks_for_less(step));
        table.push(before_the_claim(step, Act::Say("354 what")));
        table.push(at_the_envelope(step, "450 4.2.1 grey", Retry, None));
        table.push(at_the_envelope(
            step,
            "553 5.7.1 not yours",
            Refused,
            Some(State::Failed),
        ));
    }
    table.push(at_the_envelope(
        Step::Rcpt,
        "550 5.1.1 nobody",
        Reject,
        Some(State::Failed),
    ));
    table
}

pub fn table() -> Vec<Case> {
    let mut table = of_the_envelope();
    table.extend(breaks().map(|act| not_accepted(Step::Data, act, Unavailable)));
    table.push(not_accepted(
        Step::Data,
        Act::Say("421 4.3.2 closing"),
        Overloaded,
    ));
    table.push(not_accepted(
        Step::Data,
        Act::Say("454 4.7.0 throttled"),
        Overloaded,
    ));
    table.push(not_accepted(
        Step::Data,
        Act::Say("451 4.3.0 not now"),
        Retry,
    ));
    table.push(not_accepted(Step::Data, Act::Say("250 what"), Unavailable));
    table.push(not_accepted(Step::Data, Act::Twice, Retry));
    table.push(refused(Step::Data, "554 5.5.1 never"));
    table.push(not_accepted(Step::Body, Act::Close, Retry));
    table.push(not_accepted(Step::Body, Act::Reset, Retry));
    for kept in [false, true] {
        table.extend(breaks().map(|act| ambiguous(act, kept)));
        table.push(ambiguous(Act::Say("354 what"), kept));
    }
    table.push(not_accepted(
        Step::Dot,
        Act::Say("421 4.3.2 closing"),
        Overloaded,
    ));
    table.push(not_accepted(
        Step::Dot,
        Act::Say("454 4.7.0 throttled"),
        Overloaded,
    ));
    table.push(not_accepted(
        Step::Dot,
        Act::Say("432 4.3.2 too many at once"),
        Overloaded,
    ));
    table.push(not_accepted(
        Step::Dot,
        Act::Say("454 Throttling failure: Daily message quota exceeded."),
        Unavailable,
    ));
    table.push(not_accepted(Step::Dot, Act::Say("452 4.3.1 full"), Retry));
    table.push(refused(Step::Dot, "554 5.7.1 spam"));
    let (late, slow) = (Duration::from_millis(50), Duration::from_millis(20));
    for step in [
        Step::Greeting,
        Step::Ehlo,
        Step::Auth,
        Step::Mail,
        Step::Rcpt,
        Step::Data,
        Step::Dot,
    ] {
        table.push(harmless(step, Act::Late(late)));
        table.push(harmless(step, Act::Trickle(slow)));
    }
    table.push(harmless(Step::Dot, Act::Twice));
    table
}

/// Where in the conversation.
pub fn place(step: Step) -> &'static str {
    match step {
        Step::Connect => "connecting",
        Step::Tls => "TLS",
        Step::Greeting => "the greeting",
        Step::Ehlo => "EHLO",
        Step::StartTls => "STARTTLS",
        Step::Mail => "MAIL",
        Step::Rcpt => "RCPT",
        Step::Data => "DATA",
        Step::Body => "the message",
        Step::Dot => "the final dot",
        Step::Auth => "AUTH",
        Step::Noop => "NOOP",
        Step::Rset => "RSET",
    }
}

/// What the server does.
pub fn deed(step: Step, act: &Act) -> String {
    let deed = match act {
        _ if step == Step::Connect => "does not listen",
        Act::Close => "hangs up",
        Act::Reset => "resets the connection",
        Act::Silence => "is silent",
        Act::Half => "replies by half",
        Act::Garbage => "talks nonsense",
        Act::Twice => "replies twice",
        Act::Late(_) | Act::Trickle(_) | Act::Hold => "is slow",
        Act::Say(words) if words.contains("quota") => {
            return format!("says {}, its quota is used up", &words[..3]);
        }
        Act::Say(words) => return format!("says {}", &words[..3]),
    };
    deed.to_owned()
}
