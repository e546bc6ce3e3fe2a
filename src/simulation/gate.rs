//! Holds a whole simulated worker still, as SIGSTOP does.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::engine::trust::Tenure;
use crate::stores::leases::Hold;

tokio::task_local! {
    /// The gate of the worker that runs here, if it is a simulated one.
    static GATE: Gate;
}

/// Gets each shard that a worker considers its own.
type Owned = Arc<dyn Fn(&Hold, &Tenure) + Send + Sync>;

/// While closed, nothing behind it is polled: time and packets pass without it.
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<Mutex<GateState>>,
    owned: Owned,
}

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    asleep: Vec<Waker>,
}

impl Gate {
    /// An open gate. `owned` gets each shard that the worker considers its own.
    pub fn open_for(owned: impl Fn(&Hold, &Tenure) + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::default(),
            owned: Arc::new(owned),
        }
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Freezes the worker.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Thaws it.
    pub fn open(&self) {
        let mut state = self.state();
        state.closed = false;
        state.asleep.drain(..).for_each(Waker::wake);
    }

    /// Whether it is frozen now.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Runs `future`, and whatever it spawns, behind this gate.
    pub async fn around<F: Future>(self, future: F) -> F::Output {
        let gated = Gated {
            gate: self.clone(),
            future: Box::pin(future),
        };
        GATE.scope(self, gated).await
    }

    fn is_shut_for(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        if state.closed {
            state.asleep.push(waker.clone());
        }
        state.closed
    }
}

/// A future behind a gate.
struct Gated<F> {
    gate: Gate,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.gate.is_shut_for(context.waker()) {
            return Poll::Pending;
        }
        self.future.as_mut().poll(context)
    }
}

/// Puts what a worker spawns, and whatever that spawns, behind the worker's own gate.
pub(crate) fn gated<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let gate = GATE.try_with(Clone::clone).ok();
    async move {
        match gate {
            Some(gate) => gate.around(future).await,
            None => future.await,
        }
    }
}

/// A worker considers a shard its own: the simulation checks that, if there is one.
pub(crate) fn owned(hold: &Hold, tenure: &Tenure) {
    // Outside a simulation nobody checks it.
    let _ = GATE.try_with(|gate| (gate.owned)(hold, tenure));
}
