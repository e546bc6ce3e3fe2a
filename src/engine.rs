//! What runs handlers: the fleet's [`Consumer`](crate::Consumer), its settings in detail, redriving
//! dead letters, and AWS Lambda.

pub(crate) mod budget;
pub(crate) mod consumer;
pub(crate) mod dependency;
pub(crate) mod handler;
#[cfg(feature = "lambda")]
#[cfg_attr(docsrs, doc(cfg(feature = "lambda")))]
pub mod lambda;
pub(crate) mod progress;
pub mod redrive;
mod run_pipeline;
pub(crate) mod settings;
mod shard_task;
pub(crate) mod simulated;
pub(crate) mod trust;

pub use crate::core::backoff::{AttemptLimits, Backoff};
pub use crate::core::group::{Identity, InvalidName};
pub use budget::Budget;
pub use consumer::IdentityDiffers;
pub use dependency::Limits;
pub use settings::{InvalidSetting, OnGap, Place, Timing};

use std::sync::Arc;

use self::dependency::Dependency;
use self::handler::LivenessOf;
use self::progress::Progress;
use self::settings::Settings;
use crate::core::filter::{Filters, HomeRegion};
use crate::core::group::GroupTable;
use crate::core::record::Record;
use crate::stores::clock::Clock;
use crate::stores::dead_letter::DeadLetters;

/// From so many parked keys on, a reader asks for each key instead of knowing all of them.
pub(crate) const FEW_PARKED: usize = 250;

/// What all shard tasks of a consumer share.
pub(crate) struct Engine<S, L, H> {
    pub source: S,
    pub leases: L,
    pub handler: Arc<H>,
    /// Where records go that cannot be handled.
    pub letters: Option<Arc<dyn DeadLetters>>,
    /// Which records the handler gets.
    pub filters: Filters,
    pub home: Option<HomeRegion>,
    pub dependency: Dependency,
    pub at: GroupTable,
    pub settings: Settings,
    /// The service's, whatever the worker's own shows.
    pub clock: Clock,
    pub budget: Budget,
    pub progress: Arc<Progress>,
    pub liveness: LivenessOf,
    pub simulated: simulated::Simulated,
}

impl<S, L, H> Engine<S, L, H> {
    /// Whether the handler gets the record, which is from the stream with this ARN.
    pub fn wants(&self, record: &Record, stream: &str) -> bool {
        self.filters.want(record, stream, self.home.as_ref())
    }
}
