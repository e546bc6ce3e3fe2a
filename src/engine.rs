//! Runs handlers: the fleet's [`Consumer`](crate::Consumer), its settings in detail, redriving dead
//! letters, and AWS Lambda.

pub(crate) mod batch;
pub(crate) mod budget;
pub(crate) mod consumer;
pub(crate) mod dependency;
pub(crate) mod effect;
pub(crate) mod handler;
#[cfg(feature = "lambda")]
#[cfg_attr(docsrs, doc(cfg(feature = "lambda")))]
pub mod lambda;
pub(crate) mod progress;
pub mod redrive;
mod run_pipeline;
pub(crate) mod settings;
pub(crate) mod shard_task;
pub(crate) mod simulated;
pub(crate) mod trust;

pub use crate::core::backoff::{AttemptLimits, Backoff};
pub use crate::core::group::{Identity, InvalidName};
pub use batch::{BatchHandler, BatchLimits, BatchRecord, Batched};
pub use budget::Budget;
pub use consumer::IdentityDiffers;
pub use dependency::Limits;
pub use settings::{InvalidSetting, OnGap, Place, Timing};

use std::sync::Arc;

use tokio::sync::watch;

use self::effect::{ActiveEffect, JoinedEffect};
use self::handler::LivenessOf;
use self::progress::Progress;
use self::settings::Settings;
use crate::core::filter::HomeRegion;
use crate::core::group::{EffectName, EffectTable, GroupTable};
use crate::stores::clock::Clock;
use crate::stores::dead_letter::DeadLetters;

/// From this many parked keys, a reader asks about each key instead of reading all of them.
pub(crate) const FEW_PARKED: usize = 250;

/// What all shard tasks of a consumer share.
pub(crate) struct Engine<S, L> {
    pub source: S,
    pub leases: L,
    /// The effects that this worker performs.
    pub own: Vec<Arc<ActiveEffect>>,
    /// All effects of the group, as far as is known.
    pub effects: watch::Sender<Arc<[JoinedEffect]>>,
    /// The store of records that cannot be handled.
    pub letters: Option<Arc<dyn DeadLetters>>,
    pub home: Option<HomeRegion>,
    pub at: GroupTable,
    pub settings: Settings,
    /// The service's clock, whatever the worker's own clock shows.
    pub clock: Clock,
    pub budget: Budget,
    pub progress: Arc<Progress>,
    pub liveness: LivenessOf,
    pub simulated: simulated::Simulated,
}

impl<S, L> Engine<S, L> {
    /// The place of an effect's dead letters.
    pub fn letters_of(&self, effect: &EffectName) -> EffectTable {
        EffectTable::new(self.at.clone(), effect.clone())
    }
}
