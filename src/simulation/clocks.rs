//! The clocks of a simulated worker: one that runs slower or faster than the others' do, and one
//! that shows another time of day.

use std::sync::Arc;
use std::time::Duration;

use super::world::World;
use crate::clock::Clock;
use crate::settings::Timing;

/// How long the fastest clock's second takes, and by how much longer that of the slowest: 20 %
/// apart.
const FASTEST: f64 = 0.913;
const APART: f64 = 0.182;

/// What one worker reads the time from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    /// How long a second of its monotonic clock takes.
    pub pace: f64,
    ahead: Duration,
    behind: Duration,
}

impl Clocks {
    /// Clocks that may run up to 20 % apart and show times up to `skew` apart.
    pub fn drawn(rng: &mut fastrand::Rng, skew: Duration) -> Self {
        Self {
            pace: FASTEST + APART * rng.f64(),
            ahead: skew.mul_f64(rng.f64()),
            behind: skew / 2,
        }
    }

    /// How long it takes until its monotonic clock has measured so much.
    pub fn measure(&self, length: Duration) -> Duration {
        length.mul_f64(self.pace)
    }

    /// Its settings: whatever it measures by its monotonic clock takes as long as that says.
    pub fn timing(&self) -> Timing {
        let nominal = Timing::default();
        Timing {
            lease_duration: self.measure(nominal.lease_duration),
            heartbeat_interval: self.measure(nominal.heartbeat_interval),
            look_interval: self.measure(nominal.look_interval),
            ..nominal
        }
    }

    /// Its time of day.
    pub fn wall(&self, world: &Arc<World>) -> Clock {
        let (world, ahead, behind) = (world.clone(), self.ahead, self.behind);
        Clock::new(move || world.now() + ahead - behind)
    }
}
