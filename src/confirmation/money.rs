//! Amounts of money: whole minor units and a currency, never a fraction.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, Value};
use minijinja::{Error, ErrorKind, State};

use super::decimal::Decimal;

/// A currency by its ISO 4217 code: three letters, such as `EUR`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// Parses a code in any case; `None` if it is not three ASCII letters.
    ///
    /// Codes that this version does not know are accepted, so that a new currency needs no new release.
    /// They have two decimal places.
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 3] = text.as_bytes().try_into().ok()?;
        let letters = code.iter().all(u8::is_ascii_alphabetic);
        letters.then(|| Self(code.map(|letter| letter.to_ascii_uppercase())))
    }

    /// The code in capital letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// How many decimal places the major unit has: 2, except for currencies to which [ISO 4217 list
    /// one](https://www.six-group.com/en/products-services/financial-information/data-standards.html)
    /// gives another number of minor units.
    pub fn decimal_places(self) -> usize {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG"
            | b"RWF" | b"UGX" | b"UYI" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            b"CLF" | b"UYW" => 4,
            _ => 2,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount: shows as `EUR 1,299.00`.
///
/// In templates it prints the same, and has `.minor` (the number 129900), `.amount` (`1299.00`, no
/// grouping) and `.currency` (`EUR`) for a format of your own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// In the currency's minor unit: 129900 is EUR 1,299.00, but JPY 129,900.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

impl Money {
    /// `quantity` times this amount; `None` if that is not a whole number of minor units, or too large.
    pub fn times(self, quantity: Decimal) -> Option<Self> {
        let minor = Decimal::from(self.minor).times(quantity)?.in_units(0)?;
        Some(Self { minor, ..self })
    }

    /// The number alone, with the currency's decimal places: `1299.00`.
    pub fn amount(self) -> String {
        let (sign, whole, fraction) = self.parts();
        format!("{sign}{whole}{fraction}")
    }

    /// Sign, whole major units, and the fraction with its point.
    fn parts(self) -> (&'static str, String, String) {
        let places = self.currency.decimal_places();
        let digits = format!("{:0width$}", self.minor.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let point = if places == 0 { "" } else { "." };
        let sign = if self.minor < 0 { "-" } else { "" };
        (sign, whole.to_owned(), format!("{point}{fraction}"))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, whole, fraction) = self.parts();
        write!(f, "{} {sign}", self.currency)?;
        for (at, digit) in whole.char_indices() {
            if at > 0 && (whole.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(&fraction)
    }
}

impl Object for Money {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "minor" => Some(Value::from(self.minor)),
            "amount" => Some(Value::from(self.amount())),
            "currency" => Some(Value::from(self.currency.code())),
            _ => None,
        }
    }

    // Zero is an amount, too: without this, a total would count as an empty map, and so as false.
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The unit in which an amount was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// 19.99 is EUR 19.99.
    Major,
    /// 1999 is EUR 19.99.
    Minor,
}

/// An amount without a currency yet, as `19.99|decimal` and `1999|minor` produce it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    number: Decimal,
    unit: Unit,
}

impl Amount {
    /// Reads a number, or a text that contains one. An error says what was expected.
    pub(super) fn of(value: &Value, unit: Unit) -> Result<Self, String> {
        let read = Decimal::of_value(value);
        let whole = |number: &Decimal| unit == Unit::Major || number.places() == 0;
        if let Some(number) = read.filter(whole) {
            return Ok(Self { number, unit });
        }
        let expected = match unit {
            Unit::Major => "a decimal number such as 19.99, exact, of up to 38 digits",
            Unit::Minor => {
                "a whole number of minor units (1999|minor for EUR 19.99, 19.99|decimal for a decimal \
                 number)"
            }
        };
        Err(format!("found {}; expected {expected}", describe(value)))
    }

    /// The amount in a currency, never rounded. An error says what is wrong.
    pub(super) fn money(self, currency: Currency) -> Result<Money, String> {
        let places = u32::try_from(currency.decimal_places()).unwrap_or(u32::MAX);
        let units = if self.unit == Unit::Major { places } else { 0 };
        let number = self.number;
        match number.in_units(units) {
            Some(minor) => Ok(Money { minor, currency }),
            None if number.places() > units => Err(format!(
                "{number} has {} decimal places; expected at most the {units} that {currency} has",
                number.places()
            )),
            None => Err(format!(
                "{number} is too large; expected an amount of up to 18 digits"
            )),
        }
    }
}

impl Object for Amount {
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// The filter `money`: an amount in the order's currency, or in a given one. A bare number is in minor
/// units.
pub(super) fn money(state: &State, value: &Value, currency: Option<&str>) -> Result<Value, Error> {
    let refused = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    if value.is_undefined() || value.is_none() || value.downcast_object_ref::<Money>().is_some() {
        return Ok(value.clone());
    }
    let of_order = || {
        let order = state.lookup("order")?;
        let code = order.get_attr("currency").ok()?;
        code.as_str().and_then(Currency::parse)
    };
    let currency = match currency {
        Some(code) => Currency::parse(code),
        None => of_order(),
    };
    let currency = currency.ok_or_else(|| {
        refused("the order has no currency; name one, as in order.shipping|money('EUR')".to_owned())
    })?;
    let amount = match value.downcast_object_ref::<Amount>() {
        Some(amount) => *amount,
        None => Amount::of(value, Unit::Minor).map_err(refused)?,
    };
    amount
        .money(currency)
        .map(Value::from_object)
        .map_err(refused)
}

/// Describes a value for a message: numbers with their digits, texts without their content.
pub(super) fn describe(value: &Value) -> String {
    use minijinja::value::ValueKind as Kind;
    if let Some(amount) = value.downcast_object_ref::<Amount>() {
        return format!("the number {}", amount.number);
    }
    if let Some(number) = Decimal::of_value(value) {
        return format!("the number {number}");
    }
    match value.kind() {
        Kind::Undefined => "missing".to_owned(),
        Kind::None => "null".to_owned(),
        Kind::Bool => "a boolean".to_owned(),
        Kind::Number => "a number that is not exact".to_owned(),
        Kind::String => match value.as_str().map_or(0, str::len) {
            0 => "an empty string".to_owned(),
            bytes => format!("a string of {bytes} bytes"),
        },
        Kind::Bytes => "binary".to_owned(),
        Kind::Seq | Kind::Iterable => "a list".to_owned(),
        Kind::Map => "a map".to_owned(),
        _ => "something else".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    fn shown(minor: i64, code: &str) -> String {
        let currency = Currency::parse(code).unwrap();
        Money { minor, currency }.to_string()
    }

    #[test]
    fn an_amount_is_shown_with_the_decimal_places_of_its_currency() {
        assert_eq!(shown(129_900, "EUR"), "EUR 1,299.00");
        assert_eq!(shown(129_900, "JPY"), "JPY 129,900");
        assert_eq!(shown(129_900, "KWD"), "KWD 129.900");
        assert_eq!(shown(129_900, "CLF"), "CLF 12.9900");
        assert_eq!(shown(129_900, "ZZZ"), "ZZZ 1,299.00", "unknown: two places");
    }

    #[test]
    fn amounts_below_one_and_below_nothing_keep_their_zeros_and_their_sign() {
        assert_eq!(shown(0, "EUR"), "EUR 0.00");
        assert_eq!(shown(7, "eur"), "EUR 0.07");
        assert_eq!(shown(7, "KWD"), "KWD 0.007");
        assert_eq!(shown(0, "JPY"), "JPY 0");
        assert_eq!(shown(-1_050, "EUR"), "EUR -10.50");
        assert_eq!(
            shown(i64::MIN, "USD"),
            "USD -92,233,720,368,547,758.08",
            "the smallest number has no positive twin"
        );
    }

    #[test]
    fn a_currency_is_three_letters() {
        for wrong in ["", "EU", "EURO", "E1R", "€", "é€"] {
            assert_eq!(Currency::parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_without_its_grouping_and_point_is_the_minor_units_again(
            minor: i64,
            code in "[A-Z]{3}",
        ) {
            let currency = Currency::parse(&code).unwrap();
            let digits: String = Money { minor, currency }
                .to_string()
                .chars()
                .filter(|c| c.is_ascii_digit() || *c == '-')
                .collect();
            prop_assert_eq!(digits.parse::<i64>().unwrap(), minor);
        }
    }
}
