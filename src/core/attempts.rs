//! What was tried with one record.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::millis;

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it failed. A row has it to the millisecond.
    #[serde(with = "millis")]
    pub at: SystemTime,
    /// How.
    pub error: String,
}

/// The attempts at a record: how many, and the last [`Attempts::KEPT`] of them, each with at most
/// [`Attempts::LONGEST`] bytes of its error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    #[serde(rename = "attempts_made")]
    made: u32,
    #[serde(rename = "attempts", default)]
    last: VecDeque<Attempt>,
}

impl Attempts {
    /// So many are kept.
    pub const KEPT: usize = 20;

    /// So much is kept of an error, in bytes.
    pub const LONGEST: usize = 1000;

    /// Adds one.
    pub fn push(&mut self, at: SystemTime, error: &str) {
        self.made = self.made.saturating_add(1);
        if self.last.len() == Self::KEPT {
            self.last.pop_front();
        }
        let error = error[..error.floor_char_boundary(Self::LONGEST)].to_owned();
        self.last.push_back(Attempt { at, error });
    }

    /// How many there were.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// The last ones, oldest first.
    pub fn last(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.last.iter()
    }
}
