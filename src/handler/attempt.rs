//! One attempt at one record.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::FutureExt as _;

use tracing::Instrument as _;

use super::{Context, Failure, RecordHandler};
use crate::record::Record;

/// Runs the handler once, for at most `limit`. A panic and an overrun are failures to try again.
pub(crate) async fn attempt<H: RecordHandler>(
    handler: &H,
    record: &Record,
    context: &Context,
    limit: Duration,
) -> Result<(), Failure> {
    let handling = AssertUnwindSafe(handler.handle(record, context)).catch_unwind();
    let handling = handling.instrument(record.span());
    match tokio::time::timeout(limit, handling).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Failure::Retry(anyhow!(
            "the handler panicked: {}",
            words(&*panic)
        ))),
        Err(_) => Err(Failure::Retry(anyhow!(
            "the handler took longer than {limit:?}"
        ))),
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
