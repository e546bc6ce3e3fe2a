//! Which items of a table are orders to confirm, if the table has other items, too.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use minijinja::value::Value;
use serde_dynamo::Item;

use super::decimal::Decimal;
use super::expression::{Expression, ExpressionError};
use super::money::describe;

/// Larger numbers are milliseconds since 1970, smaller ones are seconds. As seconds this is the year
/// 5138, as milliseconds March 1973.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// Which items are orders to confirm. By default all of them.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    only: Option<Arc<Expression>>,
    since: Option<(SystemTime, Arc<Expression>)>,
}

/// Why it is unknown whether an item is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WantedError {
    /// `only` fails.
    #[error("only: {0}")]
    Only(ExpressionError),
    /// `created-at` fails.
    #[error("created-at: {0}")]
    CreatedAt(ExpressionError),
    /// `created-at` does not result in a time.
    #[error(
        "created-at: the expression {expression:?} is {found}; expected when the order was placed: a \
         date such as 2026-01-31 or 2026-01-31T12:00:00Z, or seconds or milliseconds since 1970"
    )]
    NoTime {
        /// The expression.
        expression: String,
        /// The value of the expression.
        found: String,
    },
}

impl Wanted {
    /// Only items for which this is true.
    #[must_use]
    pub fn only(self, expression: Expression) -> Self {
        let only = Some(Arc::new(expression));
        Self { only, ..self }
    }

    /// Only orders that were placed at this time or later, according to the expression.
    #[must_use]
    pub fn not_before(self, time: SystemTime, created_at: Expression) -> Self {
        let since = Some((time, Arc::new(created_at)));
        Self { since, ..self }
    }

    /// Whether every item is wanted.
    pub fn is_everything(&self) -> bool {
        self.only.is_none() && self.since.is_none()
    }

    /// Whether this item is wanted.
    ///
    /// # Errors
    ///
    /// [`WantedError`] if that is unknown.
    pub fn wants(&self, item: &Item) -> Result<bool, WantedError> {
        if let Some(only) = &self.only
            && !only.holds(item).map_err(WantedError::Only)?
        {
            return Ok(false);
        }
        let Some((not_before, created_at)) = &self.since else {
            return Ok(true);
        };
        let value = created_at.of_item(item).map_err(WantedError::CreatedAt)?;
        match time_of(&value) {
            Some(time) => Ok(time >= *not_before),
            None => Err(WantedError::NoTime {
                expression: created_at.source().to_owned(),
                found: describe(&value),
            }),
        }
    }
}

fn time_of(value: &Value) -> Option<SystemTime> {
    if let Some(number) = Decimal::of_value(value) {
        let milliseconds = match number.in_units(0) {
            Some(whole) if whole >= MILLISECONDS_FROM => whole,
            _ => number.truncated(3)?,
        };
        let since = Duration::from_millis(u64::try_from(milliseconds).ok()?);
        return SystemTime::UNIX_EPOCH.checked_add(since);
    }
    parse_time(value.as_str()?)
}

/// Parses a date, or a date with a time, in the format of ISO 8601 and RFC 3339. Without an offset it
/// is UTC.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    if text.len() == "2026-01-31".len() {
        return humantime::parse_rfc3339_weak(&format!("{text}T00:00:00Z")).ok();
    }
    let at = text.get(10..)?.rfind(['+', '-']).map(|at| at + 10);
    let Some((local, offset)) = at.and_then(|at| text.split_at_checked(at)) else {
        return humantime::parse_rfc3339_weak(text).ok();
    };
    let local = humantime::parse_rfc3339_weak(local).ok()?;
    let digits = offset.get(1..)?.replace(':', "");
    let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let minutes = match digits.len() {
        2 => digits.parse::<u64>().ok()? * 60,
        4 => digits.get(..2)?.parse::<u64>().ok()? * 60 + digits.get(2..)?.parse::<u64>().ok()?,
        _ => return None,
    };
    let offset_by = Duration::from_secs(minutes * 60);
    if offset.starts_with('+') {
        local.checked_sub(offset_by)
    } else {
        local.checked_add(offset_by)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn item(value: serde_json::Value) -> Item {
        serde_dynamo::to_item(value).unwrap()
    }

    #[test]
    fn what_is_not_there_is_not_wanted_and_no_mistake() {
        let orders = Expression::parse("entityType == 'ORDER' and not test").unwrap();
        let wanted = Wanted::default().only(orders);
        let wants = |value| wanted.wants(&item(value)).unwrap();
        assert!(wants(json!({"entityType": "ORDER"})));
        assert!(!wants(json!({"entityType": "CUSTOMER"})));
        assert!(!wants(json!({"PK": "CUST#1"})));
        assert!(!wants(json!({"entityType": "ORDER", "test": true})));
        assert!(Wanted::default().wants(&item(json!({}))).unwrap());
    }

    #[test]
    fn an_order_from_before_the_date_is_not_wanted_however_its_date_is_written() {
        let since = parse_time("2026-01-01").unwrap();
        let created = Expression::parse("createdAt").unwrap();
        let wanted = Wanted::default().not_before(since, created);
        let wants = |at| wanted.wants(&item(json!({ "createdAt": at })));
        for late in [
            json!("2026-01-01"),
            json!("2026-01-01T00:00:00.000Z"),
            json!("2025-12-31T23:30:00-01:00"),
            json!("2026-01-01 09:00:00"),
            json!(1_767_225_600),
            json!(1_767_225_600_000_i64),
        ] {
            assert_eq!(wants(late.clone()), Ok(true), "{late}");
        }
        for early in [
            json!("2025-12-31"),
            json!("2026-01-01T00:30:00+01:00"),
            json!("2026-01-01T00:30:00+0100"),
            json!(1_767_225_599),
            json!(1_767_225_599.5),
        ] {
            assert_eq!(wants(early.clone()), Ok(false), "{early}");
        }
        let reported = wants(json!("last week")).unwrap_err().to_string();
        assert!(
            reported.starts_with(
                "created-at: the expression \"createdAt\" is a string of 9 bytes; expected"
            ),
            "{reported}"
        );
        assert!(
            wanted.wants(&item(json!({}))).is_err(),
            "an order without a date"
        );
    }
}
