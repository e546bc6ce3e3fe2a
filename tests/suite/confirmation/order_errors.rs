//! What is said about an item that is not an order, or about a part of it that cannot be read.

use aftercommit::confirmation::setting::Setting;
use serde_dynamo::AttributeValue as A;

use super::order::*;

#[test]
fn an_amount_is_exact_or_it_is_an_error_that_says_why() {
    let total = |value: A, expression: &str| {
        let mapping = mapping().with(Setting::Total, expression).unwrap();
        let order = mapping.order(&item(&[("total", value)])).unwrap();
        match order.unreadable.first() {
            None => order.total.unwrap().to_string(),
            Some(error) => error.to_string(),
        }
    };
    assert_eq!(total(s("19.99"), "total|decimal"), "EUR 19.99");
    assert_eq!(total(n("19.99"), "total|decimal"), "EUR 19.99");
    assert_eq!(total(n("20"), "total|decimal"), "EUR 20.00");
    assert_eq!(total(s("1999"), "total|minor"), "EUR 19.99");
    assert_eq!(
        total(n("19.999"), "total|decimal"),
        "order 1042: total, from the expression \"total|decimal\", fails: 19.999 has 3 decimal places; \
         expected at most the 2 that EUR has"
    );
    assert_eq!(
        total(n("19.99"), "total|minor"),
        "order 1042: total, from the expression \"total|minor\", fails: found the number 19.99; expected \
         a whole number of minor units (1999|minor for EUR 19.99, 19.99|decimal for a decimal number)"
    );
    for (value, problem) in [
        (
            n("-1"),
            "is the number -1; expected an amount that is not negative",
        ),
        (n("99999999999999999999"), "is too large"),
        (s("free"), "found a string of 4 bytes"),
        (A::Bool(true), "found a boolean"),
    ] {
        let reported = total(value, "total|minor");
        assert!(reported.contains(problem), "{reported}");
    }
}

#[test]
fn an_invalid_currency_is_reported() {
    assert_eq!(
        unreadable(&item(&[("currency", s("EURO"))])),
        [
            "order 1042: currency, from the expression \"currency\", is a string of 4 bytes; expected an \
          ISO 4217 code, a string of three letters such as EUR"
        ]
    );
}

#[test]
fn an_item_without_id_or_email_is_not_an_order_and_says_by_which_expression() {
    let mut nameless = item(&[]);
    nameless.remove("id");
    assert_eq!(
        error(&nameless),
        "order (without id): id, from the expression \"id\", is missing; expected the order's id: a \
         string or a number of 1 to 1024 bytes, without control characters"
    );
    let long = "x".repeat(1_025);
    for (field, value, problem) in [
        ("id", s(""), "is an empty string;"),
        ("id", s(&long), "is a string of 1025 bytes;"),
        ("id", s("1\r\n2"), "is a string of 4 bytes;"),
        ("id", A::Bool(true), "is a boolean;"),
        ("id", A::B(vec![1]), "is binary;"),
        (
            "email",
            A::Null(true),
            "is null; expected the customer's address",
        ),
        ("email", n("1"), "is the number 1;"),
        (
            "email",
            s("ada"),
            "is not an address to write to: an address has the form",
        ),
        (
            "email",
            s("ada@[10.0.0.1]"),
            "the part after the @ is an IP",
        ),
        ("email", s("ada@localhost"), "the domain has no dot"),
    ] {
        let reported = error(&item(&[(field, value)]));
        let named = format!("{field}, from the expression \"{field}\", is ");
        assert!(
            reported.contains(&named) && reported.contains(problem),
            "{reported}\n  lacks: {problem}"
        );
        assert!(!reported.contains(['\r', '\n']), "{reported}");
    }
}

#[test]
fn an_expression_that_cannot_mean_what_it_should_is_refused_at_once() {
    for (setting, expression, problem) in [
        (
            Setting::Email,
            "customer.",
            "email: the expression \"customer.\" cannot be read at column ",
        ),
        (Setting::Id, "'order'", "is the same for every item"),
        (
            Setting::Total,
            "amount",
            "add |decimal for a decimal number such as 19.99, or |minor",
        ),
        (Setting::LinePrice, "price", "does not say its unit"),
        (Setting::Currency, "EUR", "put quotes around the code"),
        (Setting::Name, "name|uper", "unknown filter"),
    ] {
        let reported = mapping().with(setting, expression).unwrap_err().to_string();
        assert!(
            reported.starts_with(setting.name()) && reported.contains(problem),
            "{reported}"
        );
        assert!(!reported.contains('\n'), "{reported}");
    }
}

#[test]
fn neither_an_error_nor_a_debug_print_holds_the_address() {
    let reported = error(&item(&[("email", s("secret person@example.com"))]));
    assert!(!reported.contains("secret"), "{reported}");
    let order = mapping().order(&item(&[])).unwrap();
    assert!(!format!("{order:?}").contains("ada@"));
}
