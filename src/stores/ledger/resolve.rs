//! An operator's decision about an effect, written under the row's revision.

use std::time::SystemTime;

use super::{EffectKey, Ledger, Swap};
use crate::core::claim::{
    Ask, Claimant, Entry, Happened, Illegal, ItemRef, Liveness, OnAmbiguous, Resolution, State,
    Verdict, claim, transition,
};

/// How often a decision is tried when other writes interfere.
const ROUNDS: u32 = 8;

/// The result of an operator's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // One at a time, on the stack; a box would only add noise.
pub enum Resolved {
    /// It is recorded in the row, which is now this.
    Written(Entry),
    /// A row in this state cannot be resolved. It stays as it is.
    Illegal(Entry, Illegal),
    /// The ledger does not know the effect.
    Unknown,
    /// Other writes kept changing the row.
    Contended,
}

/// Records an operator's decision: who, when, why.
///
/// A claim whose deadline has passed cannot be acting any more: it is marked AMBIGUOUS first, and then
/// resolved. Each write replaces only the row that was read, so a decision never overwrites a worker's
/// later write. A crash in between leaves the row AMBIGUOUS or resolved.
///
/// # Errors
///
/// The ledger does not answer, and it is unknown whether the decision is recorded. Repeating is safe:
/// an effect that is resolved already is reported as [`Resolved::Illegal`], or as recorded if it was
/// released.
pub async fn resolve<L: Ledger>(
    ledger: &L,
    key: &EffectKey,
    resolution: Resolution,
    now: SystemTime,
) -> anyhow::Result<Resolved> {
    let happened = Happened::Resolved(resolution);
    let mut row = ledger.read(key).await?;
    for _ in 0..ROUNDS {
        let Some(entry) = row else {
            return Ok(Resolved::Unknown);
        };
        let decided = transition(Some(&entry), &happened, now);
        let (next, last) = match (overdue(&entry, now), decided) {
            (Some(doubt), _) => (doubt, false),
            (None, Ok(next)) if next == entry => return Ok(Resolved::Written(next)),
            (None, Ok(next)) => (next, true),
            (None, Err(illegal)) => return Ok(Resolved::Illegal(entry, illegal)),
        };
        row = match ledger.swap(key, Some(entry.revision), &next).await? {
            Swap::Written if last => return Ok(Resolved::Written(next)),
            Swap::Written => Some(next),
            Swap::Lost(standing) => standing,
        };
    }
    Ok(Resolved::Contended)
}

/// Releases an effect that an operator is about to perform, if its row is still as it was `seen`: a
/// doubt that has come since is not released. An effect that the ledger does not know is recorded for
/// its item, so that it needs attention until it is performed.
///
/// # Errors
///
/// The ledger does not answer, and it is unknown whether the release is recorded. Repeating is safe.
pub async fn release<L: Ledger>(
    ledger: &L,
    (key, item): (&EffectKey, &ItemRef),
    seen: Option<&Entry>,
    resolution: Resolution,
) -> anyhow::Result<Resolved> {
    let now = resolution.at;
    let next = match (transition(seen, &Happened::Resolved(resolution), now), seen) {
        (Ok(next), Some(seen)) if next == *seen => return Ok(Resolved::Written(next)),
        (Ok(next), Some(_)) => next,
        (Ok(next), None) => next.standing_for(Some(item)),
        (Err(illegal), Some(seen)) => return Ok(Resolved::Illegal(seen.clone(), illegal)),
        (Err(_), None) => return Ok(Resolved::Unknown),
    };
    let revision = seen.map(|entry| entry.revision);
    Ok(match ledger.swap(key, revision, &next).await? {
        Swap::Written => Resolved::Written(next),
        Swap::Lost(_) => Resolved::Contended,
    })
}

/// The row to write if the claimant's deadline has passed.
fn overdue(entry: &Entry, now: SystemTime) -> Option<Entry> {
    if entry.state != State::Sending {
        return None;
    }
    let standing = entry.claimant.as_ref().map_or(0, |by| by.nonce);
    let nobody = Claimant {
        incarnation: String::new(),
        // This only asks, and never claims.
        nonce: !standing,
        deadline: now,
    };
    let ask = Ask::new(nobody, OnAmbiguous::Park, now);
    match claim(Some(entry), &ask, Liveness::Unknown) {
        Verdict::Doubt(doubt) => Some(doubt),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;
    use crate::core::claim::{Decision, StepKind};
    use crate::core::group::EffectName;
    use crate::stores::ledger::memory::MemoryLedger;

    fn at(minutes: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_mins(minutes)
    }

    fn word(decision: Decision) -> Resolution {
        Resolution {
            by: "ops".into(),
            at: at(30),
            note: "asked the customer".into(),
            decision,
        }
    }

    /// A ledger with one effect, claimed until minute 20.
    async fn claimed() -> (MemoryLedger, EffectKey, Entry) {
        let claimant = Claimant {
            incarnation: "worker/1".into(),
            nonce: 7,
            deadline: at(20),
        };
        let ask = Ask {
            comes_again: true,
            ..Ask::new(claimant, OnAmbiguous::Resend, at(0))
        };
        let Verdict::Claim(entry) = claim(None, &ask, Liveness::Unknown) else {
            panic!("a new effect can be claimed");
        };
        let (ledger, key) = (
            MemoryLedger::new(),
            EffectKey::new(&EffectName::default(), "1"),
        );
        ledger.swap(&key, None, &entry).await.unwrap();
        (ledger, key, entry)
    }

    async fn in_doubt() -> (MemoryLedger, EffectKey, Entry) {
        let (ledger, key, entry) = claimed().await;
        let reply = "the connection closed".to_owned();
        let lost = Happened::NoReply { fence: 1, reply };
        let next = transition(Some(&entry), &lost, at(1)).unwrap();
        ledger.swap(&key, Some(1), &next).await.unwrap();
        (ledger, key, next)
    }

    #[tokio::test]
    async fn a_doubt_is_resolved_with_who_when_and_why_on_the_row() {
        for (verdict, state) in [
            (Decision::Sent, State::Sent),
            (Decision::Send, State::Retry),
        ] {
            let (ledger, key, _) = in_doubt().await;
            let resolved = resolve(&ledger, &key, word(verdict), at(30)).await.unwrap();
            let row = ledger.read(&key).await.unwrap().unwrap();
            assert_eq!(resolved, Resolved::Written(row.clone()));
            assert_eq!((row.state, row.doubtful.len()), (state, 0));
            let step = row.history.steps().last().unwrap();
            let by = (step.kind, step.by.as_deref(), step.at);
            assert_eq!(by, (StepKind::Resolved, Some("ops"), at(30)));
            let words = format!("{state}: asked the customer");
            assert_eq!(step.text.as_deref(), Some(&*words));
        }
    }

    #[tokio::test]
    async fn a_claim_is_left_alone_until_its_deadline_and_then_doubted_and_resolved() {
        let (ledger, key, entry) = claimed().await;
        let early = resolve(&ledger, &key, word(Decision::Sent), at(19)).await;
        assert!(matches!(early.unwrap(), Resolved::Illegal(..)));
        assert_eq!(ledger.read(&key).await.unwrap(), Some(entry));
        let late = resolve(&ledger, &key, word(Decision::Sent), at(21)).await;
        let Resolved::Written(row) = late.unwrap() else {
            panic!("an overdue claim can be resolved");
        };
        assert_eq!((row.state, row.ambiguities), (State::Sent, 1));
    }

    #[tokio::test]
    async fn what_is_sent_or_unknown_is_not_resolved() {
        let (ledger, key, _) = in_doubt().await;
        resolve(&ledger, &key, word(Decision::Sent), at(30))
            .await
            .unwrap();
        let before = ledger.read(&key).await.unwrap().unwrap();
        let again = resolve(&ledger, &key, word(Decision::Send), at(31)).await;
        assert!(matches!(again.unwrap(), Resolved::Illegal(row, _) if row == before));
        let other = EffectKey::new(&EffectName::default(), "2");
        let unknown = resolve(&ledger, &other, word(Decision::Sent), at(31)).await;
        assert_eq!(unknown.unwrap(), Resolved::Unknown);
    }

    #[tokio::test]
    async fn an_effect_that_was_never_begun_is_released_for_its_item() {
        let (ledger, key) = (
            MemoryLedger::new(),
            EffectKey::new(&EffectName::default(), "1"),
        );
        let item = ItemRef {
            table: "orders".into(),
            key: "1".into(),
            recipient: None,
        };
        let written = release(&ledger, (&key, &item), None, word(Decision::Send)).await;
        let Resolved::Written(row) = written.unwrap() else {
            panic!("it can be released");
        };
        assert_eq!((row.state, row.released), (State::Retry, true));
        assert_eq!(row.item, Some(item.clone()));
        let again = release(&ledger, (&key, &item), Some(&row), word(Decision::Send)).await;
        assert_eq!(again.unwrap(), Resolved::Written(row));
    }

    #[tokio::test]
    async fn a_doubt_that_came_since_the_row_was_seen_is_not_released() {
        let (ledger, key, doubt) = in_doubt().await;
        let item = ItemRef {
            table: "orders".into(),
            key: "1".into(),
            recipient: None,
        };
        let seen = Entry {
            state: State::Retry,
            revision: 1,
            ..doubt.clone()
        };
        let released = release(&ledger, (&key, &item), Some(&seen), word(Decision::Send)).await;
        assert_eq!(released.unwrap(), Resolved::Contended);
        assert_eq!(ledger.read(&key).await.unwrap(), Some(doubt));
    }

    /// Another writer that writes once between the read and the write.
    #[derive(Clone)]
    struct Overtaken(MemoryLedger, Entry);

    impl Ledger for Overtaken {
        async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
            let seen = self.0.read(key).await?;
            let expected = seen.as_ref().map(|row| row.revision);
            self.0.swap(key, expected, &self.1).await?;
            Ok(seen)
        }

        async fn swap(
            &self,
            key: &EffectKey,
            expected: Option<u64>,
            entry: &Entry,
        ) -> anyhow::Result<Swap> {
            self.0.swap(key, expected, entry).await
        }

        async fn list(
            &self,
            state: Option<State>,
            from: Option<&str>,
        ) -> anyhow::Result<crate::stores::ledger::EntryPage> {
            self.0.list(state, from).await
        }
    }

    #[tokio::test]
    async fn a_late_acceptance_that_comes_first_wins_over_a_resend() {
        let (ledger, key, doubt) = in_doubt().await;
        let reply = "250 queued".to_owned();
        let accepted = Happened::Accepted { fence: 1, reply };
        let accepted = transition(Some(&doubt), &accepted, at(2)).unwrap();
        let overtaken = Overtaken(ledger.clone(), accepted.clone());
        let resolved = resolve(&overtaken, &key, word(Decision::Send), at(30)).await;
        assert!(matches!(resolved.unwrap(), Resolved::Illegal(..)));
        assert_eq!(ledger.read(&key).await.unwrap(), Some(accepted));
    }
}
