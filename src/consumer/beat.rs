//! The heartbeat of a fleet member.

use tokio::time::Instant;
use tracing::warn;

use super::complain;
use super::fleet::Fleet;
use crate::gate::left_out;
use crate::handler::RecordHandler;
use crate::leases::{Incarnation, LeaseStore, WorkerRow};
use crate::source::StreamSource;

/// The heartbeat's own state.
pub(super) struct Beat {
    pub count: u64,
    pub registered: bool,
    pub in_flight: bool,
    pub due: Instant,
    /// How many in a row failed.
    failures: u32,
}

impl Beat {
    pub fn new(now: Instant) -> Self {
        Self {
            count: 0,
            registered: false,
            in_flight: false,
            due: now,
            failures: 0,
        }
    }
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Fleet<S, L, H> {
    pub(super) fn worker_row(&self) -> WorkerRow {
        let settings = &self.engine.settings;
        WorkerRow {
            incarnation: self.member().me().clone(),
            beat: self.beat.count,
            draining: self.leaving.is_some(),
            unable_to_list: self.listing.is_unable(),
            lease_duration: settings.timing.lease_duration,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reads: self.engine.leases.reads(),
            zone: settings.place.zone.clone(),
            status_address: settings.place.status_address.clone(),
            trouble: self.engine.progress.trouble(),
            stuck: self.engine.progress.stuck_shard().map(|stuck| stuck.shard),
            at: Some(self.engine.clock.now()),
        }
    }

    /// A worker that cannot see the lease table cannot read its shards, and says so by falling silent,
    /// so that others take them.
    pub(super) fn begin_beat(&mut self, now: Instant) {
        if self.beat_due().is_none_or(|due| due > now) {
            return;
        }
        self.beat.count += 1;
        self.beat.in_flight = true;
        self.beat.due = now + self.engine.settings.timing.heartbeat_interval;
        let row = self.worker_row();
        self.calls
            .push(self.engine.beat(row, !self.beat.registered));
    }

    /// When the next heartbeat begins; `None`: not before something else has happened.
    pub(super) fn beat_due(&self) -> Option<Instant> {
        let silent = self.beat.in_flight || self.beat.registered && self.is_blind();
        (!silent).then_some(self.beat.due)
    }

    pub(super) fn beaten(
        &mut self,
        began: Instant,
        incarnation: &Incarnation,
        result: anyhow::Result<Option<()>>,
    ) {
        self.beat.in_flight = false;
        if incarnation != self.member().me() {
            return;
        }
        match result {
            Ok(Some(())) => {
                self.beat.registered = true;
                self.beat.failures = 0;
                self.engine.progress.beat();
                self.trust.beat(began + self.engine.settings.timing.trust());
                if left_out!(TrustingStart) {
                    let until = began + self.engine.settings.timing.trust();
                    self.trust.seen(self.trust.generation(), until);
                }
                if self.trust.tenure().is_none() {
                    self.look_now();
                }
            }
            Ok(None) => self.be_reborn(),
            Err(error) => {
                complain("a heartbeat", &error);
                self.engine.progress.heartbeat_failed(format!("{error:#}"));
                self.beat.failures += 1;
                self.beat.due = self.again_after(self.beat.failures);
            }
        }
    }

    /// My worker row is gone: whatever stands in its name is nobody's now.
    fn be_reborn(&mut self) {
        let me = Incarnation::new(&self.engine.settings.worker_id, self.rng.u64(..));
        warn!(worker = %me, "the worker's row was removed; joining anew under another name");
        self.trust.revoke();
        self.note_lapse();
        self.member().reborn(me);
        self.beat = Beat::new(Instant::now());
    }
}
