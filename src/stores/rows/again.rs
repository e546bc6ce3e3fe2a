//! Writes that collide with others are repeated.

use crate::stores::retry::CONFLICT;

/// Reasons for which a transaction is cancelled without effect and can be repeated at once: another
/// write of one of its rows was in progress, or the table is throttled.
///
/// Source: [cancellation reasons](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html#API_TransactWriteItems_Errors).
pub(super) const PASSING: [&str; 3] = [
    "TransactionConflict",
    "ProvisionedThroughputExceeded",
    "ThrottlingError",
];

/// Nothing was applied, for a temporary reason.
#[derive(Debug, thiserror::Error)]
#[error("another write was under way on the same row, or the table is throttled")]
pub(super) struct Passing;

/// Repeats a write that collided with another one at the same row.
pub(super) async fn repeated<T, F: Future<Output = anyhow::Result<T>>>(
    write: impl Fn() -> F,
) -> anyhow::Result<T> {
    let mut rng = fastrand::Rng::new();
    CONFLICT
        .call(&mut rng, anyhow::Error::is::<Passing>, write)
        .await
}
