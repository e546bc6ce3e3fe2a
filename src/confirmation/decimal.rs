//! Exact decimal numbers, as DynamoDB writes them: up to 38 digits, never a binary fraction.

use std::fmt;

use minijinja::value::Value;

/// The most decimal places, and the largest power of ten, that are read. DynamoDB allows 130, far
/// beyond any amount of money and any quantity.
const PLACES: u32 = 38;

/// An exact decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The number without its decimal point. With decimal places, the last digit is not 0.
    mantissa: i128,
    places: u32,
}

impl Decimal {
    /// One.
    pub const ONE: Self = Self {
        mantissa: 1,
        places: 0,
    };

    /// Parses digits with an optional sign, point and exponent, such as `-19.90`; `None` for anything
    /// else, and for more than 38 digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, exponent) = match text.split_once(['e', 'E']) {
            Some((text, exponent)) => (text, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) => (text.starts_with('-'), digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mantissa: i128 = digits.parse().ok()?;
        let mantissa = if negative { -mantissa } else { mantissa };
        let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        match u32::try_from(places) {
            Ok(places) => Self::of(mantissa, places),
            Err(_) if mantissa == 0 => Self::of(0, 0),
            Err(_) => {
                let power = Some(places.unsigned_abs()).filter(|power| *power <= PLACES)?;
                Self::of(mantissa.checked_mul(10_i128.checked_pow(power)?)?, 0)
            }
        }
    }

    /// Reads a number, or a text that contains one. A binary fraction is not exact, so it is refused.
    pub(super) fn of_value(value: &Value) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Self::parse(text.trim());
        }
        if !value.is_integer() {
            return None;
        }
        i128::try_from(value.clone())
            .ok()
            .and_then(|whole| Self::of(whole, 0))
    }

    fn of(mut mantissa: i128, mut places: u32) -> Option<Self> {
        while places > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            places -= 1;
        }
        (places <= PLACES).then_some(Self { mantissa, places })
    }

    /// How many decimal places it needs.
    pub fn places(self) -> u32 {
        self.places
    }

    /// The number in units of `1/10^places`, if it is a whole number of them and not too large.
    pub fn in_units(self, places: u32) -> Option<i64> {
        let power = places.checked_sub(self.places)?;
        let units = self.mantissa.checked_mul(10_i128.checked_pow(power)?)?;
        i64::try_from(units).ok()
    }

    /// The same, rounded down.
    pub(super) fn truncated(self, places: u32) -> Option<i64> {
        let Some(less) = self.places.checked_sub(places) else {
            return self.in_units(places);
        };
        i64::try_from(self.mantissa / 10_i128.checked_pow(less)?).ok()
    }

    /// The product, unless it is too large.
    pub fn times(self, other: Self) -> Option<Self> {
        let mantissa = self.mantissa.checked_mul(other.mantissa)?;
        Self::of(mantissa, self.places + other.places)
    }
}

impl From<i64> for Decimal {
    fn from(whole: i64) -> Self {
        Self {
            mantissa: whole.into(),
            places: 0,
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places as usize;
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let digits = format!(
            "{:0width$}",
            self.mantissa.unsigned_abs(),
            width = places + 1
        );
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let point = if places == 0 { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(text: &str) -> Option<String> {
        Decimal::parse(text).map(|number| number.to_string())
    }

    #[test]
    fn a_number_keeps_every_digit_and_loses_only_zeros_that_say_nothing() {
        for (text, expected) in [
            ("19.99", "19.99"),
            ("19.90", "19.9"),
            ("-0.050", "-0.05"),
            ("1999", "1999"),
            ("1E3", "1000"),
            ("1.5e1", "15"),
            (
                "12345678901234567890123456789012345678",
                "12345678901234567890123456789012345678",
            ),
            ("0.00", "0"),
            ("0E40", "0"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        for wrong in [
            "", ".", "-", "1,5", "0x1", "NaN", "1e99", "1e", "--1", "1.2.3", "١",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_is_counted_in_smaller_units_or_not_at_all() {
        let units = |text, places| Decimal::parse(text).unwrap().in_units(places);
        assert_eq!(units("19.99", 2), Some(1_999));
        assert_eq!(units("19.990", 2), Some(1_999));
        assert_eq!(units("20", 3), Some(20_000));
        assert_eq!(units("19.999", 2), None, "never rounded");
        assert_eq!(units("99999999999999999999", 2), None, "too large");
    }

    #[test]
    fn a_product_is_exact() {
        let product = |a, b| Decimal::parse(a).unwrap().times(Decimal::parse(b).unwrap());
        assert_eq!(product("0.75", "1450").unwrap().to_string(), "1087.5");
        assert_eq!(product(&"9".repeat(38), "10"), None);
    }
}
