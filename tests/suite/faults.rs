//! Every fault of a mail server at every stage: what the ledger says then, what the next worker
//! does, and how many mails were accepted.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};

use aftercommit::internal::decide::claim::{Liveness, OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Failure, RecordHandler};

use crate::support::mail_server::{
    Act, Fault, MailServer, PASSWORD, Script, ServerTls, Step, USER,
};
use crate::support::orders::{inserted, row, rules, short_at, smtp_settings, worker};
use aftercommit::confirmation::smtp::{Login, Secret, Security, Timeouts};

/// What a handler told the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Done,
    Retry,
    Reject,
    Refused,
    Unavailable,
    Overloaded,
    Busy,
}

use Told::{Busy, Done, Overloaded, Refused, Reject, Retry, Unavailable};

pub fn told(result: &Result<(), Failure>) -> Told {
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
    pub told: [Told; 2],
    /// What the ledger says then; `None`: nothing.
    pub state: Option<State>,
    /// What the next worker tells the engine: under `resend`, and under `park`.
    next: [Told; 2],
    /// How many mails were accepted in the end: under `resend`, and under `park`.
    pub mails: [usize; 2],
}

/// Faults before the claim: certainly not sent, nothing in the ledger, any worker goes on.
fn before_the_claim(step: Step, act: Act) -> Case {
    Case {
        step,
        act,
        kept: false,
        told: [Unavailable; 2],
        state: None,
        next: [Done, Done],
        mails: [1, 1],
    }
}

/// The server wants fewer connections.
fn asks_for_less(step: Step) -> Case {
    Case {
        told: [Overloaded; 2],
        ..before_the_claim(step, Act::Say("421 4.3.2 closing"))
    }
}

/// The server says no to the envelope.
fn at_the_envelope(step: Step, reply: &'static str, told: Told, state: Option<State>) -> Case {
    Case {
        told: [told; 2],
        state,
        ..before_the_claim(step, Act::Say(reply))
    }
}

/// After the claim, and certainly not accepted.
fn not_accepted(step: Step, act: Act, told: Told) -> Case {
    Case {
        told: [told; 2],
        state: Some(State::Retry),
        ..before_the_claim(step, act)
    }
}

/// After the claim, and refused for good. Whoever comes again means it.
fn refused(step: Step, reply: &'static str) -> Case {
    Case {
        told: [Refused; 2],
        state: Some(State::Failed),
        ..before_the_claim(step, Act::Say(reply))
    }
}

/// Nobody can tell. `resend` sends once more, `park` waits for an operator, and its record does not.
fn ambiguous(act: Act, kept: bool) -> Case {
    let first = usize::from(kept);
    Case {
        kept,
        told: [Retry, Done],
        state: Some(State::Ambiguous),
        mails: [first + 1, first],
        ..before_the_claim(Step::Dot, act)
    }
}

/// The fault does no harm.
fn harmless(step: Step, act: Act) -> Case {
    Case {
        told: [Done; 2],
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
        told: [Overloaded; 2],
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

/// Says what differs and goes on with the other lines of the table.
macro_rules! check {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

macro_rules! check_eq {
    ($left:expr, $right:expr, $($what:tt)*) => {
        let (left, right) = ($left, $right);
        check!(left == right, "{}: {left:?}, not {right:?}", format!($($what)*));
    };
}

/// A port on which nobody listens, and nobody else can.
struct Nobody(socket2::Socket);

impl Nobody {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        Self(socket)
    }

    fn port(&self) -> u16 {
        let address = self.0.local_addr().unwrap();
        address.as_socket().unwrap().port()
    }
}

async fn run(case: &Case, policy: OnAmbiguous, pipelining: bool) -> Result<(), String> {
    let which = usize::from(policy == OnAmbiguous::Park);
    let what = format!(
        "{:?} {:?} kept={} {policy:?} pipelining={pipelining}",
        case.step, case.act, case.kept
    );
    let tls = match case.step {
        Step::Tls => ServerTls::Implicit,
        Step::StartTls => ServerTls::StartTls,
        _ => ServerTls::None,
    };
    let fault = Fault::once(case.step, case.act.clone());
    let fault = if case.kept { fault.keeping() } else { fault };
    let auth = if case.step == Step::Auth { "PLAIN" } else { "" };
    let script = Script {
        pipelining,
        auth,
        tls,
        ..Script::default()
    }
    .fault(fault);
    let server = MailServer::start(script).await;
    // Only silence must be noticed soon; a machine that is busy is no fault.
    let mut settings = match case.act {
        Act::Silence => short_at(&server, case.step),
        _ => smtp_settings(&server),
    };
    settings.host = "localhost".into();
    settings.extra_roots = server.root();
    settings.security = match tls {
        ServerTls::Implicit => Security::Implicit,
        ServerTls::StartTls => Security::StartTls,
        ServerTls::None => Security::Plain,
    };
    settings.login = (case.step == Step::Auth).then(|| Login {
        user: USER.to_owned(),
        secret: Secret::new(PASSWORD.into()),
        mechanism: None,
    });
    let nobody = Nobody::new();
    let there = settings.port;
    if case.step == Step::Connect {
        settings.port = nobody.port();
    }
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");

    let first = worker(ledger.clone(), settings.clone(), rules(policy));
    let context = Context::detached().of_worker("first", Liveness::Dead);
    let result = first.handle(&record, &context).await;
    check_eq!(told(&result), case.told[which], "{what}: {result:?}");
    let state = row(&ledger, "o1").await.map(|row| row.state);
    check_eq!(state, case.state, "{what}: the ledger");

    // Nothing is silent any more, and nobody away.
    settings.port = there;
    settings.timeouts = Timeouts::default();
    let next = worker(ledger.clone(), settings, rules(policy));
    let context = Context::detached().of_worker("next", Liveness::Dead);
    let result = next.handle(&record, &context).await;
    check_eq!(
        told(&result),
        case.next[which],
        "{what}: the next worker: {result:?}"
    );
    check_eq!(server.accepted().len(), case.mails[which], "{what}: mails");
    // What was sent twice was the same mail, and the ledger knows of the doubt.
    let mails = server.accepted();
    check!(
        mails.iter().all(|mail| mail.bytes == mails[0].bytes),
        "{what}: not the same mail"
    );
    let row = row(&ledger, "o1").await.unwrap();
    check!(
        mails.len() <= 1 + row.ambiguities as usize,
        "{what}: an unrecorded duplicate"
    );
    Ok(())
}

#[tokio::test]
async fn every_fault_at_every_stage_has_its_known_outcome() {
    let cases = table();
    let runs = cases.iter().flat_map(|case| {
        let policies = [OnAmbiguous::Resend, OnAmbiguous::Park];
        // Before EHLO nothing can be pipelined.
        let ways = if case.step < Step::Mail {
            &[true][..]
        } else {
            &[true, false]
        };
        let ways = ways.iter().copied();
        ways.flat_map(move |way| policies.map(|policy| run(case, policy, way).boxed_local()))
    });
    let wrong: Vec<_> = stream::iter(runs)
        .buffer_unordered(32)
        .filter_map(|result| async { result.err() })
        .collect()
        .await;
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
