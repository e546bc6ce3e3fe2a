//! The state of the fleet, as text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::monitor::stream::{ShardStatus, StreamStatus, WorkerStatus};
use crate::monitor::{FleetStatus, ResolvedBy, ShardState, StatusVerdict};

use crate::cli::render::gap;
use crate::cli::render::out::{moment, plain};

/// The whole status.
pub fn text(status: &FleetStatus) -> String {
    let verdict = match status.verdict {
        StatusVerdict::Well => "All is well.",
        StatusVerdict::Recovering => "The workers are recovering; nothing waits for a person.",
        StatusVerdict::Attention => "Something needs attention.",
        StatusVerdict::Unknown => "The status is unknown.",
    };
    let mut text = format!("{verdict}  ({})\n", moment(status.at));
    for words in &status.advice {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  - {}", plain(words));
    }
    let in_hand = status.words(ResolvedBy::Workers);
    if !in_hand.is_empty() {
        text += "The workers are dealing with:\n";
    }
    for words in in_hand {
        let _ = writeln!(text, "  - {}", plain(&words));
    }
    for stream in &status.streams {
        text += &on_stream(stream);
    }
    if let Some(orders) = status.ambiguous {
        let _ = writeln!(text, "\nambiguous orders    {orders}");
    }
    if let Some(orders) = status.resending.filter(|orders| *orders > 0) {
        let _ = writeln!(text, "sent once more      {orders}");
    }
    if let Some(orders) = status.released.filter(|orders| *orders > 0) {
        let _ = writeln!(text, "released orders     {orders}");
    }
    text
}

fn on_stream(stream: &StreamStatus) -> String {
    let mut text = format!("\n{}\n", heading(stream));
    let mut rows =
        vec![["WORKER", "HEARTBEAT", "SHARDS", "ZONE", "VERSION", ""].map(str::to_owned)];
    rows.extend(stream.workers.iter().map(worker));
    text += &columns(&rows);
    let titles = [
        "SHARD",
        "STATE",
        "OWNER",
        "EPOCH",
        "LAG",
        "TRIM IN",
        "A MINUTE",
        "LAST ERROR",
    ];
    let mut rows = vec![titles.map(str::to_owned)];
    let mut depths = std::collections::BTreeMap::new();
    for one in &stream.shards {
        let parent = one.parent.as_ref().and_then(|parent| depths.get(parent));
        let depth = parent.map_or(0, |depth: &usize| depth + 1);
        depths.insert(&one.shard, depth);
        rows.push(shard(one, depth));
    }
    text.push('\n');
    text += &columns(&rows);
    if let Some(keys) = stream.parked_keys {
        let reasons = stream.dead_letters.iter().flatten();
        let reasons: Vec<_> = reasons
            .map(|(reason, keys)| format!("{keys} {reason}"))
            .collect();
        let _ = writeln!(text, "\nparked keys         {keys}  {}", reasons.join(", "));
    }
    for gap in &stream.gaps {
        let _ = writeln!(text, "gap                 {}", gap::line(gap));
    }
    text
}

/// Which group performs which effect on which table.
fn heading(stream: &StreamStatus) -> String {
    let effects: Vec<_> = stream.effects.iter().map(|one| plain(&one.name)).collect();
    let effect = match &effects[..] {
        [] => String::new(),
        [one] => format!(", effect {one}"),
        several => format!(", effects {}", several.join(", ")),
    };
    let (table, group) = (plain(&stream.table), plain(&stream.group));
    let arn = stream.group_table.split_once('#').map(|(_, arn)| arn);
    let arn = arn.filter(|arn| *arn != stream.table);
    let arn = arn.map_or_else(String::new, |arn| format!(" ({})", plain(arn)));
    format!("group {group}{effect}, table {table}{arn}")
}

fn worker(worker: &WorkerStatus) -> [String; 6] {
    let heartbeat = worker
        .heartbeat_age_seconds
        .map(|age| format!("{} ago", ago(age)));
    let note = match (worker.alive, &worker.stuck_shard) {
        (Some(false), _) => "silent",
        (None, _) => "not watched long enough",
        (_, Some(_)) => "stuck",
        _ if worker.trouble.is_some() => "waits",
        _ if worker.draining => "leaving",
        _ => "",
    };
    [
        plain(&worker.worker),
        heartbeat.unwrap_or_else(|| "-".to_owned()),
        worker.shards.to_string(),
        plain(worker.zone.as_deref().unwrap_or("-")),
        plain(&worker.version),
        note.to_owned(),
    ]
}

fn shard(shard: &ShardStatus, depth: usize) -> [String; 8] {
    let state = match shard.state {
        ShardState::Reading => "reading",
        ShardState::Free => "free",
        ShardState::Orphaned => "orphaned",
        ShardState::Ended => "ended",
    };
    // A shard without a reader has only a bound.
    let (most, least) = match shard.state {
        ShardState::Reading => ("", ""),
        _ => ("at most ", "at least "),
    };
    let time = |bound: &str, seconds: Option<f64>| {
        seconds.map_or_else(
            || "-".to_owned(),
            |seconds| format!("{bound}{}", ago(seconds)),
        )
    };
    [
        format!("{}{}", "  ".repeat(depth), plain(&shard.shard)),
        state.to_owned(),
        plain(shard.owner.as_deref().unwrap_or("-")),
        shard.epoch.to_string(),
        time(most, shard.lag_seconds),
        time(least, shard.until_trim_seconds),
        format!("{:.0}", shard.per_minute),
        plain(shard.last_error.as_deref().unwrap_or("")),
    ]
}

/// The two largest units of a time.
fn ago(seconds: f64) -> String {
    let whole = Duration::from_secs_f64(seconds.clamp(0.0, 1e9).round());
    let text = humantime::format_duration(whole).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Rows below each other, each column as wide as its widest text.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| {
        rows.iter()
            .map(|row| row[at].chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate();
        let line: Vec<_> = cells
            .map(|(at, cell)| format!("{cell:<0$}", width(at)))
            .collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{ago, columns};

    #[test]
    fn times_have_at_most_two_units() {
        assert_eq!(ago(0.2), "0s");
        assert_eq!(ago(86_399.0), "23h 59m");
        assert_eq!(ago(61.0), "1m 1s");
    }

    #[test]
    fn a_column_is_as_wide_as_its_widest_text() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(
            columns(&[row("A", "B"), row("long", "")]),
            "A     B\nlong\n"
        );
    }
}
