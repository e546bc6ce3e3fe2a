//! When a worker lists the stream, and what the last listing said.
//!
//! One worker, selected by a hash, lists the stream about once a minute.

use std::collections::BTreeSet;
use std::time::Duration;

use super::assign::lister;
use super::listed::Listed;
use super::rules::FleetRules;
use super::snapshot::View;
use super::terms::Incarnation;
use crate::core::shard::ShardId;

/// After this many failures in a row a worker reports that it cannot list, so that another does. It
/// retries once an interval, to notice when it can again.
const FAILURES: u32 = 3;

/// While another worker lists, the next check whether to list comes with some other event.
const NOT_SOON: Duration = Duration::from_hours(1);

/// When to list, and the result of the last listing.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "the facts are independent")]
pub(super) struct Listing {
    due: Duration,
    /// Whether this worker has to list.
    mine: bool,
    in_flight: Option<Asked>,
    /// How many listings in a row failed.
    failures: u32,
    /// Whether some lease cannot be read, so that it is unknown which leases it leaves due. It may be
    /// archived, which only a worker that lists sees.
    pub unread: bool,
    /// Whether the stream ever answered this worker.
    reached: bool,
    /// There is no group yet: it starts from what the stream lists now.
    pub first: bool,
    /// A listing that was not compared with the lease table yet.
    pub known: Option<FinishedListing>,
    /// Why committed changes cannot be read, according to the last listing.
    trouble: Option<String>,
    /// The newest stream of the last listing.
    newest: Option<String>,
    /// The last look found nothing left to read.
    idle: bool,
}

/// A listing in progress.
#[derive(Debug, Clone)]
struct Asked {
    began: Duration,
    /// The shards that were known to have ended before.
    ended_before: BTreeSet<ShardId>,
}

/// A finished listing.
#[derive(Debug, Clone)]
pub(super) struct FinishedListing {
    pub listed: Listed,
    pub began: Duration,
    /// When it began. Listing a large stream page by page takes a while.
    came: Duration,
    /// The shards that were known to have ended before it began. If one of them is not listed, the
    /// stream has dropped it. About a shard that came later the listing proves nothing.
    pub ended_before: BTreeSet<ShardId>,
}

impl FinishedListing {
    /// Whether the stream may by now have dropped what this listing would bring back.
    pub fn is_old(&self, now: Duration, rules: &FleetRules) -> bool {
        let took = self.came.saturating_sub(self.began);
        now.saturating_sub(self.came) > rules.lease_duration.max(took)
    }
}

impl Listing {
    pub fn new(now: Duration) -> Self {
        Self {
            due: now,
            ..Self::default()
        }
    }

    /// Whether this worker has to list. A worker that cannot read a lease cannot tell what it leaves
    /// due.
    pub fn elect(&mut self, live: &BTreeSet<Incarnation>, view: &View, me: &Incarnation) {
        let newest = view.newest_format();
        let workers = view.workers.values();
        let unable = workers.filter(|row| row.unable_to_list || row.reads < newest);
        let unable = unable.map(|row| &row.incarnation).collect();
        self.mine = lister(live, &unable) == Some(me);
    }

    pub fn is_mine(&self) -> bool {
        self.mine
    }

    /// Whether listing has failed for a while, or is useless.
    pub fn is_unable(&self) -> bool {
        self.failures >= FAILURES || self.unread
    }

    /// The stream answered this worker, perhaps to a read of a shard.
    pub fn reached(&mut self) {
        self.reached = true;
    }

    /// Records whether nothing is left to read, which is a reason to list at once.
    pub fn mind_idle(&mut self, idle: bool, now: Duration) {
        if idle && !self.idle {
            self.due = now;
        }
        self.idle = idle;
    }

    /// Why committed changes cannot be read, if this worker knows.
    pub fn trouble(&self, idle: bool) -> Option<String> {
        self.trouble.clone().filter(|_| self.mine || idle)
    }

    /// Whether the last listing showed a later stream than this one.
    pub fn is_later_than(&self, stream: Option<&str>) -> bool {
        self.newest.as_deref() > stream
    }

    /// When to list next.
    pub fn due(&self, now: Duration) -> Duration {
        if self.is_wanted() {
            self.due
        } else {
            now + NOT_SOON
        }
    }

    /// Sets when the next one begins.
    pub fn again_at(&mut self, at: Duration) {
        self.due = at;
    }

    /// Every worker lists once, to learn whether it can reach the stream.
    fn is_wanted(&self) -> bool {
        let falls_to_me = self.mine || self.first || self.is_unable() || !self.reached;
        falls_to_me && self.in_flight.is_none()
    }

    /// Begins a listing. While nothing is left to read, it looks for a later stream more often.
    pub fn begin(
        &mut self,
        ended_before: BTreeSet<ShardId>,
        now: Duration,
        rules: &FleetRules,
        rng: &mut fastrand::Rng,
    ) {
        let interval = if self.idle {
            rules.listing_interval.min(rules.lease_duration)
        } else {
            rules.listing_interval
        };
        self.due = now + interval.mul_f64(0.9 + 0.2 * rng.f64());
        self.in_flight = Some(Asked {
            began: now,
            ended_before,
        });
    }

    pub fn succeeded(&mut self, listed: Listed, now: Duration) {
        let Some(asked) = self.in_flight.take() else {
            return;
        };
        self.failures = 0;
        self.reached = true;
        self.trouble.clone_from(&listed.trouble);
        let labels = listed.streams.iter().map(|stream| &*stream.label);
        let newest = labels.filter(|label| !label.is_empty()).max();
        self.newest = newest.map(str::to_owned);
        self.known = Some(FinishedListing {
            listed,
            began: asked.began,
            came: now,
            ended_before: asked.ended_before,
        });
    }

    pub fn failed(&mut self, now: Duration, rules: &FleetRules, rng: &mut fastrand::Rng) {
        self.in_flight = None;
        self.failures = self.failures.saturating_add(1);
        let soon = 0.05 + 0.05 * rng.f64();
        if self.mine || self.first || !self.is_unable() {
            self.due = now + rules.listing_interval.mul_f64(soon);
        }
    }
}
