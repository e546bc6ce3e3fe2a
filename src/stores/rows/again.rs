//! Writes that meet others are made again.

use crate::stores::retry::CONFLICT;

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

/// Repeats a write that met another one at the same row.
pub(super) async fn repeated<T, F: Future<Output = anyhow::Result<T>>>(
    write: impl Fn() -> F,
) -> anyhow::Result<T> {
    let mut rng = fastrand::Rng::new();
    CONFLICT
        .call(&mut rng, anyhow::Error::is::<Passing>, write)
        .await
}
