//! Orders that are wrong in some way, made from a seed.

use std::collections::HashMap;

use serde_dynamo::{AttributeValue as A, Item};

/// The attribute with the order's id. It is not the table's key, so it can contain anything.
pub const ID: &str = "order";

/// Words that no message may repeat, because customers wrote them.
pub const SECRET: &str = "XYZZY";

/// What should become of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is rejected with a message that names this.
    Rejected(String),
    /// It is odd and can be mailed all the same.
    Mailed,
    /// One or the other.
    Either,
}

/// An order, and what should become of it.
#[derive(Debug, Clone)]
pub struct Odd {
    pub item: Item,
    pub fate: Fate,
    /// Where a mail about it goes.
    pub address: String,
}

fn s(text: impl Into<String>) -> A {
    A::S(text.into())
}

fn n(digits: impl Into<String>) -> A {
    A::N(digits.into())
}

fn map<const N: usize>(fields: [(&str, A); N]) -> HashMap<String, A> {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

fn line<const N: usize>(fields: [(&str, A); N]) -> A {
    let mut line = map([("name", s("Tea")), ("quantity", n("2"))]);
    line.extend(map(fields));
    A::M(line)
}

fn valid(number: usize) -> HashMap<String, A> {
    map([
        (ID, s(format!("o-{number}"))),
        ("email", s(address(number))),
        ("name", s("Ada")),
        ("total", n("4890")),
        ("currency", s("EUR")),
        ("lines", A::L(vec![line([("unit_price", n("2445"))])])),
    ])
}

pub fn address(number: usize) -> String {
    format!("u{number}@example.com")
}

/// A value as deep as DynamoDB takes one: 32 levels.
fn deep() -> A {
    (0..31).fold(s(SECRET), |inner, level| match level % 2 {
        0 => A::L(vec![inner]),
        _ => A::M(map([("in", inner)])),
    })
}

/// Texts that would like to be more than texts.
fn nasty(rng: &mut fastrand::Rng) -> String {
    let texts = [
        "a\r\nBcc: evil@example.com",
        "a\nBcc: evil@example.com\n\nbody",
        "a\r\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<evil@example.com>\r\nDATA",
        "a\u{0}b\u{7f}\u{1b}[31m",
        "\u{202e}gnp.exe\u{2066}\u{feff}",
        "e\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
        "👩‍👩‍👧‍👦🏳️‍🌈",
        "=?utf-8?Q?=0D=0ABcc:_evil@example.com?=",
        "{{ 7 * 7 }}{% for x in range(9999999) %}{% endfor %}",
        "<script>alert(1)</script>\" onload=\"x",
        "\u{2028}\u{2029}\u{85}Bcc: evil@example.com",
        "\u{fffd}\u{ffff}\u{10ffff}",
    ];
    format!("{SECRET} {}", texts[rng.usize(..texts.len())])
}

/// A value that is not text.
fn no_text(rng: &mut fastrand::Rng) -> A {
    match rng.u8(..9) {
        0 => n("7"),
        1 => A::Bool(rng.bool()),
        2 => A::B(vec![0xff, 0xfe, 0x00]),
        3 => A::L(vec![s(SECRET)]),
        4 => A::M(map([("S", s(SECRET))])),
        5 => A::Ss(vec![SECRET.to_owned()]),
        6 => A::Ns(vec!["1".to_owned()]),
        7 => A::Bs(vec![vec![0x80]]),
        _ => deep(),
    }
}

/// A value that is not a whole number.
fn no_number(rng: &mut fastrand::Rng) -> A {
    let digits = [
        "19.99",
        "1.5E0",
        "99999999999999999999999999999999999999",
        "-0.5",
    ];
    match rng.u8(..4) {
        0 => n(digits[rng.usize(..digits.len())]),
        1 => s(SECRET),
        2 => A::Null(true),
        _ => match no_text(rng) {
            A::N(_) => A::Bool(true),
            other => other,
        },
    }
}

fn bad_address(rng: &mut fastrand::Rng) -> String {
    let texts = [
        "",
        "XYZZY",
        "@example.com",
        "XYZZY@",
        "XYZZY@localhost",
        "XYZZY@[127.0.0.1]",
        "XYZZY@example.com\r\nBcc: evil@example.com",
        "XYZZY@example.com>\r\nRCPT TO:<evil@example.com",
        "XYZZY@example.com,evil@example.com",
        "XYZZY\u{0}@example.com",
        "XYZ ZY@example.com",
        "XYZZY@exam\u{0}ple.com",
        "\"XYZ ZY\"@example.com",
    ];
    match rng.usize(..=texts.len()) {
        huge if huge == texts.len() => format!("{}@example.com", SECRET.repeat(50_000)),
        one => texts[one].to_owned(),
    }
}

/// What is wrong with an order's field, and what to say about it.
fn wrong(item: &mut HashMap<String, A>, rng: &mut fastrand::Rng) -> Fate {
    let (field, value) = match rng.u8(..8) {
        0 => {
            let field = [ID, "email"][rng.usize(..2)];
            item.remove(field);
            return Fate::Rejected("is missing".to_owned());
        }
        // Optional attributes can be missing, and can be anything but a wrong amount of money.
        1 => {
            item.remove(["total", "currency"][rng.usize(..2)]);
            return Fate::Mailed;
        }
        2 => ("id", wrong_id(rng)),
        3 if rng.bool() => ("email", s(bad_address(rng))),
        3 => ("email", no_text(rng)),
        4 if rng.bool() => ("total", n(format!("-{}", rng.u64(1..)))),
        4 => ("total", no_number(rng)),
        5 if rng.bool() => ("currency", no_text(rng)),
        5 => {
            let texts = ["EURO", "E\0R", "€", "12", "E\r\nR", "XYZZY"];
            ("currency", s(texts[rng.usize(..texts.len())]))
        }
        6 => {
            item.insert("name".to_owned(), no_text(rng));
            return Fate::Mailed;
        }
        _ => return wrong_lines(item, rng),
    };
    let attribute = if field == "id" { ID } else { field };
    let fate = match (&value, field) {
        (A::Null(_), "total" | "currency") => Fate::Mailed,
        _ => Fate::Rejected(format!("{field}, from the expression ")),
    };
    item.insert(attribute.to_owned(), value);
    fate
}

fn wrong_id(rng: &mut fastrand::Rng) -> A {
    match rng.u8(..4) {
        0 => s(""),
        1 => s("x".repeat(1_025 + rng.usize(..100_000))),
        2 => s(format!("o\r\n{SECRET}\0")),
        _ => match no_text(rng) {
            A::N(_) => A::Null(true),
            other => other,
        },
    }
}

fn wrong_lines(item: &mut HashMap<String, A>, rng: &mut fastrand::Rng) -> Fate {
    let (place, value) = match rng.u8(..7) {
        0 => {
            let value = match no_text(rng) {
                A::L(_) => s(SECRET),
                other => other,
            };
            item.insert("lines".to_owned(), value);
            return Fate::Mailed;
        }
        1 => ("", no_text(rng)),
        2 => (".name", line([("name", n("1"))])),
        3 => (".name", line([("name", s("\r\n"))])),
        4 => {
            let digits = ["0", "-1", "1.5", "1000001", "99999999999"];
            let quantity = n(digits[rng.usize(..digits.len())]);
            (".quantity", line([("quantity", quantity)]))
        }
        5 => (".unit_price", line([("unit_price", no_number(rng))])),
        _ => (
            ".unit_price",
            line([("unit_price", n(i64::MAX.to_string()))]),
        ),
    };
    let value = match (place, value) {
        ("", A::M(_)) => A::Bool(false),
        (_, value) => value,
    };
    let before = rng.usize(..4);
    let mut lines = vec![line([]); before];
    lines.push(value);
    item.insert("lines".to_owned(), A::L(lines));
    Fate::Mailed
}

/// Odd attributes that nothing reads.
fn odd(item: &mut HashMap<String, A>, rng: &mut fastrand::Rng) {
    let (name, value) = match rng.u8(..9) {
        0 => ("name".to_owned(), s(nasty(rng))),
        1 => ("name".to_owned(), A::Null(true)),
        2 => ("name".to_owned(), s("ä".repeat(100_000))),
        3 => (nasty(rng), no_text(rng)),
        4 => ("note".to_owned(), s(nasty(rng).repeat(1_000))),
        5 => ("deep".to_owned(), deep()),
        6 => ("items".to_owned(), n("3")),
        7 => {
            let named = line([("name", s(nasty(rng))), ("deep", deep())]);
            ("lines".to_owned(), A::L(vec![named; 1 + rng.usize(..200)]))
        }
        _ => ("total".to_owned(), n("0")),
    };
    item.insert(name, value);
}

/// An order, one in ten as it should be.
pub fn order(number: usize, rng: &mut fastrand::Rng) -> Odd {
    let mut item = valid(number);
    let fate = match rng.u8(..10) {
        0 => Fate::Mailed,
        1 => {
            odd(&mut item, rng);
            Fate::Mailed
        }
        2 => {
            // Anything anywhere, perhaps several times.
            for _ in 0..rng.u8(1..4) {
                let fields = ["name", "total", "currency", "lines", "items", "other", ID];
                let (field, value) = match (rng.usize(..fields.len()), rng.u8(..3)) {
                    // One mail per id: no two orders can have the same.
                    (6, _) => (ID, s(format!("{} {number}", nasty(rng)))),
                    (at, 0) => (fields[at], s(nasty(rng))),
                    (at, 1) => (fields[at], no_text(rng)),
                    (at, _) => (fields[at], no_number(rng)),
                };
                item.insert(field.to_owned(), value);
            }
            Fate::Either
        }
        _ => {
            // What is odd elsewhere does not hide what is wrong.
            if rng.bool() {
                odd(&mut item, rng);
            }
            wrong(&mut item, rng)
        }
    };
    Odd {
        item: item.into(),
        fate,
        address: address(number),
    }
}
