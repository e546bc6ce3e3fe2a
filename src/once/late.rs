//! Mails that leave their record behind.
//!
//! A shard moves, or a time limit passes, while the reply to a final dot is on its way. Nobody handles
//! that record here any more, but only this process can still hear what became of the mail. So the send
//! goes on in a task of its own until its outcome is in the ledger; to others its claim is that of a
//! worker that lives. A crash leaves what any crash leaves: a claim that others call AMBIGUOUS.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::gate::left_out;

/// The sends that nobody waits for. They end with it.
#[derive(Debug, Default)]
pub(crate) struct Late(Mutex<JoinSet<()>>);

impl Late {
    /// A send. If it is dropped after `begun`, it goes on by itself.
    pub(crate) fn see_through<T: Send + 'static>(
        &self,
        begun: Arc<AtomicBool>,
        send: impl Future<Output = T> + Send + 'static,
    ) -> SeenThrough<'_, T> {
        SeenThrough {
            late: self,
            begun,
            send: Some(Box::pin(send)),
        }
    }

    /// Waits for what is still under way, so long at most; says how much is left.
    pub(crate) async fn finish(&self, limit: Duration) -> usize {
        let mut sends = std::mem::take(&mut *self.sends());
        let all = async { while sends.join_next().await.is_some() {} };
        // What is left is told, and ends here.
        let _ = timeout(limit, all).await;
        sends.len()
    }

    fn sends(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Late::see_through`].
pub(crate) struct SeenThrough<'a, T: Send + 'static> {
    late: &'a Late,
    begun: Arc<AtomicBool>,
    send: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> Future for SeenThrough<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(send) = self.send.as_mut() else {
            // Nobody asks again after the answer.
            return Poll::Pending;
        };
        let polled = send.as_mut().poll(cx);
        if polled.is_ready() {
            self.send = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for SeenThrough<'_, T> {
    fn drop(&mut self) {
        let Some(send) = self.send.take().filter(|_| !left_out!(BegunForgotten)) else {
            return;
        };
        if let (true, Ok(runtime)) = (self.begun.load(Ordering::SeqCst), Handle::try_current()) {
            let mut sends = self.late.sends();
            while sends.try_join_next().is_some() {}
            sends.spawn_on(async move { drop(send.await) }, &runtime);
        }
    }
}
