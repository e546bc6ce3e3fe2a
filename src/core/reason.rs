//! Why a record is a dead letter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The handler rejected it.
    Rejected,
    /// It failed as many times as it may.
    Exhausted,
    /// It failed for as long as it may.
    TooOld,
    /// It was about to leave the stream while a dependency was down.
    Rescued,
    /// Its shard ended while it was failing, and the records behind it could not wait.
    Deferred,
    /// An earlier record of its key is a dead letter.
    Followed,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Rejected,
        Self::Exhausted,
        Self::TooOld,
        Self::Rescued,
        Self::Deferred,
        Self::Followed,
    ];

    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::TooOld => "too-old",
            Self::Rescued => "rescued",
            Self::Deferred => "deferred",
            Self::Followed => "followed",
        }
    }

    /// Whether the fleet redrives such a record automatically: nothing is wrong with the record.
    pub fn is_redriven_by_itself(self) -> bool {
        matches!(self, Self::Rescued | Self::Deferred)
    }

    /// Parses the word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
