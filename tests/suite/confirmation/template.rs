//! Custom templates, and the errors for mistakes in them.

use std::fs;
use std::path::Path;

use aftercommit::confirmation::template::{Content, Shop, TemplateError, Templates};
use serde_dynamo::AttributeValue as A;

use crate::confirmation::order::{item, map, mapping, n, s};

fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, source) in files {
        fs::write(dir.path().join(name), source).unwrap();
    }
    dir
}

fn load_error(files: &[(&str, &str)]) -> String {
    let dir = dir(files);
    let reported = match Templates::from_dir(dir.path()) {
        Ok(_) => panic!("{files:?} loads"),
        Err(error) => error.to_string(),
    };
    assert!(!reported.contains('\n'), "{reported}");
    reported.replace(&dir.path().display().to_string(), "DIR")
}

fn render(files: &[(&str, &str)], more: &[(&str, A)]) -> Result<Content, TemplateError> {
    let dir = dir(files);
    let order = mapping().order(&item(more)).unwrap();
    let shop = Shop {
        name: "Shop".to_owned(),
        email: "help@example.com".to_owned(),
    };
    Templates::from_dir(dir.path())
        .unwrap()
        .render(&order, &shop)
}

#[test]
fn each_file_takes_the_place_of_the_built_in_one() {
    let content = render(&[("subject.txt", "{{ order.id }}: {{ order.total }}")], &[]).unwrap();
    assert_eq!(content.subject, "1042: EUR 48.90");
    assert!(content.text.contains("thank you"), "built in");
}

#[test]
fn a_template_sees_the_whole_item_and_includes_its_neighbours() {
    let files = [
        (
            "body.txt",
            "{{ order.shipping.city }} {{ order.points }} {{ order.weight }} {{ item.total }} {{ order.total.amount }} {% include 'foot.txt' %}",
        ),
        (
            "foot.txt",
            "{{ shop.name }} {{ shop.email }} {{ order.tags|join('+') }}",
        ),
    ];
    let more = [
        ("shipping", A::M(map(&[("city", s("Łódź"))]))),
        ("points", n("12345678901234567890123456789012345678")),
        ("weight", n("0.1")),
        ("tags", A::Ss(vec!["b".into(), "a".into()])),
    ];
    let content = render(&files, &more).unwrap();
    assert_eq!(
        content.text,
        "Łódź 12345678901234567890123456789012345678 0.1 4890 48.90 Shop help@example.com a+b\r\n"
    );
}

#[test]
fn a_template_shows_what_is_there_and_demands_only_what_it_prints() {
    let files = [(
        "body.txt",
        "{% if order.total %}{{ order.total }}{% else %}no total{% endif %}, {{ order.shipping|money }}, \
         {{ order.tax|decimal|money }}, {{ order.gift|money('USD') }}",
    )];
    let own = [
        ("shipping", n("490")),
        ("tax", s("3.10")),
        ("gift", n("100")),
    ];
    let content = render(&files, &own).unwrap();
    assert_eq!(content.text, "EUR 48.90, EUR 4.90, EUR 3.10, USD 1.00\r\n");
    let without = [&own[..], &[("total", A::Null(true))]].concat();
    assert!(
        render(&files, &without)
            .unwrap()
            .text
            .starts_with("no total, ")
    );
    let demands = [("body.txt", "{{ order.total }}")];
    let reported = render(&demands, &[("total", A::Null(true))]).unwrap_err();
    assert!(
        reported.to_string().contains("undefined value"),
        "{reported}"
    );
}

#[test]
fn an_order_is_confirmed_in_the_customers_language_where_there_is_a_template_for_it() {
    let files = [
        ("subject.txt", "Your order"),
        ("subject.de.txt", "Ihre Bestellung"),
    ];
    let subject = |language: &str| {
        let content = render(&files, &[("language", s(language))]);
        content.unwrap().subject
    };
    assert_eq!(subject("de"), "Ihre Bestellung");
    assert_eq!(subject("de-AT"), "Ihre Bestellung");
    assert_eq!(subject("fr"), "Your order");
    assert_eq!(subject("../subject"), "Your order");
    let reported = load_error(&[
        ("subject.txt", "a"),
        ("body.de.txt", "{{ order.id|shout }}"),
    ]);
    assert!(
        reported.contains("body.de.txt, line 1: unknown filter"),
        "{reported}"
    );
}

#[test]
fn an_attribute_that_is_not_there_is_an_error_that_names_file_and_line() {
    let files = [("body.html", "<p>\n{{ order.nickname }}")];
    let reported = render(&files, &[]).unwrap_err().to_string();
    assert!(
        reported.contains("body.html, line 2: undefined value"),
        "{reported}"
    );
    assert!(render(&files, &[("nickname", s("Ada"))]).is_ok());
    let asks = [(
        "body.html",
        "{% if order.nickname is defined %}{{ order.nickname }}{% endif %}",
    )];
    assert!(render(&asks, &[]).is_ok());
}

#[test]
fn a_mistake_is_reported_when_the_templates_are_loaded() {
    let cases = [
        (
            "body.html",
            "a\nb {{ order.id \nc",
            "template DIR/body.html, line 3: syntax error: ",
        ),
        (
            "body.txt",
            "\n{% if order.name %}",
            "template DIR/body.txt, line 2: syntax error: ",
        ),
        (
            "subject.txt",
            "{{ order.id|shout }}",
            "template DIR/subject.txt, line 1: unknown filter",
        ),
        (
            "subject.txt",
            "{{ now() }}",
            "template DIR/subject.txt, line 1: unknown function",
        ),
        (
            "body.txt",
            "{% include 'foot.txt' %}",
            "template DIR/body.txt, line 1: template not found",
        ),
    ];
    for (name, source, expected) in cases {
        let reported = load_error(&[(name, source)]);
        assert!(
            reported.starts_with(expected),
            "{reported}\n  is not: {expected}"
        );
    }
    let reported = load_error(&[("body.txt", "{% include 'foot.txt' %}"), ("foot.txt", "{{")]);
    assert!(
        reported.starts_with("template DIR/foot.txt, line 1: "),
        "{reported}"
    );
}

#[test]
fn a_directory_without_templates_is_a_mistake() {
    assert_eq!(
        load_error(&[("body.htm", "misspelt")]),
        "template DIR: the directory has none of subject.txt, body.txt, body.html"
    );
    let Err(error) = Templates::from_dir(Path::new("/nowhere/at/all")) else {
        panic!("loads");
    };
    assert!(
        error
            .to_string()
            .starts_with("template /nowhere/at/all: cannot be read: ")
    );
}

#[test]
fn a_file_that_is_not_text_is_a_mistake() {
    let dir = dir(&[]);
    fs::write(dir.path().join("body.txt"), [0xff, 0xfe]).unwrap();
    let Err(error) = Templates::from_dir(dir.path()) else {
        panic!("loads");
    };
    assert!(
        error.to_string().contains("body.txt: cannot be read: "),
        "{error}"
    );
}

#[test]
fn an_empty_subject_and_an_endless_body_are_refused() {
    let reported = render(&[("subject.txt", " \n")], &[]).unwrap_err();
    assert_eq!(reported.message, "makes an empty subject");
    let files = [(
        "body.txt",
        "{% for i in range(60000) %}0123456789{% endfor %}",
    )];
    let reported = render(&files, &[]).unwrap_err();
    assert!(
        reported.message.starts_with("makes 600002 bytes"),
        "{reported}"
    );
}

#[test]
fn an_error_shows_no_data() {
    let files = [(
        "body.txt",
        "{% set secret = order.email %}{{ order.nickname }}",
    )];
    let error = render(&files, &[]).unwrap_err();
    assert!(!format!("{error:#} {error:?}").contains("ada@"));
}
