//! The log goes to standard error; results go to standard output.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line, for a log collector.
    Json,
    /// For people.
    Pretty,
}

/// What is logged unless `RUST_LOG` says otherwise. The SDK's search for a Region and credentials
/// warns of every place where it finds none; what matters of that is in the error.
const FILTER: &str = "warn,aftercommit=info,aws_config=error";

/// Starts the log: for people on a terminal, otherwise in JSON. `RUST_LOG` selects what is logged.
pub fn init(format: Option<LogFormat>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let default = if io::stderr().is_terminal() {
        LogFormat::Pretty
    } else {
        LogFormat::Json
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Its complaint about a closed standard error would go there, and panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match format.unwrap_or(default) {
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
        LogFormat::Pretty => log.with_ansi(io::stderr().is_terminal()).init(),
    }
}
