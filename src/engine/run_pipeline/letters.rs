//! How a pipeline's dead letters are written, and parked keys asked about.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tracing::error;

use crate::core::Reason;
use crate::core::group::EffectTable;
use crate::core::record::ItemKey;
use crate::engine::progress::Counters;
use crate::stores::dead_letter::{Coming, DeadLetters, Fence, Letter, Written};
use crate::stores::retry::persist;

/// The result of writing a dead letter.
pub(crate) enum Buried {
    /// It is written, for this reason.
    As(Reason),
    /// It was to follow others of its key, but the key is not parked any more.
    KeyFree,
    /// Another worker holds the lease under which its record was read.
    LeaseLost,
}

/// Writes a dead letter, retrying until there is an answer.
pub(crate) type Bury<'a> =
    Arc<dyn Fn(Letter, fastrand::Rng) -> BoxFuture<'a, Buried> + Send + Sync + 'a>;

/// Asks whether a key is parked, retrying until there is an answer.
pub(crate) type AskParked<'a> =
    Arc<dyn Fn(ItemKey, fastrand::Rng) -> BoxFuture<'a, bool> + Send + Sync + 'a>;

/// Writes dead letters into this table, retrying until it answers, each call for at most `limit`. Then
/// sends the configured copies.
pub(crate) fn into_letters<'a>(
    letters: Arc<dyn DeadLetters>,
    fence: Option<Fence>,
    counters: Arc<Counters>,
    limit: Duration,
) -> Bury<'a> {
    Arc::new(move |letter, rng| {
        let (letters, counters, fence) = (letters.clone(), counters.clone(), fence.clone());
        Box::pin(async move {
            let reason = letter.envelope.reason;
            let coming = match reason {
                Reason::Followed => Coming::Behind,
                _ => Coming::First,
            };
            let write = || letters.write(&letter, coming, fence.as_ref());
            match persist(limit, rng, "writing a dead letter", write).await {
                Written::Done => {}
                Written::KeyFree => return Buried::KeyFree,
                Written::LeaseLost => return Buried::LeaseLost,
            }
            copy(&*letters, &letter, &counters).await;
            Buried::As(reason)
        })
    })
}

async fn copy(letters: &dyn DeadLetters, letter: &Letter, counters: &Counters) {
    if let Err(error) = letters.copy(letter).await {
        Counters::add(&counters.uncopied);
        let (shard, sequence) = (&letter.envelope.shard, &letter.envelope.id.sequence_number);
        error!(%shard, %sequence, error = format!("{error:#}"),
            "a dead letter is written, but no copy of it could be sent");
    }
}

/// Asks this table, retrying until it answers, each call for at most `limit`.
pub(crate) fn ask<'a>(
    letters: Arc<dyn DeadLetters>,
    at: EffectTable,
    limit: Duration,
) -> AskParked<'a> {
    Arc::new(move |key, rng| {
        let (letters, at) = (letters.clone(), at.clone());
        Box::pin(async move {
            let ask = || letters.is_parked(&at, &key);
            persist(limit, rng, "asking whether a key is parked", ask).await
        })
    })
}
