//! Writing claims and outcomes into the ledger, however often it takes.

use crate::Clock;
use crate::core::claim::{Entry, Happened, transition};
use crate::core::hash::hash;
use crate::stores::ledger::{EffectKey, Ledger, Swap};
use crate::stores::retry::{LEDGER, OUTCOME, Policy};
use anyhow::{Context as _, anyhow};

/// Rounds of losing a race before giving up for now.
const ROUNDS: u32 = 16;

/// The ledger, with a second try.
pub(crate) struct Book<L> {
    ledger: L,
    clock: Clock,
}

impl<L: Ledger> Book<L> {
    pub(crate) fn new(ledger: L, clock: Clock) -> Self {
        Self { ledger, clock }
    }

    pub(crate) fn ledger(&self) -> &L {
        &self.ledger
    }

    /// The row as it stands.
    pub(crate) async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        repeated(LEDGER, key, || self.ledger.read(key)).await
    }

    /// Writes one row over another, or tells which one stands.
    pub(crate) async fn swap(
        &self,
        key: &EffectKey,
        before: Option<&Entry>,
        next: &Entry,
    ) -> anyhow::Result<Swap> {
        let revision = before.map(|entry| entry.revision);
        repeated(LEDGER, key, || self.ledger.swap(key, revision, next)).await
    }

    /// Writes what happened, on top of whatever stands, and returns the row that stands then.
    ///
    /// `row` is the row as last seen. Something that cannot happen to the row is logged and left.
    pub(crate) async fn record(
        &self,
        key: &EffectKey,
        row: Option<Entry>,
        happened: &Happened,
    ) -> anyhow::Result<Option<Entry>> {
        let mut row = row;
        for _ in 0..ROUNDS {
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
