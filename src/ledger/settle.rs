//! An operator's word on an effect, written under the row's revision.

use std::time::SystemTime;

use super::{EffectKey, Ledger, Swap};
use crate::decide::claim::{
    Ask, Claimant, Entry, Happened, Illegal, Liveness, OnAmbiguous, Settlement, State, Verdict,
    claim, transition,
};

/// Rounds of losing a race for the row.
const ROUNDS: u32 = 8;

/// What an operator's word came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // One at a time, on the stack; a box would only add noise.
pub enum Settled {
    /// It stands on the row, which is now this.
    Written(Entry),
    /// The row is in a state in which nobody can settle it; it stays as it is.
    Illegal(Entry, Illegal),
    /// The ledger does not know the effect.
    Unknown,
    /// The row changed again and again under the writer.
    Contended,
}

/// Writes an operator's decision down: who, when, why.
///
/// A claim whose deadline has passed cannot be acting any more: it is called AMBIGUOUS first, and
/// then settled. Each write replaces the row that was read and no other, so a word that comes after
/// a worker's is never written over it. A crash in between leaves the row AMBIGUOUS or settled.
///
/// # Errors
///
/// The ledger does not answer; whether the word stands is not known. Repeating is safe: what is
/// settled already is told as [`Settled::Illegal`].
pub async fn settle<L: Ledger>(
    ledger: &L,
    key: &EffectKey,
    settlement: Settlement,
    now: SystemTime,
) -> anyhow::Result<Settled> {
    let happened = Happened::Settled(settlement);
    let mut row = ledger.read(key).await?;
    for _ in 0..ROUNDS {
        let Some(entry) = row else {
            return Ok(Settled::Unknown);
        };
        let (next, last) = match (
            overdue(&entry, now),
            transition(Some(&entry), &happened, now),
        ) {
            (Some(doubt), _) => (doubt, false),
            (None, Ok(next)) => (next, true),
            (None, Err(illegal)) => return Ok(Settled::Illegal(entry, illegal)),
        };
        row = match ledger.swap(key, Some(entry.revision), &next).await? {
            Swap::Written if last => return Ok(Settled::Written(next)),
            Swap::Written => Some(next),
            Swap::Lost(standing) => standing,
        };
    }
    Ok(Settled::Contended)
}

/// The row as it is to be, if it is claimed by somebody whose deadline has passed.
fn overdue(entry: &Entry, now: SystemTime) -> Option<Entry> {
    if entry.state != State::Sending {
        return None;
    }
    let standing = entry.claimant.as_ref().map_or(0, |by| by.nonce);
    let ask = Ask {
        claimant: Claimant {
            incarnation: String::new(),
            // Nobody's: this asks, and never claims.
            nonce: !standing,
            deadline: now,
        },
        digest: None,
        item: None,
        kept: None,
        abandoned: Vec::new(),
        policy: OnAmbiguous::Park,
        now,
    };
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
    use crate::decide::claim::SettledAs;
    use crate::group::Effect;
    use crate::ledger::memory::MemoryLedger;

    fn at(minutes: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_mins(minutes)
    }

    fn word(verdict: SettledAs) -> Settlement {
        Settlement {
            by: "ops".into(),
            at: at(30),
            reason: "asked the customer".into(),
            verdict,
        }
    }

    /// A ledger with one effect, claimed until minute 20.
    async fn claimed() -> (MemoryLedger, EffectKey, Entry) {
        let ask = Ask {
            claimant: Claimant {
                incarnation: "worker/1".into(),
                nonce: 7,
                deadline: at(20),
            },
            digest: Some("d".into()),
            item: None,
            kept: None,
            abandoned: Vec::new(),
            policy: OnAmbiguous::Resend,
            now: at(0),
        };
        let Verdict::Claim(entry) = claim(None, &ask, Liveness::Unknown) else {
            panic!("a new effect can be claimed");
        };
        let (ledger, key) = (MemoryLedger::new(), EffectKey::new(&Effect::default(), "1"));
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
    async fn a_doubt_is_settled_with_who_when_and_why_on_the_row() {
        for (verdict, state) in [
            (SettledAs::Sent, State::Sent),
            (SettledAs::Resend, State::Retry),
        ] {
            let (ledger, key, _) = in_doubt().await;
            let settled = settle(&ledger, &key, word(verdict), at(30)).await.unwrap();
            let row = ledger.read(&key).await.unwrap().unwrap();
            assert_eq!(settled, Settled::Written(row.clone()));
            assert_eq!((row.state, row.doubtful.len()), (state, 0));
            assert_eq!(row.settlements, [word(verdict)]);
        }
    }

    #[tokio::test]
    async fn a_claim_is_left_alone_until_its_deadline_and_then_doubted_and_settled() {
        let (ledger, key, entry) = claimed().await;
        let early = settle(&ledger, &key, word(SettledAs::Sent), at(19)).await;
        assert!(matches!(early.unwrap(), Settled::Illegal(..)));
        assert_eq!(ledger.read(&key).await.unwrap(), Some(entry));
        let late = settle(&ledger, &key, word(SettledAs::Sent), at(21)).await;
        let Settled::Written(row) = late.unwrap() else {
            panic!("an overdue claim can be settled");
        };
        assert_eq!((row.state, row.ambiguities), (State::Sent, 1));
    }

    #[tokio::test]
    async fn what_is_sent_or_unknown_is_not_settled() {
        let (ledger, key, _) = in_doubt().await;
        settle(&ledger, &key, word(SettledAs::Sent), at(30))
            .await
            .unwrap();
        let before = ledger.read(&key).await.unwrap().unwrap();
        let again = settle(&ledger, &key, word(SettledAs::Resend), at(31)).await;
        assert!(matches!(again.unwrap(), Settled::Illegal(row, _) if row == before));
        let other = EffectKey::new(&Effect::default(), "2");
        let unknown = settle(&ledger, &other, word(SettledAs::Sent), at(31)).await;
        assert_eq!(unknown.unwrap(), Settled::Unknown);
    }

    /// Another writer gets in between the read and the write, once.
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
        ) -> anyhow::Result<crate::ledger::Page> {
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
        let settled = settle(&overtaken, &key, word(SettledAs::Resend), at(30)).await;
        assert!(matches!(settled.unwrap(), Settled::Illegal(..)));
        assert_eq!(ledger.read(&key).await.unwrap(), Some(accepted));
    }
}
