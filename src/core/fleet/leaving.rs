//! How a worker leaves.

use std::time::Duration;

use super::rules::FleetRules;
use super::shards::Shards;

/// A worker that is leaving.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// When it stops waiting.
    pub limit: Duration,
    /// How long it waits for its last look.
    last_look: Duration,
    /// Since when it holds nothing.
    empty_since: Option<Duration>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    Waiting,
    /// It holds nothing: one more look shows whether any lease names it.
    LookAgain,
    Left,
}

impl Leaving {
    pub fn new(now: Duration, rules: &FleetRules) -> Self {
        Self {
            limit: now + rules.handover_timeout + rules.lease_duration,
            last_look: rules.call_timeout,
            empty_since: None,
        }
    }

    /// Whether it holds nothing any more.
    pub fn is_empty(&self) -> bool {
        self.empty_since.is_some()
    }

    /// Whether the worker has left: everything is handed over, and a look that began after that saw no
    /// lease in its name, such as a take whose answer was lost. It does not wait for a look that is not
    /// answered, and past its deadline it waits for nothing.
    pub fn step(&mut self, shards: &Shards, registered: bool, now: Duration) -> Departure {
        let left = |left: bool| {
            if left {
                Departure::Left
            } else {
                Departure::Waiting
            }
        };
        if !shards.is_empty() {
            self.empty_since = None;
            return left(now >= self.limit);
        }
        if !registered {
            // No lease can name an incarnation that was never registered.
            return Departure::Left;
        }
        let Some(since) = self.empty_since else {
            self.empty_since = Some(now);
            self.limit = self.limit.min(now + self.last_look);
            return Departure::LookAgain;
        };
        left(shards.is_gone_since(since) || now >= self.limit)
    }
}
