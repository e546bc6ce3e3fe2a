//! How bad the weather of a seed is.

use super::effects;
use std::time::Duration;

/// The memory that one read reserves: whatever waits keeps others from being read.
const ONE_READ: usize = 5 << 19;

/// What kind of bad weather a seed has.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Climate {
    /// How many of a thousand calls take seconds.
    pub slow: u32,
    /// How many of a thousand calls are lost, one way or the other.
    pub lost: u32,
    /// Whether workers of two versions come and go.
    pub mixed: bool,
    /// How many of a thousand moments freeze a worker.
    pub frost: u32,
    /// How long the stream keeps a record.
    pub retention: Duration,
    /// In how many of a thousand moments the stream is switched off or replaced. In a fourth as many
    /// everybody leaves for a while, which may be longer than the stream keeps a record.
    pub replaced: u32,
    /// So many leases are few: of more, a worker reads the heartbeats alone most of the time.
    pub few_rows: usize,
    /// So many rows of the lease table are a page.
    pub page: usize,
    /// Whether there are dead letters.
    pub letters: bool,
    /// Whether the handler fails for long.
    pub failing: bool,
    /// So many parked keys are few.
    pub few_parked: usize,
    /// Whether some records are filtered out.
    pub filtered: bool,
    /// How much memory the records of a worker may take, where that is little.
    pub memory: Option<usize>,
    /// Whether workers halt at a gap while the weather is bad.
    pub halts: bool,
    /// How many effects the group has.
    pub effects: usize,
    /// From when on workers that start perform all of them, and not only the first.
    pub joins: Duration,
    /// How long an operator leaves the table alone, at the start and after every change behind the
    /// fleet's back.
    pub peace: Duration,
}

impl Climate {
    pub fn of(rng: &mut fastrand::Rng) -> Self {
        Self {
            slow: [5, 20, 100][rng.usize(..3)],
            lost: [5, 30, 100][rng.usize(..3)],
            mixed: rng.bool(),
            frost: [25, 100][rng.usize(..2)],
            retention: Duration::from_secs(rng.u64(12..40)),
            replaced: [0, 0, 4, 12][rng.usize(..4)],
            peace: Duration::from_secs([4, 15, 60][rng.usize(..3)]),
            few_rows: [0, 100][rng.usize(..2)],
            letters: rng.u32(..3) > 0,
            failing: rng.bool(),
            few_parked: [1, 250][rng.usize(..2)],
            filtered: rng.u32(..4) == 0,
            memory: (rng.u32(..4) == 0).then_some(ONE_READ),
            halts: rng.u32(..8) == 0,
            page: [1, 4, usize::MAX, usize::MAX, usize::MAX][rng.usize(..5)],
            effects: 1,
            joins: Duration::ZERO,
        }
    }

    /// Every other seed has several effects, some of which join later. They draw nothing, so that the
    /// other seeds stay what they were.
    #[must_use]
    pub fn with_effects_of(self, seed: u64) -> Self {
        let effects = [1, 2, 1, effects::MOST][(seed % 4) as usize];
        let joins = Duration::from_secs([0, 0, 20, 60][(seed / 4 % 4) as usize]);
        Self {
            effects,
            joins,
            ..self
        }
    }
}
