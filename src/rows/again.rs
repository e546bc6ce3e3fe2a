//! Writes that meet others are made again.

use std::time::Duration;

use crate::decide::retry::Backoff;

/// Why a transaction is cancelled of which nothing was applied and which may be tried again at once:
/// another write was under way on one of its rows, or the table takes no more right now.
///
/// Source: [cancellation reasons](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html#API_TransactWriteItems_Errors).
pub(super) const PASSING: [&str; 3] = [
    "TransactionConflict",
    "ProvisionedThroughputExceeded",
    "ThrottlingError",
];

/// Nothing was applied, for a reason that passes.
#[derive(Debug, thiserror::Error)]
#[error("another write was under way on the same row, or the table is throttled")]
pub(super) struct Passing;

/// So often a write is tried that meets others.
const TRIES: u32 = 10;

/// The wait between, with full jitter: mostly some hundredths of a second.
const AGAIN: Backoff = Backoff {
    base: Duration::from_millis(20),
    cap: Duration::from_millis(200),
};

/// Repeats a write that met another one at the same row. Many takes ask for one dead worker's row,
/// and many letters for one lease: who meets another there goes a moment later.
pub(super) async fn repeated<T, F: Future<Output = anyhow::Result<T>>>(
    write: impl Fn() -> F,
) -> anyhow::Result<T> {
    for tries in 1..TRIES {
        match write().await {
            Err(error) if error.is::<Passing>() => {
                tokio::time::sleep(AGAIN.wait(tries, &mut fastrand::Rng::new())).await;
            }
            answer => return answer,
        }
    }
    write().await
}
