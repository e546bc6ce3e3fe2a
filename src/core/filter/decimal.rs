//! Decimal numbers of any length, compared digit by digit: no float ever rounds one.

use std::cmp::Ordering;

/// A decimal number: `0.DIGITS * 10^point`, with no zero at either end of the digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: String,
    point: i64,
}

impl Decimal {
    /// Reads a number such as `-12.50` or `1e3`; `None` if this is none, or if its exponent has
    /// more than nine digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let skipped = all.len() - significant.len();
        let significant = significant.trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self {
                negative: false,
                digits: String::new(),
                point: 0,
            });
        }
        let whole = i64::try_from(whole.len()).ok()?;
        let point = whole - i64::try_from(skipped).ok()? + exponent;
        Some(Self {
            negative,
            digits: significant.to_owned(),
            point,
        })
    }

    /// A whole number.
    pub(super) fn whole(number: u64) -> Self {
        Self::parse(&number.to_string()).unwrap_or(Self {
            negative: false,
            digits: String::new(),
            point: 0,
        })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn size(&self) -> (i64, &str) {
        (self.point, &self.digits)
    }
}

fn read_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_size = match self.sign() {
            -1 => other.size().cmp(&self.size()),
            _ => self.size().cmp(&other.size()),
        };
        self.sign().cmp(&other.sign()).then(by_size)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_ordered_by_value_however_they_are_spelled() {
        let rising = [
            "-1e125",
            "-20",
            "-3",
            "-2.5",
            "-0.001",
            "0",
            "1E-130",
            "0.1",
            "0.11",
            "9",
            "10",
            "99999999999999999999999999999999999998",
            "99999999999999999999999999999999999999",
            "1e38",
        ];
        for (n, a) in rising.iter().enumerate() {
            for (m, b) in rising.iter().enumerate() {
                assert_eq!(number(a).cmp(&number(b)), n.cmp(&m), "{a} and {b}");
            }
        }
    }

    #[test]
    fn one_value_has_many_spellings() {
        for same in [
            ["300", "300.0"],
            ["3e2", "0300"],
            ["-0", "0.000"],
            ["1.50", "15E-1"],
            [".5", "0.5"],
            ["5.", "+5"],
        ] {
            assert_eq!(number(same[0]), number(same[1]));
        }
    }

    #[test]
    fn what_is_no_number_is_told() {
        for wrong in [
            "",
            "-",
            ".",
            "1e",
            "1e+",
            "1.2.3",
            "0x1",
            "١",
            "1e9999999999",
            " 1",
        ] {
            assert_eq!(Decimal::parse(wrong), None, "{wrong:?}");
        }
    }
}
