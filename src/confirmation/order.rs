//! An order, as it stands in the table and as the confirmation needs it.

use std::collections::HashMap;
use std::fmt;

use lettre::Address;
use minijinja::value::Value;
use serde_dynamo::{AttributeValue, Item};

use super::address::{AddressError, Domains, parse_address};
use super::money::{Currency, Money};
use super::text::clean_line;
use super::values::{known, plain_map};

/// The longest order id, in bytes: with its prefix it still fits a partition key of the ledger
/// ([2,048 bytes](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-partition-sort-keys)).
const ID_BYTES: usize = 1_024;
/// The longest name of a customer or of an article that is kept, in characters.
const NAME_CHARS: usize = 200;
/// The largest quantity of one line.
const MAX_QUANTITY: u32 = 1_000_000;

/// Which attributes of the item hold what, where tables differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFields {
    /// The attribute with the order's id: what one email is sent for.
    pub id_attribute: String,
    /// The attribute with the customer's address.
    pub email_attribute: String,
    /// Which domains may be mailed to.
    pub domains: Domains,
}

impl OrderFields {
    /// The given attributes, and only domains with a dot.
    pub fn new(id_attribute: impl Into<String>, email_attribute: impl Into<String>) -> Self {
        Self {
            id_attribute: id_attribute.into(),
            email_attribute: email_attribute.into(),
            domains: Domains::Dotted,
        }
    }
}

/// Why an item is no order that a confirmation can be sent for. Names the order and the field,
/// never an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A required attribute is not there.
    #[error("order {order}: attribute {field:?} is missing; expected {expected}")]
    Missing {
        /// The order's id, or `(without id)`.
        order: String,
        /// The attribute.
        field: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// An attribute has another type or value than it needs.
    #[error("order {order}: attribute {field:?} is {found}; expected {expected}")]
    Malformed {
        /// The order's id, or `(without id)`.
        order: String,
        /// The attribute, with its place in a list: `lines[2].quantity`.
        field: String,
        /// What should stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// The address cannot be written to.
    #[error("order {order}: attribute {field:?} is no address to write to: {source}")]
    Email {
        /// The order's id.
        order: String,
        /// The attribute.
        field: String,
        /// What is wrong with it.
        source: AddressError,
    },
}

/// What one line of the order says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The article.
    pub name: String,
    /// How many, at least one.
    pub quantity: u32,
    /// What one costs, where the order says it; negative for a rebate.
    pub unit_price: Option<Money>,
    /// What all of them cost.
    pub price: Option<Money>,
}

/// A validated order.
///
/// | Attribute | Type | |
/// |---|---|---|
/// | id (its name is a setting) | S or N | required, 1 to 1,024 bytes without control characters |
/// | email (its name is a setting) | S | required |
/// | `total` | N | required: whole minor units (1999 is EUR 19.99), not negative |
/// | `currency` | S | required: ISO 4217 |
/// | `name`, else `customer_name` | S | optional |
/// | `lines`, else `items` where that is a list | L of M | optional: `name` S, `quantity` N (1), `unit_price` N in minor units (optional) |
///
/// Other attributes are let through: templates see the whole item.
#[derive(Clone)]
pub struct Order {
    /// The id, unique among the orders of the table.
    pub id: String,
    /// Where the confirmation goes.
    pub email: Address,
    /// The customer's name, one clean line.
    pub name: Option<String>,
    /// What the customer pays.
    pub total: Money,
    /// The lines, all of them.
    pub lines: Vec<Line>,
    item: Value,
    merged: Value,
}

impl Order {
    /// Reads and checks an item.
    ///
    /// # Errors
    ///
    /// [`OrderError`] for the first attribute that does not fit.
    pub fn from_item(item: &Item, fields: &OrderFields) -> Result<Self, OrderError> {
        let id = order_id(item, &fields.id_attribute)?;
        let order = Reader {
            order: &id,
            place: String::new(),
            map: item.inner(),
        };
        let email = order.email(fields)?;
        let name = match order.optional_text("name")? {
            Some(name) => Some(name),
            None => order.optional_text("customer_name")?,
        };
        let currency = order.currency()?;
        let total = order.total(currency)?;
        let lines = order.lines(currency)?;
        let mut merged = plain_map(item.inner());
        merged.extend(known(&id, &email, name.as_deref(), total, &lines));
        Ok(Self {
            item: Value::from(plain_map(item.inner())),
            merged: Value::from(merged),
            id,
            email,
            name,
            total,
            lines,
        })
    }

    /// A made-up order, to look at templates and to test the way to a mailbox with.
    pub fn sample(email: Address) -> Self {
        let currency = Currency::EUR;
        let line = |name: &str, quantity, minor| {
            let unit = Money { minor, currency };
            Line {
                name: name.to_owned(),
                quantity,
                unit_price: Some(unit),
                price: unit.times(quantity),
            }
        };
        let id = "SAMPLE-1042".to_owned();
        let name = Some("Ada".to_owned());
        let total = Money {
            minor: 4_890,
            currency,
        };
        let lines = vec![
            line("Coffee, whole beans, 500 g", 2, 1_450),
            line("Porcelain dripper", 1, 1_990),
        ];
        let known = known(&id, &email, name.as_deref(), total, &lines);
        Self {
            item: Value::from(known.clone()),
            merged: Value::from(known),
            id,
            email,
            name,
            total,
            lines,
        }
    }

    /// The order for templates: every attribute of the item, and over them what was checked (`id`,
    /// `email`, `name`, `total`, `lines`, `more_lines`).
    pub(super) fn template_value(&self) -> Value {
        self.merged.clone()
    }

    /// The item for templates, as it stands in the table.
    pub(super) fn template_item(&self) -> Value {
        self.item.clone()
    }
}

/// Names the order and nothing of the customer.
impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("id", &self.id)
            .field("total", &self.total)
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}

fn order_id(item: &Item, attribute: &str) -> Result<String, OrderError> {
    let expected =
        "the order's id: a string or a number of 1 to 1024 bytes, without control characters";
    let nameless = Reader {
        order: "(without id)",
        place: String::new(),
        map: item.inner(),
    };
    match item.inner().get(attribute) {
        None => Err(nameless.missing(attribute, expected)),
        Some(AttributeValue::S(id) | AttributeValue::N(id))
            if (1..=ID_BYTES).contains(&id.len()) && !id.contains(char::is_control) =>
        {
            Ok(id.clone())
        }
        Some(other) => Err(nameless.malformed(attribute, expected, other)),
    }
}

/// Reads the attributes of the order, or of one of its lines.
struct Reader<'a> {
    order: &'a str,
    /// What stands before an attribute's name in a message, such as `lines[2].`.
    place: String,
    map: &'a HashMap<String, AttributeValue>,
}

impl Reader<'_> {
    fn missing(&self, field: &str, expected: &'static str) -> OrderError {
        OrderError::Missing {
            order: self.order.to_owned(),
            field: format!("{}{field}", self.place),
            expected,
        }
    }

    fn malformed(&self, field: &str, expected: &'static str, found: &AttributeValue) -> OrderError {
        OrderError::Malformed {
            order: self.order.to_owned(),
            field: format!("{}{field}", self.place),
            expected,
            found: description(found),
        }
    }

    fn email(&self, fields: &OrderFields) -> Result<Address, OrderError> {
        let field = &fields.email_attribute;
        let expected = "the customer's address, a string";
        match self.map.get(field) {
            None => Err(self.missing(field, expected)),
            Some(AttributeValue::S(text)) => {
                parse_address(text, fields.domains).map_err(|source| OrderError::Email {
                    order: self.order.to_owned(),
                    field: field.clone(),
                    source,
                })
            }
            Some(other) => Err(self.malformed(field, expected, other)),
        }
    }

    fn optional_text(&self, field: &str) -> Result<Option<String>, OrderError> {
        match self.map.get(field) {
            None | Some(AttributeValue::Null(_)) => Ok(None),
            Some(AttributeValue::S(text)) => {
                Ok(Some(clean_line(text, NAME_CHARS)).filter(|text| !text.is_empty()))
            }
            Some(other) => Err(self.malformed(field, "a string, or nothing", other)),
        }
    }

    fn currency(&self) -> Result<Currency, OrderError> {
        let expected = "an ISO 4217 code, a string of three letters such as EUR";
        match self.map.get("currency") {
            None => Err(self.missing("currency", expected)),
            Some(value) => match value {
                AttributeValue::S(text) => Currency::parse(text.trim()),
                _ => None,
            }
            .ok_or_else(|| self.malformed("currency", expected, value)),
        }
    }

    fn total(&self, currency: Currency) -> Result<Money, OrderError> {
        let expected = "a whole number of minor units, not negative (1999 for EUR 19.99)";
        match self.map.get("total") {
            None => Err(self.missing("total", expected)),
            Some(value) => match whole(value) {
                Some(minor) if minor >= 0 => Ok(Money { minor, currency }),
                _ => Err(self.malformed("total", expected, value)),
            },
        }
    }

    fn lines(&self, currency: Currency) -> Result<Vec<Line>, OrderError> {
        let expected = "a list of maps with name, quantity and unit_price";
        let (field, list) = match (self.map.get("lines"), self.map.get("items")) {
            (Some(AttributeValue::L(list)), _) => ("lines", list),
            (Some(AttributeValue::Null(_)) | None, Some(AttributeValue::L(list))) => {
                ("items", list)
            }
            // Many tables keep a mere count of articles under `items`: that is none of our business.
            (Some(AttributeValue::Null(_)) | None, _) => return Ok(Vec::new()),
            (Some(other), _) => return Err(self.malformed("lines", expected, other)),
        };
        let read = |(at, value): (usize, &AttributeValue)| match value {
            AttributeValue::M(map) => Reader {
                order: self.order,
                place: format!("{field}[{at}]."),
                map,
            }
            .line(currency),
            other => Err(self.malformed(&format!("{field}[{at}]"), expected, other)),
        };
        list.iter().enumerate().map(read).collect()
    }

    fn line(&self, currency: Currency) -> Result<Line, OrderError> {
        let name = self
            .optional_text("name")?
            .ok_or_else(|| self.missing("name", "the article's name, a string"))?;
        let expected = "a whole number from 1 to 1000000, or nothing for 1";
        let quantity = match self.map.get("quantity") {
            None => 1,
            Some(value) => whole(value)
                .and_then(|quantity| u32::try_from(quantity).ok())
                .filter(|quantity| (1..=MAX_QUANTITY).contains(quantity))
                .ok_or_else(|| self.malformed("quantity", expected, value))?,
        };
        let expected = "the price of one in whole minor units, or nothing";
        let mut line = Line {
            name,
            quantity,
            unit_price: None,
            price: None,
        };
        if let Some(value) = self.map.get("unit_price") {
            let unit = whole(value).map(|minor| Money { minor, currency });
            let all = unit.and_then(|unit| unit.times(quantity));
            if all.is_none() {
                return Err(self.malformed("unit_price", expected, value));
            }
            (line.unit_price, line.price) = (unit, all);
        }
        Ok(line)
    }
}

fn whole(value: &AttributeValue) -> Option<i64> {
    match value {
        AttributeValue::N(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// What an attribute is, for a message: numbers with their digits, texts without their words.
fn description(value: &AttributeValue) -> String {
    match value {
        AttributeValue::N(digits) => format!("the number {}", clean_line(digits, 45)),
        AttributeValue::S(text) if text.is_empty() => "an empty string".to_owned(),
        AttributeValue::S(text) => format!("a string of {} bytes", text.len()),
        AttributeValue::Bool(_) => "a boolean".to_owned(),
        AttributeValue::Null(_) => "null".to_owned(),
        AttributeValue::M(_) => "a map".to_owned(),
        AttributeValue::L(_) => "a list".to_owned(),
        AttributeValue::B(_) => "binary".to_owned(),
        AttributeValue::Ss(_) | AttributeValue::Ns(_) | AttributeValue::Bs(_) => "a set".to_owned(),
    }
}
