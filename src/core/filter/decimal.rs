//! Numbers of any length, compared exactly: nothing is rounded to a float.

use bigdecimal::BigDecimal;

/// The most decimal places, and the largest power of ten. DynamoDB allows 130.
///
/// Source: [numbers](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html#HowItWorks.DataTypes.Number).
const MOST_PLACES: u64 = 10_000;

/// Parses a number such as `-12.50` or `1e3`; `None` for anything else, and for a power of ten far
/// beyond DynamoDB's numbers.
pub(super) fn parse(text: &str) -> Option<BigDecimal> {
    // The library also accepts `1_000`.
    let number: BigDecimal = Some(text)
        .filter(|text| !text.contains('_'))?
        .parse()
        .ok()?;
    let places = number.fractional_digit_count().unsigned_abs();
    (places <= MOST_PLACES).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn number(text: &str) -> BigDecimal {
        parse(text).unwrap()
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
    fn what_is_not_a_number_is_rejected() {
        for wrong in [
            "",
            "-",
            ".",
            "1e",
            "1e+",
            "1.2.3",
            "0x1",
            "١",
            "+",
            "1e9999999999",
            " 1",
            "1_000",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
