//! What this process remembers of its own attempts, so that it never has to doubt them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::claim::Happened;
use crate::engine::handler::Failure;
use crate::stores::ledger::EffectKey;

/// More than this many effects are not remembered; a forgotten one waits for its deadline.
const MOST: usize = 10_000;

/// What earlier attempts at one effect left behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// Nonces of claims that the ledger may or may not have, and whose effect never begins.
    pub(super) abandoned: Vec<u64>,
    /// Outcomes that the ledger does not have yet.
    pub(super) unwritten: Vec<Happened>,
}

/// The effects of which something is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<EffectKey, Past>>);

impl Memory {
    /// What is remembered of an effect.
    pub(super) fn of(&self, key: &EffectKey) -> Option<Past> {
        self.map().get(key).cloned()
    }

    /// The ledger may have a claim with this nonce, now or later.
    pub(super) fn abandoned(&self, key: &EffectKey, nonce: u64) {
        self.remember(key, |past| past.abandoned.push(nonce));
    }

    /// The ledger does not have this outcome.
    pub(super) fn unwritten(&self, key: &EffectKey, happened: Happened) {
        self.remember(key, |past| past.unwritten.push(happened));
    }

    /// The ledger has this outcome now.
    pub(super) fn written(&self, key: &EffectKey, happened: &Happened) {
        if let Some(past) = self.map().get_mut(key) {
            past.unwritten.retain(|other| other != happened);
        }
    }

    /// An attempt ended in this way. While another worker is at it, the next attempt reads the ledger
    /// first. A finished effect is forgotten, except for an outcome that is not written yet: its record
    /// may have come twice.
    pub(super) fn ended(&self, key: &EffectKey, result: &Result<(), Failure>) {
        let mut map = self.map();
        match result {
            Ok(()) | Err(Failure::Reject(_)) => {
                if map.get(key).is_some_and(|past| past.unwritten.is_empty()) {
                    map.remove(key);
                }
            }
            Err(Failure::Busy(_)) if map.len() < MOST => {
                map.entry(key.clone()).or_default();
            }
            Err(_) => {}
        }
    }

    fn remember(&self, key: &EffectKey, what: impl FnOnce(&mut Past)) {
        let mut map = self.map();
        if map.len() >= MOST && !map.contains_key(key) {
            map.pop_first();
        }
        what(map.entry(key.clone()).or_default());
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<EffectKey, Past>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
