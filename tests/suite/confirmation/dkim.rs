//! Signatures under mails: they verify, and a mail that is sent again bears the same one.

use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::confirmation::Confirmation;
use aftercommit::confirmation::address::parse_mailbox;
use aftercommit::confirmation::dkim::{BadDkim, Dkim};
use aftercommit::confirmation::mail::{Frozen, Letterhead, Mail};
use aftercommit::confirmation::mapping::Mapping;
use aftercommit::confirmation::smtp::Smtp;
use aftercommit::confirmation::template::Templates;
use aftercommit::internal::claim::{Liveness, OnAmbiguous};
use aftercommit::stores::ledger::EffectKey;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Clock, Context, RecordHandler as _};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::signature::{
    ED25519, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair,
    UnparsedPublicKey,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, quick, rules};

const RSA: &[u8] = include_bytes!("../../golden/dkim_rsa.pem");
const ED25519_KEY: &[u8] = include_bytes!("../../golden/dkim_ed25519.pem");

/// A signed mail of RFC 8463, appendix A, with its Ed25519 signature.
const SAMPLE: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r
 d=football.example.com; i=@football.example.com;\r
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r
 subject : date : message-id : from : subject : date;\r
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r
From: Joe SixPack <joe@football.example.com>\r
To: Suzie Q <suzie@shopping.example.net>\r
Subject: Is dinner ready?\r
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r
Message-ID: <20030712040037.46341.5F8J@football.example.com>\r
\r
Hi.\r
\r
We lost the game.  Are you hungry yet?\r
\r
Joe.\r
";
const SAMPLE_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// A verifier of its own, which takes relaxed/relaxed and nothing else: what is wrong, if anything.
fn verify(mail: &str, key: &[u8]) -> Result<(), &'static str> {
    let (head, body) = mail.split_once("\r\n\r\n").ok_or("no body")?;
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let fields: Vec<(String, &str)> = unfolded
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value))
        .collect();
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let own = fields.iter().find(|(name, _)| name == "dkim-signature");
    let own = own.ok_or("no signature")?.1;
    let tag = |wanted: &str| {
        own.split(';')
            .filter_map(|tag| tag.split_once('='))
            .find(|(name, _)| name.trim() == wanted)
            .map(|(_, value)| value.split_whitespace().collect::<String>())
            .ok_or("a tag is missing")
    };
    if tag("v")? != "1" || tag("c")? != "relaxed/relaxed" {
        return Err("another kind of signature");
    }
    let mut lines: Vec<String> = body
        .split("\r\n")
        .map(|line| {
            let indent = if line.starts_with([' ', '\t']) && !line.trim().is_empty() {
                " "
            } else {
                ""
            };
            format!("{indent}{}", squeeze(line))
        })
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.push(String::new());
    let body = lines.join("\r\n");
    if tag("bh")? != BASE64_STANDARD.encode(Sha256::digest(body)) {
        return Err("the body is another");
    }
    let names = tag("h")?;
    if !names.split(':').any(|name| name == "from") {
        return Err("the sender is not signed");
    }
    let mut text = String::new();
    let mut left = fields.clone();
    for name in names.split(':') {
        // The last of a name first.
        if let Some(at) = left.iter().rposition(|(field, _)| field == name) {
            let (name, value) = left.remove(at);
            text.extend([&*name, ":", &squeeze(value), "\r\n"]);
        }
    }
    let (before, _) = own.rsplit_once(" b=").ok_or("no b=")?;
    text.extend(["dkim-signature:", &squeeze(before), " b="]);
    let signature = BASE64_STANDARD
        .decode(tag("b")?)
        .map_err(|_| "b= is no base64")?;
    let verdict = match &*tag("a")? {
        "ed25519-sha256" => {
            UnparsedPublicKey::new(&ED25519, key).verify(&Sha256::digest(text), &signature)
        }
        "rsa-sha256" => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(text.as_bytes(), &signature),
        _ => return Err("another algorithm"),
    };
    verdict.map_err(|_| "the signature is not of this key over these headers")
}

/// Private keys and their public halves.
fn keys() -> [(&'static [u8], Vec<u8>); 2] {
    let der = |pem| PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
    let rsa = RsaKeyPair::from_pkcs8(der(RSA).secret_pkcs8_der()).unwrap();
    let der = der(ED25519_KEY);
    let ed25519 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).unwrap();
    let public = |key: &[u8]| key.to_vec();
    [
        (RSA, public(rsa.public_key().as_ref())),
        (ED25519_KEY, public(ed25519.public_key().as_ref())),
    ]
}

fn letterhead(key: &[u8]) -> Letterhead {
    let from = parse_mailbox("Bücher & Brew <orders@example.com>").unwrap();
    let dkim = Dkim::new("example.com", "shop", key).unwrap();
    Letterhead::new(Templates::built_in().unwrap(), from).signed(dkim)
}

fn mail(letterhead: &Letterhead, id: &str) -> Mail {
    let record = inserted(id, "ann@example.com");
    let mapping = Mapping::new("id").unwrap();
    let order = mapping.order(record.new_image.as_ref().unwrap()).unwrap();
    let frozen = Frozen {
        date: SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_539_200_750),
        key: EffectKey::new(&EffectName::default(), id),
    };
    letterhead.render(&order, &frozen).unwrap()
}

#[test]
fn the_verifier_takes_the_mail_of_rfc_8463_and_none_that_was_changed() {
    let key = BASE64_STANDARD.decode(SAMPLE_KEY).unwrap();
    verify(SAMPLE, &key).unwrap();
    for (from, to) in [
        ("dinner", "supper"),
        ("the game", "a game"),
        ("Joe SixPack", "Jim SixPack"),
    ] {
        assert!(verify(&SAMPLE.replacen(from, to, 1), &key).is_err(), "{to}");
    }
}

#[test]
fn a_signed_mail_verifies_and_a_changed_one_does_not() {
    for (private, public) in keys() {
        let mail = mail(&letterhead(private), "o1");
        let text = String::from_utf8(mail.bytes).unwrap();
        verify(&text, &public).unwrap();
        assert!(text.starts_with("DKIM-Signature: v=1; a="), "{text}");
        assert!(text.lines().all(|line| line.len() <= 998));
        assert!(text.contains(" d=example.com; s=shop;") && text.contains(" t=1772539200;"));
        for (from, to) in [
            ("To: ", "To: x"),
            ("Subject: ", "Subject: Re: "),
            ("\r\n\r\n", "\r\nFrom: eve@example.com\r\n\r\n"),
            ("19.99", "99.99"),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(
                verify(&text.replacen(from, to, 1), &public).is_err(),
                "{to}"
            );
        }
    }
}

#[test]
fn a_header_that_a_reader_sees_cannot_be_added_to_a_signed_mail() {
    let (private, public) = &keys()[1];
    let mail = mail(&letterhead(private), "o1");
    let text = String::from_utf8(mail.bytes).unwrap();
    for name in [
        "From",
        "To",
        "Cc",
        "Reply-To",
        "Subject",
        "Date",
        "Content-Type",
    ] {
        // A verifier takes the last of a name, a reader often shows the first.
        let (own, rest) = text.split_once("\r\nFrom: ").unwrap();
        let added = format!("{own}\r\n{name}: another\r\nFrom: {rest}");
        assert!(verify(&added, public).is_err(), "{name}");
    }
}

#[test]
fn the_same_mail_bears_the_same_signature() {
    for (private, _) in keys() {
        let once = mail(&letterhead(private), "o1");
        let again = mail(&letterhead(private), "o1");
        assert_eq!(once.bytes, again.bytes);
        assert_eq!(once.digest, again.digest);
        assert_ne!(once.bytes, mail(&letterhead(private), "o2").bytes);
    }
}

#[tokio::test]
async fn a_mail_that_is_sent_again_is_byte_for_byte_the_same_with_its_signature() {
    let script = Script::default().fault(Fault::once(Step::Dot, Act::Close).keeping());
    let server = MailServer::start(script).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let (_, public) = &keys()[0];
    let now = SystemTime::now();
    for (who, after) in [("first", 0), ("next", 100)] {
        let smtp = Smtp::new(quick(&server)).unwrap();
        // A signature of the moment would be another one by then.
        let later = now + Duration::from_secs(after);
        let mut rules = rules(OnAmbiguous::Resend);
        rules.clock = Clock::new(move || later);
        let rng = fastrand::Rng::new();
        let worker = Confirmation::new(ledger.clone(), smtp, letterhead(RSA), rules, rng);
        let context = Context::detached().of_worker(who, Liveness::Dead);
        // The first cannot tell; what came of it stands in the ledger.
        let _ = worker.handle(&record, &context).await;
    }
    let mails = server.accepted();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0].bytes, mails[1].bytes);
    verify(&mails[1].text(), public).unwrap();
}

#[test]
fn a_key_that_does_not_fit_is_refused_and_never_shown() {
    let refused = |domain: &str, pem: &[u8]| Dkim::new(domain, "shop", pem).unwrap_err();
    assert!(matches!(refused("example.com", b"x"), BadDkim::NoKey));
    assert!(matches!(refused("a b", RSA), BadDkim::Name(_)));
    assert!(matches!(refused("a\r\nb", RSA), BadDkim::Name(_)));
    let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert!(matches!(
        refused("example.com", elliptic.as_bytes()),
        BadDkim::Key
    ));
    let dkim = Dkim::new("bücher.example", "shop", RSA).unwrap();
    let shown = format!("{dkim:?}");
    assert_eq!(
        shown,
        r#"Dkim { domain: "xn--bcher-kva.example", selector: "shop", .. }"#
    );
}
