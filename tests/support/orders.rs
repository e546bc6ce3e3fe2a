//! Orders, and a worker that confirms them.

#![allow(dead_code)]

use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::mapping::Mapping;
use aftercommit::confirmation::smtp::{Smtp, SmtpSettings};
use aftercommit::confirmation::template::Templates;
use aftercommit::confirmation::{Confirmation, ConfirmationSettings};
use aftercommit::internal::claim::{Entry, OnAmbiguous};
use aftercommit::record::SequenceNumber;
use aftercommit::record::StreamView;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger};
use aftercommit::{Event, Record};
use serde_dynamo::to_item;

use super::mail_server::{MailServer, Step};

/// The default settings, because a busy machine is not a fault.
pub fn smtp_settings(server: &MailServer) -> SmtpSettings {
    SmtpSettings::from_url(&server.url(), None).unwrap()
}

/// The same, but silence at this one step is noticed soon.
pub fn short_at(server: &MailServer, step: Step) -> SmtpSettings {
    let mut settings = smtp_settings(server);
    let limits = &mut settings.timeouts;
    let limit = match step {
        Step::Connect => &mut limits.connect,
        Step::Noop => &mut limits.noop,
        Step::Tls => &mut limits.tls,
        Step::Greeting => &mut limits.greeting,
        Step::Ehlo | Step::StartTls | Step::Rset => &mut limits.hello,
        Step::Auth => &mut limits.auth,
        Step::Mail => &mut limits.mail,
        Step::Rcpt => &mut limits.rcpt,
        Step::Data => &mut limits.data,
        Step::Body => &mut limits.body,
        Step::Dot => &mut limits.after_dot,
    };
    *limit = Duration::from_millis(500);
    settings
}

/// Times short enough that silence is noticed soon.
pub fn quick(server: &MailServer) -> SmtpSettings {
    let mut settings = smtp_settings(server);
    let limits = &mut settings.timeouts;
    for limit in [
        &mut limits.connect,
        &mut limits.tls,
        &mut limits.greeting,
        &mut limits.hello,
        &mut limits.noop,
        &mut limits.auth,
        &mut limits.mail,
        &mut limits.rcpt,
        &mut limits.data,
        &mut limits.body,
        &mut limits.after_dot,
    ] {
        *limit = Duration::from_secs(1);
    }
    settings
}

pub fn key(id: &str) -> EffectKey {
    EffectKey::new(&EffectName::default(), id)
}

/// The order as the stream reports it.
pub fn inserted(id: &str, email: &str) -> Record {
    let item = to_item(serde_json::json!({
        "id": id, "email": email, "total": 1999, "currency": "EUR", "name": "Ann",
    }));
    let keys = to_item(serde_json::json!({ "id": id }));
    Record {
        event_id: format!("event-{id}"),
        event: Event::Insert,
        keys: keys.unwrap(),
        new_image: Some(item.unwrap()),
        old_image: None,
        sequence_number: SequenceNumber::parse("1").unwrap(),
        created: SystemTime::now(),
        view: StreamView::NewImage,
        size_bytes: 100,
        by_ttl: false,
    }
}

/// Orders that are confirmed under this policy.
pub fn rules(on_ambiguous: OnAmbiguous) -> ConfirmationSettings {
    let mut settings = ConfirmationSettings::new(Mapping::new("id").unwrap());
    settings.on_ambiguous = on_ambiguous;
    settings
}

/// A worker of its own, with its own connections and memory.
pub fn worker<L: Ledger>(
    ledger: L,
    smtp: SmtpSettings,
    settings: ConfirmationSettings,
) -> Confirmation<L> {
    let from = "Shop <shop@example.com>".parse().unwrap();
    let letterhead = Letterhead::new(Templates::built_in().unwrap(), from);
    let smtp = Smtp::new(smtp).unwrap();
    Confirmation::new(ledger, smtp, letterhead, settings, fastrand::Rng::new())
}

pub async fn row(ledger: &MemoryLedger, id: &str) -> Option<Entry> {
    ledger.read(&key(id)).await.unwrap()
}
