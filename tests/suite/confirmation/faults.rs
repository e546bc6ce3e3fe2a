//! Every fault of a mail server at every stage: what the ledger says then, what the next worker
//! does, and how many mails were accepted.

use std::net::SocketAddr;

use futures_util::{FutureExt, StreamExt, stream};

use aftercommit::internal::claim::{Liveness, OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, RecordHandler};

use crate::support::fault_cases::{Case, Ended, reported, table};
use crate::support::mail_server::{
    Act, Fault, MailServer, PASSWORD, Script, ServerTls, Step, USER,
};
use crate::support::orders::{inserted, row, rules, short_at, smtp_settings, worker};
use aftercommit::confirmation::Counted;
use aftercommit::confirmation::smtp::{Login, Secret, Security, Timeouts};

/// Prints the differences and continues with the other lines of the table.
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
    // Only silence must be noticed soon; a busy machine is not a fault.
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
    check_eq!(
        reported(&result),
        case.reported[which],
        "{what}: {result:?}"
    );
    let state = row(&ledger, "o1").await.map(|row| row.state);
    check_eq!(state, case.state, "{what}: the ledger");
    // `aftercommit_effects_deferred_total`: certainly not sent, and neither refused nor in doubt.
    let put_off = matches!(
        case.reported[which],
        Ended::Retry | Ended::Unavailable | Ended::Overloaded
    );
    let deferred = u64::from(put_off && case.state != Some(State::Ambiguous));
    check_eq!(
        first.tally().of(Counted::Deferred),
        deferred,
        "{what}: mails deferred"
    );

    // No server is silent or down any more.
    settings.port = there;
    settings.timeouts = Timeouts::default();
    let next = worker(ledger.clone(), settings, rules(policy));
    let context = Context::detached().of_worker("next", Liveness::Dead);
    let result = next.handle(&record, &context).await;
    check_eq!(
        reported(&result),
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
