//! Jinja expressions over an item, compiled once and evaluated for each order.
//!
//! The item's attributes are names; `item` is the whole item. A missing attribute is undefined: it is
//! false, equals nothing, has no attributes, and is not an error. A whole number is a number; a number
//! with a fraction is text, so that no digit is lost: compare it as `total|float`.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Expression as Compiled, UndefinedBehavior};
use serde_dynamo::{AttributeValue, Item};

use super::date::date;
use super::money::{Amount, Unit, money};
use super::text::clean_line;
use super::values::plain_map;

/// The longest error of an expression that is shown.
const ERROR_CHARS: usize = 300;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    // Debug information would show the order in error messages.
    environment.set_debug(false);
    add_filters(&mut environment);
    environment.add_filter("key", key);
    environment
});

/// This program's filters, for expressions and for templates.
pub(super) fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter("decimal", |value: &Value| amount(value, Unit::Major));
    environment.add_filter("minor", |value: &Value| amount(value, Unit::Minor));
    environment.add_filter("money", money);
    environment.add_filter("date", date);
}

/// `19.99|decimal` is an amount in the currency's major unit, `1999|minor` in its minor unit. An
/// undefined value stays undefined.
fn amount(value: &Value, unit: Unit) -> Result<Value, Error> {
    if value.is_undefined() || value.is_none() || value.as_str().is_some_and(str::is_empty) {
        return Ok(Value::from(()));
    }
    match Amount::of(value, unit) {
        Ok(amount) => Ok(Value::from_object(amount)),
        Err(problem) => Err(Error::new(ErrorKind::InvalidOperation, problem)),
    }
}

/// `[PK, SK]|key` joins the values of a key to one text: with `/` between them, and within a value
/// `~0` for `~` and `~1` for `/`, so that two keys never result in the same text.
fn key(values: &Value) -> Result<String, Error> {
    let missing = || Error::new(ErrorKind::InvalidOperation, "a part of the key is missing");
    let mut parts = Vec::new();
    for value in values.try_iter()? {
        let part = key_part(&value).ok_or_else(missing)?;
        parts.push(part.replace('~', "~0").replace('/', "~1"));
    }
    Ok(parts.join("/"))
}

/// A value that a key can have: text, a number, or bytes in base64.
pub(super) fn key_part(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::String => value.as_str().map(str::to_owned),
        ValueKind::Bytes => value.as_bytes().map(|bytes| STANDARD.encode(bytes)),
        _ => value.is_integer().then(|| value.to_string()),
    }
}

/// The values that `[a, b]|key` joined; `None` if the text is not such a key.
pub fn key_parts(text: &str) -> Option<Vec<String>> {
    let part = |part: &str| {
        let bad = part.match_indices('~').any(|(at, _)| {
            let next = part.as_bytes().get(at + 1);
            !matches!(next, Some(b'0' | b'1'))
        });
        (!bad).then(|| part.replace("~1", "/").replace("~0", "~"))
    };
    text.split('/').map(part).collect()
}

/// An attribute as an expression: its name, or `item["its-name"]` if the name has a meaning in Jinja.
pub fn attribute(name: &str) -> String {
    const WORDS: [&str; 14] = [
        "true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if",
        "else", "item",
    ];
    let mut chars = name.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') && !WORDS.contains(&name) {
        return name.to_owned();
    }
    let mut quoted = String::from("item[\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted + "\"]"
}

/// A compiled expression.
pub struct Expression {
    source: String,
    compiled: Compiled<'static, 'static>,
}

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression {expression:?} {problem}")]
pub struct ExpressionError {
    /// The expression.
    pub expression: String,
    /// What is wrong with it, and where.
    pub problem: String,
}

impl Expression {
    /// Compiles an expression. An unknown filter, test or function is an error, too.
    ///
    /// # Errors
    ///
    /// [`ExpressionError`], with the column if it is known.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        let source = source.trim();
        let refused = |error: &Error| {
            let at = error.range().map_or_else(String::new, |range| {
                let before = source.get(..range.start).unwrap_or(source);
                format!(" at column {}", before.chars().count() + 1)
            });
            ExpressionError {
                expression: source.to_owned(),
                problem: format!("cannot be read{at}: {}", described(error)),
            }
        };
        let compiled = ENVIRONMENT.compile_expression_owned(source.to_owned());
        let compiled = compiled.map_err(|error| refused(&error))?;
        match compiled.eval(Value::from(())) {
            Err(error) if is_unknown(&error) => Err(refused(&error)),
            _ => Ok(Self {
                source: source.to_owned(),
                compiled,
            }),
        }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it has the same value for every item.
    pub(super) fn is_constant(&self) -> bool {
        self.compiled.undeclared_variables(false).is_empty()
    }

    /// Its value for an item, or why it fails.
    pub(super) fn value(&self, names: &Value) -> Result<Value, String> {
        self.compiled
            .eval(names.clone())
            .map_err(|error| described(&error))
    }

    /// Whether it is true of an item.
    ///
    /// [`ExpressionError`] if it fails, such as a calculation with text.
    ///
    /// [`ExpressionError`] where it fails, such as a calculation with a text.
    pub fn holds(&self, item: &Item) -> Result<bool, ExpressionError> {
        self.of_item(item).map(|value| value.is_true())
    }

    /// Its value for an item.
    pub(super) fn of_item(&self, item: &Item) -> Result<Value, ExpressionError> {
        self.value(&names(item.inner()))
            .map_err(|why| ExpressionError {
                expression: self.source.clone(),
                problem: format!("fails on this item: {why}"),
            })
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// The names that an expression over an item can use.
pub(super) fn names(item: &HashMap<String, AttributeValue>) -> Value {
    let mut names = plain_map(item);
    names.insert("item".to_owned(), Value::from(names.clone()));
    Value::from(names)
}

fn is_unknown(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction
    )
}

/// An error on one line, without the item's values.
fn described(error: &Error) -> String {
    let text = match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    clean_line(&text, ERROR_CHARS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn eval(source: &str, item: serde_json::Value) -> Result<String, String> {
        let item: Item = serde_dynamo::to_item(item).unwrap();
        let expression = Expression::parse(source).map_err(|error| error.to_string())?;
        let value = expression.of_item(&item);
        value
            .map(|value| value.to_string())
            .map_err(|error| error.to_string())
    }

    fn shown(source: &str, item: serde_json::Value) -> String {
        eval(source, item).unwrap()
    }

    #[test]
    fn an_expression_sees_attributes_by_name_and_as_item() {
        let item = json!({"SK": "ORDER#1042", "customer": {"email": "ada"}, "order-id": "7"});
        assert_eq!(shown("SK|replace('ORDER#', '')", item.clone()), "1042");
        assert_eq!(shown("customer.email", item.clone()), "ada");
        assert_eq!(shown("item['order-id']", item.clone()), "7");
        assert_eq!(shown("nobody.knows.it", item), "");
    }

    #[test]
    fn an_expression_that_cannot_be_read_says_where() {
        let described = |source| Expression::parse(source).unwrap_err().to_string();
        assert_eq!(
            described("status =="),
            "the expression \"status ==\" cannot be read at column 8: syntax error: unexpected end of \
             input, expected expression"
        );
        let unknown = described("total|decimals");
        assert!(
            unknown.contains("\"total|decimals\"") && unknown.contains("decimals"),
            "{unknown}"
        );
        assert!(unknown.contains("unknown filter"), "{unknown}");
    }

    #[test]
    fn an_attribute_is_an_expression_whatever_its_name() {
        for name in ["id", "order-id", "item", "in", "a\"b\\", "größe", "1", ""] {
            let text = attribute(name);
            let mut item = Item::default();
            item.insert(name.to_owned(), AttributeValue::S("there".to_owned()));
            let value = Expression::parse(&text).unwrap().of_item(&item).unwrap();
            assert_eq!(value.to_string(), "there", "{name:?} as {text}");
        }
    }

    #[test]
    fn a_key_of_two_attributes_is_one_readable_text() {
        let key = |pk: &str, sk: &str| shown("[PK, SK]|key", json!({"PK": pk, "SK": sk}));
        assert_eq!(key("cust-7", "ORDER-1"), "cust-7/ORDER-1");
        assert_eq!(key("a/b", "c~d"), "a~1b/c~0d");
        assert_eq!(shown("[PK, SK]|key", json!({"PK": "c", "SK": 12})), "c/12");
        let missing = eval("[PK, SK]|key", json!({"PK": "c"})).unwrap_err();
        assert!(
            missing.contains("a part of the key is missing"),
            "{missing}"
        );
        assert_eq!(key_parts("bad~2"), None);
    }

    proptest! {
        #[test]
        fn two_keys_never_give_one_text(a in "[/~ab]{1,4}", b in "[/~ab]{1,4}") {
            let text = shown("[PK, SK]|key", json!({"PK": a, "SK": b}));
            prop_assert_eq!(key_parts(&text), Some(vec![a, b]));
        }
    }
}
