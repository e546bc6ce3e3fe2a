//! Keys with open letters, and the claims on them.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_dynamo::Item;

use super::Reason;
use crate::core::millis;
use crate::core::record::ItemKey;

/// A key with open letters.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedKey {
    /// The key.
    pub key: ItemKey,
    /// Its attributes.
    pub keys: Item,
    /// How many open letters it has.
    pub letters: u64,
    /// Since when it has been parked.
    pub since: SystemTime,
    /// The reason: of the letter that parked it, or of the last failure to redrive it. `None` if an
    /// older version parked it.
    pub reason: Option<Reason>,
    /// Who is redriving it.
    pub claim: Option<Claim>,
}

/// Some of the parked keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParkedPage {
    /// The keys.
    pub keys: Vec<ParkedKey>,
    /// Rows that cannot be read, each with the problem and what to do. Their keys are parked.
    pub unreadable: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// A process that redrives a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its name, which no other process has.
    pub by: String,
    /// When it was made or extended. Rows store both times in milliseconds.
    #[serde(with = "millis")]
    pub at: SystemTime,
    /// Until when other processes must not claim the key.
    #[serde(with = "millis")]
    pub until: SystemTime,
}

impl ParkedKey {
    /// Whether this claim can be made: no other process has claimed the key.
    pub(super) fn is_free_for(&self, claim: &Claim) -> bool {
        let held = self.claim.as_ref();
        held.is_none_or(|held| held.by == claim.by || held.until <= claim.at)
    }
}
