//! A handler of any type.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{Context, Failure, Record, RecordHandler};

type Handling<'a> = BoxFuture<'a, Result<(), Failure>>;

type Handle = dyn for<'a> Fn(&'a Record, &'a Context) -> Handling<'a> + Send + Sync;

/// A handler of any type.
#[derive(Clone)]
pub struct BoxedHandler(Arc<Handle>);

impl BoxedHandler {
    /// This handler, whose clones share it.
    pub fn new(handler: impl RecordHandler) -> Self {
        let handler = Arc::new(handler);
        Self(Arc::new(move |record, context| {
            let handler = handler.clone();
            Box::pin(async move { handler.handle(record, context).await })
        }))
    }
}

impl RecordHandler for BoxedHandler {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        (self.0)(record, context).await
    }
}
