//! Writing claims and outcomes into the ledger, however often it takes.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::time::{sleep, timeout};

use crate::Clock;
use crate::decide::claim::{Entry, Happened, transition};
use crate::ledger::{EffectKey, Ledger, Swap};

/// A call that takes longer than this is given up, and made again: it is idempotent.
const CALL: Duration = Duration::from_secs(10);
/// Tries of a call on the way in: the record comes again anyway.
const TRIES: u32 = 3;
/// Tries on the way out: an outcome that is not written becomes a doubt. With the pauses, a few
/// minutes.
const TRIES_TO_FINISH: u32 = 20;
/// Rounds of losing a race before giving up for now.
const ROUNDS: u32 = 16;

/// The ledger, with a second try.
pub(super) struct Book<L> {
    ledger: L,
    clock: Clock,
}

impl<L: Ledger> Book<L> {
    pub(super) fn new(ledger: L, clock: Clock) -> Self {
        Self { ledger, clock }
    }

    pub(super) fn ledger(&self) -> &L {
        &self.ledger
    }

    /// The row as it stands.
    pub(super) async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        persist(TRIES, || self.ledger.read(key)).await
    }

    /// Writes one row over another, or tells which one stands.
    pub(super) async fn swap(
        &self,
        key: &EffectKey,
        before: Option<&Entry>,
        next: &Entry,
    ) -> anyhow::Result<Swap> {
        let revision = before.map(|entry| entry.revision);
        persist(TRIES, || self.ledger.swap(key, revision, next)).await
    }

    /// Writes what happened, on top of whatever stands, and returns the row that stands then.
    ///
    /// `row` is the row as last seen. Something that cannot happen to the row is logged and left.
    pub(super) async fn record(
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
                    tracing::error!(effect = %key, %illegal, "the ledger does not take it");
                    return Ok(row);
                }
            };
            if row.as_ref() == Some(&next) {
                return Ok(row);
            }
            let revision = row.as_ref().map(|entry| entry.revision);
            let write = || self.ledger.swap(key, revision, &next);
            match persist(TRIES_TO_FINISH, write).await? {
                Swap::Written => return Ok(Some(next)),
                Swap::Lost(standing) => row = standing,
            }
        }
        Err(anyhow!("the ledger's row {key} keeps changing"))
    }
}

/// Makes an idempotent call until it is answered, with growing pauses.
async fn persist<T, F>(tries: u32, call: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let mut pause = Duration::from_millis(50);
    let mut last = anyhow!("no try");
    for round in 0..tries {
        if round > 0 {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
        last = match timeout(CALL, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("no answer within {CALL:?}"),
        };
    }
    Err(last).context("the ledger does not answer")
}
