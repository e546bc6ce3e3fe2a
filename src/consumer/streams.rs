//! The streams of the table: which are new, what was lost between them, and why nothing is read.
//!
//! The service lists a stream for 24 hours after it was switched off. Once it is not listed any
//! more it is gone, and what was not read of it is lost. So each stream has a row that says how far
//! it was read ([`Stage`]): it is finished only when a listing that was made after its end showed
//! nothing that was left to read. A stream that is gone before that is a gap. A stream that nobody
//! ever listed can only have been there if no listing was made for so long, which is a gap as well.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::fleet::Fleet;
use crate::decide::shard::ShardId;
use crate::handler::RecordHandler;
use crate::leases::{
    BEFORE_STREAM, GapRow, LeaseRow, LeaseStore, Stage, StreamRow, View, WHOLE_STREAM,
};
use crate::source::{ListedStream, StreamSource};

/// Why nothing is read for a moment.
const NEXT_FOUND: &str = "the table's next stream is found, and is about to be read";

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
    /// The newest stream that has leases, if it was switched off and all that it lists was read.
    pub finished: Option<String>,
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
    let labels = Labels::of(view, listed, new);
    let lost = if at.fresh {
        BTreeSet::new()
    } else {
        labels.lost()
    };
    let gap = |label: &&str| {
        let shard = ShardId::of_stream(label, WHOLE_STREAM);
        GapRow::unread(shard, seen_before(label, view, at), at.now)
    };
    let unseen = labels.unseen(at).filter(|_| !at.fresh);
    Writing {
        gaps: unseen.into_iter().chain(lost.iter().map(gap)).collect(),
        rows: labels.news(&lost, at),
    }
}

/// The streams that are named, by their labels.
struct Labels<'a> {
    view: &'a View,
    /// By the leases, those that cannot be read among them.
    leased: BTreeSet<&'a str>,
    /// By the leases that are to be created.
    new: BTreeSet<&'a str>,
    /// By the listing.
    listed: BTreeSet<&'a str>,
    /// By any of these but the leases that are to be created, or by a row.
    known: BTreeSet<&'a str>,
}

impl<'a> Labels<'a> {
    fn of(view: &'a View, listed: &'a [ListedStream], new: &'a [LeaseRow]) -> Self {
        let unreadable = view.unreadable.iter();
        let unreadable = unreadable.filter_map(|row| row.row.strip_prefix("shard#"));
        let unreadable = unreadable.filter_map(|shard| Some(shard.split_once('#')?.0));
        let leased = view.leases.keys().filter_map(ShardId::label);
        let leased: BTreeSet<_> = leased.chain(unreadable).collect();
        let listed: BTreeSet<_> = listed.iter().map(|stream| &*stream.label).collect();
        let rows = view.streams.keys().map(|label| &**label);
        let mut known: BTreeSet<_> = listed.union(&leased).copied().chain(rows).collect();
        known.retain(|label| !label.is_empty());
        Self {
            view,
            leased,
            new: new.iter().filter_map(|row| row.shard.label()).collect(),
            listed,
            known,
        }
    }

    /// The stage of a stream before this listing.
    fn stage(&self, label: &str) -> Stage {
        let least = if self.leased.contains(label) {
            Stage::Begun
        } else {
            Stage::Seen
        };
        let row = self.view.streams.get(label);
        row.map_or(least, |row| row.stage.max(least))
    }

    /// The rows that are new, or say something else than before.
    fn news(&self, lost: &BTreeSet<&str>, at: &Moment) -> Vec<StreamRow> {
        let begun_to = self.leased.iter().chain(&self.new).max();
        let stage = |label: &str| {
            let is_finished = at.finished.as_deref() == Some(label) || lost.contains(label);
            match begun_to.map(|begun_to| label.cmp(begun_to)) {
                Some(Ordering::Less) => Stage::Finished,
                Some(Ordering::Equal) if is_finished => Stage::Finished,
                Some(Ordering::Equal) => Stage::Begun,
                Some(Ordering::Greater) | None => Stage::Seen,
            }
        };
        let newest = self.known.last();
        let is_old = |row: &StreamRow| {
            let age = at.listed_at.duration_since(row.newest_at);
            age.is_ok_and(|age| age >= at.retention / 24)
        };
        let news = self.known.iter().filter(|label| {
            let Some(row) = self.view.streams.get(**label) else {
                return true;
            };
            row.stage < stage(label) || newest == Some(*label) && is_old(row)
        });
        let rows = news.map(|label| StreamRow {
            label: (*label).into(),
            stage: stage(label),
            newest_at: at.listed_at,
        });
        rows.collect()
    }

    /// Whether a stream is later than all that have leases.
    fn is_new(&self, label: &str) -> bool {
        self.leased.last().is_none_or(|last| label > *last)
    }

    /// Before a stream that no row tells of, others may have come and gone, if nobody listed for so
    /// long. That is written down before the stream has a row: from then on its own row says when
    /// somebody listed.
    fn unseen(&self, at: &Moment) -> Option<GapRow> {
        let mut known = self.known.iter().copied();
        let unknown =
            known.find(|label| self.is_new(label) && !self.view.streams.contains_key(*label))?;
        let seen = seen_before(unknown, self.view, at);
        let long_ago = seen.is_none_or(|seen| {
            let age = at.now.duration_since(seen).unwrap_or_default();
            age >= at.retention.mul_f64(0.99)
        });
        let mut earlier = self.known.iter().rev();
        let before = earlier.find(|label| **label < unknown);
        let is_next = before.is_some_and(|before| self.listed.contains(before));
        let shard = ShardId::of_stream(unknown, BEFORE_STREAM);
        (long_ago && !is_next).then(|| GapRow::unread(shard, seen, at.now))
    }

    /// The streams of which something may be lost: those that were skipped, and those that were
    /// gone before a listing showed that all of them was read.
    fn lost(&self) -> BTreeSet<&'a str> {
        let mut new = self.new.iter().copied();
        let first = new.find(|label| !self.leased.contains(label));
        let mut leases = self.view.leases.values();
        let idle = self.view.unreadable.is_empty() && leases.all(LeaseRow::ended);
        let is_lost = |label: &&str| {
            let is_passed = first.is_some_and(|first| *label < first);
            match self.stage(label) {
                Stage::Seen => is_passed && self.is_new(label),
                Stage::Begun => !self.listed.contains(*label) && (is_passed || idle),
                Stage::Finished => false,
            }
        };
        self.known.iter().copied().filter(is_lost).collect()
    }
}

/// When somebody listed last, as far as the rows of earlier streams tell: what a later stream's own
/// row says was found out too late.
fn seen_before(label: &str, view: &View, at: &Moment) -> Option<SystemTime> {
    let before = view.streams.values().filter(|row| *row.label < *label);
    before.map(|row| row.newest_at).chain(at.bootstrapped).max()
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
        let is_next_found = self.listing.is_later_than(self.begun_stream().as_deref());
        let why_idle = if is_next_found {
            NEXT_FOUND
        } else {
            NONE_LATER
        };
        let trouble = trouble.or_else(|| idle.then(|| why_idle.to_owned()));
        let before = self.engine.progress.set_not_reading(trouble.clone());
        match trouble {
            Some(why) if why == NEXT_FOUND => {}
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
            finished: None,
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

    fn row(n: usize, stage: Stage, hours: u64) -> StreamRow {
        StreamRow {
            label: LABELS[n].into(),
            stage,
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
        let view = view(0, &[row(0, Stage::Begun, 0)]);
        let next = writing(&view, &listed(&[0, 1]), &[shard(1)], &moment(30));
        assert_eq!(gaps(&next), [""; 0]);
        assert_eq!(
            next.rows,
            [row(0, Stage::Finished, 30), row(1, Stage::Begun, 30)]
        );
    }

    #[test]
    fn a_stream_that_was_seen_and_never_begun_is_lost_as_a_whole() {
        let view = view(0, &[row(0, Stage::Finished, 0), row(1, Stage::Seen, 2)]);
        let next = writing(&view, &listed(&[2]), &[shard(2)], &moment(20));
        assert_eq!(gaps(&next), [format!("{}#{WHOLE_STREAM}", LABELS[1])]);
        assert_eq!(
            next.rows,
            [row(1, Stage::Finished, 20), row(2, Stage::Begun, 20)]
        );
    }

    #[test]
    fn a_stream_that_was_gone_before_it_was_known_to_be_read_to_its_end_may_have_lost_something() {
        let lost = [format!("{}#{WHOLE_STREAM}", LABELS[0])];
        let begun = view(0, &[row(0, Stage::Begun, 10)]);
        let next = writing(&begun, &listed(&[1]), &[shard(1)], &moment(20));
        assert_eq!(gaps(&next), lost);
        // Also while no later stream is there; and once.
        let alone = writing(&begun, &listed(&[]), &[], &moment(20));
        assert_eq!(gaps(&alone), lost);
        assert_eq!(alone.rows, [row(0, Stage::Finished, 20)]);
        let noted = view(0, &alone.rows);
        let again = writing(&noted, &listed(&[]), &[], &moment(20));
        assert_eq!(again, Writing::default());
        // An operator who deletes all of its leases does not hide it.
        let mut deleted = begun.clone();
        deleted.leases.clear();
        let next = writing(&deleted, &listed(&[1]), &[shard(1)], &moment(20));
        assert_eq!(gaps(&next), lost);
    }

    #[test]
    fn a_stream_that_was_read_to_its_end_after_it_was_switched_off_lost_nothing() {
        let begun = view(0, &[row(0, Stage::Begun, 0)]);
        let ended = Moment {
            finished: Some(LABELS[0].to_owned()),
            ..moment(0)
        };
        let still_listed = writing(&begun, &listed(&[0]), &[], &ended);
        assert_eq!(still_listed.rows, [row(0, Stage::Finished, 0)]);
        let finished = view(0, &[row(0, Stage::Finished, 40)]);
        let next = writing(&finished, &listed(&[1]), &[shard(1)], &moment(50));
        assert_eq!(gaps(&next), [""; 0]);
    }

    #[test]
    fn a_group_that_was_away_for_longer_than_a_stream_is_listed_may_have_missed_one() {
        let view = view(0, &[row(0, Stage::Finished, 0)]);
        let soon = writing(&view, &listed(&[2]), &[shard(2)], &moment(20));
        assert_eq!(gaps(&soon), [""; 0]);
        let late = writing(&view, &listed(&[2]), &[shard(2)], &moment(25));
        assert_eq!(gaps(&late), [format!("{}#{BEFORE_STREAM}", LABELS[2])]);
    }

    #[test]
    fn streams_that_came_and_went_unseen_are_lost_however_late_the_next_one_is_begun() {
        let away = view(0, &[row(0, Stage::Finished, 0)]);
        let found = writing(&away, &listed(&[2]), &[], &moment(25));
        assert_eq!(gaps(&found), [format!("{}#{BEFORE_STREAM}", LABELS[2])]);
        let noted = view(0, &[row(0, Stage::Finished, 0), row(2, Stage::Seen, 25)]);
        let begun = writing(&noted, &listed(&[2]), &[shard(2)], &moment(26));
        assert_eq!(gaps(&begun), [""; 0], "it is written down already");
    }

    #[test]
    fn a_group_that_begins_has_lost_nothing_and_what_is_older_is_not_its_own() {
        let fresh = Moment {
            fresh: true,
            ..moment(30)
        };
        let first = writing(&View::default(), &listed(&[0, 1]), &[shard(1)], &fresh);
        assert_eq!(gaps(&first), [""; 0]);
        let rows = [row(0, Stage::Finished, 30), row(1, Stage::Begun, 30)];
        assert_eq!(first.rows, rows);
    }

    #[test]
    fn that_no_stream_is_later_is_written_down_once_an_hour() {
        let view = view(0, &[row(0, Stage::Finished, 10)]);
        let soon = Moment {
            listed_at: at(10) + Duration::from_mins(59),
            ..moment(10)
        };
        assert_eq!(writing(&view, &listed(&[0]), &[], &soon).rows, []);
        let later = writing(&view, &listed(&[]), &[], &moment(11));
        assert_eq!(later.rows, [row(0, Stage::Begun, 11)]);
    }
}
