//! A record in a pipeline.

use std::time::{Duration, SystemTime};

use super::watermark::Ticket;
use crate::core::Attempts;
use crate::core::breaker::blame::Blame;

/// A record that waits or is worked on.
#[derive(Debug)]
pub(super) struct Item<R> {
    pub(super) record: R,
    pub(super) created: SystemTime,
    pub(super) ticket: Ticket,
    pub(super) attempts: Attempts,
    pub(super) blame: Blame,
    /// Attempts that the handler did not end itself.
    pub(super) crashes: u32,
    /// On the clock of `Pipeline::up`.
    pub(super) failing_since: Option<Duration>,
    /// Since it was first found to be old enough to be rescued.
    pub(super) due_since: Option<Duration>,
}

/// The breaker lets nobody pass before then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) until: Duration,
    /// Because the dependency is down.
    pub(super) down: bool,
}

/// Where a record is in its source, and when it was committed, if that is known.
pub type Place<P> = (P, Option<SystemTime>);
