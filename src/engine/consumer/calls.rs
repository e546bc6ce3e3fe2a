//! The calls that a member's commands become, each with its answer as an event.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{info, warn};

use crate::core::effects::GroupEffects;
use crate::core::fleet::events::{Beat, Failed, FleetEvent, HandOver};
use crate::core::fleet::listed::{FoundStream, Listed};
use crate::core::fleet::repair::Repair;
use crate::core::fleet::rules::FleetRule;
use crate::engine::Engine;
use crate::engine::progress::Counters;
use crate::stores::leases::{Consistency, GroupRow, LeaseStore, Reach, Take, WorkerRow};
use crate::stores::source::{Description, StreamSource};

/// A listing that takes this many listing intervals is given up: the stream does not answer.
const LISTING_PATIENCE: u32 = 10;

/// How many rows are created within the timeout of one call.
const ROWS_AT_ONCE: usize = 100;

/// How often a hand-over with a lost answer is repeated before the next look has to show the result.
const HAND_OVER_TRIES: u32 = 5;

impl<S: StreamSource, L: LeaseStore> Engine<S, L> {
    fn limit(&self) -> Duration {
        self.settings.timing.call_timeout()
    }

    /// Writes the heartbeat; the first one of an incarnation registers it.
    pub(super) async fn beat(self: Arc<Self>, beat: Beat) -> FleetEvent {
        let row = WorkerRow {
            incarnation: beat.incarnation,
            beat: beat.beat,
            draining: beat.draining,
            unable_to_list: beat.unable_to_list,
            lease_duration: self.settings.timing.lease_duration,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reads: self.leases.reads(),
            zone: self.settings.place.zone.clone(),
            status_address: self.settings.place.status_address.clone(),
            trouble: self.progress.trouble(),
            stuck: self.progress.stuck_shard().map(|stuck| stuck.shard),
            effects: self.own.iter().map(|own| own.effect.name.clone()).collect(),
            at: Some(self.clock.now()),
        };
        let result = if beat.registered {
            within(self.limit(), self.leases.heartbeat(&row)).await
        } else {
            let registered = within(self.limit(), self.leases.register(&row)).await;
            registered.map(Some)
        };
        match &result {
            Ok(Some(())) => self.progress.beat(),
            Ok(None) => {}
            Err(error) => self.progress.heartbeat_failed(format!("{error:#}")),
        }
        FleetEvent::Heartbeat(answer("a heartbeat", result))
    }

    pub(super) async fn look(
        self: Arc<Self>,
        reach: Reach,
        consistency: Consistency,
    ) -> FleetEvent {
        let endless = self.simulated.leaves_out(FleetRule::FreshLook);
        let patience = if endless { 100 } else { 1 };
        let look = self.leases.look_at(reach, consistency);
        let result = within(self.limit() * patience, look).await.map(Arc::new);
        if let Ok(view) = &result {
            self.progress.saw(view, reach, self.clock.now());
        }
        FleetEvent::Snapshot(answer("a look at the lease table", result))
    }

    pub(super) async fn bootstrap(self: Arc<Self>, row: GroupRow) -> FleetEvent {
        let result = within(self.limit(), self.leases.bootstrap(row)).await;
        FleetEvent::Bootstrapped(answer("bootstrapping", result))
    }

    pub(super) async fn change_effects(
        self: Arc<Self>,
        seen: GroupEffects,
        new: GroupEffects,
    ) -> FleetEvent {
        let change = self.leases.change_effects(&seen, &new);
        let result = within(self.limit(), change).await;
        if let Ok(Some(())) = result {
            let joined = new.iter().filter(|(name, _)| seen.get(name).is_none());
            for (effect, joins) in joined {
                info!(group = %self.at.group(), %effect, since = ?joins.since,
                    "an effect joins the group: it begins with the changes committed from then on");
            }
            info!(group = %self.at.group(), "the group has this worker's effects now");
        }
        FleetEvent::EffectsChanged(answer("changing the group's effects", result))
    }

    pub(super) async fn take(self: Arc<Self>, take: Take) -> FleetEvent {
        let result = within(self.limit(), self.leases.take(&take)).await;
        let result = result.map(|row| row.map(Box::new));
        FleetEvent::Took(take.shard, answer("taking a lease", result))
    }

    pub(super) async fn hand_over(self: Arc<Self>, what: HandOver) -> FleetEvent {
        let HandOver {
            hold,
            to,
            position,
            report,
        } = what;
        let mut result = Ok(None);
        for _ in 0..HAND_OVER_TRIES {
            let call = self
                .leases
                .hand_over(&hold, to.as_ref(), &position, &report);
            result = within(self.limit(), call).await;
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(self.settings.timing.idle_min).await;
        }
        if let Ok(Some(())) = answer("handing a shard over", result) {
            info!(shard = %hold.shard, ?to, "handed over");
            Counters::add(&self.progress.counters.hand_overs);
        }
        FleetEvent::HandedOver(hold.shard)
    }

    /// Lists the streams and their shards, from this stream on.
    pub(super) async fn list(self: Arc<Self>, from: Option<String>) -> FleetEvent {
        let limit = self.settings.timing.listing_interval * LISTING_PATIENCE;
        let listing = tokio::time::timeout(limit, self.source.describe(from.as_deref()));
        let why = match listing.await {
            Ok(Ok(description)) => {
                self.progress.stream_answered();
                return FleetEvent::Listed(Ok(listed(description)));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no listing within {limit:?}"),
        };
        warn!(error = why, "listing the stream failed and is retried");
        self.progress.stream_failed(why);
        Counters::add(&self.progress.counters.reads_failed);
        FleetEvent::Listed(Err(Failed))
    }

    pub(super) async fn repair(self: Arc<Self>, repair: Repair) -> FleetEvent {
        let result = self.write(repair).await;
        if let Ok(gaps) = result {
            let counter = &self.progress.counters.gaps;
            counter.fetch_add(gaps, Ordering::Relaxed);
        }
        let result = answer("repairing the lease table", result);
        FleetEvent::Repaired(result.map(|_| ()))
    }

    /// Makes one call after another. The next listing finds whatever is left undone. Returns the number
    /// of gaps.
    async fn write(&self, repair: Repair) -> anyhow::Result<u64> {
        let (limit, leases) = (self.limit(), &self.leases);
        for gap in &repair.gaps {
            within(limit, leases.record_gap(gap, None)).await?;
        }
        for rows in repair.create.chunks(ROWS_AT_ONCE) {
            within(limit, leases.create(rows)).await?;
        }
        for row in &repair.heal {
            within(limit, leases.heal(row)).await?;
        }
        for shard in &repair.archived {
            within(limit, leases.archive(shard)).await?;
        }
        for shard in &repair.ended {
            within(limit, leases.remove_ended(shard)).await?;
        }
        for (name, beat) in &repair.dead {
            within(limit, leases.remove_worker(name, *beat)).await?;
        }
        for stream in &repair.streams {
            within(limit, leases.note_stream(stream)).await?;
        }
        Ok(repair.gaps.len() as u64)
    }
}

fn listed(description: Description) -> Listed {
    let streams = description.streams.into_iter();
    let streams = streams.map(|stream| FoundStream {
        label: stream.label,
        created: stream.created,
    });
    Listed {
        shards: description.shards,
        streams: streams.collect(),
        trouble: description.trouble,
    }
}

/// A call that is answered within `limit`, or fails.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {limit:?}")))
}

/// The answer. A failure is logged.
fn answer<T>(what: &str, result: anyhow::Result<T>) -> Result<T, Failed> {
    result.map_err(|error| {
        warn!(error = format!("{error:#}"), "{what} failed and is retried");
        Failed
    })
}
