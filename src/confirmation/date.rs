//! Dates in emails: the filter `date`.

use jiff::civil::Time;
use jiff::fmt::strtime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};

/// Where a template names none.
const FORMAT: &str = "%Y-%m-%d";

/// Numbers from here on are milliseconds: as seconds they would be later than the year 5138.
const MILLISECONDS: i64 = 100_000_000_000;

/// `order.placed_at|date("%d.%m.%Y", tz="Europe/Berlin")`: a date of ISO 8601, or seconds or
/// milliseconds since 1970, in this format
/// ([conversion specifiers](https://docs.rs/jiff/latest/jiff/fmt/strtime/index.html#conversion-specifications))
/// and time zone. Without a time zone a date keeps the offset that it was written with, and a number is in
/// UTC. A date without an offset is shown as it is written. Nothing stays nothing.
///
/// The time zones are part of this program, so an email is the same on every machine.
#[expect(clippy::needless_pass_by_value, reason = "minijinja passes them so")]
pub(super) fn date(value: &Value, format: Option<&str>, options: Kwargs) -> Result<Value, Error> {
    let format = format.unwrap_or(FORMAT);
    let zone: Option<&str> = options.get("tz")?;
    options.assert_all_used()?;
    // These are the template's mistakes: they are found before the first order.
    let zone = zone.map(TimeZone::get).transpose();
    let zone =
        zone.map_err(|_| mistake("unknown time zone; expected a name such as Europe/Berlin"))?;
    if show(
        format,
        &Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC),
    )
    .is_none()
    {
        return Err(mistake(
            "unknown date format; expected one such as %d.%m.%Y",
        ));
    }
    if value.is_undefined() || value.is_none() || value.as_str().is_some_and(str::is_empty) {
        return Ok(value.clone());
    }
    let text = read(value, zone).and_then(|date| show(format, &date));
    text.map(Value::from).ok_or_else(|| {
        let problem = "not a date: expected ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00Z, \
                       or seconds or milliseconds since 1970";
        Error::new(ErrorKind::InvalidOperation, problem)
    })
}

/// What stops the start: a sample order is rendered then.
fn mistake(problem: &'static str) -> Error {
    Error::new(ErrorKind::SyntaxError, problem)
}

fn show(format: &str, date: &ZonedDateTime) -> Option<String> {
    strtime::format(format, date).ok()
}

fn read(value: &Value, zone: Option<TimeZone>) -> Option<ZonedDateTime> {
    if value.is_integer() {
        let number = i64::try_from(value.clone()).ok()?;
        let since = if number.abs() < MILLISECONDS {
            Timestamp::from_second(number)
        } else {
            Timestamp::from_millisecond(number)
        };
        return Some(since.ok()?.to_zoned_datetime(zone.unwrap_or(TimeZone::UTC)));
    }
    let pieces = DateTimeParser::new().parse_pieces(value.as_str()?).ok()?;
    let written = pieces
        .date()
        .to_datetime(pieces.time().unwrap_or(Time::midnight()));
    let Some(offset) = pieces.to_numeric_offset() else {
        return written.to_zoned_datetime(TimeZone::UTC).ok();
    };
    let zone = zone.unwrap_or(TimeZone::fixed(offset));
    Some(offset.to_timestamp(written).ok()?.to_zoned_datetime(zone))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use minijinja::Environment;

    use super::*;

    fn shown(expression: &str) -> Result<String, String> {
        let mut environment = Environment::new();
        environment.add_filter("date", date);
        let value = environment.compile_expression(expression).unwrap().eval(());
        let value = value.map_err(|error| error.detail().unwrap_or_default().to_owned())?;
        Ok(value.to_string())
    }

    #[test]
    fn a_date_is_shown_in_the_format_and_time_zone_of_the_template() {
        for (expression, expected) in [
            ("'2026-11-27T23:30:00Z'|date", "2026-11-27"),
            (
                "'2026-11-27T23:30:00Z'|date('%d.%m.%Y', tz='Europe/Berlin')",
                "28.11.2026",
            ),
            (
                "'2026-07-27T23:30:00Z'|date('%H:%M', tz='Europe/Berlin')",
                "01:30",
            ),
            (
                "'2026-11-27T23:30:00+05:30'|date('%H:%M %:z')",
                "23:30 +05:30",
            ),
            (
                "'2026-11-27T23:30:00.123Z'|date('%-d %B %Y')",
                "27 November 2026",
            ),
            ("'2026-11-27 23:30'|date('%H:%M', tz='Asia/Tokyo')", "23:30"),
            ("'2026-11-27'|date('%d/%m/%y', tz='Asia/Tokyo')", "27/11/26"),
            ("1795822200|date('%Y-%m-%d %H:%M')", "2026-11-27 23:30"),
            ("1795822200123|date('%Y-%m-%d %H:%M')", "2026-11-27 23:30"),
            ("0|date", "1970-01-01"),
            ("none|date", "None"),
            ("''|date", ""),
        ] {
            assert_eq!(shown(expression), Ok(expected.to_owned()), "{expression}");
        }
    }

    #[test]
    fn what_is_not_a_date_is_an_error_that_does_not_repeat_it() {
        for value in [
            "'yesterday'",
            "'2026-02-30'",
            "true",
            "[1]",
            "9223372036854775807",
        ] {
            let error = shown(&format!("{value}|date")).unwrap_err();
            assert!(
                error.starts_with("not a date: expected ISO 8601"),
                "{value}: {error}"
            );
        }
    }

    #[test]
    fn a_mistake_in_the_template_shows_without_a_date() {
        let error = shown("none|date('%d', tz='Europe/Berln')").unwrap_err();
        assert!(error.starts_with("unknown time zone"), "{error}");
        let error = shown("none|date('%!')").unwrap_err();
        assert!(error.starts_with("unknown date format"), "{error}");
    }
}
