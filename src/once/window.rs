//! How many mails can be past the point of no return at a time.
//!
//! Each of them becomes a doubt if the mail server breaks off at its last step, and cannot be called
//! back. So the limit depends on how well the server has recently answered: four at first and after a
//! pause; while it is busy, as many as it has answered within ten seconds; and never more than five, or
//! half of the connections if that is more. After a doubt the limit is one until a mail is answered.
//! After two doubts in a row no mail passes for a moment, while the engine's circuit opens. Mails that
//! were waiting when a doubt occurred return to the engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// The limit without any proof.
const UNPROVEN: usize = 4;

/// The limit with few connections.
const FEW: usize = 5;

/// How many answers are remembered at most, however many connections there are.
const MOST: usize = 1024;

/// How long an answer counts as proof.
const PROOF: Duration = Duration::from_secs(10);

/// How long no mail passes after two doubts in a row: mails that come then were let through before the
/// circuit opened.
const REST: Duration = Duration::from_secs(10);

/// How long a mail waits for its turn before it returns to the engine.
const PATIENCE: Duration = Duration::from_secs(1);

/// The mails of one process. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Window(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<WindowState>,
    /// The highest limit.
    most: usize,
    freed: Notify,
}

#[derive(Debug, Default)]
struct WindowState {
    /// How many mails are past the point.
    out: usize,
    /// When the server gave its latest definite answers, oldest first.
    answers: VecDeque<Instant>,
    /// How many mails were in doubt so far.
    doubts: u64,
    /// Doubts since the last answer.
    in_a_row: u32,
    /// When the latest doubt occurred.
    doubted: Option<Instant>,
    /// When the latest mail passed.
    passed: Option<Instant>,
}

/// The number of doubts when an attempt began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Began(u64);

/// The right to pass the point of no return.
#[derive(Debug)]
pub(super) struct Passage {
    window: Window,
}

/// How a mail ended after it passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A definite reply came.
    Definite,
    /// It is unknown whether it was accepted.
    Doubt,
    /// It never passed.
    None,
}

impl WindowState {
    fn has_room(&mut self, most: usize) -> bool {
        let now = Instant::now();
        while let Some(oldest) = self.answers.front()
            && now.duration_since(*oldest) > PROOF
        {
            self.answers.pop_front();
        }
        let rests = self.doubted.is_some_and(|at| now.duration_since(at) < REST);
        let most = match self.in_a_row {
            0 => self.answers.len().clamp(UNPROVEN, most),
            1 => 1,
            _ => usize::from(!rests),
        };
        self.out < most
    }
}

impl Window {
    /// For a server with this many connections.
    pub(super) fn new(connections: usize) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            most: (connections / 2).clamp(FEW, MOST),
            freed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt. `None`: there is no room for it now, so the attempt must not start.
    pub(super) fn begin(&self) -> Option<Began> {
        let state = &mut *self.state();
        // A server that answers will soon have room. One that left a mail in doubt, or has stopped
        // answering, may not have it for long.
        let has_room = state.has_room(self.0.most);
        let waits = state.passed.is_some_and(|at| at.elapsed() > PATIENCE);
        let is_silent = waits && state.answers.is_empty();
        let may_begin = has_room || !(state.in_a_row > 0 || is_silent);
        may_begin.then_some(Began(state.doubts))
    }

    /// Waits for a place. `None`: no place became free in time, or a mail came into doubt since the
    /// attempt began.
    pub(super) async fn pass(&self, began: Began) -> Option<Passage> {
        let wait = async {
            loop {
                let freed = self.0.freed.notified();
                {
                    let state = &mut *self.state();
                    if began.0 != state.doubts {
                        return None;
                    }
                    if state.has_room(self.0.most) {
                        state.out += 1;
                        state.passed = Some(Instant::now());
                        return Some(Passage {
                            window: self.clone(),
                        });
                    }
                }
                freed.await;
            }
        };
        timeout(PATIENCE, wait).await.ok().flatten()
    }
}

impl Passage {
    /// Reports how it ended.
    pub(super) fn end(self, answer: Ending) {
        let state = &mut *self.window.state();
        match answer {
            Ending::Definite => {
                state.in_a_row = 0;
                if state.answers.len() == self.window.0.most {
                    state.answers.pop_front();
                }
                state.answers.push_back(Instant::now());
            }
            Ending::Doubt => {
                state.in_a_row += 1;
                state.doubted = Some(Instant::now());
                state.doubts += 1;
                state.answers.clear();
            }
            Ending::None => {}
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.window.state().out -= 1;
        self.window.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    async fn next(window: &Window) -> Option<Passage> {
        window.pass(window.begin()?).await
    }

    /// Passes as many mails as there is room for.
    async fn all(window: &Window) -> Vec<Passage> {
        let mut out = Vec::new();
        while let Some(pass) = next(window).await {
            out.push(pass);
        }
        out
    }

    /// A busy server that answers this many mails.
    async fn answered(window: &Window, count: usize) {
        for _ in 0..count {
            next(window).await.unwrap().end(Ending::Definite);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_out_as_the_server_has_lately_answered_and_five_or_half_at_most() {
        for (connections, busy) in [(1, 5), (8, 5), (64, 32)] {
            let window = Window::new(connections);
            assert_eq!(all(&window).await.len(), UNPROVEN);
            answered(&window, 100).await;
            assert_eq!(all(&window).await.len(), busy);
            tokio::time::advance(PROOF * 2).await;
            assert_eq!(all(&window).await.len(), UNPROVEN);
        }
        let window = Window::new(64);
        answered(&window, 12).await;
        assert_eq!(all(&window).await.len(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_doubt_waiting_mails_go_back_and_one_goes_at_a_time() {
        let window = Window::new(8);
        let in_hand = window.begin().unwrap();
        next(&window).await.unwrap().end(Ending::Doubt);
        assert!(window.pass(in_hand).await.is_none());
        let probe = next(&window).await.unwrap();
        assert!(window.begin().is_none());
        probe.end(Ending::None);
        answered(&window, 1).await;
        let both = (next(&window).await, next(&window).await);
        assert!(both.0.is_some() && both.1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_that_breaks_leaves_no_more_in_doubt_than_were_out() {
        let window = Window::new(8);
        answered(&window, 100).await;
        let out = all(&window).await;
        assert_eq!(out.len(), 5);
        for pass in out {
            pass.end(Ending::Doubt);
            // A mail that comes now was let through before the circuit opened.
            assert!(next(&window).await.is_none());
        }
        tokio::time::advance(REST).await;
        let probe = next(&window).await.unwrap();
        assert!(window.begin().is_none());
        probe.end(Ending::Doubt);
        assert!(window.begin().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_stopped_answering_gets_no_more() {
        let window = Window::new(8);
        answered(&window, 20).await;
        let mut out = Vec::new();
        for _ in 0..UNPROVEN {
            out.push(next(&window).await.unwrap());
        }
        tokio::time::advance(PROOF * 2).await;
        assert!(window.begin().is_none());
        out.pop();
        assert!(next(&window).await.is_some());
    }
}
