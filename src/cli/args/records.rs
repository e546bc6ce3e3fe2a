//! Which records are handled, and what happens to those that fail.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::Settings;
use crate::confirmation::expression::Expression;
use crate::confirmation::wanted::{Wanted, parse_time};
use crate::core::backoff::AttemptLimits;
use crate::engine::Identity;
use crate::filter::{Filter, Filters, HomeRegion};
use anyhow::Context as _;
use clap::Args;
use tracing::warn;

use crate::cli::fault::Fault;

/// Which records are handled, and what happens to those that fail.
#[derive(Debug, Args)]
#[command(next_help_heading = "Records")]
pub struct RecordArgs {
    /// Event filter pattern in AWS Lambda's syntax; of several, one must match. Try one with `aftercommit
    /// filter explain`
    #[arg(
        long = "filter",
        value_name = "JSON",
        env = "AFTERCOMMIT_FILTER",
        default_value = Filters::INSERTS
    )]
    filters: Vec<String>,
    /// On a replica of a global table: handle only records whose item has this attribute with this value,
    /// so that a change is handled once and not once per Region
    #[arg(long, value_name = "ATTRIBUTE=REGION", env = "AFTERCOMMIT_HOME_REGION")]
    home_region: Option<HomeRegion>,
    /// Attempts in which the handler panics or times out before the record becomes a dead letter
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_MAX_ATTEMPTS",
        default_value = "10"
    )]
    max_attempts: NonZeroU32,
    /// How long a record may fail before it becomes a dead letter
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_MAX_AGE",
        default_value = "6h",
        value_parser = humantime::parse_duration
    )]
    max_age: Duration,
    /// Time limit of one attempt [default: 15m, longer than the 10 minutes that a mail server may take; 1m
    /// with --handler or --handler-command]
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_HANDLER_TIMEOUT",
        value_parser = humantime::parse_duration
    )]
    handler_timeout: Option<Duration>,
    /// Time before a waiting record leaves the stream (after 24 hours) at which it becomes a dead
    /// letter. It is redriven automatically when what the handler depends on is back; 0s: never
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_RESCUE_BEFORE_TRIM",
        default_value = "4h",
        value_parser = humantime::parse_duration
    )]
    rescue_before_trim: Duration,
    #[command(flatten)]
    wanted: WantedArgs,
}

/// Which items of the table are orders to confirm.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Records")]
pub struct WantedArgs {
    /// Handle only items for which this is true, such as entityType == "ORDER" (a Jinja expression over the
    /// item's attributes; a missing attribute is false)
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_ONLY")]
    only: Option<String>,
    /// Handle only orders that were placed then or later according to --created-at: 2026-01-31 or
    /// 2026-01-31T12:00:00Z
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_NOT_BEFORE",
        requires = "created_at"
    )]
    not_before: Option<String>,
    /// When an order was placed (a Jinja expression): a date, or seconds or milliseconds since 1970
    #[arg(
        long,
        value_name = "EXPR",
        env = "AFTERCOMMIT_CREATED_AT",
        requires = "not_before"
    )]
    created_at: Option<String>,
}

/// The setting of a group's identity that has its filters, one in each line.
const FILTER: &str = "filter";

/// The settings of a group's identity that say which items are wanted.
const ONLY: &str = "only";
const NOT_BEFORE: &str = "not-before";
const CREATED_AT: &str = "created-at";

impl WantedArgs {
    /// The settings of a group.
    pub fn of(identity: &Identity) -> Self {
        let set = |name| identity.get(name).map(str::to_owned);
        Self {
            only: set(ONLY),
            not_before: set(NOT_BEFORE),
            created_at: set(CREATED_AT),
        }
    }

    /// The wanted items, parsed.
    pub fn wanted(&self) -> Result<Wanted, Fault> {
        let mut wanted = Wanted::default();
        let read = |flag: &str, text: &str| {
            let parsed = Expression::parse(text);
            parsed.map_err(|error| Fault::wrong(format!("{flag}: {error}")))
        };
        if let Some(only) = &self.only {
            wanted = wanted.only(read("--only", only)?);
        }
        if let (Some(text), Some(created_at)) = (&self.not_before, &self.created_at) {
            let time = parse_time(text).ok_or_else(|| {
                Fault::wrong(format!(
                    "--not-before {text}: expected a date such as 2026-01-31, or a time such as \
                     2026-01-31T12:00:00Z"
                ))
            })?;
            wanted = wanted.not_before(time, read("--created-at", created_at)?);
        }
        Ok(wanted)
    }

    fn identify(&self, mut identity: Identity) -> Identity {
        let set = [
            (ONLY, &self.only),
            (NOT_BEFORE, &self.not_before),
            (CREATED_AT, &self.created_at),
        ];
        for (name, value) in set {
            if let Some(value) = value {
                identity = identity.with(name, value.trim());
            }
        }
        identity
    }
}

impl RecordArgs {
    /// The parsed filters. Logs a warning about a pattern that looks wrong.
    pub fn filters(&self) -> Result<Filters, Fault> {
        let mut filters = Vec::new();
        for (n, pattern) in (1..).zip(&self.filters) {
            let filter = Filter::parse(pattern)
                .with_context(|| format!("--filter {n}"))
                .map_err(Fault::Setting)?;
            for remark in filter.remarks() {
                warn!(filter = n, "{remark}");
            }
            if filter.passes_any_change() && self.wanted.not_before.is_none() {
                warn!(
                    filter = n,
                    "the filter lets every later change of an item through, whatever the item was \
                     before: an old order that is touched again is mailed; ask for the old value, too \
                     (dynamodb.OldImage, see aftercommit run --help), or set --not-before"
                );
            }
            filters.push(filter);
        }
        let (filters, wanted) = (Filters::new(filters), self.wanted.wanted()?);
        if wanted.is_everything() {
            return Ok(filters);
        }
        // The handler rejects an item for which the expression fails.
        Ok(filters.and(move |record| {
            let item = record.new_image.as_ref();
            item.is_none_or(|item| wanted.wants(item).unwrap_or(true))
        }))
    }

    /// Which items are orders to confirm.
    pub fn wanted(&self) -> Result<Wanted, Fault> {
        self.wanted.wanted()
    }

    /// Whether a home Region is set.
    pub fn has_home_region(&self) -> bool {
        self.home_region.is_some()
    }

    /// The home Region. Fails if the table is a replica and none is set: each Region would then send an
    /// email.
    pub fn home_region(&self, table: &str, replicated: bool) -> Result<Option<HomeRegion>, Fault> {
        if replicated && self.home_region.is_none() {
            return Err(Fault::wrong(format!(
                "table {table} is a replica of a global table, whose streams carry every change in \
                 every Region: name the attribute that holds an order's Region, and this Region, as \
                 --home-region ATTRIBUTE=REGION, or each Region sends an email"
            )));
        }
        Ok(self.home_region.clone())
    }

    /// The settings, with these flags applied. `longest` is the time limit of an attempt unless a flag sets
    /// another.
    pub fn applied_to(&self, mut settings: Settings, longest: Duration) -> Result<Settings, Fault> {
        settings.attempts = AttemptLimits {
            attempts: self.max_attempts.get(),
            age: self.max_age,
        };
        settings.timing.handler_timeout = self.handler_timeout.unwrap_or(longest);
        settings.timing.rescue_before_trim = self.rescue_before_trim;
        settings.validate().map_err(Fault::setting)?;
        Ok(settings)
    }

    /// Adds the settings that decide which records are handled.
    pub fn identify(&self, identity: Identity) -> Identity {
        let mut filters: Vec<_> = self.filters.iter().map(|text| compact(text)).collect();
        filters.sort();
        self.wanted
            .identify(identity.with(FILTER, filters.join("\n")))
    }
}

/// The filters of a group.
pub fn filters_of(identity: &Identity) -> Result<Filters, Fault> {
    let filters = identity.get(FILTER).unwrap_or_default().lines();
    let filters = filters.map(Filter::parse).collect::<Result<Vec<_>, _>>();
    let filters = filters.context("the filter in the group's settings");
    filters.map(Filters::new).map_err(Fault::Setting)
}

/// The pattern without the spaces that make no difference.
fn compact(pattern: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    let counts = |letter: &char| {
        if !in_text {
            in_text = *letter == '"';
            return !letter.is_ascii_whitespace();
        }
        in_text = escaped || *letter != '"';
        escaped = !escaped && *letter == '\\';
        true
    };
    pattern.chars().filter(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_between_the_tokens_of_a_pattern_make_no_difference_and_others_do() {
        let spaced = "{ \"a b\" :\n [ \"c \\\" : d\", \"e\\\\\" , 1 ] }";
        assert_eq!(compact(spaced), r#"{"a b":["c \" : d","e\\",1]}"#);
    }
}
