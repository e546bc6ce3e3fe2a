//! How many mails may be past the point of no return at a time.
//!
//! Each of them becomes a doubt if the mail server breaks off at its last step, and nobody can call it
//! back. So no more of them are out than the server has lately shown that it answers: four at first and
//! after a rest, and as many as it has answered within ten seconds while it is busy. After a doubt it is
//! one at a time, until one is answered. And whatever was in hand when the doubt came up goes back to the
//! engine, whose circuit breaker may have opened meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// So many may be out without any proof.
const UNPROVEN: usize = 4;

/// An answer proves something for so long.
const PROOF: Duration = Duration::from_secs(10);

/// More answers than this need not be remembered.
const MOST: usize = 1024;

/// So long a mail waits for its turn before it goes back to the engine.
const PATIENCE: Duration = Duration::from_secs(1);

/// The mails of one process. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many are out.
    out: usize,
    /// When the server gave its latest definite answers, oldest first.
    answers: VecDeque<Instant>,
    /// How often a mail was in doubt.
    doubts: u64,
    /// None was answered since the last doubt.
    suspect: bool,
    /// When the latest mail passed.
    passed: Option<Instant>,
}

/// When an attempt began, in doubts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Began(u64);

/// The right to pass the point of no return.
#[derive(Debug)]
pub(crate) struct Pass {
    window: Window,
}

/// How a mail that passed came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A definite reply came.
    Definite,
    /// Nobody can tell.
    Doubt,
    /// It never passed.
    None,
}

impl State {
    fn has_room(&mut self) -> bool {
        let now = Instant::now();
        while let Some(oldest) = self.answers.front()
            && now.duration_since(*oldest) > PROOF
        {
            self.answers.pop_front();
        }
        let most = if self.suspect {
            1
        } else {
            self.answers.len().max(UNPROVEN)
        };
        self.out < most
    }
}

impl Window {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt. `None`: the server has no room for it now, so the attempt must not start.
    pub(crate) fn begin(&self) -> Option<Began> {
        let state = &mut *self.state();
        // A server that answers will soon have room. One that left a mail in doubt, or has stopped
        // answering, may not have it for long.
        let has_room = state.has_room();
        let waits = state.passed.is_some_and(|at| at.elapsed() > PATIENCE);
        let is_silent = waits && state.answers.is_empty();
        let may_begin = has_room || !(state.suspect || is_silent);
        may_begin.then_some(Began(state.doubts))
    }

    /// Waits for a place. `None`: none became free in time, or a mail came into doubt since the attempt
    /// began.
    pub(crate) async fn pass(&self, began: Began) -> Option<Pass> {
        let wait = async {
            loop {
                let freed = self.0.freed.notified();
                {
                    let state = &mut *self.state();
                    if began.0 != state.doubts {
                        return None;
                    }
                    if state.has_room() {
                        state.out += 1;
                        state.passed = Some(Instant::now());
                        return Some(Pass {
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

impl Pass {
    /// Tells how it came out.
    pub(crate) fn end(self, answer: Answer) {
        let state = &mut *self.window.state();
        match answer {
            Answer::Definite => {
                state.suspect = false;
                if state.answers.len() == MOST {
                    state.answers.pop_front();
                }
                state.answers.push_back(Instant::now());
            }
            Answer::Doubt => {
                state.suspect = true;
                state.doubts += 1;
                state.answers.clear();
            }
            Answer::None => {}
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.window.state().out -= 1;
        self.window.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    async fn next(window: &Window) -> Option<Pass> {
        window.pass(window.begin()?).await
    }

    /// As many as there is room for.
    async fn all(window: &Window) -> Vec<Pass> {
        let mut out = Vec::new();
        while let Some(pass) = next(window).await {
            out.push(pass);
        }
        out
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_out_as_the_server_has_lately_answered_and_four_at_least() {
        let window = Window::default();
        let out = all(&window).await;
        assert_eq!(out.len(), UNPROVEN);
        drop(out);
        for _ in 0..12 {
            next(&window).await.unwrap().end(Answer::Definite);
        }
        let out = all(&window).await;
        assert_eq!(out.len(), 12);
        drop(out);
        tokio::time::advance(PROOF * 2).await;
        assert_eq!(all(&window).await.len(), UNPROVEN);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_doubt_what_was_in_hand_goes_back_and_one_goes_at_a_time() {
        let window = Window::default();
        let in_hand = window.begin().unwrap();
        next(&window).await.unwrap().end(Answer::Doubt);
        assert!(window.pass(in_hand).await.is_none());
        let probe = next(&window).await.unwrap();
        assert!(window.begin().is_none());
        probe.end(Answer::None);
        next(&window).await.unwrap().end(Answer::Definite);
        let both = (next(&window).await, next(&window).await);
        assert!(both.0.is_some() && both.1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_stopped_answering_gets_no_more() {
        let window = Window::default();
        for _ in 0..20 {
            next(&window).await.unwrap().end(Answer::Definite);
        }
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
