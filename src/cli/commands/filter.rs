//! `aftercommit filter`: shows how a pattern treats a record.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::filter::{Explanation, Filter, Filters, Subject};
use crate::record::lambda_event::{self, Received};
use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::cli::args::item::read_text;
use crate::cli::fault::Fault;
use crate::cli::render::out::{plain, print_all, report};

const EXAMPLES: &str = "\
Examples:
  # Does a pattern let a record through, and if not, why?
  aftercommit filter explain --record record.json \\
      --pattern '{\"dynamodb\": {\"NewImage\": {\"status\": {\"S\": [\"PAID\"]}}}}'

  # Patterns in files; one of them must hold
  aftercommit filter explain --record - --pattern \"$(cat a.json)\" --pattern \"$(cat b.json)\" \\
      < record.json

The record is JSON as AWS Lambda hands it over: one record, or an event with Records.
Exit codes: 0 every record gets through, 1 one does not, 2 a pattern or the file is wrong.";

/// The commands for filters.
#[derive(Debug, Subcommand)]
pub enum FilterCommand {
    /// Say whether a record gets through, or the first reason why not
    #[command(after_long_help = EXAMPLES)]
    Explain(ExplainFilterArgs),
}

/// Arguments of `filter explain`.
#[derive(Debug, Args)]
pub struct ExplainFilterArgs {
    /// Event filter pattern in AWS Lambda's syntax; of several, one must match
    #[arg(long = "pattern", value_name = "JSON", required = true)]
    patterns: Vec<String>,
    /// File with a record; - reads standard input
    #[arg(long, value_name = "FILE")]
    record: PathBuf,
}

/// Prints what happens to each record.
pub fn explain(args: &ExplainFilterArgs) -> Result<(), Fault> {
    let filters = read_filters(&args.patterns)?;
    let records = read_text(&args.record)
        .map_err(anyhow::Error::new)
        .and_then(|text| serde_json::from_str(&text).context("not valid JSON"))
        .and_then(|event| Ok(lambda_event::read_all(&event)?))
        .with_context(|| format!("{}", args.record.display()))
        .map_err(Fault::Setting)?;
    let (mut all, mut text) = (true, String::new());
    for received in &records {
        all &= explained(&filters, received, &mut text);
    }
    print_all(&text)?;
    if all { Ok(()) } else { Err(Fault::No) }
}

/// Whether the record passes, as text.
fn explained(filters: &Filters, received: &Received, text: &mut String) -> bool {
    let mut subject = Subject::new(&received.record);
    if let Some(stream) = &received.stream {
        subject = subject.from_stream(stream);
    }
    let name = &received.record.sequence_number;
    // Writing into a String cannot fail.
    match filters.explain(subject) {
        Explanation::NoFilters => {
            let _ = writeln!(text, "{name}: match");
            true
        }
        Explanation::Match { filter } => {
            let _ = writeln!(text, "{name}: match (pattern {})", filter + 1);
            true
        }
        Explanation::NoMatch { mismatches } => {
            for (n, mismatch) in mismatches.iter().enumerate() {
                let mismatch = plain(&mismatch.to_string());
                let _ = writeln!(text, "{name}: no match (pattern {}): {mismatch}", n + 1);
            }
            false
        }
    }
}

/// Parses patterns. Prints a note about a pattern that looks wrong to standard error.
fn read_filters(patterns: &[String]) -> Result<Filters, Fault> {
    let mut filters = Vec::new();
    for (n, pattern) in patterns.iter().enumerate() {
        let filter = Filter::parse(pattern)
            .with_context(|| format!("pattern {}", n + 1))
            .map_err(Fault::Setting)?;
        for remark in filter.remarks() {
            report(&format!("note: pattern {}: {remark}", n + 1));
        }
        filters.push(filter);
    }
    Ok(Filters::new(filters))
}
