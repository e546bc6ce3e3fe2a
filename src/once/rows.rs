//! Rows of the ledger, with retries.

use anyhow::{Context as _, anyhow};

use crate::core::claim::{ClaimRule, Entry, Happened, transition};
use crate::core::hash::hash;
use crate::stores::clock::Clock;
use crate::stores::ledger::{EffectKey, Ledger, Swap};
use crate::stores::retry::{LEDGER, OUTCOME, Policy};

/// How often to retry after losing a race before giving up for now.
const ROUNDS: u32 = 16;

/// The ledger, with retries.
pub(super) struct LedgerRows<L> {
    pub(super) ledger: L,
    pub(super) clock: Clock,
    pub(super) left_out: Option<ClaimRule>,
}

impl<L: Ledger> LedgerRows<L> {
    /// The present row.
    pub(super) async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        repeated(LEDGER, key, || self.ledger.read(key)).await
    }

    /// Replaces a row, unless it has changed.
    pub(super) async fn swap(
        &self,
        key: &EffectKey,
        before: Option<&Entry>,
        next: &Entry,
    ) -> anyhow::Result<Swap> {
        let revision = before.map(|entry| entry.revision);
        repeated(LEDGER, key, || self.ledger.swap(key, revision, next)).await
    }

    /// Records an event over the present row, which was `row` when last seen. Returns the row that is
    /// there then. An event that cannot happen to the row is logged and ignored.
    pub(super) async fn record(
        &self,
        key: &EffectKey,
        mut row: Option<Entry>,
        happened: &Happened,
    ) -> anyhow::Result<Option<Entry>> {
        for _ in 0..ROUNDS {
            if let Some(row) = row
                .as_mut()
                .filter(|_| self.left_out == Some(ClaimRule::DoubtRemains))
            {
                row.doubtful.clear();
            }
            let next = match transition(row.as_ref(), happened, self.clock.now()) {
                Ok(next) => next,
                Err(illegal) => {
                    tracing::error!(effect = %key, %illegal, "the ledger refused the write");
                    return Ok(row);
                }
            };
            if row.as_ref() == Some(&next) {
                return Ok(row);
            }
            let revision = row.as_ref().map(|entry| entry.revision);
            let write = || self.ledger.swap(key, revision, &next);
            match repeated(OUTCOME, key, write).await? {
                Swap::Written => return Ok(Some(next)),
                Swap::Lost(standing) => row = standing,
            }
        }
        Err(anyhow!("the ledger's row {key} keeps changing"))
    }
}

/// Repeats an idempotent call. The pauses follow from the key, so that a simulation can be replayed.
async fn repeated<T, F>(policy: Policy, key: &EffectKey, call: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let mut rng = fastrand::Rng::with_seed(hash(&key.to_string()));
    let answer = policy.call(&mut rng, |_| true, call).await;
    answer.context("the ledger does not answer")
}
