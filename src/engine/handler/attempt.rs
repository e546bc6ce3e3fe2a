//! One attempt at one record.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span, info_span};

use super::{Context, Failure, RecordHandler};
use crate::core::record::Record;

/// Why an attempt ended if the handler itself did not end it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Crash {
    #[error("the handler panicked: {0}")]
    Panic(String),
    #[error("the handler took longer than {0:?}")]
    Overrun(Duration),
    #[cfg(feature = "http")]
    #[error("the handler's process ended during the call: {0}")]
    Died(String),
}

/// Log lines inside this span carry the id of the record's trace.
pub(crate) fn span_of(record: &Record) -> Span {
    match record.trace_id() {
        Some(id) => info_span!("record", trace_id = id),
        None => Span::none(),
    }
}

/// Runs the handler once, for at most `limit`. A panic or a timeout is a failure to retry.
pub(crate) async fn attempt<H: RecordHandler>(
    handler: &H,
    record: &Record,
    context: &Context,
    limit: Duration,
) -> Result<(), Failure> {
    // The call is inside, too: a handler can panic before it returns its future.
    let handling = async { handler.handle(record, context).await };
    let handling = handling.instrument(span_of(record));
    let ended = contained(handling, limit).await;
    ended.unwrap_or_else(|crash| Err(Failure::Retry(crash.into())))
}

/// Awaits this for at most `limit`. A panic ends it as a timeout does.
pub(crate) async fn contained<T>(
    handling: impl Future<Output = T>,
    limit: Duration,
) -> Result<T, Crash> {
    let handling = AssertUnwindSafe(handling).catch_unwind();
    match tokio::time::timeout(limit, handling).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(panic)) => Err(Crash::Panic(words(&*panic).to_owned())),
        Err(_) => Err(Crash::Overrun(limit)),
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::HashMap;
    use std::future::Future;
    use std::time::SystemTime;

    use super::*;
    use crate::core::record::{Event, SequenceNumber, StreamView};

    /// Panics before it returns its future, as a handler without `async` can.
    struct Hasty;

    impl RecordHandler for Hasty {
        fn handle(
            &self,
            record: &Record,
            _: &Context,
        ) -> impl Future<Output = Result<(), Failure>> + Send {
            assert!(record.new_image.is_some(), "no image");
            std::future::ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_panic_before_there_is_a_future_is_a_failure_as_any_other() {
        let record = Record {
            event_id: String::new(),
            event: Event::Remove,
            keys: HashMap::<String, serde_dynamo::AttributeValue>::new().into(),
            new_image: None,
            old_image: None,
            sequence_number: SequenceNumber::parse("1").unwrap(),
            created: SystemTime::UNIX_EPOCH,
            view: StreamView::KeysOnly,
            size_bytes: 1,
            by_ttl: false,
        };
        let context = Context::detached();
        let failed = attempt(&Hasty, &record, &context, Duration::from_secs(1)).await;
        let reported = failed.unwrap_err().to_string();
        assert_eq!(reported, "the handler panicked: no image");
    }
}
