//! The streams of the table: which are new, what was lost between them, and why nothing is read.
//!
//! The service lists a stream for 24 hours after it was switched off. So a stream that the group
//! never began is lost once it is not listed any more, and a stream that nobody ever listed can only
//! have been there if no listing was made for so long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::fleet::Fleet;
use crate::decide::shard::ShardId;
use crate::handler::RecordHandler;
use crate::leases::{GapRow, LeaseRow, LeaseStore, StreamRow, View};
use crate::source::{ListedStream, StreamSource};

/// Stands for all shards of a stream that is gone and was never begun.
pub(crate) const WHOLE_STREAM: &str = "whole-stream";

/// Stands for streams that nobody knows of, before the one whose label it has.
pub(crate) const BEFORE_STREAM: &str = "before-stream";

/// Why nothing is read where no listing tells.
const NONE_LATER: &str = "every shard that is known of the table's streams is read to its end, and no \
    later stream is found yet";

/// When a listing was made, and what counts as long ago then.
pub(super) struct Moment {
    /// Now, by the service's clock.
    pub now: SystemTime,
    /// When the listing began.
    pub listed_at: SystemTime,
    /// How long a stream keeps a record, and is listed after its end.
    pub retention: Duration,
    /// When the group began; `None`: not known.
    pub bootstrapped: Option<SystemTime>,
    /// Whether the group begins with this listing: what is older is not its own.
    pub fresh: bool,
}

/// What is to be written of the streams.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Writing {
    /// Before the new leases.
    pub gaps: Vec<GapRow>,
    /// After them.
    pub rows: Vec<StreamRow>,
}

/// What a listing and the leases that are to be created tell of the streams.
pub(super) fn writing(
    view: &View,
    listed: &[ListedStream],
    new: &[LeaseRow],
    at: &Moment,
) -> Writing {
    let leased: BTreeSet<&str> = view.leases.keys().filter_map(ShardId::label).collect();
    let new: BTreeSet<&str> = new.iter().filter_map(|row| row.shard.label()).collect();
    let listed: BTreeSet<&Arc<str>> = listed.iter().map(|stream| &stream.label).collect();
    let mut known: BTreeSet<&Arc<str>> =
        listed.iter().copied().chain(view.streams.keys()).collect();
    known.retain(|label| !label.is_empty());
    let begun_to = leased.iter().chain(&new).max();
    let is_begun = |label: &str| begun_to.is_some_and(|begun| label <= *begun);
    let newest = known.last();
    let stale = |row: &StreamRow| {
        let age = at.listed_at.duration_since(row.newest_at);
        age.is_ok_and(|age| age >= at.retention / 24)
    };
    let news = known.iter().filter(|label| {
        let Some(row) = view.streams.get(**label) else {
            return true;
        };
        !row.begun && is_begun(label) || newest == Some(label) && stale(row)
    });
    let rows = news.map(|label| StreamRow {
        label: Arc::clone(label),
        begun: is_begun(label),
        newest_at: at.listed_at,
    });
    let mut writing = Writing {
        gaps: Vec::new(),
        rows: rows.collect(),
    };
    let first = new.iter().find(|label| !leased.contains(*label));
    let Some(first) = first.filter(|_| !at.fresh) else {
        return writing;
    };
    let gap = |label: &str, what: &str, since: Option<SystemTime>| GapRow {
        shard: ShardId::of_stream(label, what),
        last_handled: None,
        last_handled_time: since,
        first_after: None,
        detected: at.now,
        resolved: None,
    };
    // What a later stream's own row says was found out too late.
    let before = view.streams.values().filter(|row| *row.label < **first);
    let evidence = before.map(|row| row.newest_at);
    let evidence = evidence.chain(at.bootstrapped).max();
    let behind = leased.last();
    let lost = known.iter().filter(|label| {
        let between = ****label < **first && behind.is_none_or(|behind| ****label > **behind);
        between && view.streams.get(**label).is_none_or(|row| !row.begun)
    });
    let lost = lost.map(|label| gap(label, WHOLE_STREAM, evidence));
    writing.gaps.extend(lost);
    let previous = known.iter().rfind(|label| ****label < **first);
    let is_next = previous.is_some_and(|previous| listed.contains(previous));
    let long_ago = evidence.is_none_or(|seen| {
        let age = at.now.duration_since(seen).unwrap_or_default();
        age >= at.retention.mul_f64(0.99)
    });
    if !is_next && long_ago {
        writing.gaps.push(gap(first, BEFORE_STREAM, evidence));
    }
    writing
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Fleet<S, L, H> {
    /// The newest stream that has a lease: earlier ones are read to their end.
    pub(super) fn begun_stream(&self) -> Option<String> {
        let labels = self.rows.keys().filter_map(ShardId::label);
        labels.max().map(str::to_owned)
    }

    /// A consistent look showed the rows: if nothing is left to read, a later stream is looked for
    /// at once, and whoever watches is told why nothing is read.
    pub(super) fn mind_streams(&mut self, view: &View) {
        let has_begun = !view.leases.is_empty() || !view.streams.is_empty();
        let idle = has_begun && view.leases.values().all(LeaseRow::ended);
        self.listing.hurry_if(idle);
        let trouble = self.listing.trouble(idle);
        let trouble = trouble.or_else(|| idle.then(|| NONE_LATER.to_owned()));
        let before = self.engine.progress.set_not_reading(trouble.clone());
        match trouble {
            Some(why) if before.as_ref() != Some(&why) => {
                warn!(
                    table = self.engine.at.table(),
                    why, "what is committed is not read"
                );
            }
            None if before.is_some() => {
                info!(
                    table = self.engine.at.table(),
                    "what is committed is read again"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::Checkpoint;

    const LABELS: [&str; 3] = [
        "2026-01-01T00:00:00.000",
        "2026-01-02T00:00:00.000",
        "2026-01-03T00:00:00.000",
    ];
    const DAY: Duration = Duration::from_hours(24);

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(490_000 + hours)
    }

    fn moment(hours: u64) -> Moment {
        Moment {
            now: at(hours),
            listed_at: at(hours),
            retention: DAY,
            bootstrapped: Some(at(0)),
            fresh: false,
        }
    }

    fn listed(which: &[usize]) -> Vec<ListedStream> {
        let stream = |n: &usize| ListedStream {
            label: LABELS[*n].into(),
            created: None,
            view: None,
        };
        which.iter().map(stream).collect()
    }

    fn shard(n: usize) -> LeaseRow {
        LeaseRow::new(ShardId::of_stream(LABELS[n], "a"), None, 1)
    }

    fn row(n: usize, begun: bool, hours: u64) -> StreamRow {
        StreamRow {
            label: LABELS[n].into(),
            begun,
            newest_at: at(hours),
        }
    }

    /// A view in which this stream is read to its end, and these rows stand.
    fn view(read: usize, rows: &[StreamRow]) -> View {
        let mut ended = shard(read);
        ended.checkpoint = Checkpoint::End {
            children: Vec::new(),
        };
        let mut view = View::default();
        view.leases.insert(ended.shard.clone(), ended);
        for row in rows {
            view.streams.insert(row.label.clone(), row.clone());
        }
        view
    }

    fn gaps(writing: &Writing) -> Vec<&str> {
        writing.gaps.iter().map(|gap| gap.shard.as_str()).collect()
    }

    #[test]
    fn a_stream_that_follows_a_listed_one_lost_nothing() {
        let view = view(0, &[row(0, true, 0)]);
        let next = writing(&view, &listed(&[0, 1]), &[shard(1)], &moment(30));
        assert_eq!(gaps(&next), [""; 0]);
        assert_eq!(next.rows, [row(1, true, 30)]);
    }

    #[test]
    fn a_stream_that_was_seen_and_never_begun_is_lost_as_a_whole() {
        let view = view(0, &[row(0, true, 0), row(1, false, 2)]);
        let next = writing(&view, &listed(&[2]), &[shard(2)], &moment(20));
        assert_eq!(gaps(&next), [format!("{}#{WHOLE_STREAM}", LABELS[1])]);
        assert_eq!(next.rows, [row(1, true, 20), row(2, true, 20)]);
    }

    #[test]
    fn a_group_that_was_away_for_longer_than_a_stream_is_listed_may_have_missed_one() {
        let view = view(0, &[row(0, true, 0)]);
        let soon = writing(&view, &listed(&[2]), &[shard(2)], &moment(20));
        assert_eq!(gaps(&soon), [""; 0]);
        let late = writing(&view, &listed(&[2]), &[shard(2)], &moment(25));
        assert_eq!(gaps(&late), [format!("{}#{BEFORE_STREAM}", LABELS[2])]);
    }

    #[test]
    fn a_group_that_begins_has_lost_nothing_and_what_is_older_is_not_its_own() {
        let fresh = Moment {
            fresh: true,
            ..moment(30)
        };
        let first = writing(&View::default(), &listed(&[0, 1]), &[shard(1)], &fresh);
        assert_eq!(gaps(&first), [""; 0]);
        assert_eq!(first.rows, [row(0, true, 30), row(1, true, 30)]);
    }

    #[test]
    fn that_no_stream_is_later_is_written_down_once_an_hour() {
        let view = view(0, &[row(0, true, 10)]);
        let soon = Moment {
            listed_at: at(10) + Duration::from_mins(59),
            ..moment(10)
        };
        assert_eq!(writing(&view, &listed(&[0]), &[], &soon).rows, []);
        let later = writing(&view, &listed(&[]), &[], &moment(11));
        assert_eq!(later.rows, [row(0, true, 11)]);
    }
}
