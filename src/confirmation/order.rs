//! An order, as the confirmation needs it.

use std::fmt;

use lettre::Address;
use serde_dynamo::Item;

use super::address::Mailbox;
use super::decimal::Decimal;
use super::money::{Currency, Money};
use super::setting::Setting;

/// Why an item, or a part of it, cannot be read. It names the order and the setting, never an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("order {order}: {}, from the expression {expression:?}, {problem}", .setting.name())]
pub struct OrderError {
    /// The order's id, or `(without id)`.
    pub order: String,
    /// The setting.
    pub setting: Setting,
    /// The expression.
    pub expression: String,
    /// What is wrong with it.
    pub problem: String,
}

/// One line of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    /// The article.
    pub name: String,
    /// The quantity: 1 if the order does not say, `None` if it is not a number.
    pub quantity: Option<Decimal>,
    /// The unit price, if the order has it; negative for a rebate.
    pub unit_price: Option<Money>,
    /// The price of the line, if it is a whole number of minor units.
    pub price: Option<Money>,
}

/// An order. [`Mapping::order`](super::mapping::Mapping::order) reads one from an item.
#[derive(Clone)]
pub struct Order {
    /// The id, unique among the orders of the table.
    pub id: String,
    /// The customer's address.
    pub email: Address,
    /// The customer's name, one clean line.
    pub name: Option<String>,
    /// What the customer pays, if order and currency say it.
    pub total: Option<Money>,
    /// The currency.
    pub currency: Option<Currency>,
    /// The lines that can be shown.
    pub lines: Vec<OrderLine>,
    /// How many lines cannot be shown.
    pub lines_left_out: usize,
    /// The customer's language, such as `de`.
    pub language: Option<String>,
    /// Where the customer's reply goes, if not to the general reply address.
    pub reply_to: Option<Mailbox>,
    /// Where a bounce of this order's email goes, if not where all bounces go.
    pub bounces_to: Option<Address>,
    /// Why values could not be read, for templates that need them.
    pub unreadable: Vec<OrderError>,
    pub(super) item: Option<Item>,
}

impl Order {
    /// A made-up order, to look at templates and to test the way to a mailbox.
    pub fn sample(email: Address) -> Self {
        let currency = Currency::EUR;
        let line = |name: &str, quantity: i64, minor| {
            let quantity = Decimal::from(quantity);
            let unit = Money { minor, currency };
            OrderLine {
                name: name.to_owned(),
                quantity: Some(quantity),
                unit_price: Some(unit),
                price: unit.times(quantity),
            }
        };
        Self {
            id: "SAMPLE-1042".to_owned(),
            email,
            name: Some("Ada".to_owned()),
            total: Some(Money {
                minor: 4_890,
                currency,
            }),
            currency: Some(currency),
            lines: vec![
                line("Coffee, whole beans, 500 g", 2, 1_450),
                line("Porcelain dripper", 1, 1_990),
            ],
            lines_left_out: 0,
            language: None,
            reply_to: None,
            bounces_to: None,
            unreadable: Vec::new(),
            item: None,
        }
    }
}

/// Shows the order's id, and nothing about the customer.
impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("id", &self.id)
            .field("total", &self.total)
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}
