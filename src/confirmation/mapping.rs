//! How an item becomes an order: an expression for each value that a mail needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Value, ValueKind};
use serde_dynamo::Item;

use super::address::{Domains, Mailbox, mailbox, parse_address};
use super::decimal::Decimal;
use super::expression::{Expression, ExpressionError, attribute, key_part, names};
use super::money::{Amount, Currency, Money, describe};
use super::order::{Order, OrderError, OrderLine};
use super::setting::Setting;
use super::text::clean_line;

/// The longest order id, in bytes: with its prefix it still fits a partition key of the ledger
/// ([2,048 bytes](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-partition-sort-keys)).
const ID_BYTES: usize = 1_024;
/// The longest name of a customer or an article that is kept, in characters.
const NAME_CHARS: usize = 200;
/// The longest tag of a language, in bytes.
const LANGUAGE_BYTES: usize = 35;

/// Why a mapping cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// An expression cannot be read.
    #[error("{}: {source}", .setting.name())]
    Expression {
        /// The setting.
        setting: Setting,
        /// What is wrong.
        source: ExpressionError,
    },
    /// The expression is valid, but does not do what the setting needs.
    #[error("{}: the expression {expression:?} {problem}", .setting.name())]
    Meaning {
        /// The setting.
        setting: Setting,
        /// The expression.
        expression: String,
        /// What is wrong, and what to write.
        problem: &'static str,
    },
}

/// How an item becomes an [`Order`]: a Jinja expression over the item for each [`Setting`].
///
/// Only the id and the email are required. Total, currency, lines and the rest are read if they exist;
/// [`Order`] says which of them could not be read, for a template that uses them.
#[derive(Debug, Clone)]
pub struct Mapping {
    expressions: BTreeMap<Setting, Arc<Expression>>,
    /// Which domains may be mailed to.
    pub domains: Domains,
}

impl Mapping {
    /// The default mapping with this expression for the id.
    ///
    /// # Errors
    ///
    /// [`MappingError`] if the expression cannot be used.
    pub fn new(id: &str) -> Result<Self, MappingError> {
        let mut mapping = Self {
            expressions: BTreeMap::new(),
            domains: Domains::Dotted,
        };
        for setting in Setting::ALL {
            mapping = mapping.with(setting, setting.default())?;
        }
        mapping.with(Setting::Id, id)
    }

    /// The same with another expression.
    ///
    /// # Errors
    ///
    /// [`MappingError`] if the expression cannot be used.
    pub fn with(mut self, setting: Setting, expression: &str) -> Result<Self, MappingError> {
        let parsed = Expression::parse(expression);
        let parsed = parsed.map_err(|source| MappingError::Expression { setting, source })?;
        if let Some(problem) = misuse(setting, &parsed) {
            return Err(MappingError::Meaning {
                setting,
                expression: parsed.source().to_owned(),
                problem,
            });
        }
        self.expressions.insert(setting, Arc::new(parsed));
        Ok(self)
    }

    /// The id expression for a table's items: the partition key, joined with the sort key if there is
    /// one, such as `cust-7/ORDER-1`. Two items never have the same id.
    pub fn key_expression(partition: &str, sort: Option<&str>) -> String {
        let partition = attribute(partition);
        match sort {
            None => partition,
            Some(sort) => format!("[{partition}, {}]|key", attribute(sort)),
        }
    }

    /// The text of the expression for the id. Two workers of a group must have the same.
    pub fn id(&self) -> &str {
        self.expression(Setting::Id).map_or("", Expression::source)
    }

    fn expression(&self, setting: Setting) -> Option<&Expression> {
        self.expressions
            .get(&setting)
            .map(|expression| &**expression)
    }

    /// The id of an item.
    ///
    /// # Errors
    ///
    /// [`OrderError`] where it cannot be read.
    pub fn id_of(&self, item: &Item) -> Result<String, OrderError> {
        let reader = ItemReader {
            mapping: self,
            names: &names(item.inner()),
            order: "(without id)",
        };
        reader.id()
    }

    /// Reads an item.
    ///
    /// # Errors
    ///
    /// [`OrderError`] if the id or the email cannot be read.
    pub fn order(&self, item: &Item) -> Result<Order, OrderError> {
        let names = names(item.inner());
        let nameless = ItemReader {
            mapping: self,
            names: &names,
            order: "(without id)",
        };
        let id = nameless.id()?;
        let reader = ItemReader {
            order: &id,
            ..nameless
        };
        let email = reader.value(Setting::Email)?;
        let email = match email.as_str() {
            Some(text) => parse_address(text, self.domains).map_err(|source| {
                let why = format!("is not an address to write to: {source}");
                reader.error(Setting::Email, &why)
            })?,
            None => {
                return Err(reader.unfit(
                    Setting::Email,
                    &email,
                    "the customer's address, a string",
                ));
            }
        };
        let mut unreadable = Vec::new();
        let name = reader.optional(Setting::Name, &mut unreadable);
        let currency = reader.currency(&mut unreadable);
        let total = reader.total(currency, &mut unreadable);
        let lines = reader.lines(currency, &mut unreadable);
        let language = reader.optional(Setting::Language, &mut unreadable);
        let reply_to = reader.optional(Setting::ReplyTo, &mut unreadable);
        let name = name.as_ref().and_then(line_of_text);
        let language = language.as_ref().and_then(Value::as_str);
        let language = language.filter(|tag| is_language(tag)).map(str::to_owned);
        let reply_to = reply_to.as_ref().and_then(Value::as_str);
        let reply_to = reply_to.and_then(|text| reply_address(text, self.domains));
        let bounces_to = reader.optional(Setting::BouncesTo, &mut unreadable);
        let bounces_to = bounces_to.as_ref().and_then(Value::as_str);
        let bounces_to = bounces_to.and_then(|text| parse_address(text, self.domains).ok());
        Ok(Order {
            id,
            email,
            name,
            total,
            currency,
            lines: lines.0,
            lines_left_out: lines.1,
            language,
            reply_to,
            bounces_to,
            unreadable,
            item: Some(item.clone()),
        })
    }
}

/// Why an expression does not do what the setting needs.
fn misuse(setting: Setting, expression: &Expression) -> Option<&'static str> {
    let source = expression.source();
    match setting {
        Setting::Id if expression.is_constant() => {
            Some("is the same for every item: name the attribute that tells orders apart")
        }
        Setting::Total | Setting::LinePrice
            if !["|decimal", "| decimal", "|minor", "| minor"]
                .iter()
                .any(|unit| source.contains(unit)) =>
        {
            Some(
                "does not say its unit: add |decimal for a decimal number such as 19.99, or |minor \
                 for minor units such as 1999",
            )
        }
        Setting::Currency if Currency::parse(source).is_some_and(|code| code.code() == source) => {
            Some(
                "names an attribute: put quotes around the code for a currency that all orders \
                 have, as in \"'EUR'\"",
            )
        }
        _ => None,
    }
}

/// Reads one item.
#[derive(Clone, Copy)]
struct ItemReader<'a> {
    mapping: &'a Mapping,
    names: &'a Value,
    /// The order's id, for messages.
    order: &'a str,
}

impl ItemReader<'_> {
    fn error(&self, setting: Setting, problem: &str) -> OrderError {
        OrderError {
            order: self.order.to_owned(),
            setting,
            expression: self.source(setting).to_owned(),
            problem: problem.to_owned(),
        }
    }

    fn source(&self, setting: Setting) -> &str {
        self.mapping
            .expression(setting)
            .map_or("", Expression::source)
    }

    fn unfit(&self, setting: Setting, found: &Value, expected: &str) -> OrderError {
        let found = describe(found);
        self.error(setting, &format!("is {found}; expected {expected}"))
    }

    /// The value of a setting's expression.
    fn value(&self, setting: Setting) -> Result<Value, OrderError> {
        let Some(expression) = self.mapping.expression(setting) else {
            return Ok(Value::from(()));
        };
        let value = expression.value(self.names);
        value.map_err(|why| self.error(setting, &format!("fails: {why}")))
    }

    /// The same for an optional value. The reason of a failure is kept.
    fn optional(&self, setting: Setting, unreadable: &mut Vec<OrderError>) -> Option<Value> {
        match self.value(setting) {
            Ok(value) => Some(value).filter(|value| !value.is_undefined() && !value.is_none()),
            Err(error) => {
                unreadable.push(error);
                None
            }
        }
    }

    fn id(&self) -> Result<String, OrderError> {
        let expected =
            "the order's id: a string or a number of 1 to 1024 bytes, without control characters";
        let value = self.value(Setting::Id)?;
        key_part(&value)
            .filter(|_| value.kind() != ValueKind::Bytes)
            .filter(|id| (1..=ID_BYTES).contains(&id.len()) && !id.contains(char::is_control))
            .ok_or_else(|| self.unfit(Setting::Id, &value, expected))
    }

    fn currency(&self, unreadable: &mut Vec<OrderError>) -> Option<Currency> {
        let value = self.optional(Setting::Currency, unreadable)?;
        if value.as_str().is_some_and(|text| text.trim().is_empty()) {
            return None;
        }
        let currency = value.as_str().and_then(|text| Currency::parse(text.trim()));
        if currency.is_none() {
            let expected = "an ISO 4217 code, a string of three letters such as EUR";
            unreadable.push(self.unfit(Setting::Currency, &value, expected));
        }
        currency
    }

    fn total(&self, currency: Option<Currency>, unreadable: &mut Vec<OrderError>) -> Option<Money> {
        let value = self.optional(Setting::Total, unreadable)?;
        let amount = value.downcast_object_ref::<Amount>();
        let Some(amount) = amount else {
            let expected = "an amount: add |decimal or |minor";
            unreadable.push(self.unfit(Setting::Total, &value, expected));
            return None;
        };
        let total = match amount.money(currency?) {
            Ok(total) if total.minor >= 0 => return Some(total),
            Ok(_) => self.unfit(Setting::Total, &value, "an amount that is not negative"),
            Err(problem) => self.error(Setting::Total, &format!("fails: {problem}")),
        };
        unreadable.push(total);
        None
    }

    /// The lines that can be shown, and how many cannot.
    fn lines(
        &self,
        currency: Option<Currency>,
        unreadable: &mut Vec<OrderError>,
    ) -> (Vec<OrderLine>, usize) {
        let value = self.optional(Setting::Lines, unreadable);
        // Many tables only keep a count of articles there.
        let is_list = |value: &Value| value.kind() == ValueKind::Seq;
        let Some(list) = value.filter(is_list) else {
            return (Vec::new(), 0);
        };
        let all: Vec<_> = list.try_iter().into_iter().flatten().collect();
        let lines: Vec<_> = all
            .iter()
            .filter_map(|line| self.line(line, currency))
            .collect();
        let left_out = all.len() - lines.len();
        (lines, left_out)
    }

    /// The readable parts of a line. Without a name it cannot be shown.
    fn line(&self, line: &Value, currency: Option<Currency>) -> Option<OrderLine> {
        let mut names: BTreeMap<String, Value> = BTreeMap::new();
        if line.kind() == ValueKind::Map {
            for key in line.try_iter().into_iter().flatten() {
                if let (Some(name), Ok(value)) = (key.as_str(), line.get_item(&key)) {
                    names.insert(name.to_owned(), value);
                }
            }
        }
        names.insert("line".to_owned(), line.clone());
        if let Ok(item) = self.names.get_attr("item") {
            names.insert("item".to_owned(), item);
        }
        let names = Value::from(names);
        let read = |setting| {
            let value = self.mapping.expression(setting)?.value(&names).ok()?;
            Some(value).filter(|value| !value.is_undefined() && !value.is_none())
        };
        let name = line_of_text(&read(Setting::LineName)?)?;
        let quantity = match read(Setting::LineQuantity) {
            None => Some(Decimal::ONE),
            Some(value) => Decimal::of_value(&value),
        };
        let price = read(Setting::LinePrice);
        let unit_price = price.as_ref().and_then(|value| {
            let amount = value.downcast_object_ref::<Amount>()?;
            amount.money(currency?).ok()
        });
        Some(OrderLine {
            name,
            quantity,
            unit_price,
            price: unit_price.and_then(|unit| unit.times(quantity?)),
        })
    }
}

/// A text or a number as one clean line; `None` if nothing is left.
fn line_of_text(value: &Value) -> Option<String> {
    let text = match value.as_str() {
        Some(text) => text.to_owned(),
        None => Decimal::of_value(value)?.to_string(),
    };
    Some(clean_line(&text, NAME_CHARS)).filter(|text| !text.is_empty())
}

/// A language's tag, such as `de` or `pt-BR`: it becomes a part of a template's name.
fn is_language(tag: &str) -> bool {
    (1..=LANGUAGE_BYTES).contains(&tag.len())
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn reply_address(text: &str, domains: Domains) -> Option<Mailbox> {
    let address = parse_address(text, domains).ok()?;
    Some(mailbox(None, address))
}
