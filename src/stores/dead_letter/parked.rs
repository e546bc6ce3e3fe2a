//! Keys with open letters, and who has one in hand.

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
    /// Since when it is parked.
    pub since: SystemTime,
    /// Why: the reason of the letter that parked it, or of the last failure to redrive it. `None`
    /// where an older version parked it.
    pub reason: Option<Reason>,
    /// Who has it in hand.
    pub claim: Option<Claim>,
}

/// Some of the parked keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParkedPage {
    /// The keys.
    pub keys: Vec<ParkedKey>,
    /// Rows that cannot be read, each with what is wrong and what to do. Their keys are parked.
    pub unreadable: Vec<String>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// Somebody redrives a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who: a name that no other process has.
    pub by: String,
    /// When it was made or put off. A row has both times to the millisecond.
    #[serde(with = "millis")]
    pub at: SystemTime,
    /// Until when nobody else may.
    #[serde(with = "millis")]
    pub until: SystemTime,
}

impl ParkedKey {
    /// Whether this claim may be made: nobody else has the key in hand.
    pub(super) fn is_free_for(&self, claim: &Claim) -> bool {
        let held = self.claim.as_ref();
        held.is_none_or(|held| held.by == claim.by || held.until <= claim.at)
    }
}
