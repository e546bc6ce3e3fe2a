//! Which items are orders, and what is said of those that are not.

use std::collections::HashMap;

use aftercommit::confirmation::address::Domains;
use aftercommit::confirmation::order::{Order, OrderFields};
use proptest::prelude::*;
use serde_dynamo::{AttributeValue as A, Item};

pub fn s(text: &str) -> A {
    A::S(text.to_owned())
}

pub fn n(digits: &str) -> A {
    A::N(digits.to_owned())
}

pub fn map(attributes: &[(&str, A)]) -> HashMap<String, A> {
    attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// The smallest order, with `more` added or put in place.
pub fn item(more: &[(&str, A)]) -> Item {
    let mut item = map(&[
        ("id", s("1042")),
        ("email", s("ada@example.com")),
        ("total", n("4890")),
        ("currency", s("EUR")),
    ]);
    item.extend(map(more));
    Item::from(item)
}

pub fn fields() -> OrderFields {
    OrderFields::new("id", "email")
}

fn error(item: &Item) -> String {
    Order::from_item(item, &fields()).unwrap_err().to_string()
}

fn lines(list: &[&[(&str, A)]]) -> A {
    A::L(list.iter().map(|line| A::M(map(line))).collect())
}

#[test]
fn an_order_is_read_with_all_that_it_says() {
    let item = item(&[
        ("id", n("1042")),
        ("name", s("  Ada\r\nLovelace ")),
        ("customer_name", s("not asked")),
        ("currency", s("kwd")),
        (
            "lines",
            lines(&[
                &[
                    ("name", s("Tea")),
                    ("quantity", n("2")),
                    ("unit_price", n("1500")),
                ],
                &[("name", s("Gift wrap"))],
                &[("name", s("Rebate")), ("unit_price", n("-500"))],
            ]),
        ),
        ("colour", s("an attribute of the shop's own")),
    ]);
    let order = Order::from_item(&item, &fields()).unwrap();
    assert_eq!(order.id, "1042");
    assert_eq!(order.email.to_string(), "ada@example.com");
    assert_eq!(order.name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(order.total.to_string(), "KWD 4.890");
    let told: Vec<_> = order
        .lines
        .iter()
        .map(|line| {
            (
                line.name.as_str(),
                line.quantity,
                line.price.map(|p| p.to_string()),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Tea", 2, Some("KWD 3.000".to_owned())),
            ("Gift wrap", 1, None),
            ("Rebate", 1, Some("KWD -0.500".to_owned())),
        ]
    );
}

#[test]
fn the_lines_may_be_called_items_unless_these_are_something_else() {
    let list = lines(&[&[("name", s("Tea"))]]);
    let read = |more: &[(&str, A)]| {
        Order::from_item(&item(more), &fields())
            .unwrap()
            .lines
            .len()
    };
    assert_eq!(read(&[("items", list.clone())]), 1);
    assert_eq!(read(&[("items", n("3"))]), 0, "a count of articles");
    assert_eq!(read(&[("lines", A::L(vec![])), ("items", list)]), 0);
}

#[test]
fn what_is_missing_is_named_with_the_order_and_what_was_expected() {
    let mut nameless = item(&[]);
    nameless.remove("id");
    assert_eq!(
        error(&nameless),
        "order (without id): attribute \"id\" is missing; expected the order's id: a string or a \
         number of 1 to 1024 bytes, without control characters"
    );
    for field in ["email", "total", "currency"] {
        let mut item = item(&[]);
        item.remove(field);
        let told = error(&item);
        let expected = format!("order 1042: attribute {field:?} is missing; expected ");
        assert!(told.starts_with(&expected), "{told}");
    }
}

#[test]
fn what_is_malformed_is_named_with_what_stands_there() {
    let long = "x".repeat(1_025);
    let line = |name, value| {
        [(
            "lines",
            lines(&[&[("name", s("Tea"))], &[("name", s("Tea")), (name, value)]]),
        )]
    };
    let cases: Vec<(Vec<(&str, A)>, &str)> = vec![
        (vec![("id", s(""))], "attribute \"id\" is an empty string;"),
        (vec![("id", s(&long))], "\"id\" is a string of 1025 bytes;"),
        (vec![("id", s("1\r\n2"))], "\"id\" is a string of 4 bytes;"),
        (vec![("id", A::Bool(true))], "\"id\" is a boolean;"),
        (vec![("email", n("1"))], "\"email\" is the number 1;"),
        (
            vec![("email", s("ada"))],
            "\"email\" is no address to write to: an address has the form",
        ),
        (
            vec![("email", s("ada@[10.0.0.1]"))],
            "no address to write to: the part behind the @ is an IP",
        ),
        (
            vec![("email", s("ada@localhost"))],
            "no address to write to: the domain has no dot",
        ),
        (
            vec![("total", n("19.99"))],
            "\"total\" is the number 19.99; expected a whole number of minor units, not negative (1999 for EUR 19.99)",
        ),
        (
            vec![("total", n("-1"))],
            "\"total\" is the number -1; expected a whole number of minor units, not negative",
        ),
        (
            vec![("total", n("99999999999999999999"))],
            "\"total\" is the number 99999999999999999999;",
        ),
        (
            vec![("total", s("1999"))],
            "\"total\" is a string of 4 bytes;",
        ),
        (
            vec![("currency", s("EURO"))],
            "\"currency\" is a string of 4 bytes; expected an ISO 4217 code",
        ),
        (
            vec![("name", n("7"))],
            "\"name\" is the number 7; expected a string, or nothing",
        ),
        (
            vec![("lines", n("3"))],
            "\"lines\" is the number 3; expected a list of maps",
        ),
        (
            vec![("items", A::L(vec![s("Tea")]))],
            "\"items[0]\" is a string of 3 bytes; expected a list of maps",
        ),
        (
            line("name", s(" ")).to_vec(),
            "\"lines[1].name\" is missing; expected the article's name",
        ),
        (
            line("quantity", n("0")).to_vec(),
            "\"lines[1].quantity\" is the number 0; expected a whole number from 1",
        ),
        (
            line("quantity", n("1.5")).to_vec(),
            "\"lines[1].quantity\" is the number 1.5;",
        ),
        (
            line("unit_price", s("1.99")).to_vec(),
            "\"lines[1].unit_price\" is a string of 4 bytes; expected the price of one",
        ),
    ];
    for (more, expected) in cases {
        let told = error(&item(&more));
        assert!(told.contains(expected), "{told}\n  lacks: {expected}");
        assert!(!told.contains(['\r', '\n']), "{told}");
    }
}

#[test]
fn a_price_too_large_to_count_is_refused() {
    let line: &[(&str, A)] = &[
        ("name", s("Star")),
        ("quantity", n("1000000")),
        ("unit_price", n("9223372036854775807")),
    ];
    assert!(error(&item(&[("lines", lines(&[line]))])).contains("\"lines[0].unit_price\""));
}

#[test]
fn the_attributes_of_id_and_email_are_a_setting() {
    let item = item(&[("pk", s("ORDER#7")), ("contact", s("grace@navy.test"))]);
    let order = Order::from_item(&item, &OrderFields::new("pk", "contact")).unwrap();
    assert_eq!(order.id, "ORDER#7");
    assert_eq!(order.email.to_string(), "grace@navy.test");
}

#[test]
fn a_domain_without_a_dot_may_be_allowed() {
    let mut fields = fields();
    fields.domains = Domains::Any;
    assert!(Order::from_item(&item(&[("email", s("ada@localhost"))]), &fields).is_ok());
}

#[test]
fn neither_an_error_nor_a_debug_print_holds_the_address() {
    let told = error(&item(&[("email", s("secret person@example.com"))]));
    assert!(!told.contains("secret"), "{told}");
    let order = Order::from_item(&item(&[]), &fields()).unwrap();
    assert!(!format!("{order:?}").contains("ada@"));
}

/// Any attribute value, a few levels deep.
pub fn any_value() -> impl Strategy<Value = A> {
    let leaf = prop_oneof![
        any::<String>().prop_map(A::S),
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            "[-+0-9.eE]{0,45}",
            any::<String>()
        ]
        .prop_map(A::N),
        any::<bool>().prop_map(A::Bool),
        any::<bool>().prop_map(A::Null),
        any::<Vec<u8>>().prop_map(A::B),
        any::<Vec<String>>().prop_map(A::Ss),
        any::<Vec<String>>().prop_map(A::Ns),
        any::<Vec<Vec<u8>>>().prop_map(A::Bs),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let line_field = prop_oneof!["name|quantity|unit_price", any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(A::L),
            prop::collection::hash_map(line_field, inner, 0..5).prop_map(A::M),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_item_is_an_order_or_a_clear_error(
        values in prop::collection::hash_map(
            prop_oneof![
                "id|email|total|currency|name|customer_name|lines|items",
                any::<String>(),
            ],
            any_value(),
            0..8,
        ),
        whole: bool,
    ) {
        let item = if whole {
            let mut whole = item(&[]);
            whole.extend(values);
            whole
        } else {
            Item::from(values)
        };
        match Order::from_item(&item, &fields()) {
            Ok(order) => prop_assert!(!order.id.is_empty() && order.total.minor >= 0),
            Err(error) => {
                let told = error.to_string();
                prop_assert!(told.starts_with("order ") && !told.contains(['\r', '\n', '\0']));
            }
        }
    }
}
