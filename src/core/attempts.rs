//! The failed attempts at one record.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::millis;

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it failed. Rows store milliseconds.
    #[serde(with = "millis")]
    pub at: SystemTime,
    /// The error.
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
    /// How many attempts are kept.
    pub const KEPT: usize = 20;

    /// How many bytes of an error are kept.
    pub const LONGEST: usize = 1000;

    /// Adds an attempt.
    pub fn push(&mut self, at: SystemTime, error: &str) {
        self.made = self.made.saturating_add(1);
        if self.last.len() == Self::KEPT {
            self.last.pop_front();
        }
        let error = error[..error.floor_char_boundary(Self::LONGEST)].to_owned();
        self.last.push_back(Attempt { at, error });
    }

    /// How many attempts there were.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// The last attempts, oldest first.
    pub fn last(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.last.iter()
    }
}
