//! What all shard tasks of a consumer share.

use std::sync::Arc;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::dead_letter::DeadLetters;
use crate::dependency::Dependency;
use crate::filter::{Filters, HomeRegion};
use crate::group::GroupTable;
use crate::handler::LivenessOf;
use crate::progress::Progress;
use crate::record::Record;
use crate::settings::Settings;

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
}

impl<S, L, H> Engine<S, L, H> {
    /// Whether the handler gets the record, which is from the stream with this ARN.
    pub fn wants(&self, record: &Record, stream: &str) -> bool {
        self.filters.want(record, stream, self.home.as_ref())
    }
}
