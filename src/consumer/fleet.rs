//! The loop of a fleet member: what is due, and what was answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::beat::Beat;
use super::calls::{Answer, Call};
use super::identity::{Agreement, IdentityDiffers};
use super::listing::Listing;
use super::look::Look;
use super::tasks::Tasks;
use super::{complain, within};
use crate::decide::lease::{Member, Sight};
use crate::decide::retry::Backoff;
use crate::decide::shard::ShardId;
use crate::engine::Engine;
use crate::handler::RecordHandler;
use crate::leases::{GroupRow, LeaseRow, LeaseStore, Take};
use crate::progress::{Counters, Standing};
use crate::source::StreamSource;
use crate::trust::{Generation, Trust};

/// How many takes are in flight at once.
const TAKES: usize = 32;

pub(super) struct Fleet<S, L, H> {
    pub engine: Arc<Engine<S, L, H>>,
    pub calls: FuturesUnordered<Call>,
    pub listing: Listing,
    pub group_row: Option<GroupRow>,
    pub agreement: Agreement,
    /// Why this worker leaves, if nobody asked it to.
    pub refused: Option<IdentityDiffers>,
    pub rng: fastrand::Rng,
    member: Arc<Mutex<Member>>,
    pub origin: Instant,
    pub trust: Trust,
    pub generation: Generation,
    pub beat: Beat,
    pub look: Look,
    pub rows: BTreeMap<ShardId, LeaseRow>,
    pub sight: Sight,
    pub tasks: Tasks,
    pub wanted: VecDeque<Take>,
    pub taking: BTreeSet<ShardId>,
    /// Set once the worker is leaving: when it stops waiting.
    pub leaving: Option<Instant>,
    /// Since when the worker that is leaving holds nothing any more.
    pub empty_since: Option<Instant>,
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Fleet<S, L, H> {
    pub fn new(
        engine: Arc<Engine<S, L, H>>,
        member: Arc<Mutex<Member>>,
        origin: Instant,
        rng: fastrand::Rng,
        agreement: Agreement,
    ) -> Self {
        let now = Instant::now();
        let trust = Trust::new();
        Self {
            engine,
            calls: FuturesUnordered::new(),
            listing: Listing::new(now),
            group_row: None,
            agreement,
            refused: None,
            rng,
            member,
            origin,
            generation: trust.generation(),
            trust,
            beat: Beat::new(now),
            look: Look::new(now),
            rows: BTreeMap::new(),
            sight: Sight::default(),
            tasks: Tasks::default(),
            wanted: VecDeque::new(),
            taking: BTreeSet::new(),
            leaving: None,
            empty_since: None,
        }
    }

    /// Works until it has left.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), IdentityDiffers> {
        tokio::pin!(shutdown);
        loop {
            self.engine.progress.turn();
            self.note_lapse();
            if self.has_left() {
                break;
            }
            self.begin_calls();
            let due = self.next_due();
            tokio::select! {
                biased;
                () = &mut shutdown, if self.leaving.is_none() => self.leave(),
                Some(answer) = self.calls.next() => self.answered(answer),
                finished = self.tasks.next() => self.ended(finished),
                () = sleep_until(due) => {}
            }
        }
        let me = self.member().me().clone();
        let limit = self.engine.settings.timing.call_timeout();
        if let Err(error) = within(limit, self.engine.leases.remove_worker(&me, None)).await {
            warn!(
                error = format!("{error:#}"),
                "the worker's row stays until others remove it"
            );
        }
        self.engine.progress.stands(Standing::Left);
        info!(worker = %me, "left the fleet");
        self.refused.map_or(Ok(()), Err)
    }

    pub fn member(&self) -> MutexGuard<'_, Member> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time on this worker's own clock.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// A lapse of trust, however short, voids everything; nothing is done before it is noticed.
    pub fn note_lapse(&mut self) {
        let generation = self.trust.generation();
        if generation != self.generation {
            self.generation = generation;
            if self.member().owned().next().is_some() {
                warn!("trust lapsed: nothing is mine until the lease table says so");
                Counters::add(&self.engine.progress.counters.lapses);
            }
            self.member().lapse();
            self.wanted.clear();
            self.tasks.abandon_all();
        }
    }

    fn begin_calls(&mut self) {
        let now = Instant::now();
        self.begin_beat(now);
        if self.beat.registered {
            self.begin_look(now);
        }
        while self.taking.len() < TAKES {
            let Some(take) = self.wanted.pop_front() else {
                break;
            };
            if self.taking.insert(take.shard.clone()) {
                self.calls.push(self.engine.take(take, self.generation));
            }
        }
        self.begin_listing(now);
    }

    fn next_due(&self) -> Instant {
        let look = self.look.due().filter(|_| self.beat.registered);
        let dues = [self.beat_due(), look, self.leaving];
        dues.into_iter()
            .flatten()
            .fold(self.listing_due(), Instant::min)
    }

    /// When a call to the lease table is made again that failed so often in a row.
    pub(super) fn again_after(&mut self, failures: u32) -> Instant {
        let timing = &self.engine.settings.timing;
        let backoff = Backoff {
            base: timing.idle_min * 2,
            cap: timing.lease_duration / 10,
        };
        Instant::now() + backoff.wait(failures, &mut self.rng).max(timing.idle_min)
    }

    fn answered(&mut self, answer: Answer) {
        self.note_lapse();
        match answer {
            Answer::Beat {
                began,
                incarnation,
                result,
            } => self.beaten(began, &incarnation, result),
            Answer::Looked(looked) => self.looked(looked),
            Answer::Bootstrapped { asked, result } => self.bootstrapped(&asked, result),
            Answer::IdentityChanged(result) => self.identity_changed(result),
            Answer::Took {
                take,
                generation,
                result,
            } => self.took(&take, generation, result),
            Answer::HandedOver { shard, to, result } => {
                self.handed_over(&shard, to.as_ref(), result);
            }
            Answer::Listed { began, result } => self.listed(began, result),
            Answer::Tidied(result) => {
                self.listing.tidied();
                match result {
                    Ok(gaps) => {
                        let counter = &self.engine.progress.counters.gaps;
                        counter.fetch_add(gaps, Ordering::Relaxed);
                        self.look_now();
                    }
                    Err(error) => complain("tidying the lease table", &error),
                }
            }
        }
    }

    pub fn leave(&mut self) {
        let timing = &self.engine.settings.timing;
        let now = Instant::now();
        self.leaving = Some(now + timing.handover_timeout + timing.lease_duration);
        self.engine.progress.stands(Standing::Leaving);
        self.beat.due = now;
        self.look_now();
        info!("leaving: draining and handing over");
        self.act();
    }

    /// Whether everything is handed over, and a look that began after that has seen nothing in my
    /// name, such as a take whose answer was lost. A look that is not answered is not waited for, and
    /// in the end nothing is.
    fn has_left(&mut self) -> bool {
        let Some(limit) = self.leaving else {
            return false;
        };
        let now = Instant::now();
        if !self.holds_nothing() {
            self.empty_since = None;
            return now >= limit;
        }
        if !self.beat.registered {
            // Nothing can stand in a name that nobody knows.
            return true;
        }
        let Some(since) = self.empty_since else {
            self.empty_since = Some(now);
            self.leaving = Some(limit.min(now + self.engine.settings.timing.call_timeout()));
            self.look_now();
            return false;
        };
        let after = since.saturating_duration_since(self.origin);
        let seen = self.sight.consistent && self.sight.began >= after;
        let member = self.member();
        let mut owners = self.sight.leases.values().map(|row| row.owner.as_ref());
        seen && !owners.any(|owner| owner == Some(member.me())) || now >= limit
    }

    fn holds_nothing(&self) -> bool {
        let member = self.member();
        let owns_nothing = !member.is_giving() && member.owned().next().is_none();
        owns_nothing && self.tasks.is_empty() && self.taking.is_empty()
    }
}
