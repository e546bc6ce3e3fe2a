//! A gap as text.

use crate::monitor::stream::Gap;

use crate::cli::render::out::{moment, plain};

/// A gap in one line.
pub fn line(gap: &Gap) -> String {
    let last = gap.last_handled.as_deref().unwrap_or("the beginning");
    let next = gap.first_after.as_deref().unwrap_or("nothing yet");
    let committed = gap.last_handled_time.map(moment);
    let committed = committed.map_or_else(String::new, |at| format!(" (committed at {at})"));
    let resolved = gap.resolved.as_ref().map_or_else(String::new, |one| {
        let (by, note) = (plain(&one.by), plain(&one.note));
        format!("; resolved by {by} at {}: {note}", moment(one.at))
    });
    format!(
        "{}: after {last}{committed}, before {next}; found at {}{resolved}",
        plain(&gap.shard),
        moment(gap.detected)
    )
}
