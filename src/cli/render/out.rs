//! Standard output, read by people and by scripts.

use std::io::{ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::time::SystemTime;

use anyhow::Context as _;
use serde::Serialize;

/// Prints a text. Returns `Break` if the reader has closed the pipe.
pub fn print(text: &str) -> anyhow::Result<ControlFlow<()>> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Prints the whole output.
pub fn print_all(text: &str) -> anyhow::Result<()> {
    print(text).map(|_| ())
}

/// Writes a line to standard error. A failure to do so cannot be reported.
pub fn report(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// `one letter`, `2 letters`.
pub fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        many => format!("{many} {one}s"),
    }
}

/// A moment in UTC, as RFC 3339 formats it.
pub fn moment(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Replaces control characters, which a terminal would obey: the text may come from a mail server.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

/// A result as one line of JSON.
pub fn json_line(result: &impl Serialize) -> anyhow::Result<String> {
    let json = serde_json::to_string(result).context("cannot write a result as JSON")?;
    Ok(json + "\n")
}

/// A result as JSON over several lines.
pub fn json_page(result: &impl Serialize) -> anyhow::Result<String> {
    let json = serde_json::to_string_pretty(result).context("cannot write a result as JSON")?;
    Ok(json + "\n")
}
