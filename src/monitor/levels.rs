//! What waits in the tables: how many keys, orders and gaps, whichever process wrote them and whether
//! or not it is alive. A counter is lost with its process; these levels are not.
//!
//! One worker of a fleet asks, the one that lists the stream; a Lambda function asks after an event. It
//! costs a Query of the group's parked keys and three counts in the ledger's index: at most once in ten
//! seconds, for a twentieth of the time at most. While nothing waits, that is 2.5 read units each time.

use std::collections::BTreeMap;

use crate::core::group::EffectTable;
use crate::stores::dead_letter::{DeadLetters, Reason};
use crate::stores::ledger::Needed;

/// What waits in the tables. `None`: not queried, or no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    /// The keys that are parked, by the reason of their dead letter.
    pub parked: Option<BTreeMap<&'static str, u64>>,
    /// The orders that wait for a person.
    pub orders: Option<Needed>,
    /// The gaps that are not resolved.
    pub open_gaps: Option<u64>,
}

impl Levels {
    /// With these parked keys, each by the reason of its dead letter.
    #[must_use]
    pub fn with_parked(mut self, reasons: impl IntoIterator<Item = Option<Reason>>) -> Self {
        let mut parked = BTreeMap::new();
        for reason in reasons {
            *parked.entry(word(reason)).or_insert(0) += 1;
        }
        self.parked = Some(parked);
        self
    }

    /// Queries them, on Lambda.
    ///
    /// # Errors
    ///
    /// The dead letters' table does not answer.
    pub async fn parked(letters: &dyn DeadLetters, at: &EffectTable) -> anyhow::Result<Self> {
        Ok(Self::default().with_parked(reasons(letters, at).await?))
    }

    /// Keys that wait behind a dead letter until a person acts.
    pub fn failed_keys(&self) -> Option<u64> {
        let all: u64 = self.parked.as_ref()?.values().sum();
        Some(all - self.rescued_keys()?)
    }

    /// Keys that wait behind a rescued or deferred dead letter.
    pub fn rescued_keys(&self) -> Option<u64> {
        let parked = self.parked.as_ref()?.iter();
        let rescued = parked
            .filter(|(word, _)| Reason::from_word(word).is_some_and(Reason::is_redriven_by_itself));
        Some(rescued.map(|(_, keys)| keys).sum())
    }
}

/// The word for a reason, or a word for an unknown one.
pub(super) fn word(reason: Option<Reason>) -> &'static str {
    reason.map_or("unknown", Reason::word)
}

/// Why each key is parked.
pub(super) async fn reasons(
    letters: &dyn DeadLetters,
    at: &EffectTable,
) -> anyhow::Result<Vec<Option<Reason>>> {
    let parked = letters.parked(at).await?;
    let unreadable = parked.unreadable.iter().map(|_| None);
    let readable = parked.keys.iter().map(|key| key.reason);
    Ok(readable.chain(unreadable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_a_fleet_redrives_itself_are_counted_apart() {
        let reasons = [
            Some(Reason::Rejected),
            Some(Reason::Rescued),
            Some(Reason::Deferred),
            None,
        ];
        let levels = Levels::default().with_parked(reasons);
        assert_eq!(
            (levels.failed_keys(), levels.rescued_keys()),
            (Some(2), Some(2))
        );
        assert_eq!(Levels::default().failed_keys(), None);
    }
}
