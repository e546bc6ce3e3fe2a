//! Evaluates a pattern against a record.

use std::cmp::Ordering;

use bigdecimal::BigDecimal;

use super::decimal;
use super::leaf::lower;
use super::pattern::{Bound, Clause, Leaf, Literal, Node, Object, Sign, Test};
use super::subject::{RecordView, Scalar, Sort};
use super::{Mismatch, place};

/// How well a pattern matches. It makes a difference in a list: a condition that requires absence must
/// match all elements, one that requires a value only has to match one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It does not match.
    No,
    /// It matches because everything that it requires is absence.
    Absent,
    /// It matches, and a value that it requires exists.
    Present,
}

pub(super) fn object(pattern: &Object, view: RecordView<'_>) -> Fit {
    let Sort::List(len) = view.sort() else {
        return object_at(pattern, view);
    };
    let mut absent = 0;
    for n in 0..len {
        match object(pattern, view.element(n)) {
            Fit::Present => return Fit::Present,
            Fit::Absent => absent += 1,
            Fit::No => {}
        }
    }
    match (absent == len, len) {
        (true, 0) => object_at(pattern, RecordView::Missing),
        (true, _) => Fit::Absent,
        (false, _) => Fit::No,
    }
}

fn object_at(pattern: &Object, view: RecordView<'_>) -> Fit {
    let mut all = Fit::Absent;
    for part in &pattern.parts {
        match part_at(part, view) {
            Fit::No => return Fit::No,
            fit => all = all.max(fit),
        }
    }
    all
}

fn part_at(part: &Clause, view: RecordView<'_>) -> Fit {
    match part {
        Clause::Field(name, pattern) => node(pattern, view.field(name)),
        Clause::AnyOf(alternatives) => {
            let fits = alternatives.iter().map(|one| object_at(one, view));
            fits.max().unwrap_or(Fit::No)
        }
    }
}

fn node(pattern: &Node, view: RecordView<'_>) -> Fit {
    match pattern {
        Node::Object(pattern) => object(pattern, view),
        Node::Leaf(pattern) => leaf(pattern, view),
    }
}

fn leaf(pattern: &Leaf, view: RecordView<'_>) -> Fit {
    match any_scalar(pattern, view) {
        Some(true) => Fit::Present,
        Some(false) => Fit::No,
        None => {
            let absent = |test: &Test| matches!(test, Test::Exists(false));
            if pattern.tests.iter().any(absent) {
                Fit::Absent
            } else {
                Fit::No
            }
        }
    }
}

/// Whether one of the plain values here passes; `None` if there is none.
fn any_scalar(pattern: &Leaf, view: RecordView<'_>) -> Option<bool> {
    match view.sort() {
        Sort::Missing | Sort::Object => None,
        Sort::Scalar(scalar) => Some(pattern.tests.iter().any(|test| passes(test, &scalar))),
        Sort::List(len) => {
            let each = (0..len).filter_map(|n| any_scalar(pattern, view.element(n)));
            each.max()
        }
    }
}

/// Whether a text passes the test.
/// Whether a MODIFY matches without any condition on the old image.
pub(super) fn passes_any_change(pattern: &Object) -> bool {
    !pattern.parts.iter().any(|part| match part {
        Clause::Field(name, Node::Leaf(leaf)) if name == "eventName" => {
            !leaf.tests.iter().any(|test| passes_text(test, "MODIFY"))
        }
        Clause::Field(name, Node::Object(change)) => name == "dynamodb" && asks_of_old(change),
        Clause::AnyOf(all) => !all.iter().any(passes_any_change),
        Clause::Field(..) => false,
    })
}

fn asks_of_old(pattern: &Object) -> bool {
    pattern.parts.iter().any(|part| match part {
        Clause::Field(name, _) => name == "OldImage",
        Clause::AnyOf(all) => all.iter().all(asks_of_old),
    })
}

pub(super) fn passes_text(test: &Test, value: &str) -> bool {
    passes(test, &Scalar::Text(value.into()))
}

fn passes(test: &Test, scalar: &Scalar<'_>) -> bool {
    match test {
        Test::Is(literal) => equals(literal, scalar),
        // No value of a stream record is JSON's null.
        Test::Null | Test::Exists(false) => false,
        Test::Exists(true) => true,
        Test::Prefix(prefix) => text(scalar).is_some_and(|text| text.starts_with(prefix)),
        Test::Suffix(suffix) => text(scalar).is_some_and(|text| text.ends_with(suffix)),
        Test::SameLetters(letters) => text(scalar).is_some_and(|text| lower(text) == *letters),
        Test::AnythingBut(all) => !all.iter().any(|one| equals(one, scalar)),
        Test::Within(bounds) => {
            number(scalar).is_some_and(|number| bounds.iter().all(|bound| within(bound, &number)))
        }
    }
}

fn equals(literal: &Literal, scalar: &Scalar<'_>) -> bool {
    match literal {
        Literal::Text(wanted) => text(scalar) == Some(wanted),
        Literal::Number(wanted) => number(scalar).as_ref() == Some(wanted),
        Literal::Truth(wanted) => matches!(scalar, Scalar::Truth(truth) if truth == wanted),
    }
}

/// The value as text. A DynamoDB number is text: "300" is not "300.0".
fn text<'a>(scalar: &'a Scalar<'_>) -> Option<&'a str> {
    match scalar {
        Scalar::Text(text) => Some(text),
        Scalar::Digits(digits) => Some(digits),
        Scalar::Number(_) | Scalar::Truth(_) => None,
    }
}

/// The value as a number. A DynamoDB number is a number, too: 300 equals 300.0.
fn number(scalar: &Scalar<'_>) -> Option<BigDecimal> {
    match scalar {
        Scalar::Digits(digits) => decimal::parse(digits),
        Scalar::Number(number) => Some((*number).into()),
        Scalar::Text(_) | Scalar::Truth(_) => None,
    }
}

fn within(bound: &Bound, number: &BigDecimal) -> bool {
    let order = number.cmp(&bound.limit);
    match bound.sign {
        Sign::Is => order == Ordering::Equal,
        Sign::Below => order == Ordering::Less,
        Sign::AtMost => order != Ordering::Greater,
        Sign::Above => order == Ordering::Greater,
        Sign::AtLeast => order != Ordering::Less,
    }
}

/// The first reason, in the pattern's order, why it does not match.
pub(super) fn explain(
    pattern: &Object,
    view: RecordView<'_>,
    path: &mut Vec<String>,
) -> Option<Mismatch> {
    if object(pattern, view) != Fit::No {
        return None;
    }
    let view = match view.sort() {
        Sort::List(1) => {
            path.push("[0]".to_owned());
            return explain(pattern, view.element(0), path);
        }
        Sort::List(0) => RecordView::Missing,
        Sort::List(_) => return Some(mismatch(path, &pattern.text, view)),
        _ => view,
    };
    let failed = pattern
        .parts
        .iter()
        .find(|part| part_at(part, view) == Fit::No)?;
    match failed {
        Clause::Field(name, pattern) => {
            path.push(name.clone());
            let view = view.field(name);
            match pattern {
                Node::Object(pattern) => explain(pattern, view, path),
                Node::Leaf(pattern) => Some(mismatch(path, &pattern.text, view)),
            }
        }
        Clause::AnyOf(alternatives) => {
            path.push("$or[0]".to_owned());
            explain(alternatives.first()?, view, path)
        }
    }
}

fn mismatch(path: &[String], expected: &str, view: RecordView<'_>) -> Mismatch {
    let found = match view {
        RecordView::Missing => None,
        there => Some(there.json().to_string()),
    };
    Mismatch {
        path: place(path).replace(".[", "["),
        expected: expected.to_owned(),
        found,
    }
}
