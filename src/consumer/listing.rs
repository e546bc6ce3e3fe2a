//! The stream's listing against the lease table: bootstrap, repair and tidying up.
//!
//! One worker, which the hash names, lists the stream about once a minute. Everything that was
//! missed elsewhere (a child that became visible late, a row that an operator deleted) is found
//! here, so no single missed call can leave a shard unread.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{info, warn};

use super::calls::Tidying;
use super::complain;
use super::fleet::Fleet;
use super::streams::{self, Moment};
use super::view::{damaged_shards, damaged_workers, epoch_before, tree_of};
use crate::decide::assign::lister;
use crate::decide::lease::Sight;
use crate::decide::shard::{Shard, ShardId};
use crate::gate::left_out;
use crate::handler::RecordHandler;
use crate::leases::row::GROUP_ROW;
use crate::leases::{
    Checkpoint, GroupRow, Incarnation, InitialPosition, LeaseRow, LeaseStore, Unfit, Unreadable,
    View,
};
use crate::progress::Counters;
use crate::source::{Description, ListedStream, SourceError, StreamSource};

/// After so many failures in a row a worker says that it cannot list, so that another does. It goes
/// on trying once an interval, to know when it can again.
const FAILURES: u32 = 3;

/// When to list, and what the last listing said.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Listing {
    due: Instant,
    mine: bool,
    in_flight: bool,
    /// How many times in a row listing failed.
    failures: u32,
    tidying: bool,
    bootstrapping: bool,
    /// There is no fleet yet: what the stream lists now is what it starts from.
    first: bool,
    /// The fleet was bootstrapped by me: no shard ever had a row.
    fresh: bool,
    /// What the stream listed before that.
    before_bootstrap: Option<Vec<Shard>>,
    known: Option<Known>,
    /// Why nothing that is committed can be read, by the last listing.
    trouble: Option<String>,
    /// The newest stream of the last listing.
    newest: Option<String>,
    /// Nothing was left to read at the last look.
    idle: bool,
    /// The shards that were known to have ended when the listing in flight began.
    ended_before: BTreeSet<ShardId>,
}

/// What the stream listed.
struct Known {
    shards: Vec<Shard>,
    streams: Vec<ListedStream>,
    /// Whether nothing that is committed comes into any of them.
    off: bool,
    /// When it came, and how long it took: a large stream is listed page by page.
    came: Instant,
    took: Duration,
    /// The shards that were known to have ended before: if one is not listed, the stream has
    /// forgotten it. Of a shard that came later the listing proves nothing.
    ended_before: BTreeSet<ShardId>,
}

impl Listing {
    pub fn new(now: Instant) -> Self {
        Self {
            due: now,
            mine: false,
            in_flight: false,
            failures: 0,
            tidying: false,
            bootstrapping: false,
            first: false,
            fresh: false,
            before_bootstrap: None,
            known: None,
            trouble: None,
            newest: None,
            idle: false,
            ended_before: BTreeSet::new(),
        }
    }

    /// Whether listing falls to me.
    pub fn elect(&mut self, live: &BTreeSet<Incarnation>, sight: &Sight, me: &Incarnation) {
        // Who cannot read a row cannot tell what it leaves due.
        let unable = sight
            .workers
            .iter()
            .filter(|(_, peer)| peer.unable_to_list || peer.reads < sight.newest_format);
        let unable = unable.map(|(name, _)| name).collect();
        self.mine = lister(live, &unable) == Some(me);
    }

    /// Whether listing has failed for a while.
    pub fn is_unable(&self) -> bool {
        self.failures >= FAILURES
    }

    pub fn is_mine(&self) -> bool {
        self.mine
    }

    /// Nothing is left to read, or something is: the first is a reason to list at once.
    pub fn hurry_if(&mut self, idle: bool) {
        if idle && !std::mem::replace(&mut self.idle, idle) {
            self.due = Instant::now();
        }
        self.idle = idle;
    }

    /// Why nothing that is committed can be read, if this worker can tell.
    pub fn trouble(&self, idle: bool) -> Option<String> {
        self.trouble.clone().filter(|_| self.mine || idle)
    }

    /// Whether the last listing showed a later stream than this one.
    pub fn is_later_than(&self, stream: Option<&str>) -> bool {
        self.newest.as_deref() > stream
    }

    pub fn tidied(&mut self) {
        self.tidying = false;
    }

    fn wanted(&self) -> bool {
        (self.mine || self.first || self.is_unable()) && !self.in_flight
    }
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Fleet<S, L, H> {
    /// When to list next.
    pub(super) fn listing_due(&self) -> Instant {
        if self.listing_is_wanted() {
            self.listing.due
        } else {
            Instant::now() + Duration::from_hours(1)
        }
    }

    /// Every worker lists once, to know that it can reach the stream.
    fn listing_is_wanted(&self) -> bool {
        let first = !self.listing.in_flight && !self.engine.progress.has_reached_the_stream();
        first || self.listing.wanted()
    }

    pub(super) fn begin_listing(&mut self, now: Instant) {
        if self.listing_is_wanted() && self.listing.due <= now {
            self.listing.in_flight = true;
            let timing = &self.engine.settings.timing;
            // While nothing is left to read, a later stream is looked for more often.
            let interval = if self.listing.idle {
                timing.listing_interval.min(timing.lease_duration)
            } else {
                timing.listing_interval
            };
            self.listing.due = now + interval.mul_f64(0.9 + 0.2 * self.rng.f64());
            self.listing.ended_before = self.ended_shards();
            let from = self.begun_stream();
            self.calls.push(self.engine.list(from));
        }
    }

    pub(super) fn listed(&mut self, began: Instant, result: Result<Description, SourceError>) {
        self.listing.in_flight = false;
        let ended_before = std::mem::take(&mut self.listing.ended_before);
        match result {
            Ok(listing) => {
                self.listing.failures = 0;
                self.engine.progress.stream_answered();
                self.listing.trouble = listing.trouble;
                let labels = listing.streams.iter().map(|stream| &*stream.label);
                let newest = labels.filter(|label| !label.is_empty()).max();
                self.listing.newest = newest.map(str::to_owned);
                self.listing.known = Some(Known {
                    shards: listing.shards,
                    streams: listing.streams,
                    off: self.listing.trouble.is_some(),
                    came: Instant::now(),
                    took: began.elapsed(),
                    ended_before,
                });
                self.look_now();
            }
            Err(error) => {
                Counters::add(&self.engine.progress.counters.reads_failed);
                warn!(error = %error, "listing the stream failed; it is tried again");
                self.engine.progress.stream_failed(error.to_string());
                self.listing.failures = self.listing.failures.saturating_add(1);
                let interval = self.engine.settings.timing.listing_interval;
                let soon = 0.05 + 0.05 * self.rng.f64();
                if self.listing.mine || self.listing.first || !self.listing.is_unable() {
                    self.listing.due = Instant::now() + interval.mul_f64(soon);
                }
            }
        }
    }

    pub(super) fn bootstrapped(&mut self, asked: &GroupRow, result: anyhow::Result<GroupRow>) {
        self.listing.bootstrapping = false;
        self.listing.first = false;
        match result {
            Ok(row) => {
                let first = row == *asked && self.group_row.is_none();
                let initial = row.initial;
                self.compare(&row);
                self.group_row = Some(row);
                if first {
                    info!(?initial, "the group begins");
                    self.listing.fresh = true;
                    self.look_now();
                }
            }
            Err(error) => complain("bootstrapping", &error),
        }
    }

    /// What a consistent look asks for: a group row, leases that are missing or damaged, leases
    /// that nobody needs any more.
    pub(super) fn tidy(&mut self, view: &View) {
        // One that is malformed is written anew; one of a newer format is not ours.
        let newer =
            |row: &Unreadable| row.row == GROUP_ROW && matches!(row.why, Unfit::Newer { .. });
        let of_newer = view.unreadable.iter().any(newer);
        if view.group.is_none() && !of_newer && !self.listing.bootstrapping {
            self.begin_bootstrap(view);
            return;
        }
        if self.listing.tidying {
            return;
        }
        let Some(known) = self.listing.known.take() else {
            return;
        };
        let lease_duration = self.engine.settings.timing.lease_duration;
        if known.came.elapsed() > lease_duration.max(known.took) {
            // The stream may have forgotten meanwhile what this would bring back.
            self.listing.due = Instant::now();
            return;
        }
        let shards = known.shards;
        let tree = tree_of(shards.clone(), view);
        let fresh = std::mem::take(&mut self.listing.fresh);
        let at_start = fresh && view.has_no_leases();
        let latest = self
            .group_row
            .as_ref()
            .is_some_and(|row| row.initial == InitialPosition::Latest);
        let first = self
            .listing
            .before_bootstrap
            .take()
            .filter(|_| at_start && latest);
        let due = first.map_or_else(|| tree.due(), |first| tree_of(first, view).leaves());
        let damaged = damaged_shards(view, &shards);
        let is_damaged: BTreeSet<_> = damaged.iter().map(|shard| shard.id.clone()).collect();
        let wanting = due.len() + damaged.len();
        let now = self.now();
        let missing = self
            .member()
            .missing([due, damaged].concat(), now, at_start);
        if left_out!(ChildForgotten) && !at_start {
            return;
        }
        if missing.len() < wanting {
            // The rest has not been missing for long enough. An old listing must not bring back
            // what the stream has forgotten meanwhile, so that list is made anew.
            self.listing.due = Instant::now() + lease_duration / 4;
        }
        let mut removable = tree.removable();
        removable.retain(|shard| known.ended_before.contains(shard));
        let created = |shard: &ShardId| {
            let label = shard.label()?;
            let mut of_label = known
                .streams
                .iter()
                .filter(|stream| *stream.label == *label);
            of_label.next()?.created
        };
        let mut tidying = Tidying {
            ended: removable,
            dead: damaged_workers(view),
            ..Tidying::default()
        };
        for (shard, epoch) in missing {
            let parent = shard.parent.as_ref();
            let since = self.complete_until(view, parent, created(&shard.id));
            let epoch = epoch.max(epoch_before(view, &shard).map_or(0, |before| before + 1));
            let mut row = LeaseRow {
                starts_at: self.starts_at(),
                ..LeaseRow::new(shard.id, shard.parent, epoch).since(since)
            };
            if !is_damaged.contains(&row.shard) {
                tidying.create.push(row);
                continue;
            }
            if tree.is_passed(&row.shard) {
                let children = tree.children(&row.shard);
                row.checkpoint = Checkpoint::End { children };
            }
            tidying.heal.push(row);
        }
        if !at_start || self.starts_late() {
            tidying.gaps = self.never_leased(&tidying.create, &shards, view);
        }
        let mut moment = self.moment(known.came.elapsed() + known.took, at_start);
        moment.finished = self.begun_stream().filter(|begun| {
            let mut streams = known.streams.iter().map(|stream| &*stream.label);
            let is_off = known.off || streams.clone().any(|label| *label > **begun);
            is_off && streams.any(|label| label == begun) && tree.is_finished(begun)
        });
        let between = streams::writing(view, &known.streams, &tidying.create, &moment);
        tidying.gaps.extend(between.gaps);
        tidying.streams = between.rows;
        if !tidying.is_empty() {
            info!(
                created = tidying.create.len(),
                healed = tidying.heal.len(),
                removed = tidying.ended.len(),
                "tidying the lease table"
            );
            self.listing.tidying = true;
            self.calls.push(self.engine.tidy(tidying));
        }
    }

    /// A listing that began so long ago, for what it tells of the streams.
    fn moment(&self, ago: Duration, fresh: bool) -> Moment {
        let now = self.engine.clock.now();
        Moment {
            now,
            listed_at: to_the_millisecond(now.checked_sub(ago).unwrap_or(now)),
            retention: self.engine.settings.timing.retention,
            bootstrapped: self.group_row.as_ref().map(|row| row.bootstrapped),
            fresh,
            finished: None,
        }
    }

    pub(super) fn bury(&mut self, dead: Vec<(Incarnation, Option<u64>)>) {
        let tidying = Tidying {
            dead,
            ..Tidying::default()
        };
        self.calls.push(self.engine.tidy(tidying));
    }

    /// A fleet that starts with `latest` starts from what the stream lists: that listing comes
    /// first and the moment of the bootstrap after it, so that whatever a shard holds that had
    /// ended by then is older than the fleet.
    fn begin_bootstrap(&mut self, view: &View) {
        if view.has_no_leases() && self.group_row.is_none() && self.listing.known.is_none() {
            self.listing.first = true;
            return;
        }
        self.listing.bootstrapping = true;
        // Where a row is written anew, its moment lies before the listing.
        let known = self.listing.known.as_ref();
        let known = known.filter(|_| self.group_row.is_none());
        self.listing.before_bootstrap = known.map(|known| known.shards.clone());
        let row = self.group_row_for(view);
        self.calls.push(self.engine.bootstrap(row));
    }

    /// The group row to write where there is none. A fleet that has leases has lost its row: what
    /// it was told at first is not known any more, so nothing may be skipped, and it is as old as
    /// anything in the stream.
    fn group_row_for(&self, view: &View) -> GroupRow {
        let (now, settings) = (self.engine.clock.now(), &self.engine.settings);
        let (initial, began) = if view.has_no_leases() {
            (settings.start, now)
        } else {
            let oldest = now.checked_sub(settings.timing.retention);
            (InitialPosition::TrimHorizon, oldest.unwrap_or(now))
        };
        self.group_row.clone().unwrap_or_else(|| GroupRow {
            initial,
            bootstrapped: to_the_millisecond(began),
            identity: self.engine.identity.clone(),
        })
    }
}

/// Rows hold milliseconds.
fn to_the_millisecond(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(0))
}
