//! Mails of more than 16 KiB go out in two parts; the right to send is asked between them.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use aftercommit::confirmation::smtp::{Delivery, SendStage, Smtp};

use crate::confirmation::smtp::{MESSAGE, Outcome, envelope, send, smtp};
use crate::support::mail_server::{Act, Fault, MailServer, Script, ServerTls, Step};
use crate::support::orders::{short_at, smtp_settings};
use aftercommit::confirmation::smtp::Security;

/// The part with the dot.
const LAST_PART: usize = 16 * 1024;

/// A message with this many lines, some of which begin with a dot.
fn message(lines: usize) -> Vec<u8> {
    let lines = (0..lines).map(|n| format!("{}{n:08} of a long order\r\n", ["", "."][n % 2]));
    [MESSAGE, lines.collect::<String>().as_bytes()].concat()
}

/// As it goes over the wire.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).unwrap();
    let text = text.replace("\r\n.", "\r\n..");
    [text.as_bytes(), b".\r\n"].concat()
}

#[tokio::test]
async fn a_large_mail_arrives_whole_and_the_next_one_after_it() {
    // The first part is nothing, one byte, and more than any buffer holds.
    let whole = message(2_000);
    let wire = stuffed(&whole).len();
    assert!(wire > 2 * LAST_PART);
    for tls in [ServerTls::None, ServerTls::Implicit] {
        let script = Script {
            tls,
            ..Script::default()
        };
        let server = MailServer::start(script).await;
        let mut settings = smtp_settings(&server);
        settings.host = "localhost".into();
        settings.extra_roots = server.root();
        settings.max_connections = 1;
        if tls == ServerTls::Implicit {
            settings.security = Security::Implicit;
        }
        let smtp = Smtp::new(settings).unwrap();
        let mails = [message(10), whole.clone(), message(300_000), message(10)];
        let sends = mails
            .iter()
            .map(|mail| send(&smtp, "ann@example.com", mail));
        let outcomes = futures_util::future::join_all(sends).await;
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Accepted),
            "{outcomes:?}"
        );
        let arrived = server.accepted();
        let same = arrived.iter().map(|mail| &mail.bytes).eq(&mails);
        assert!(same, "{tls:?}: not the same mails");
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn a_server_that_reads_slowly_but_steadily_gets_the_whole_mail() {
    let slow = Fault::once(Step::Body, Act::Trickle(Duration::from_millis(2)));
    let server = MailServer::start(Script::default().fault(slow)).await;
    let smtp = smtp(&server);
    let mail = message(500_000);
    let asked = Mutex::new(Vec::new());
    let may_pass = |stage| {
        asked.lock().unwrap().push((stage, Instant::now()));
        true
    };
    let offer = smtp.offer(&envelope("ann@example.com")).await.unwrap();
    let delivery = offer.deliver(&mail, &may_pass).await;
    assert!(matches!(delivery, Delivery::Accepted(_)), "{delivery:?}");
    assert!(server.accepted()[0].bytes == mail, "not the same mail");
    // It was held up on the way, and the right to send is asked after that.
    let asked = asked.into_inner().unwrap();
    assert_eq!(
        (asked[0].0, asked[1].0),
        (SendStage::Data, SendStage::AfterDot)
    );
    let took = asked[1].1 - asked[0].1;
    assert!(took > Duration::from_millis(50), "{took:?}");
}

/// Certainly not sent: the dot was never handed over.
#[tokio::test]
async fn a_server_that_stops_reading_is_left_within_the_bodys_limit_and_has_no_mail() {
    let stops = Fault::once(Step::Body, Act::Hold);
    let server = MailServer::start(Script::default().fault(stops)).await;
    let smtp = Smtp::new(short_at(&server, Step::Body)).unwrap();
    // More than the buffers on both sides hold.
    let mail = message(1_500_000);
    let sent = send(&smtp, "ann@example.com", &mail);
    let outcome = tokio::time::timeout(Duration::from_mins(1), sent).await;
    assert_eq!(
        outcome.expect("it is left"),
        Outcome::NotSent(SendStage::Body)
    );
    server.release();
    let cut = server.wait_cut().await;
    assert!(cut.len() < mail.len() && mail.starts_with(&cut));
    assert_eq!(server.count(), 0);
    let next = send(&smtp, "ann@example.com", MESSAGE).await;
    assert_eq!((next, server.count()), (Outcome::Accepted, 1));
}

#[tokio::test]
async fn a_mail_that_may_no_longer_pass_between_its_parts_gets_no_dot() {
    let server = MailServer::start(Script::default()).await;
    let smtp = smtp(&server);
    let mail = message(2_000);
    let offer = smtp.offer(&envelope("ann@example.com")).await.unwrap();
    let may_pass = |stage| stage == SendStage::Data;
    let delivery = offer.deliver(&mail, &may_pass).await;
    assert!(
        matches!(
            delivery,
            Delivery::NotSent {
                stage: SendStage::Body,
                ..
            }
        ),
        "{delivery:?}"
    );
    // The first part was sent, and nothing else.
    let cut = stuffed(&server.wait_cut().await);
    let wire = stuffed(&mail);
    assert!(wire.starts_with(&cut[..cut.len() - 3]));
    let missing = wire.len() - (cut.len() - 3);
    assert!((LAST_PART..LAST_PART + 4).contains(&missing), "{missing}");
    assert_eq!(server.count(), 0);
    let next = send(&smtp, "bob@example.com", MESSAGE).await;
    assert_eq!((next, server.count()), (Outcome::Accepted, 1));
}
