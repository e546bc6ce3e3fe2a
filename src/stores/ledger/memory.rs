//! The ledger in memory, for tests, the simulation and experiments.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{EffectKey, EntryPage, Ledger, Swap};
use crate::core::claim::{Entry, State};

/// How many entries a page holds.
const PAGE: usize = 100;

/// Rows in this process. All clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryLedger(Arc<Mutex<BTreeMap<EffectKey, Entry>>>);

impl MemoryLedger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<EffectKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for MemoryLedger {
    async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        Ok(self.rows().get(key).cloned())
    }

    async fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> anyhow::Result<Swap> {
        let mut rows = self.rows();
        let standing = rows.get(key);
        if standing == Some(entry) {
            return Ok(Swap::Written);
        }
        if standing.map(|row| row.revision) != expected {
            return Ok(Swap::Lost(standing.cloned()));
        }
        rows.insert(key.clone(), entry.clone());
        Ok(Swap::Written)
    }

    async fn list(&self, state: Option<State>, from: Option<&str>) -> anyhow::Result<EntryPage> {
        let start = from.map(EffectKey::from_row);
        let start = start.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows();
        let mut page = EntryPage::default();
        for (key, entry) in rows.range((start, Bound::Unbounded)) {
            if page.entries.len() == PAGE {
                page.next = page.entries.last().map(|(key, _)| key.to_string());
                break;
            }
            if state.is_none_or(|state| state == entry.state) {
                page.entries.push((key.clone(), entry.clone()));
            }
        }
        Ok(page)
    }
}
