//! The traps of a ready-made SMTP transport, each avoided by ours.

use std::time::{Duration, Instant};

use aftercommit::confirmation::smtp::Smtp;
use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, RecordHandler};
use serde_dynamo::AttributeValue;

use crate::confirmation::smtp::{MESSAGE, Outcome, send, smtp};
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, rules, short_at, smtp_settings, worker};

/// A message in two writes without `TCP_NODELAY` waits 40 ms for a delayed acknowledgement.
#[tokio::test]
async fn a_mail_does_not_stall_on_nagle_and_delayed_acknowledgements() {
    let server = MailServer::start(Script {
        pipelining: false,
        ..Script::default()
    })
    .await;
    let smtp = smtp(&server);
    // More than 16 KiB go out in two writes.
    let message = [MESSAGE, &b"0123456789\r\n".repeat(2_000)].concat();
    let mut times = Vec::new();
    for _ in 0..40 {
        let start = Instant::now();
        assert_eq!(
            send(&smtp, "ann@example.com", &message).await,
            Outcome::Accepted
        );
        times.push(start.elapsed());
    }
    times.sort();
    // A busy machine makes some mails slow; the acknowledgement, nearly all of them.
    let lower_quartile = times[times.len() / 4];
    assert!(
        lower_quartile < Duration::from_millis(30),
        "the lower quartile of the mails is at {lower_quartile:?}"
    );
}

/// A time limit only on connecting lets a silent server block a send forever.
#[tokio::test]
async fn a_silent_server_is_left_in_time_at_every_stage() {
    for step in [
        Step::Greeting,
        Step::Ehlo,
        Step::Mail,
        Step::Rcpt,
        Step::Data,
        Step::Dot,
    ] {
        let script = Script::default().fault(Fault::always(step, Act::Silence));
        let server = MailServer::start(script).await;
        let smtp = Smtp::new(short_at(&server, step)).unwrap();
        let send = send(&smtp, "ann@example.com", MESSAGE);
        let outcome = tokio::time::timeout(Duration::from_mins(1), send).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{step:?}: still waiting"));
        assert_ne!(outcome, Outcome::Accepted, "{step:?}");
    }
}

/// A pool that takes half-used connections back hands the next mail the reply of the one before.
#[tokio::test]
async fn a_cancelled_mail_does_not_lend_its_reply_to_the_next() {
    let held = Fault::once(Step::Dot, Act::Hold);
    let refuse = Fault::always(Step::Dot, Act::Say("554 5.7.1 refused"));
    let script = Script::default().fault(held).fault(refuse);
    let server = MailServer::start(script).await;
    let mut settings = smtp_settings(&server);
    settings.max_connections = 1;
    let smtp = Smtp::new(settings).unwrap();
    tokio::select! {
        outcome = send(&smtp, "first@example.com", MESSAGE) => panic!("{outcome:?}"),
        () = server.wait_accepted(1) => {}
    }
    server.release();
    assert_eq!(
        send(&smtp, "second@example.com", MESSAGE).await,
        Outcome::Refused
    );
}

/// A limit on idle connections does not limit open ones.
#[tokio::test]
async fn open_connections_are_bounded() {
    let server = MailServer::start(Script::default()).await;
    let mut settings = smtp_settings(&server);
    settings.max_connections = 2;
    let smtp = Smtp::new(settings).unwrap();
    let sends = (0..50).map(|i| {
        let (smtp, to) = (smtp.clone(), format!("u{i}@example.com"));
        async move { send(&smtp, &to, MESSAGE).await }
    });
    let outcomes = futures_util::future::join_all(sends).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted));
    assert_eq!(server.most_open(), 2);
    assert_eq!(server.accepted().len(), 50);
}

/// A display name with a line end makes the ready-made builder panic.
#[tokio::test]
async fn line_ends_and_nul_in_a_name_neither_panic_nor_reach_a_header() {
    let server = MailServer::start(Script::default()).await;
    let worker = worker(
        MemoryLedger::new(),
        smtp_settings(&server),
        rules(OnAmbiguous::Resend),
    );
    let mut record = inserted("o1", "ann@example.com");
    let name = AttributeValue::S("Ann\r\nBcc: eve@example.com\0\n".into());
    record
        .new_image
        .as_mut()
        .unwrap()
        .insert("name".into(), name);
    worker.handle(&record, &Context::detached()).await.unwrap();
    let mails = server.accepted();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["ann@example.com"]);
    assert_eq!(mails[0].header("Bcc"), None);
}

/// 3xx counts as a success where only its first digit is looked at.
#[tokio::test]
async fn only_2xx_to_the_final_dot_is_an_acceptance() {
    for (reply, outcome) in [
        ("250 2.0.0 ok", Outcome::Accepted),
        (
            "354 go on",
            Outcome::NoReply(aftercommit::confirmation::smtp::SendStage::AfterDot),
        ),
        ("451 4.3.0 later", Outcome::Deferred),
        ("554 5.7.1 never", Outcome::Refused),
    ] {
        let script = Script::default().fault(Fault::once(Step::Dot, Act::Say(reply)));
        let server = MailServer::start(script).await;
        assert_eq!(
            send(&smtp(&server), "ann@example.com", MESSAGE).await,
            outcome,
            "{reply}"
        );
    }
}
