//! What this process remembers of its own attempts, so that it never has to doubt them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::handler::Failure;
use crate::stores::ledger::EffectKey;

/// How many effects are remembered. A forgotten claim has to wait for its deadline.
const MOST: usize = 10_000;

/// By effect, the nonces of claims that may be in the ledger and whose effect never begins.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<EffectKey, Vec<u64>>>);

impl Memory {
    /// The abandoned claims of an effect; `None`: no attempt at it is remembered.
    pub(super) fn of(&self, key: &EffectKey) -> Option<Vec<u64>> {
        self.map().get(key).cloned()
    }

    /// A claim with this nonce may be in the ledger, now or later.
    pub(super) fn abandoned(&self, key: &EffectKey, nonce: u64) {
        let mut map = self.map();
        if map.len() >= MOST && !map.contains_key(key) {
            map.pop_first();
        }
        map.entry(key.clone()).or_default().push(nonce);
    }

    /// Records how an attempt ended. While another worker performs the effect, the next attempt reads
    /// the ledger first.
    pub(super) fn ended(&self, key: &EffectKey, result: &Result<(), Failure>) {
        let mut map = self.map();
        match result {
            Ok(()) | Err(Failure::Reject(_)) => {
                map.remove(key);
            }
            Err(Failure::Busy(_)) if map.len() < MOST => {
                map.entry(key.clone()).or_default();
            }
            Err(_) => {}
        }
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<EffectKey, Vec<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
