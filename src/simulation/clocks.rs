//! The clocks of a simulated worker: one runs slower or faster than those of the others, and one
//! that shows another time of day.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::world::World;
use crate::engine::settings::Timing;
use crate::stores::clock::Clock;

/// How long the fastest clock's second takes, and by how much longer that of the slowest: 20 %
/// apart.
const FASTEST: f64 = 0.913;
const APART: f64 = 0.182;

/// By so many seconds the time of day is wrong at most.
const WRONG: u64 = 12 * 60 * 60;

/// Within so many seconds of virtual time the time of day jumps, and for as long.
const JUMPS: u64 = 60;

/// How far the time of day is off.
#[derive(Debug, Clone, Copy)]
enum Off {
    Ahead(Duration),
    Behind(Duration),
}

impl Off {
    fn drawn(rng: &mut fastrand::Rng) -> Self {
        let by = Duration::from_secs(rng.u64(..WRONG));
        match rng.u8(..4) {
            0 => Self::Ahead(Duration::ZERO),
            1 => Self::Behind(by),
            _ => Self::Ahead(by),
        }
    }

    fn at(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Ahead(by) => now + by,
            Self::Behind(by) => now - by,
        }
    }
}

/// What one worker reads the time from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    /// How long a second of its monotonic clock takes.
    pub pace: f64,
    off: Off,
    /// From when to when its time of day is off by something else.
    jump: (Duration, Duration),
    jumped: Off,
}

impl Clocks {
    /// Clocks that may run up to 20 % apart, show times that are hours apart, and jump.
    pub fn drawn(rng: &mut fastrand::Rng) -> Self {
        let pace = FASTEST + APART * rng.f64();
        let (from, length) = (rng.u64(..JUMPS), rng.u64(..JUMPS));
        Self {
            pace,
            off: Off::drawn(rng),
            jump: (
                Duration::from_secs(from),
                Duration::from_secs(from + length),
            ),
            jumped: Off::drawn(rng),
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
        let (world, clocks) = (world.clone(), *self);
        Clock::new(move || {
            let (from, to) = clocks.jump;
            let off = if (from..to).contains(&world.age()) {
                clocks.jumped
            } else {
                clocks.off
            };
            off.at(world.now())
        })
    }
}
