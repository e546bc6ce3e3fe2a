//! What a seed has in store for handlers and workers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{KEYS, MINUTE};

/// What is wrong with a key's records until somebody mends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    Rejects,
    Fails,
    Panics,
    Hangs,
}

/// What a seed has in store.
#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    pub poison: BTreeMap<usize, Poison>,
    pub outage: std::ops::Range<Duration>,
    pub crashes: Vec<Duration>,
    pub ends: Vec<(Duration, bool)>,
    pub commits: Vec<(Duration, usize)>,
    pub workers: u64,
    pub shards: u64,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let poisons = [
            Poison::Rejects,
            Poison::Fails,
            Poison::Panics,
            Poison::Hangs,
        ];
        let poison = (0..rng.usize(0..=2)).map(|key| (key, poisons[rng.usize(..4)]));
        let poison = poison.collect();
        let lasts = [0, 0, 10, 300, 1800, 2880][rng.usize(..6)];
        let begins = MINUTE * rng.u32(1..30);
        let outage = begins..begins + MINUTE * lasts;
        let span = u64::from(60 + lasts) * 60;
        let mut at = |rng: &mut fastrand::Rng| Duration::from_secs(rng.u64(..span));
        let times = |rng: &mut fastrand::Rng,
                     at: &mut dyn FnMut(&mut fastrand::Rng) -> Duration| {
            let mut times: Vec<_> = (0..rng.usize(0..=3)).map(|_| at(rng)).collect();
            times.sort_unstable();
            times
        };
        let crashes = times(&mut rng, &mut at);
        let ends = times(&mut rng, &mut at);
        let ends = ends.into_iter().map(|at| (at, rng.bool())).collect();
        let mut commits: Vec<_> = (0..120)
            .map(|_| (at(&mut rng), rng.usize(..KEYS)))
            .collect();
        commits.sort_unstable();
        Self {
            seed,
            poison,
            outage,
            crashes,
            ends,
            commits,
            workers: rng.u64(1..=2),
            shards: rng.u64(1..=3),
        }
    }

    /// Nothing but a bad record or two.
    pub fn is_calm(&self) -> bool {
        self.outage.is_empty() && self.crashes.is_empty()
    }
}
