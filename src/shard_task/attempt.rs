//! One attempt at one record.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyhow::anyhow;
use futures_util::FutureExt;

use crate::engine::Engine;
use crate::handler::{Context, Failure, RecordHandler};
use crate::record::{ItemKey, Record};

/// How an attempt ended.
pub(super) struct Attempted {
    pub key: ItemKey,
    pub result: Result<(), Failure>,
}

/// Runs the handler once. A panic and an overrun are failures to try again.
pub(super) async fn attempt<S, L, H: RecordHandler>(
    engine: Arc<Engine<S, L, H>>,
    record: Arc<Record>,
    context: Context,
    key: ItemKey,
) -> Attempted {
    let limit = engine.settings.timing.handler_timeout;
    let handling = AssertUnwindSafe(engine.handler.handle(&record, &context)).catch_unwind();
    let result = match tokio::time::timeout(limit, handling).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Failure::Retry(anyhow!(
            "the handler panicked: {}",
            words(&*panic)
        ))),
        Err(_) => Err(Failure::Retry(anyhow!(
            "the handler took longer than {limit:?}"
        ))),
    };
    Attempted { key, result }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
