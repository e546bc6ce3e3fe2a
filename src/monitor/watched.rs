//! Watches one consumer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{join, join_all};

use super::asked::{OrdersInNeed, ParkedKeys};
use super::levels::Levels;
use super::metrics::{Facts, FleetNow, Mails, MetricLabels, Sample};
use super::stream::StreamStatus;
use crate::core::group::{EffectName, EffectTable};
use crate::engine::consumer::Consumer;
use crate::engine::progress::{EffectProgress, NotReady, Progress, SeenRows};
use crate::engine::settings::Timing;
use crate::stores::dead_letter::Reason;
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;

/// What is watched of one consumer.
#[derive(Clone)]
pub struct Watch {
    pub(super) progress: Arc<Progress>,
    effects: Vec<WatchedEffect>,
    lines_dropped: fn() -> u64,
}

/// What is watched of one effect.
#[derive(Clone)]
struct WatchedEffect {
    progress: Arc<EffectProgress>,
    labels: MetricLabels,
    mails: Option<Arc<dyn Fn() -> Mails + Send + Sync>>,
    parked: Option<Arc<ParkedKeys>>,
}

impl Watch {
    /// Watches a consumer; call it after all other settings are made. Its table is the one in its ARN.
    pub fn of<S: StreamSource, L: LeaseStore>(consumer: &Consumer<S, L>) -> Self {
        let progress = consumer.progress();
        let letters = consumer.letters();
        let at = progress.at();
        let effect = |effect: &Arc<EffectProgress>| WatchedEffect {
            labels: MetricLabels {
                group: at.group().clone(),
                effect: effect.name().clone(),
                table: at.table_name().to_owned(),
            },
            mails: None,
            parked: letters.clone().map(|letters| {
                let of = EffectTable::new(at.clone(), effect.name().clone());
                Arc::new(ParkedKeys::new(letters, of))
            }),
            progress: effect.clone(),
        };
        Self {
            effects: progress.effects().iter().map(effect).collect(),
            progress,
            lines_dropped: || 0,
        }
    }

    /// Adds the counts of the handler of this effect, which sends mails.
    #[must_use]
    pub fn mails(
        mut self,
        effect: &EffectName,
        counts: impl Fn() -> Mails + Send + Sync + 'static,
    ) -> Self {
        let mut effects = self.effects.iter_mut();
        if let Some(watched) = effects.find(|watched| watched.progress.name() == effect) {
            watched.mails = Some(Arc::new(counts));
        }
        self
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
        let effects = self.effects.iter();
        let mails = effects.filter_map(|effect| effect.mails.as_ref().map(|counts| counts()));
        mails.reduce(Mails::plus)
    }

    /// How many records are finished, in any way, over all effects.
    pub(super) fn finished(&self) -> u64 {
        let effects = self.effects.iter();
        effects
            .map(|effect| effect.progress.counters().finished())
            .sum()
    }

    /// The metrics of each effect.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let effects = self.effects.iter();
        effects.map(|effect| self.sample(effect, None)).collect()
    }

    /// The same, with what waits in the tables if this worker reports for its group.
    pub(super) async fn measure(&self, orders: Option<&OrdersInNeed>) -> Vec<Sample> {
        if !self.progress.is_lister() {
            return self.samples();
        }
        let orders = async { orders?.orders().await.ok() };
        let effects = self.effects.iter();
        let parked = join_all(effects.map(WatchedEffect::parked));
        let (parked, orders) = join(parked, orders).await;
        let gaps = |seen: SeenRows| {
            let open = seen.view.gaps.iter().filter(|gap| gap.resolved.is_none());
            open.count() as u64
        };
        // What is counted for the whole group belongs to its first effect.
        let mut of_group = Levels {
            parked: None,
            orders,
            open_gaps: self.progress.seen().map(gaps),
        };
        let mut sample = |(effect, parked): (&WatchedEffect, _)| {
            let levels = std::mem::take(&mut of_group);
            let levels = match parked {
                Some(Ok(reasons)) => levels.with_parked(reasons),
                _ => levels,
            };
            self.sample(effect, Some(&levels))
        };
        self.effects.iter().zip(parked).map(&mut sample).collect()
    }

    fn sample(&self, effect: &WatchedEffect, levels: Option<&Levels>) -> Sample {
        let progress = &effect.progress;
        Sample::of(&Facts {
            labels: &effect.labels,
            counters: progress.counters(),
            handling: &progress.handling,
            mails: effect.mails.as_ref().map(|counts| counts()),
            shards: &self.progress.shards_of(progress.name()),
            down_for: progress.down_for().unwrap_or_default(),
            levels,
            fleet: Some(FleetNow {
                finishing: &progress.finishing,
                budget: self.progress.budget(),
                lines_dropped: (self.lines_dropped)(),
            }),
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
        // Its own row shows this only from the next heartbeat.
        let me = self.progress.worker();
        let mut workers = status.workers.iter_mut();
        if let Some(me) = workers.find(|worker| Some(&*worker.worker) == me) {
            let of_process = || ready.as_ref().err().and_then(NotReady::trouble);
            me.trouble = self.progress.trouble().or_else(of_process);
        }
        Some((at, status))
    }

    /// Why each key is parked, over all effects, or why that is unknown.
    pub(super) async fn parked(&self) -> Option<Result<Vec<Option<Reason>>, String>> {
        let effects = self.effects.iter();
        let parked = join_all(effects.map(WatchedEffect::parked)).await;
        let parked: Option<Result<Vec<_>, _>> = parked.into_iter().collect();
        Some(parked?.map(|of_effects| of_effects.concat()))
    }

    pub(super) fn down_for(&self) -> Duration {
        let effects = self.effects.iter();
        let down = effects.filter_map(|effect| effect.progress.down_for());
        down.max().unwrap_or_default()
    }
}

impl WatchedEffect {
    /// Why each of its keys is parked, or why that is unknown.
    async fn parked(&self) -> Option<Result<Vec<Option<Reason>>, String>> {
        Some(self.parked.as_ref()?.reasons().await)
    }
}
