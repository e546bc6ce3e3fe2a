//! Watches one consumer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join;

use super::asked::{OrdersInNeed, ParkedKeys};
use super::levels::Levels;
use super::metrics::{Facts, FleetNow, Mails, MetricLabels, Sample};
use super::stream::StreamStatus;
use crate::core::group::EffectName;
use crate::engine::consumer::Consumer;
use crate::engine::handler::RecordHandler;
use crate::engine::progress::{NotReady, Progress, SeenRows};
use crate::engine::settings::Timing;
use crate::stores::dead_letter::Reason;
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;

/// What is watched of one consumer.
#[derive(Clone)]
pub struct Watch {
    pub(super) progress: Arc<Progress>,
    labels: MetricLabels,
    mails: Option<Arc<dyn Fn() -> Mails + Send + Sync>>,
    parked: Option<Arc<ParkedKeys>>,
    lines_dropped: fn() -> u64,
}

impl Watch {
    /// Watches a consumer; call it after all other settings are made. Its table is the one in its ARN.
    pub fn of<S: StreamSource, L: LeaseStore, H: RecordHandler>(
        consumer: &Consumer<S, L, H>,
    ) -> Self {
        let progress = consumer.progress();
        let table = progress.at().table_name();
        Self {
            labels: MetricLabels {
                group: progress.at().group().clone(),
                effect: EffectName::default(),
                table: table.to_owned(),
            },
            progress,
            mails: None,
            parked: consumer
                .letters()
                .map(|letters| Arc::new(ParkedKeys::of(letters))),
            lines_dropped: || 0,
        }
    }

    /// Sets the effect of its handler; `confirmation` by default.
    #[must_use]
    pub fn effect(mut self, effect: EffectName) -> Self {
        self.labels.effect = effect;
        self
    }

    /// Adds the counts of a handler that sends mails.
    #[must_use]
    pub fn mails(self, counts: impl Fn() -> Mails + Send + Sync + 'static) -> Self {
        let mails: Arc<dyn Fn() -> Mails + Send + Sync> = Arc::new(counts);
        Self {
            mails: Some(mails),
            ..self
        }
    }

    /// Adds how many log lines the process dropped because their reader stalled.
    #[must_use]
    pub fn lines_dropped(self, count: fn() -> u64) -> Self {
        Self {
            lines_dropped: count,
            ..self
        }
    }

    pub(super) fn mails_now(&self) -> Option<Mails> {
        self.mails.as_ref().map(|counts| counts())
    }

    /// The metrics, with what waits in the tables if this worker reports for its group.
    pub(super) fn sample(&self, levels: Option<&Levels>) -> Sample {
        Sample::of(&Facts {
            labels: &self.labels,
            counters: self.progress.counters(),
            handling: &self.progress.handling,
            mails: self.mails_now(),
            shards: &self.progress.shards(),
            down_for: self.down_for(),
            levels,
            fleet: Some(FleetNow {
                settling: &self.progress.settling,
                budget: self.progress.budget(),
                lines_dropped: (self.lines_dropped)(),
            }),
        })
    }

    /// What waits in the tables, if this worker reports for its group. Answers that do not come in time
    /// are left out.
    pub(super) async fn levels(&self, orders: Option<&OrdersInNeed>) -> Option<Levels> {
        if !self.progress.is_lister() {
            return None;
        }
        let orders = async { orders?.orders().await.ok() };
        let (parked, orders) = join(self.parked(), orders).await;
        let gaps = |seen: SeenRows| {
            let open = seen.view.gaps.iter().filter(|gap| gap.resolved.is_none());
            open.count() as u64
        };
        let levels = Levels {
            parked: None,
            orders,
            open_gaps: self.progress.seen().map(gaps),
        };
        Some(match parked {
            Some(Ok(reasons)) => levels.with_parked(reasons),
            _ => levels,
        })
    }

    /// The stream as of the worker's last look. `ready`: whether this process can do its work.
    pub(super) fn stream(
        &self,
        now: SystemTime,
        ready: &Result<(), NotReady>,
    ) -> Option<(SystemTime, StreamStatus)> {
        let SeenRows { view, at } = self.progress.seen()?;
        let retention = self.progress.timing().map(|timing| timing.retention);
        let retention = retention.unwrap_or(Timing::default().retention);
        let of = self.progress.at();
        let beats = self.progress.beats();
        let mut status = StreamStatus::new(of, &view, &beats, now, retention);
        let effect = || self.labels.effect.to_string();
        status.effect.get_or_insert_with(effect);
        // Its own row shows this only from the next heartbeat.
        let me = self.progress.worker();
        let mut workers = status.workers.iter_mut();
        if let Some(me) = workers.find(|worker| Some(&*worker.worker) == me) {
            let of_process = || ready.as_ref().err().and_then(NotReady::trouble);
            me.trouble = self.progress.trouble().or_else(of_process);
        }
        Some((at, status))
    }

    /// Why each key is parked, or why that is unknown.
    pub(super) async fn parked(&self) -> Option<Result<Vec<Option<Reason>>, String>> {
        let parked = self.parked.as_ref()?;
        Some(parked.reasons(self.progress.at()).await)
    }

    pub(super) fn down_for(&self) -> Duration {
        let dependency = self.progress.dependency();
        let down_for = dependency.and_then(crate::engine::dependency::Dependency::down_for);
        down_for.unwrap_or_default()
    }
}
