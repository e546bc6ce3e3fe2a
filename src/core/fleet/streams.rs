//! The streams of the table: which are new, what was lost between them, and why nothing is read.
//!
//! The service lists a stream for 24 hours after it was disabled. Then it is gone, and records in it
//! that were not read are lost. So each stream has a row that says how far it was read ([`StreamStage`]): it
//! is finished only when a listing after its end showed that nothing was left to read. A stream that is
//! gone before that is a gap. A stream that was never listed can only have existed if no listing was
//! made for that long, which is a gap as well.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::listed::FoundStream;
use super::rows::{BEFORE_STREAM, GapRow, LeaseRow, StreamRow, StreamStage, WHOLE_STREAM};
use super::snapshot::{Unreadable, View};
use crate::core::shard::ShardId;

#[cfg(test)]
mod tests;

/// When a listing was made, and which times are long ago.
pub(super) struct Moment {
    /// Now, by the service's clock.
    pub now: SystemTime,
    /// When the listing began.
    pub listed_at: SystemTime,
    /// How long a stream keeps a record, and is listed after its end.
    pub retention: Duration,
    /// When the group began; `None`: not known.
    pub bootstrapped: Option<SystemTime>,
    /// Whether the group begins with this listing: older records are not its own.
    pub fresh: bool,
    /// The newest stream that has leases, if it was disabled and everything that it lists was read.
    pub finished: Option<String>,
}

/// What to write about the streams.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Writing {
    /// Before the new leases.
    pub gaps: Vec<GapRow>,
    /// After them.
    pub rows: Vec<StreamRow>,
}

/// What a listing and the new leases say about the streams.
pub(super) fn writing(
    view: &View,
    listed: &[FoundStream],
    new: &[LeaseRow],
    at: &Moment,
) -> Writing {
    let labels = Labels::of(view, listed, new);
    // A group whose row and leases were deleted has read the streams that have rows.
    let is_new = at.fresh && view.streams.is_empty();
    let lost = if is_new {
        BTreeSet::new()
    } else {
        labels.lost()
    };
    let gap = |label: &&str| {
        let shard = ShardId::of_stream(label, WHOLE_STREAM);
        GapRow::unread(shard, seen_before(label, view, at), at.now)
    };
    let unseen = labels.unseen(at).filter(|_| !is_new);
    Writing {
        gaps: unseen.into_iter().chain(lost.iter().map(gap)).collect(),
        rows: labels.news(&lost, at),
    }
}

/// The labels of the named streams.
struct Labels<'a> {
    view: &'a View,
    /// By the leases, including those that cannot be read.
    leased: BTreeSet<&'a str>,
    /// By the leases that will be created.
    new: BTreeSet<&'a str>,
    /// By the listing.
    listed: BTreeSet<&'a str>,
    /// By any of these except the leases that will be created, or by a row.
    known: BTreeSet<&'a str>,
}

impl<'a> Labels<'a> {
    fn of(view: &'a View, listed: &'a [FoundStream], new: &'a [LeaseRow]) -> Self {
        let unreadable = view.unreadable.iter().filter_map(Unreadable::label);
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
    fn stage(&self, label: &str) -> StreamStage {
        let least = if self.leased.contains(label) {
            StreamStage::Begun
        } else {
            StreamStage::Seen
        };
        let row = self.view.streams.get(label);
        row.map_or(least, |row| row.stage.max(least))
    }

    /// The rows that are new or changed.
    fn news(&self, lost: &BTreeSet<&str>, at: &Moment) -> Vec<StreamRow> {
        let begun_to = self.leased.iter().chain(&self.new).max();
        let stage = |label: &str| {
            let is_finished = at.finished.as_deref() == Some(label) || lost.contains(label);
            match begun_to.map(|begun_to| label.cmp(begun_to)) {
                Some(Ordering::Less) => StreamStage::Finished,
                Some(Ordering::Equal) if is_finished => StreamStage::Finished,
                Some(Ordering::Equal) => StreamStage::Begun,
                Some(Ordering::Greater) | None => StreamStage::Seen,
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

    /// Before a stream without a row, others may have come and gone if nobody listed for that long.
    /// Such a gap is recorded before the stream gets its row: from then on its own row says when it was
    /// last listed.
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

    /// The streams that may have lost records: those that were skipped, and those that were gone before
    /// a listing showed that they were read to their end.
    fn lost(&self) -> BTreeSet<&'a str> {
        let mut new = self.new.iter().copied();
        let first = new.find(|label| !self.leased.contains(label));
        let mut leases = self.view.leases.values();
        let idle = self.view.unreadable.is_empty() && leases.all(LeaseRow::ended);
        let is_lost = |label: &&str| {
            let is_passed = first.is_some_and(|first| *label < first);
            match self.stage(label) {
                StreamStage::Seen => is_passed && self.is_new(label),
                StreamStage::Begun => !self.listed.contains(*label) && (is_passed || idle),
                StreamStage::Finished => false,
            }
        };
        self.known.iter().copied().filter(is_lost).collect()
    }
}

/// When the stream was last listed, according to the rows of earlier streams: the row of a later stream
/// was written too late to tell.
fn seen_before(label: &str, view: &View, at: &Moment) -> Option<SystemTime> {
    let before = view.streams.values().filter(|row| *row.label < *label);
    before.map(|row| row.newest_at).chain(at.bootstrapped).max()
}
