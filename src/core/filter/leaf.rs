//! Parses the list at a field of a pattern: values and operators.

use bigdecimal::BigDecimal;

use super::Mistake;
use super::decimal;
use super::json::{JsonKind, JsonValue};
use super::pattern::{Bound, Literal, Sign, Test};

const OPERATORS: &str = "anything-but, prefix, suffix, equals-ignore-case, numeric, exists";

/// Parses the tests of a field. `path` names it in errors.
pub(super) fn read(
    list: &JsonValue<'_>,
    tests: &[JsonValue<'_>],
    path: &str,
) -> Result<Vec<Test>, Mistake> {
    if tests.is_empty() {
        let problem = "an empty list allows nothing: name a value or an operator";
        return Err(Mistake::new(list.at, path, problem));
    }
    tests.iter().map(|one| test(one, path)).collect()
}

fn test(value: &JsonValue<'_>, path: &str) -> Result<Test, Mistake> {
    let mistake = |problem: String| Mistake::new(value.at, path, problem);
    match &value.kind {
        JsonKind::Null => Ok(Test::Null),
        JsonKind::Truth(truth) => Ok(Test::Is(Literal::Truth(*truth))),
        JsonKind::Number(_) | JsonKind::Text(_) => literal(value, path).map(Test::Is),
        JsonKind::List(_) => Err(mistake(
            "a list inside a list: only a field can have a list".to_owned(),
        )),
        JsonKind::Object(members) => match members.as_slice() {
            [one] => operator(&one.name, &one.value, one.at, path),
            [] => Err(mistake(format!(
                "an empty operator: expected one of {OPERATORS}"
            ))),
            [_, ..] => Err(mistake(format!(
                "an operator is an object with one name, one of {OPERATORS}; this has {}",
                members.len()
            ))),
        },
    }
}

fn operator(name: &str, value: &JsonValue<'_>, at: usize, path: &str) -> Result<Test, Mistake> {
    match name {
        "prefix" => text(name, value, path).map(Test::Prefix),
        "suffix" => text(name, value, path).map(Test::Suffix),
        "equals-ignore-case" => {
            let letters = text(name, value, path)?;
            Ok(Test::SameLetters(lower(&letters)))
        }
        "exists" => match value.kind {
            JsonKind::Truth(there) => Ok(Test::Exists(there)),
            _ => Err(expected(name, "true or false", value, path)),
        },
        "anything-but" => anything_but(value, path),
        "numeric" => numeric(value, path),
        "wildcard" | "cidr" => {
            let problem = format!(
                "EventBridge knows the operator {name:?}, Lambda's filters do not; expected one \
                 of {OPERATORS}"
            );
            Err(Mistake::new(at, path, problem))
        }
        _ => {
            let problem = format!("unknown operator {name:?}; expected one of {OPERATORS}");
            Err(Mistake::new(at, path, problem))
        }
    }
}

fn expected(operator: &str, what: &str, value: &JsonValue<'_>, path: &str) -> Mistake {
    let problem = format!("{operator} takes {what}, found {}", value.kind.word());
    Mistake::new(value.at, path, problem)
}

fn text(operator: &str, value: &JsonValue<'_>, path: &str) -> Result<String, Mistake> {
    match &value.kind {
        JsonKind::Text(text) => Ok(text.clone()),
        _ => Err(expected(operator, "a text", value, path)),
    }
}

fn literal(value: &JsonValue<'_>, path: &str) -> Result<Literal, Mistake> {
    match &value.kind {
        JsonKind::Text(text) => Ok(Literal::Text(text.clone())),
        JsonKind::Number(_) => number(value, path).map(Literal::Number),
        _ => Err(expected("anything-but", "texts or numbers", value, path)),
    }
}

fn number(value: &JsonValue<'_>, path: &str) -> Result<BigDecimal, Mistake> {
    let JsonKind::Number(spelled) = value.kind else {
        return Err(expected(
            "numeric",
            "a number without quotes here",
            value,
            path,
        ));
    };
    decimal::parse(spelled).ok_or_else(|| {
        let problem = format!("the number {spelled} is out of all range");
        Mistake::new(value.at, path, problem)
    })
}

fn anything_but(value: &JsonValue<'_>, path: &str) -> Result<Test, Mistake> {
    const WHAT: &str = "a text, a number, or a list of either";
    let literals = match &value.kind {
        JsonKind::List(list) if !list.is_empty() => {
            let literals: Result<Vec<_>, _> = list.iter().map(|one| literal(one, path)).collect();
            literals?
        }
        JsonKind::Text(_) | JsonKind::Number(_) => vec![literal(value, path)?],
        _ => return Err(expected("anything-but", WHAT, value, path)),
    };
    let texts = literals
        .iter()
        .filter(|one| matches!(one, Literal::Text(_)))
        .count();
    if texts != 0 && texts != literals.len() {
        let problem = "anything-but takes either texts or numbers, not both in one list";
        return Err(Mistake::new(value.at, path, problem));
    }
    Ok(Test::AnythingBut(literals))
}

/// `["=", n]`, or a lower bound, an upper bound, or both in this order.
fn numeric(value: &JsonValue<'_>, path: &str) -> Result<Test, Mistake> {
    const WHAT: &str =
        r#"a list such as ["=", 5], [">", 0] or [">=", 0, "<", 10], the lower bound first"#;
    let JsonKind::List(list) = &value.kind else {
        return Err(expected("numeric", WHAT, value, path));
    };
    let mistake = |at, what: &str| Mistake::new(at, path, format!("{what}: numeric takes {WHAT}"));
    let mut bounds = Vec::new();
    for pair in list.chunks(2) {
        let [sign, limit] = pair else {
            return Err(mistake(pair[0].at, "a comparison without a number"));
        };
        let sign = match &sign.kind {
            JsonKind::Text(sign) => match sign.as_str() {
                "=" => Some(Sign::Is),
                "<" => Some(Sign::Below),
                "<=" => Some(Sign::AtMost),
                ">" => Some(Sign::Above),
                ">=" => Some(Sign::AtLeast),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| mistake(sign.at, "not one of = < <= > >="))?;
        let limit = number(limit, path)?;
        bounds.push(Bound { sign, limit });
    }
    let lower = |bound: &Bound| matches!(bound.sign, Sign::Above | Sign::AtLeast);
    let upper = |bound: &Bound| matches!(bound.sign, Sign::Below | Sign::AtMost);
    match bounds.as_slice() {
        [_] => {}
        [low, high] if lower(low) && upper(high) => {
            if low.limit >= high.limit {
                return Err(mistake(value.at, "no number lies between these bounds"));
            }
        }
        _ => return Err(mistake(value.at, "not a comparison or a range")),
    }
    Ok(Test::Within(bounds))
}

/// The text in lower case, letter by letter.
pub(super) fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}
