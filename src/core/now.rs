//! The time that the caller passes to the machines.

use std::time::{Duration, SystemTime};

/// The time, twice: for waiting, and as the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary start, on a monotonic clock.
    pub elapsed: Duration,
    /// The time of day.
    pub time: SystemTime,
}
