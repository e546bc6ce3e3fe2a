//! The name of the operator, and the reason, which are recorded.

use std::time::SystemTime;

use crate::Clock;
use clap::Args;

/// The longest note, in bytes. A row's history holds it in full.
const LONGEST: usize = 250;

/// The operator.
#[derive(Debug, Args)]
pub struct ByArgs {
    /// Who does this [default: the user who is logged in]
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_BY")]
    by: Option<String>,
}

impl ByArgs {
    /// The name.
    pub fn name(&self) -> String {
        self.by.clone().unwrap_or_else(user)
    }
}

/// The user who is logged in, according to the environment.
fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].map(|name| std::env::var(name).ok());
    let named = named.into_iter().flatten().find(|name| !name.is_empty());
    named.unwrap_or_else(|| "(unknown)".to_owned())
}

/// The operator's reason.
pub fn note(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("write the reason".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("write at most {LONGEST} bytes"));
    }
    Ok(text.to_owned())
}

/// A time: `2026-11-27T09:00:00Z`, or how long ago, such as `2h`.
pub fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "write a time such as 2026-11-27T09:00:00Z, or how long ago, such as 2h")?;
    let now = Clock::system().now();
    Ok(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_time_is_a_date_or_how_long_ago() {
        assert!(moment("2026-11-27T09:00:00Z").unwrap() > moment("2026-11-27T08:00:00Z").unwrap());
        assert!(moment("2h").unwrap() < moment("1h").unwrap());
        assert!(moment("yesterday").unwrap_err().contains("such as 2h"));
    }

    #[test]
    fn a_note_says_something_and_fits_into_a_row() {
        assert_eq!(note(" asked the relay "), Ok("asked the relay".to_owned()));
        assert!(note("  ").is_err() && note(&"x".repeat(251)).is_err());
    }
}
