//! Greeting, TLS and login at a mail server.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercommit::confirmation::smtp::{Reload, Secret, Security, SendStage, Smtp, SmtpSettings};
use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Failure, RecordHandler as _};

use crate::support::mail_server::{
    Act, Fault, MailServer, PASSWORD, Script, ServerTls, Step, USER,
};
use crate::support::orders::{inserted, row, rules, smtp_settings, worker};

use super::smtp::{MESSAGE, Outcome, envelope, send, smtp};

#[tokio::test]
async fn starttls_is_demanded_and_a_foreign_certificate_is_refused() {
    for (offered, trusted, outcome) in [
        (ServerTls::StartTls, true, Outcome::Accepted),
        (
            ServerTls::StartTls,
            false,
            Outcome::NotOffered(SendStage::Tls),
        ),
        (ServerTls::None, true, Outcome::NotOffered(SendStage::Tls)),
        (ServerTls::Implicit, true, Outcome::Accepted),
        (
            ServerTls::Implicit,
            false,
            Outcome::NotOffered(SendStage::Tls),
        ),
    ] {
        let server = MailServer::start(Script {
            tls: offered,
            ..Script::default()
        })
        .await;
        let mut settings = smtp_settings(&server);
        settings.host = "localhost".into();
        settings.timeouts.tls = Duration::from_secs(5);
        settings.security = match offered {
            ServerTls::Implicit => Security::Implicit,
            _ => Security::StartTls,
        };
        if trusted {
            settings.extra_roots = server.root();
        }
        let smtp = Smtp::new(settings).unwrap();
        assert_eq!(
            send(&smtp, "ann@example.com", MESSAGE).await,
            outcome,
            "{offered:?} {trusted}"
        );
    }
}

#[tokio::test]
async fn every_login_mechanism_works_and_a_wrong_password_is_about_the_server() {
    for (offered, forced, password, outcome) in [
        ("PLAIN LOGIN", "", PASSWORD, Outcome::Accepted),
        ("LOGIN", "", PASSWORD, Outcome::Accepted),
        (
            "XOAUTH2 PLAIN",
            "?auth=xoauth2",
            PASSWORD,
            Outcome::Accepted,
        ),
        (
            "XOAUTH2 PLAIN",
            "?auth=xoauth2",
            "wrong",
            Outcome::NotOffered(SendStage::Auth),
        ),
        ("PLAIN", "", "wrong", Outcome::NotOffered(SendStage::Auth)),
        (
            "PLAIN",
            "?auth=login",
            PASSWORD,
            Outcome::NotOffered(SendStage::Auth),
        ),
        (
            "CRAM-MD5",
            "",
            PASSWORD,
            Outcome::NotOffered(SendStage::Auth),
        ),
    ] {
        let server = MailServer::start(Script {
            auth: offered,
            ..Script::default()
        })
        .await;
        let url = format!("smtp://{USER}@{}{forced}", server.address());
        let settings = SmtpSettings::from_url(&url, Some(Secret::new(password.into()))).unwrap();
        let smtp = Smtp::new(settings).unwrap();
        let refusal = smtp.offer(&envelope("ann@example.com")).await.err();
        assert!(refusal.is_none_or(|r| !r.is_about_the_mail()));
        assert_eq!(
            send(&smtp, "ann@example.com", MESSAGE).await,
            outcome,
            "{offered} {forced}"
        );
    }
}

#[tokio::test]
async fn a_changed_password_is_read_again_once_the_server_has_refused_the_old_one() {
    let server = MailServer::start(Script {
        auth: "PLAIN",
        ..Script::default()
    })
    .await;
    let kept = Arc::new(Mutex::new("old"));
    let reads = Arc::new(AtomicU32::new(0));
    let (from, count) = (kept.clone(), reads.clone());
    let url = format!("smtp://{USER}@{}", server.address());
    let mut settings = SmtpSettings::from_url(&url, Some(Secret::new("old".into()))).unwrap();
    settings.reload = Some(Reload::by(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let now = Secret::new((*from.lock().unwrap()).to_owned());
        async move { Ok(now) }
    }));
    let smtp = Smtp::new(settings).unwrap();
    let refused = Outcome::NotOffered(SendStage::Auth);
    let sent = async || send(&smtp, "ann@example.com", MESSAGE).await;
    assert_eq!(sent().await, refused, "the new one is not there yet");
    assert_eq!(sent().await, refused, "and not yet");
    let before = (server.connections(), reads.load(Ordering::Relaxed));
    *kept.lock().unwrap() = PASSWORD;
    assert_eq!(sent().await, Outcome::Accepted);
    let after = (server.connections(), reads.load(Ordering::Relaxed));
    assert_eq!(
        after,
        (before.0 + 1, before.1 + 1),
        "no try with the old one"
    );
    // Rotated while a connection is open: the next login fails once and is repeated at once.
    let mut settings = SmtpSettings::from_url(&url, Some(Secret::new("older".into()))).unwrap();
    settings.reload = Some(Reload::by(|| async { Ok(Secret::new(PASSWORD.into())) }));
    let smtp = Smtp::new(settings).unwrap();
    let outcome = send(&smtp, "ann@example.com", MESSAGE).await;
    assert_eq!(outcome, Outcome::Accepted);
}

#[tokio::test]
async fn a_server_that_does_not_know_ehlo_is_greeted_with_helo_where_no_extension_is_needed() {
    let unknown = || Fault::once(Step::Ehlo, Act::Say("502 5.5.1 not implemented"));
    let server = MailServer::start(Script::default().fault(unknown())).await;
    let outcome = send(&smtp(&server), "ann@example.com", MESSAGE).await;
    assert_eq!(outcome, Outcome::Accepted);
    let heard: Vec<_> = server.heard().into_iter().map(|(_, line)| line).collect();
    let verbs: Vec<_> = heard.iter().map(|line| &line[..4]).collect();
    assert_eq!(verbs[..4], ["EHLO", "HELO", "MAIL", "RCPT"]);
    for options in ["?tls=required", "?auth=plain"] {
        let server = MailServer::start(Script::default().fault(unknown())).await;
        let url = format!("smtp://{USER}@{}{options}", server.address());
        let settings = SmtpSettings::from_url(&url, Some(Secret::new(PASSWORD.into())));
        let smtp = Smtp::new(settings.unwrap()).unwrap();
        let Err(refusal) = smtp.offer(&envelope("ann@example.com")).await else {
            panic!("it was let through");
        };
        let reported = "EHLO: the mail server does not know EHLO";
        assert!(refusal.to_string().starts_with(reported), "{refusal}");
        assert!(!refusal.is_about_the_mail());
        assert!(
            !server
                .heard()
                .iter()
                .any(|(_, line)| line.starts_with("HELO"))
        );
    }
}

#[tokio::test]
async fn words_that_come_between_starttls_and_tls_end_the_connection() {
    let words = "220 go on\r\n250-test.example\r\n250 AUTH PLAIN";
    let server = MailServer::start(Script {
        tls: ServerTls::StartTls,
        faults: vec![Fault::always(Step::StartTls, Act::Say(words))],
        ..Script::default()
    })
    .await;
    let mut settings = smtp_settings(&server);
    settings.host = "localhost".into();
    settings.extra_roots = server.root();
    settings.security = Security::StartTls;
    let smtp = Smtp::new(settings).unwrap();
    let refusal = smtp
        .offer(&envelope("ann@example.com"))
        .await
        .err()
        .unwrap();
    assert_eq!(refusal.stage, SendStage::Tls);
    let reported = "it spoke between STARTTLS and TLS";
    assert!(refusal.to_string().contains(reported), "{refusal}");
}

#[tokio::test]
async fn a_server_that_demands_a_login_where_none_is_set_is_about_the_settings() {
    let server = MailServer::start(Script {
        auth: "PLAIN",
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
    let Err(Failure::Unavailable(error)) = result else {
        panic!("{result:?}");
    };
    assert!(format!("{error:#}").contains("530"), "{error:#}");
    assert!(row(&ledger, "o1").await.is_none());
}

#[tokio::test]
async fn the_name_that_greets_a_server_has_a_dot() {
    let server = MailServer::start(Script::default()).await;
    for (name, greets) in [
        (None, None),
        (Some("mx.example.com"), Some("mx.example.com")),
    ] {
        let before = server.heard().len();
        let mut settings = smtp_settings(&server);
        settings.hello = name.map(str::to_owned);
        let smtp = Smtp::new(settings).unwrap();
        let outcome = send(&smtp, "ann@example.com", MESSAGE).await;
        assert_eq!(outcome, Outcome::Accepted);
        let heard = server.heard().split_off(before);
        let ehlo = heard[0].1.strip_prefix("EHLO ").unwrap().to_owned();
        assert!(ehlo.contains('.'), "{ehlo}");
        assert!(greets.is_none_or(|name| name == ehlo), "{ehlo}");
    }
}
