//! The mail: its bytes, and that no data can change its shape.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::confirmation::address::parse_mailbox;
use aftercommit::confirmation::mail::{Frozen, Letterhead, Mail};
use aftercommit::confirmation::template::Templates;
use aftercommit::stores::ledger::EffectKey;
use proptest::prelude::*;
use serde_dynamo::{AttributeValue as A, Item};

use crate::confirmation::order::{any_value, item, map, mapping, n, s};

fn letterhead() -> Letterhead {
    let from = parse_mailbox("Bücher & Brew <orders@bücher.example>").unwrap();
    Letterhead::new(Templates::built_in().unwrap(), from)
}

fn frozen(id: &str) -> Frozen {
    Frozen {
        date: SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_539_200_750),
        key: EffectKey::new(&EffectName::default(), id),
    }
}

fn mail(letterhead: &Letterhead, item: &Item) -> Mail {
    let order = mapping().order(item).unwrap();
    letterhead.render(&order, &frozen(&order.id)).unwrap()
}

fn full_order() -> Item {
    let line = |name, quantity, price| {
        A::M(map(&[
            ("name", s(name)),
            ("quantity", n(quantity)),
            ("unit_price", n(price)),
        ]))
    };
    item(&[
        ("name", s("Zoë \"Z\" O'Hara <script>")),
        (
            "lines",
            A::L(vec![
                line("Kaffee „Äthiopien“, 500 g", "2", "1450"),
                line("Porcelain dripper & filters", "1", "1990"),
                A::M(map(&[("name", s("Gift wrap"))])),
            ]),
        ),
    ])
}

/// Compares with a golden file; writes it when `AFTERCOMMIT_WRITE_GOLDEN` is set.
fn assert_golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("AFTERCOMMIT_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(
        golden == bytes,
        "{name} differs; look at the new text, then set AFTERCOMMIT_WRITE_GOLDEN=1:\n{}",
        String::from_utf8_lossy(bytes)
    );
}

/// The header lines, unfolded, as name and value.
fn headers(mail: &Mail) -> Vec<(String, String)> {
    let text = std::str::from_utf8(&mail.bytes).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    head.replace("\r\n ", " ")
        .split("\r\n")
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn header(mail: &Mail, name: &str) -> String {
    let mut found = headers(mail).into_iter().filter(|(n, _)| n == name);
    let value = found.next().unwrap().1;
    assert!(found.next().is_none(), "{name} stands once");
    value
}

const NAMES: [&str; 8] = [
    "From",
    "To",
    "Date",
    "Message-ID",
    "Subject",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
];

fn names(mail: &Mail) -> Vec<String> {
    headers(mail).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_mail_for_a_full_order_is_as_it_always_was() {
    assert_golden("full.eml", &mail(&letterhead(), &full_order()).bytes);
}

#[test]
fn the_mail_for_the_smallest_order_is_as_it_always_was() {
    let from = parse_mailbox("orders@example.com").unwrap();
    let answers = parse_mailbox("Help <help@example.com>").unwrap();
    let letterhead = Letterhead::new(Templates::built_in().unwrap(), from)
        .reply_to(answers)
        .idempotency_header("Resend-Idempotency-Key")
        .unwrap();
    assert_golden("smallest.eml", &mail(&letterhead, &item(&[])).bytes);
}

#[test]
fn the_same_order_gives_the_same_bytes_and_another_effect_gives_others() {
    let order = mapping().order(&full_order()).unwrap();
    let first = letterhead().render(&order, &frozen("1042")).unwrap();
    assert!(first == letterhead().render(&order, &frozen("1042")).unwrap());
    let other = letterhead().render(&order, &frozen("1043")).unwrap();
    assert_ne!(first.message_id, other.message_id);
    assert_ne!(first.digest, other.digest);
}

#[test]
fn a_header_says_what_was_frozen_and_who_writes() {
    let mail = mail(&letterhead(), &full_order());
    assert_eq!(names(&mail), NAMES);
    assert_eq!(header(&mail, "Date"), "Tue, 03 Mar 2026 12:00:00 +0000");
    assert_eq!(header(&mail, "Message-ID"), mail.message_id);
    assert!(mail.message_id.ends_with("@xn--bcher-kva.example>"));
    assert_eq!(header(&mail, "Auto-Submitted"), "auto-generated");
    assert_eq!(
        mail.envelope.from().unwrap().to_string(),
        "orders@xn--bcher-kva.example"
    );
    assert_eq!(mail.envelope.to().len(), 1);
    assert!(!format!("{mail:?}").contains("ada"), "no address in a log");
}

#[test]
fn bounces_go_to_their_own_address_and_the_readers_still_see_the_sender() {
    let bounces = "bounces@mail.example.com".parse().unwrap();
    let letterhead = letterhead().bounces_to(bounces);
    let mail = mail(&letterhead, &full_order());
    let sender = |mail: &Mail| mail.envelope.from().unwrap().to_string();
    assert_eq!(sender(&mail), "bounces@mail.example.com");
    assert!(header(&mail, "From").contains("orders@xn--bcher-kva.example"));
    assert!(mail.message_id.ends_with("@mail.example.com>"));
    let mut order = mapping().order(&full_order()).unwrap();
    order.bounces_to = Some("seller@example.com".parse().unwrap());
    let mail = letterhead.render(&order, &frozen("1042")).unwrap();
    assert_eq!(sender(&mail), "seller@example.com");
}

#[test]
fn the_idempotency_header_carries_the_effect_key_or_its_hash() {
    let letterhead = letterhead().idempotency_header("X-Key").unwrap();
    let key = |id| header(&mail(&letterhead, &item(&[("id", s(id))])), "X-Key");
    assert_eq!(key("1042"), "confirmation#1042");
    assert_eq!(key("é 1").len(), 64);
    assert_eq!(key(&"7".repeat(300)).len(), 64);
}

#[test]
fn a_header_that_the_mail_needs_itself_cannot_carry_the_key() {
    for name in [
        "",
        "subject",
        "X Key",
        "X:Key",
        "X-Kéy",
        "X\r\nBcc",
        "BCC",
        &"x".repeat(77),
    ] {
        assert!(letterhead().idempotency_header(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_date_that_no_mail_can_have_is_an_error_and_no_panic() {
    let order = mapping().order(&item(&[])).unwrap();
    let far = Duration::from_hours(70_389_528);
    for date in [
        SystemTime::UNIX_EPOCH - Duration::from_secs(1),
        SystemTime::UNIX_EPOCH + far,
    ] {
        let frozen = Frozen {
            date,
            ..frozen("1")
        };
        let reported = letterhead()
            .render(&order, &frozen)
            .unwrap_err()
            .to_string();
        assert!(reported.contains("order 1042"), "{reported}");
    }
}

#[test]
fn only_the_first_hundred_lines_are_listed() {
    let line = |at: usize| A::M(map(&[("name", s(&format!("Article {at};")))]));
    let lines = |count| item(&[("lines", A::L((1..=count).map(line).collect()))]);
    let text = |item| {
        let order = mapping().order(&item).unwrap();
        letterhead().content(&order).unwrap().text
    };
    assert!(!text(lines(100)).contains(" more"));
    let many = text(lines(103));
    assert!(many.contains("Article 100;") && !many.contains("Article 101;"));
    assert!(many.contains("and 3 more"));
}

#[test]
fn html_is_escaped_and_text_is_not() {
    let order = mapping().order(&full_order()).unwrap();
    let content = letterhead().content(&order).unwrap();
    assert!(content.html.contains("&lt;script&gt;") && !content.html.contains("<script>"));
    assert!(content.text.contains("<script>"));
}

#[test]
fn the_boundary_cannot_be_written_into_a_body() {
    let plain = mail(&letterhead(), &item(&[]));
    let kind = header(&plain, "Content-Type");
    let boundary = kind.split('"').nth(1).unwrap().to_owned();
    let evil = item(&[
        ("name", s(&format!("--{boundary}"))),
        (
            "lines",
            A::L(vec![A::M(map(&[("name", s(&format!("--{boundary}--")))]))]),
        ),
    ]);
    let evil = mail(&letterhead(), &evil);
    assert_eq!(
        header(&evil, "Content-Type"),
        kind,
        "the same effect has the same boundary"
    );
    assert_eq!(parts(&evil), 2);
}

/// How many parts a reader finds in the mail.
fn parts(mail: &Mail) -> usize {
    let kind = header(mail, "Content-Type");
    let delimiter = format!("--{}", kind.split('"').nth(1).unwrap());
    let text = String::from_utf8(mail.bytes.clone()).unwrap();
    text.lines()
        .filter(|line| line.trim_end() == delimiter)
        .count()
}

/// What must hold whatever the data is.
fn assert_well_formed(mail: &Mail) {
    assert_eq!(names(mail), NAMES);
    assert_eq!(parts(mail), 2);
    let text = String::from_utf8(mail.bytes.clone()).unwrap();
    for line in text.split("\r\n") {
        assert!(line.len() <= 998, "RFC 5322: at most 998 bytes a line");
        assert!(
            !line.contains(|c: char| c.is_control() && c != '\t'),
            "{line:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_in_any_field_changes_the_shape_of_the_mail(
        id: String,
        local in prop_oneof!["ada", "[^@]{1,12}"],
        name: String,
        nasty in prop::sample::select(vec!["\r\nBcc: x@example.com", "\r\n\r\n", "\n.\r\n", "\0", "=?utf-8?q?=0A?=", "\u{2028}", "{{ 7 * 7 }}"]),
        article: String,
        extra in any_value(),
    ) {
        let line = A::M(map(&[("name", s(&format!("{article}{nasty}")))]));
        let item = item(&[
            ("id", s(&format!("7{id}"))),
            ("email", s(&format!("{local}@example.com"))),
            ("name", s(&format!("{nasty}{name}{nasty}"))),
            ("lines", A::L(vec![line])),
            ("extra", extra),
        ]);
        // An id or an address that is refused never reaches a mail.
        if let Ok(order) = mapping().order(&item) {
            assert_well_formed(&letterhead().render(&order, &frozen(&order.id)).unwrap());
        }
    }
}
