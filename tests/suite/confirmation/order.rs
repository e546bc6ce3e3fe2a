//! Which items are orders, and the errors for those that are not.

use std::collections::HashMap;

use aftercommit::confirmation::address::Domains;
use aftercommit::confirmation::mapping::Mapping;
use aftercommit::confirmation::order::Order;
use aftercommit::confirmation::setting::Setting;
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

pub fn mapping() -> Mapping {
    Mapping::new("id").unwrap()
}

/// The order of an item, by the defaults but for these expressions.
pub fn mapped(item: &Item, expressions: &[(Setting, &str)]) -> Order {
    let with = |mapping: Mapping, (setting, expression): &(Setting, &str)| {
        mapping.with(*setting, expression).unwrap()
    };
    let mapping = expressions.iter().fold(mapping(), with);
    mapping.order(item).unwrap()
}

pub fn error(item: &Item) -> String {
    mapping().order(item).unwrap_err().to_string()
}

/// Why a part of the order cannot be read.
pub fn unreadable(item: &Item) -> Vec<String> {
    let order = mapping().order(item).unwrap();
    order.unreadable.iter().map(ToString::to_string).collect()
}

pub fn lines(list: &[&[(&str, A)]]) -> A {
    A::L(list.iter().map(|line| A::M(map(line))).collect())
}

/// Name, quantity and price of each line.
pub fn reported(order: &Order) -> Vec<(String, Option<String>, Option<String>)> {
    let lines = order.lines.iter();
    lines
        .map(|line| {
            let quantity = line.quantity.map(|quantity| quantity.to_string());
            let price = line.price.map(|price| price.to_string());
            (line.name.clone(), quantity, price)
        })
        .collect()
}

pub fn line(
    name: &str,
    quantity: &str,
    price: Option<&str>,
) -> (String, Option<String>, Option<String>) {
    let text = |text: &str| text.to_owned();
    (text(name), Some(text(quantity)), price.map(text))
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
    let order = mapping().order(&item).unwrap();
    assert_eq!(order.id, "1042");
    assert_eq!(order.email.to_string(), "ada@example.com");
    assert_eq!(order.name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(order.total.unwrap().to_string(), "KWD 4.890");
    assert_eq!(
        reported(&order),
        [
            line("Tea", "2", Some("KWD 3.000")),
            line("Gift wrap", "1", None),
            line("Rebate", "1", Some("KWD -0.500")),
        ]
    );
}

#[test]
fn a_table_of_any_shape_is_mapped_by_expressions() {
    let item = Item::from(map(&[
        ("PK", s("CUST#7")),
        ("SK", s("ORDER#1042")),
        (
            "customer",
            A::M(map(&[("email", s("ada@example.com")), ("first", s("Ada"))])),
        ),
        ("amount", s("19.99")),
        ("lang", s("de")),
        (
            "positions",
            A::L(vec![A::M(map(&[
                ("title", s("Tea")),
                ("qty", n("2")),
                ("price", n("9.995")),
            ]))]),
        ),
        ("seller", s("seller@example.com")),
        ("bounces", s("bounces@example.com")),
    ]));
    let order = mapped(
        &item,
        &[
            (Setting::Id, "SK|replace('ORDER#', '')"),
            (Setting::Email, "customer.email"),
            (Setting::Name, "customer.first"),
            (Setting::Total, "amount|decimal"),
            (Setting::Currency, "'KWD'"),
            (Setting::Lines, "positions"),
            (Setting::LineName, "title"),
            (Setting::LineQuantity, "qty"),
            (Setting::LinePrice, "price|decimal"),
            (Setting::Language, "lang"),
            (Setting::ReplyTo, "seller"),
            (Setting::BouncesTo, "bounces"),
        ],
    );
    assert_eq!(order.id, "1042");
    assert_eq!(order.name.as_deref(), Some("Ada"));
    assert_eq!(order.total.unwrap().to_string(), "KWD 19.990");
    assert_eq!(reported(&order), [line("Tea", "2", Some("KWD 19.990"))]);
    assert_eq!(order.language.as_deref(), Some("de"));
    assert_eq!(
        order.reply_to.unwrap().email.to_string(),
        "seller@example.com"
    );
    let bounces_to = order.bounces_to.unwrap().to_string();
    assert_eq!(bounces_to, "bounces@example.com");
    assert!(order.unreadable.is_empty());
}

#[test]
fn the_default_id_is_the_whole_key_of_the_table() {
    let id = |partition, sort, item: &[(&str, A)]| {
        let id = Mapping::key_expression(partition, sort);
        let mut item = Item::from(map(item));
        item.insert("email".to_owned(), s("ada@example.com"));
        Mapping::new(&id).unwrap().order(&item).unwrap().id
    };
    assert_eq!(id("id", None, &[("id", n("7"))]), "7");
    let of = |sort: &str| {
        id(
            "userId",
            Some("order-id"),
            &[("userId", s("u7")), ("order-id", s(sort))],
        )
    };
    assert_eq!(of("ord-0"), "u7/ord-0");
    assert_eq!(of("a/b"), "u7/a~1b", "never the id of another key");
    let expression = Mapping::key_expression("userId", Some("order-id"));
    assert_eq!(expression, "[userId, item[\"order-id\"]]|key");
}

#[test]
fn only_id_and_email_are_required() {
    let bare = Item::from(map(&[("id", s("1")), ("email", s("ada@example.com"))]));
    let order = mapping().order(&bare).unwrap();
    assert!(order.total.is_none() && order.lines.is_empty() && order.unreadable.is_empty());
    for name in [
        "name",
        "customer_name",
        "total",
        "currency",
        "lines",
        "items",
        "language",
    ] {
        for nothing in [A::Null(true), s("")] {
            let order = mapping().order(&item(&[(name, nothing)])).unwrap();
            assert!(
                order.unreadable.is_empty(),
                "{name}: {:?}",
                order.unreadable
            );
        }
    }
}

#[test]
fn what_cannot_be_shown_of_the_lines_is_left_out() {
    let read = |value: A| reported(&mapping().order(&item(&[("lines", value)])).unwrap());
    let one = |more: &[(&str, A)]| {
        let mut line = map(&[("name", s("Tea")), ("unit_price", n("1000"))]);
        line.extend(map(more));
        read(A::L(vec![A::M(line)]))
    };
    assert_eq!(
        one(&[("unit_price", A::Null(true))]),
        [line("Tea", "1", None)]
    );
    assert_eq!(
        one(&[("quantity", A::Null(true))]),
        [line("Tea", "1", Some("EUR 10.00"))]
    );
    assert_eq!(
        one(&[("quantity", n("0.75"))]),
        [line("Tea", "0.75", Some("EUR 7.50"))]
    );
    assert_eq!(
        one(&[("quantity", s("2"))]),
        [line("Tea", "2", Some("EUR 20.00"))]
    );
    assert_eq!(
        one(&[("quantity", n("0.33333"))]),
        [line("Tea", "0.33333", None)],
        "never rounded"
    );
    assert_eq!(
        one(&[("quantity", s("two"))]),
        [("Tea".to_owned(), None, None)]
    );
    assert_eq!(one(&[("unit_price", s("1.99"))]), [line("Tea", "1", None)]);
    assert_eq!(read(A::L(vec![s("Tea"), s(" ")])), [line("Tea", "1", None)]);
    let titled = lines(&[&[("title", s("Tea"))], &[("label", s("unknown"))]]);
    assert_eq!(read(titled), [line("Tea", "1", None)]);
    assert!(read(n("3")).is_empty());
    let huge = [
        ("quantity", n("1000000")),
        ("unit_price", n("9223372036854775807")),
    ];
    assert_eq!(one(&huge), [line("Tea", "1000000", None)]);
}

#[test]
fn the_lines_may_be_called_items_unless_these_are_something_else() {
    let list = lines(&[&[("name", s("Tea"))]]);
    let read = |more: &[(&str, A)]| mapping().order(&item(more)).unwrap().lines.len();
    assert_eq!(read(&[("items", list)]), 1);
    assert_eq!(read(&[("items", n("3"))]), 0, "a count of articles");
}

#[test]
fn a_domain_without_a_dot_may_be_allowed() {
    let mut mapping = mapping();
    mapping.domains = Domains::Any;
    assert!(
        mapping
            .order(&item(&[("email", s("ada@localhost"))]))
            .is_ok()
    );
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
        match mapping().order(&item) {
            Ok(order) => {
                prop_assert!(!order.id.is_empty());
                prop_assert!(order.total.is_none_or(|total| total.minor >= 0));
            }
            Err(error) => {
                let reported = error.to_string();
                prop_assert!(reported.starts_with("order ") && !reported.contains(['\r', '\n', '\0']));
            }
        }
    }
}
