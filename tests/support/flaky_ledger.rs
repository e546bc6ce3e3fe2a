//! A ledger whose answers get lost.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aftercommit::internal::claim::{Entry, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{EffectKey, EntryPage, Ledger, Swap};
use anyhow::bail;

/// What becomes of one swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Fine,
    /// It was written, the answer was lost.
    AnswerLost,
    /// It never arrived.
    RequestLost,
    /// It is delayed, and arrives when [`FlakyLedger::arrive`] says so.
    Delayed,
}

/// The arguments of a swap.
type Request = (EffectKey, Option<u64>, Entry);

#[derive(Clone, Default)]
pub struct FlakyLedger {
    pub inner: MemoryLedger,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    delayed: Arc<Mutex<Vec<Request>>>,
    frozen: Arc<AtomicBool>,
}

impl FlakyLedger {
    /// The fates of the next swaps; those after them are fine.
    pub fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        let fates = fates.into_iter().collect();
        Self {
            fates: Arc::new(Mutex::new(fates)),
            ..Self::default()
        }
    }

    /// All delayed writes arrive now, and time passes normally again.
    pub async fn arrive(&self) {
        if self.frozen.swap(false, Ordering::SeqCst) {
            tokio::time::resume();
        }
        let delayed = std::mem::take(&mut *self.delayed.lock().unwrap());
        for (key, expected, entry) in delayed {
            self.inner.swap(&key, expected, &entry).await.unwrap();
        }
    }
}

impl Ledger for FlakyLedger {
    async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        self.inner.read(key).await
    }

    async fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> anyhow::Result<Swap> {
        let fate = self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Fine);
        match fate {
            Fate::Fine => return self.inner.swap(key, expected, entry).await,
            Fate::AnswerLost => {
                self.inner.swap(key, expected, entry).await?;
            }
            Fate::RequestLost => {}
            Fate::Delayed => {
                let swap = (key.clone(), expected, entry.clone());
                self.delayed.lock().unwrap().push(swap);
            }
        }
        // From here on only pauses are waited for.
        if entry.state != State::Sending && !self.frozen.swap(true, Ordering::SeqCst) {
            tokio::time::pause();
        }
        bail!("no answer")
    }

    async fn list(&self, state: Option<State>, from: Option<&str>) -> anyhow::Result<EntryPage> {
        self.inner.list(state, from).await
    }
}
