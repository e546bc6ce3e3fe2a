//! Amounts of money: whole minor units and a currency, never a fraction.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, Value};

/// A currency by its ISO 4217 code: three letters, such as `EUR`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// Reads a code in any case; `None` when it is not three ASCII letters.
    ///
    /// Codes that this version does not know are taken too, so that a new currency needs no new
    /// release; they count two decimal places.
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 3] = text.as_bytes().try_into().ok()?;
        let letters = code.iter().all(u8::is_ascii_alphabetic);
        letters.then(|| Self(code.map(|letter| letter.to_ascii_uppercase())))
    }

    /// The code in capital letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// How many decimal places the major unit has: 2, but for the currencies that
    /// [ISO 4217 list one](https://www.six-group.com/en/products-services/financial-information/data-standards.html)
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
/// In templates it prints the same, and has `.minor` (the number 129900), `.amount`
/// (`1299.00`, no grouping) and `.currency` (`EUR`) for a spelling of your own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// In the currency's minor unit: 129900 is EUR 1,299.00, but JPY 129,900.
    pub minor: i64,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// `quantity` times this amount; `None` when that is too much to count.
    pub fn times(self, quantity: u32) -> Option<Self> {
        let minor = self.minor.checked_mul(i64::from(quantity))?;
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

    // Even nothing is an amount: without this, a total would count as an empty map, so as false.
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
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
