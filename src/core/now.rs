//! The time, as it is handed to the machines.

use std::time::{Duration, SystemTime};

/// The time, twice: for waiting, and as the world writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some start, on a clock that only moves forward.
    pub elapsed: Duration,
    /// The time of day.
    pub time: SystemTime,
}
