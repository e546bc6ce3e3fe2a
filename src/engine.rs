//! Runs handlers: the fleet's [`Consumer`](crate::Consumer), its settings in detail, redriving dead
//! letters, and AWS Lambda.

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
pub(crate) mod shard_task;
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

/// From this many parked keys, a reader asks about each key instead of reading all of them.
pub(crate) const FEW_PARKED: usize = 250;

/// What all shard tasks of a consumer share.
pub(crate) struct Engine<S, L, H> {
    pub source: S,
    pub leases: L,
    pub handler: Arc<H>,
    /// The store of records that cannot be handled.
    pub letters: Option<Arc<dyn DeadLetters>>,
    /// The filters for the handler's records.
    pub filters: Filters,
    pub home: Option<HomeRegion>,
    pub dependency: Dependency,
    pub at: GroupTable,
    pub settings: Settings,
    /// The service's clock, whatever the worker's own clock shows.
    pub clock: Clock,
    pub budget: Budget,
    pub progress: Arc<Progress>,
    pub liveness: LivenessOf,
    pub simulated: simulated::Simulated,
}

impl<S, L, H> Engine<S, L, H> {
    /// Whether the handler gets the record, which comes from the stream with this ARN.
    pub fn wants(&self, record: &Record, stream: &str) -> bool {
        self.filters.want(record, stream, self.home.as_ref())
    }
}
