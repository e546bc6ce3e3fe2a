//! What stands still: workers that show the same, look after look.

use std::time::Duration;

use super::Sighting;

/// Since when a worker has shown the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Still {
    pub sighting: Sighting,
    pub since: Duration,
    pub seen: Duration,
    pub patience: Duration,
}

impl Still {
    /// Whether a sighting is the same as before. A beat never comes again, but a row that is
    /// missing may have been there while nobody looked.
    pub fn continues(&self, sighting: Sighting, now: Duration) -> bool {
        let lately = now.saturating_sub(self.seen) <= self.patience / 2;
        self.sighting == sighting && (lately || sighting != Sighting::Missing)
    }
}
