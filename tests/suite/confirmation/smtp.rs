//! The SMTP transport against a scripted server.

use std::time::Duration;

use aftercommit::confirmation::smtp::{Delivery, Refusal, SendStage, Smtp};
use aftercommit::internal::claim::{OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Failure, RecordHandler as _};
use lettre::address::Envelope;

use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, row, rules, short_at, smtp_settings, worker};

pub const MESSAGE: &[u8] = b"Message-ID: <1@shop.example>\r\nSubject: hello\r\n\r\n.dot\r\nbye\r\n";

pub fn envelope(to: &str) -> Envelope {
    Envelope::new(
        Some("shop@example.com".parse().unwrap()),
        vec![to.parse().unwrap()],
    )
    .unwrap()
}

pub fn smtp(server: &MailServer) -> Smtp {
    Smtp::new(smtp_settings(server)).unwrap()
}

/// How a send ended, in one word and a stage.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    NotOffered(SendStage),
    Accepted,
    Refused,
    Deferred,
    NotSent(SendStage),
    NoReply(SendStage),
}

pub async fn send(smtp: &Smtp, to: &str, message: &[u8]) -> Outcome {
    let offer = match smtp.offer(&envelope(to)).await {
        Ok(offer) => offer,
        Err(Refusal { stage, .. }) => return Outcome::NotOffered(stage),
    };
    match offer.deliver(message, &|_| true).await {
        Delivery::Accepted(_) => Outcome::Accepted,
        Delivery::Refused(_) => Outcome::Refused,
        Delivery::Deferred(_) => Outcome::Deferred,
        Delivery::NotSent { stage, .. } => Outcome::NotSent(stage),
        Delivery::NoReply { stage, .. } => Outcome::NoReply(stage),
    }
}

#[tokio::test]
async fn a_mail_arrives_byte_for_byte() {
    for pipelining in [true, false] {
        let server = MailServer::start(Script {
            pipelining,
            ..Script::default()
        })
        .await;
        let smtp = smtp(&server);
        assert_eq!(
            send(&smtp, "ann@example.com", MESSAGE).await,
            Outcome::Accepted
        );
        let mails = server.accepted();
        assert_eq!(mails.len(), 1);
        assert_eq!(mails[0].bytes, MESSAGE);
        assert_eq!(mails[0].from, "shop@example.com");
        assert_eq!(mails[0].to, ["ann@example.com"]);
        assert_eq!(mails[0].message_id(), "<1@shop.example>");
    }
}

#[tokio::test]
async fn connections_are_reused_up_to_their_count_and_age() {
    let server = MailServer::start(Script::default()).await;
    let mut settings = smtp_settings(&server);
    settings.max_mails = 3;
    let smtp = Smtp::new(settings.clone()).unwrap();
    for _ in 0..6 {
        assert_eq!(
            send(&smtp, "ann@example.com", MESSAGE).await,
            Outcome::Accepted
        );
    }
    assert_eq!(server.connections(), 2);
    settings.max_age = Duration::ZERO;
    let smtp = Smtp::new(settings).unwrap();
    for _ in 0..3 {
        assert_eq!(
            send(&smtp, "ann@example.com", MESSAGE).await,
            Outcome::Accepted
        );
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn an_offer_that_is_dropped_sends_nothing_and_keeps_its_connection() {
    let server = MailServer::start(Script::default()).await;
    let smtp = smtp(&server);
    drop(smtp.offer(&envelope("bob@example.com")).await.unwrap());
    assert_eq!(
        send(&smtp, "ann@example.com", MESSAGE).await,
        Outcome::Accepted
    );
    assert_eq!(server.connections(), 1);
    assert_eq!(
        server.by_recipient().into_iter().collect::<Vec<_>>(),
        [("ann@example.com".into(), 1)]
    );
}

#[tokio::test]
async fn a_mail_that_may_not_pass_is_not_sent() {
    for passes in 0..2 {
        let server = MailServer::start(Script::default()).await;
        let smtp = smtp(&server);
        let offer = smtp.offer(&envelope("ann@example.com")).await.unwrap();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let may_pass = |_| asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < passes;
        let delivery = offer.deliver(MESSAGE, &may_pass).await;
        let at = [SendStage::Data, SendStage::Body][passes];
        assert!(
            matches!(delivery, Delivery::NotSent { stage, .. } if stage == at),
            "{delivery:?}"
        );
        assert_eq!(
            send(&smtp, "bob@example.com", MESSAGE).await,
            Outcome::Accepted
        );
        assert_eq!(server.accepted().len(), 1);
        assert!(server.by_recipient().contains_key("bob@example.com"));
    }
}

/// A server that pipelines sees the next mail's MAIL and RCPT behind the dot of the one before,
/// and a mail costs two flights.
#[tokio::test]
async fn the_next_envelope_rides_behind_the_dot() {
    let server = MailServer::start(Script::default()).await;
    let mut settings = smtp_settings(&server);
    settings.max_connections = 1;
    let smtp = Smtp::new(settings).unwrap();
    let sends: Vec<_> = (0..5)
        .map(|i| {
            let smtp = smtp.clone();
            tokio::spawn(async move { send(&smtp, &format!("u{i}@example.com"), MESSAGE).await })
        })
        .collect();
    for send in sends {
        assert_eq!(send.await.unwrap(), Outcome::Accepted);
    }
    assert_eq!(server.connections(), 1);
    assert!(server.by_recipient().values().all(|count| *count == 1));
    assert_eq!(server.accepted().len(), 5);
    assert_eq!(server.rides(), 4);
    assert!(!server.heard().iter().any(|(_, line)| line == "RSET"));
}

#[tokio::test]
async fn only_a_connection_that_rested_is_asked_whether_it_is_there() {
    let server = MailServer::start(Script::default()).await;
    for (noop_after, asked) in [(Duration::from_mins(1), 0), (Duration::ZERO, 2)] {
        let mut settings = smtp_settings(&server);
        settings.noop_after = noop_after;
        let smtp = Smtp::new(settings).unwrap();
        let before = server.heard().len();
        for _ in 0..3 {
            let outcome = send(&smtp, "ann@example.com", MESSAGE).await;
            assert_eq!(outcome, Outcome::Accepted);
        }
        let heard = server.heard().split_off(before);
        let noops = heard.iter().filter(|(_, line)| line.starts_with("NOOP"));
        assert_eq!(noops.count(), asked, "{noop_after:?}: {heard:?}");
    }
}

/// Whatever comes of it, a resting connection is tried before the envelope: it costs itself.
#[tokio::test]
async fn a_fault_at_noop_costs_a_connection_and_no_mail() {
    for act in [
        Act::Close,
        Act::Reset,
        Act::Silence,
        Act::Half,
        Act::Garbage,
        Act::Say("421 4.3.2 closing"),
        Act::Say("450 4.3.2 not now"),
        Act::Say("554 5.3.2 never"),
        Act::Say("354 what"),
    ] {
        let script = Script::default().fault(Fault::once(Step::Noop, act.clone()));
        let server = MailServer::start(script).await;
        let mut settings = match act {
            Act::Silence => short_at(&server, Step::Noop),
            _ => smtp_settings(&server),
        };
        settings.noop_after = Duration::ZERO;
        let smtp = Smtp::new(settings).unwrap();
        for _ in 0..2 {
            let outcome = send(&smtp, "ann@example.com", MESSAGE).await;
            assert_eq!(outcome, Outcome::Accepted, "{act:?}");
        }
        assert_eq!((server.connections(), server.count()), (2, 2), "{act:?}");
    }
}

/// RSET comes where an offer was dropped.
#[tokio::test]
async fn a_connection_that_breaks_at_rset_costs_no_mail() {
    for pipelining in [true, false] {
        for act in [
            Act::Close,
            Act::Reset,
            Act::Half,
            Act::Say("421 4.3.2 closing"),
            Act::Say("451 4.3.0 not now"),
            Act::Say("502 5.5.1 no such command"),
        ] {
            let script = Script {
                pipelining,
                ..Script::default()
            };
            let script = script.fault(Fault::once(Step::Rset, act.clone()));
            let server = MailServer::start(script).await;
            let smtp = smtp(&server);
            drop(smtp.offer(&envelope("bob@example.com")).await.unwrap());
            let outcome = send(&smtp, "ann@example.com", MESSAGE).await;
            assert_eq!(outcome, Outcome::Accepted, "{act:?} {pipelining}");
            assert_eq!((server.connections(), server.count()), (2, 1), "{act:?}");
            assert_eq!(server.accepted()[0].to, ["ann@example.com"]);
        }
    }
}

#[tokio::test]
async fn an_address_beyond_ascii_is_mailed_where_smtputf8_is_offered_and_given_up_elsewhere() {
    for (smtputf8, to, mailed) in [
        (true, "jürgen@bücher.example", true),
        (false, "jürgen@bücher.example", false),
        // The domain alone has a form in ASCII.
        (false, "ann@bücher.example", true),
    ] {
        let server = MailServer::start(Script {
            smtputf8,
            ..Script::default()
        })
        .await;
        let ledger = MemoryLedger::new();
        let rules = rules(OnAmbiguous::Resend);
        let worker = worker(ledger.clone(), smtp_settings(&server), rules);
        let result = worker
            .handle(&inserted("o1", to), &Context::detached())
            .await;
        let state = row(&ledger, "o1").await.unwrap().state;
        let heard = server.heard();
        let asks = heard.iter().filter(|(_, line)| line.starts_with("MAIL"));
        let asks: Vec<_> = asks.map(|(_, line)| line.as_str()).collect();
        if mailed {
            assert!(matches!(result, Ok(())), "{to}: {result:?}");
            assert_eq!(state, State::Sent, "{to}");
            let needed = if smtputf8 { " SMTPUTF8" } else { "" };
            assert_eq!(asks, [format!("MAIL FROM:<shop@example.com>{needed}")]);
            let ascii = to.replace("bücher", "xn--bcher-kva");
            assert_eq!(server.accepted()[0].to, [ascii]);
        } else {
            assert!(
                matches!(result, Err(Failure::Reject(_))),
                "{to}: {result:?}"
            );
            assert_eq!(state, State::Failed, "{to}");
            assert_eq!(asks, [""; 0]);
            assert_eq!(server.count(), 0);
        }
    }
}

/// A load balancer forgets all connections that rested as long.
#[tokio::test]
async fn one_resting_connection_that_is_dead_discards_those_that_rested_as_long() {
    let server = MailServer::start(Script::default()).await;
    let mut settings = short_at(&server, Step::Noop);
    settings.noop_after = Duration::ZERO;
    let smtp = Smtp::new(settings).unwrap();
    let to = envelope("ann@example.com");
    let offers = futures_util::future::join_all((0..8).map(|_| smtp.offer(&to))).await;
    drop(offers);
    assert_eq!(server.connections(), 8);
    server.add(Fault::always(Step::Noop, Act::Silence));
    let outcome = send(&smtp, "ann@example.com", MESSAGE).await;
    assert_eq!(outcome, Outcome::Accepted);
    let noops = server.heard();
    let noops = noops.iter().filter(|(_, line)| line.starts_with("NOOP"));
    assert_eq!((noops.count(), server.connections()), (1, 9));
}

#[tokio::test]
async fn a_mail_that_is_larger_than_the_server_takes_is_given_up_before_it_is_sent() {
    for (size, fits) in [(500, false), (1 << 20, true)] {
        let server = MailServer::start(Script {
            size: Some(size),
            ..Script::default()
        })
        .await;
        let ledger = MemoryLedger::new();
        let worker = worker(
            ledger.clone(),
            smtp_settings(&server),
            rules(OnAmbiguous::Resend),
        );
        let order = inserted("o1", "ann@example.com");
        let result = worker.handle(&order, &Context::detached()).await;
        let state = row(&ledger, "o1").await.unwrap().state;
        if fits {
            assert!(result.is_ok(), "{result:?}");
            assert_eq!(state, State::Sent);
            continue;
        }
        let Err(Failure::Reject(error)) = result else {
            panic!("{result:?}");
        };
        assert!(format!("{error:#}").contains("takes 500"), "{error:#}");
        assert_eq!(state, State::Failed);
        let heard = server.heard();
        assert!(
            !heard.iter().any(|(_, line)| line.starts_with("DATA")),
            "{heard:?}"
        );
    }
}
