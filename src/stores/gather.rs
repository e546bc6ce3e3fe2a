//! Serves together what is asked for at about the same time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

/// How much is gathered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatherLimits {
    /// The most requests in a batch.
    pub most: usize,
    /// The most bytes in a batch, unless a single request has more.
    pub bytes: u64,
    /// How long the first request of a batch waits for others.
    pub wait: Duration,
    /// How many batches are served at a time. While all are taken, requests gather.
    pub at_once: usize,
}

/// A request, with what decides which batch it joins.
#[derive(Debug)]
pub(crate) struct GatherRequest<T> {
    pub what: T,
    pub bytes: u64,
    /// Requests are served in the order of this text. If more wait than a batch holds, the batch is a
    /// run of neighbours that begins with the oldest request.
    pub order: Arc<str>,
}

/// The callers of a batch, in the order of its requests.
pub(crate) struct Callers<O>(Vec<oneshot::Sender<O>>);

impl<O> Callers<O> {
    /// Answers each caller.
    pub fn answer(self, answers: impl IntoIterator<Item = O>) {
        for (caller, answer) in self.0.into_iter().zip(answers) {
            // The caller may have left in this moment.
            let _ = caller.send(answer);
        }
    }

    /// Waits until one of the callers stops waiting.
    pub async fn one_has_left(&mut self) {
        let mut left: FuturesUnordered<_> =
            self.0.iter_mut().map(oneshot::Sender::closed).collect();
        left.next().await;
    }
}

type Serve<T, O> = dyn Fn(Vec<T>, Callers<O>) -> BoxFuture<'static, ()> + Send + Sync;

/// Gathers requests into batches. Clones share the line.
pub(crate) struct Gather<T, O>(Arc<Gathering<T, O>>);

struct Gathering<T, O> {
    limits: GatherLimits,
    serve: Box<Serve<T, O>>,
    slots: Arc<Semaphore>,
    line: Mutex<GatherLine<T, O>>,
    full: Notify,
}

struct GatherLine<T, O> {
    waiting: VecDeque<Gathered<T, O>>,
    bytes: u64,
    /// The number of the next request.
    next: u64,
    /// Whether a task makes batches of what waits.
    collected: bool,
}

struct Gathered<T, O> {
    number: u64,
    since: Instant,
    request: GatherRequest<T>,
    begun: oneshot::Sender<oneshot::Receiver<O>>,
}

impl<T: Send + 'static, O: Send + 'static> Gather<T, O> {
    /// Serves each batch by a call of `serve`, in a task of its own. A caller that gets no answer from it
    /// learns so.
    pub fn new(
        limits: GatherLimits,
        serve: impl Fn(Vec<T>, Callers<O>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Gathering {
            limits,
            serve: Box::new(serve),
            slots: Arc::new(Semaphore::new(limits.at_once.max(1))),
            line: Mutex::new(GatherLine {
                waiting: VecDeque::new(),
                bytes: 0,
                next: 0,
                collected: false,
            }),
            full: Notify::new(),
        }))
    }

    /// Joins a batch, and waits until it is served; the receiver then gets the answer. Dropping this
    /// before takes the request back.
    pub async fn join(&self, request: GatherRequest<T>) -> Option<oneshot::Receiver<O>> {
        let (begun, begins) = oneshot::channel();
        if self.0.line().add(request, begun) {
            let task = self.0.clone().collect();
            tokio::spawn(crate::hooks::gated(task));
        }
        if self.0.is_full() {
            self.0.full.notify_one();
        }
        begins.await.ok()
    }
}

impl<T, O> Clone for Gather<T, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static, O: Send + 'static> Gathering<T, O> {
    fn line(&self) -> MutexGuard<'_, GatherLine<T, O>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        let line = self.line();
        line.waiting.len() >= self.limits.most || line.bytes >= self.limits.bytes
    }

    /// Makes batches until nothing waits.
    async fn collect(self: Arc<Self>) {
        while let Ok(slot) = self.slots.clone().acquire_owned().await {
            self.filled().await;
            let Some((batch, callers)) = self.line().take(self.limits) else {
                return;
            };
            let serving = (self.serve)(batch, callers);
            tokio::spawn(crate::hooks::gated(async move {
                serving.await;
                drop(slot);
            }));
        }
    }

    /// Waits until a batch is full, or has waited long enough.
    async fn filled(&self) {
        let first = self.line().waiting.front().map(|first| first.since);
        let until = first.unwrap_or_else(Instant::now) + self.limits.wait;
        // What is ready to run may join.
        yield_now().await;
        while !self.is_full() {
            if timeout_at(until, self.full.notified()).await.is_err() {
                return;
            }
        }
    }
}

impl<T, O> GatherLine<T, O> {
    /// Whether a task is needed that makes batches.
    fn add(
        &mut self,
        request: GatherRequest<T>,
        begun: oneshot::Sender<oneshot::Receiver<O>>,
    ) -> bool {
        let number = self.next;
        self.next += 1;
        self.bytes = self.bytes.saturating_add(request.bytes);
        self.waiting.push_back(Gathered {
            number,
            since: Instant::now(),
            request,
            begun,
        });
        !std::mem::replace(&mut self.collected, true)
    }

    /// The next batch. `None`: nothing waits, and the task that asked has ended.
    fn take(&mut self, limits: GatherLimits) -> Option<(Vec<T>, Callers<O>)> {
        loop {
            let batch = self.cut(limits);
            if batch.is_empty() {
                self.collected = false;
                return None;
            }
            let (mut requests, mut callers) = (Vec::new(), Vec::new());
            for waiting in batch {
                let (caller, answer) = oneshot::channel();
                if waiting.begun.send(answer).is_ok() {
                    requests.push(waiting.request.what);
                    callers.push(caller);
                }
            }
            if !requests.is_empty() {
                return Some((requests, Callers(callers)));
            }
        }
    }

    /// Takes a batch out of the line.
    fn cut(&mut self, limits: GatherLimits) -> Vec<Gathered<T, O>> {
        self.waiting.retain(|waiting| !waiting.begun.is_closed());
        let Some(oldest) = self.waiting.front() else {
            self.bytes = 0;
            return Vec::new();
        };
        let oldest = oldest.request.order.clone();
        let mut all: Vec<_> = std::mem::take(&mut self.waiting).into();
        // Stable: of those with one text the oldest stays in front.
        all.sort_by(|a, b| a.request.order.cmp(&b.request.order));
        let from = all.partition_point(|waiting| waiting.request.order < oldest);
        all.rotate_left(from);
        let mut bytes = 0_u64;
        let fits = |waiting: &Gathered<T, O>| {
            bytes = bytes.saturating_add(waiting.request.bytes);
            bytes <= limits.bytes
        };
        let fitting = all
            .iter()
            .take(limits.most)
            .map(fits)
            .take_while(|fits| *fits)
            .count();
        let mut rest = all.split_off(fitting.max(1).min(all.len()));
        rest.sort_by_key(|waiting| waiting.number);
        self.bytes = rest
            .iter()
            .map(|waiting| waiting.request.bytes)
            .fold(0, u64::saturating_add);
        self.waiting = rest.into();
        all.sort_by(|a, b| a.request.order.cmp(&b.request.order));
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    const LIMITS: GatherLimits = GatherLimits {
        most: 3,
        bytes: 100,
        wait: Duration::from_millis(10),
        at_once: 1,
    };

    type Batches = Arc<Mutex<Vec<Vec<&'static str>>>>;

    /// Takes a second for each batch, and answers with the size of the batch.
    fn gather(limits: GatherLimits) -> (Gather<&'static str, usize>, Batches) {
        let batches = Batches::default();
        let seen = batches.clone();
        let gather = Gather::new(
            limits,
            move |batch: Vec<&'static str>, callers: Callers<usize>| {
                seen.lock().unwrap().push(batch.clone());
                async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    callers.answer(batch.iter().map(|_| batch.len()));
                }
                .boxed()
            },
        );
        (gather, batches)
    }

    fn request(what: &'static str, bytes: u64) -> GatherRequest<&'static str> {
        GatherRequest {
            what,
            bytes,
            order: what.into(),
        }
    }

    async fn ask(gather: &Gather<&'static str, usize>, what: &'static str, bytes: u64) -> usize {
        gather
            .join(request(what, bytes))
            .await
            .unwrap()
            .await
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_is_served_at_once_and_another_one_after_its_wait() {
        let (gather, batches) = gather(LIMITS);
        let began = Instant::now();
        let all = join_all(["c", "b", "a"].map(|what| ask(&gather, what, 1))).await;
        assert_eq!(all, [3, 3, 3]);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert_eq!(ask(&gather, "d", 1).await, 1);
        assert_eq!(began.elapsed(), Duration::from_millis(2010));
        assert_eq!(*batches.lock().unwrap(), [vec!["a", "b", "c"], vec!["d"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_waits_for_the_next_batch_and_what_is_larger_goes_alone() {
        let (gather, batches) = gather(LIMITS);
        let all = [("a", 60), ("b", 60), ("c", 500)];
        join_all(all.map(|(what, bytes)| ask(&gather, what, bytes))).await;
        assert_eq!(*batches.lock().unwrap(), [["a"], ["b"], ["c"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_batch_is_served_requests_gather_and_neighbours_of_the_oldest_go_together() {
        let (gather, batches) = gather(LIMITS);
        let first = ask(&gather, "first", 1);
        let later = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            join_all(["m", "z", "a", "n", "y"].map(|what| ask(&gather, what, 1))).await
        };
        tokio::join!(first, later);
        let expected = [vec!["first"], vec!["m", "n", "y"], vec!["a", "z"]];
        assert_eq!(*batches.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_before_its_batch_begins_takes_its_request_back() {
        let (gather, batches) = gather(LIMITS);
        let leaves = tokio::time::timeout(Duration::from_millis(5), ask(&gather, "a", 1));
        let (left, _) = tokio::join!(leaves, ask(&gather, "b", 1));
        assert!(left.is_err());
        assert_eq!(*batches.lock().unwrap(), [["b"]]);
        // Alone, it leaves nothing behind.
        let leaves = tokio::time::timeout(Duration::from_millis(5), ask(&gather, "c", 1));
        assert!(leaves.await.is_err());
        assert_eq!(ask(&gather, "d", 1).await, 1);
        assert_eq!(*batches.lock().unwrap(), [["b"], ["d"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_learns_that_a_caller_has_left() {
        let gather = Gather::new(
            LIMITS,
            |_: Vec<&'static str>, mut callers: Callers<usize>| {
                async move { callers.one_has_left().await }.boxed()
            },
        );
        let stays = async { gather.join(request("a", 1)).await.unwrap().await };
        let leaves = async {
            let joined = gather.join(request("b", 1)).await.unwrap();
            tokio::time::timeout(Duration::from_secs(1), joined).await
        };
        let (stayed, left) = tokio::join!(stays, leaves);
        assert!(left.is_err(), "it left by itself");
        assert!(stayed.is_err(), "the batch ended without an answer");
    }
}
