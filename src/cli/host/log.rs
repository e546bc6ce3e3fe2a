//! The log goes to standard error; results go to standard output.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::lines::Lines;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line, for a log collector.
    Json,
    /// For people.
    Pretty,
}

/// What is logged by default. While the SDK searches for a Region and credentials, it warns about every
/// place that has none; the final error says what matters.
const FILTER: &str = "warn,aftercommit=info,aws_config=error";

/// Starts the log: for people on a terminal, otherwise in JSON. `RUST_LOG` selects what is logged.
pub fn init(format: Option<LogFormat>) {
    begin(format, io::stderr);
}

/// The same, but a reader that stalls does not stop the process. Dropping the returned guard writes the
/// lines that still wait.
pub fn init_queued(format: Option<LogFormat>) -> Queued {
    let lines = Lines::to(io::stderr());
    begin(format, lines.clone());
    Queued(lines)
}

/// Writes the waiting lines when it is dropped.
pub struct Queued(Lines);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.flush();
    }
}

fn begin<W>(format: Option<LogFormat>, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let default = if io::stderr().is_terminal() {
        LogFormat::Pretty
    } else {
        LogFormat::Json
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // The subscriber would report a closed standard error there, and panic.
        .log_internal_errors(false)
        .with_writer(writer);
    match format.unwrap_or(default) {
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
        LogFormat::Pretty => log.with_ansi(io::stderr().is_terminal()).init(),
    }
}
