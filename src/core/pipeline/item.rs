//! A record in a pipeline.

use std::time::{Duration, SystemTime};

use super::watermark::RecordTicket;
use crate::core::Attempts;
use crate::core::breaker::blame::Blame;

/// A waiting or running record.
#[derive(Debug)]
pub(super) struct Item<R> {
    pub(super) record: R,
    pub(super) created: SystemTime,
    pub(super) ticket: RecordTicket,
    pub(super) attempts: Attempts,
    pub(super) blame: Blame,
    /// Attempts in which the handler panicked or timed out.
    pub(super) crashes: u32,
    /// On the clock of `Pipeline::up`.
    pub(super) failing_since: Option<Duration>,
    /// Since when it has been old enough to be rescued.
    pub(super) due_since: Option<Duration>,
}

/// The breaker lets no call through before then.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosedUntil {
    pub(super) until: Duration,
    /// It waits because the dependency is down.
    pub(super) down: bool,
}

/// A record's position in its source, and when it was committed, if known.
pub type RecordPlace<P> = (P, Option<SystemTime>);
