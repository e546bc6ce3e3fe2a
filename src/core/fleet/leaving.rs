//! How a worker leaves.

use std::time::Duration;

use super::shards::Shards;

/// A worker that is leaving.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// When it stops waiting.
    pub limit: Duration,
    /// Since when it holds nothing.
    empty_since: Option<Duration>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Waiting,
    /// It holds nothing: one more look shows whether anything is in its name.
    LookAgain,
    Left,
}

impl Leaving {
    pub fn until(limit: Duration) -> Self {
        Self {
            limit,
            empty_since: None,
        }
    }

    /// Whether it holds nothing any more.
    pub fn is_empty(&self) -> bool {
        self.empty_since.is_some()
    }

    /// It has left once everything is handed over, and a look that began after that has seen nothing in
    /// its name, such as a take whose answer was lost. A look that is not answered is not waited for,
    /// and in the end nothing is.
    pub fn step(&mut self, shards: &Shards, registered: bool, now: Duration) -> Step {
        let left = |left: bool| if left { Step::Left } else { Step::Waiting };
        if !shards.is_empty() {
            self.empty_since = None;
            return left(now >= self.limit);
        }
        if !registered {
            // Nothing can be in a name that nobody knows.
            return Step::Left;
        }
        let Some(since) = self.empty_since else {
            self.empty_since = Some(now);
            return Step::LookAgain;
        };
        left(shards.is_gone_since(since) || now >= self.limit)
    }
}
