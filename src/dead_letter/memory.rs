//! Dead letters in this process: for tests and simulations.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Attempt, Claim, DeadLetters, Deed, Letter, LetterId, Page, ParkedKey, Reason, Selection,
};
use crate::record::{ItemKey, SequenceNumber};

/// The letters of a key, in order, and why it is parked.
#[derive(Debug, Default)]
struct OfKey {
    letters: BTreeMap<SequenceNumber, Letter>,
    reason: Option<Reason>,
    claim: Option<Claim>,
}

type Keys = BTreeMap<(String, ItemKey), OfKey>;

/// Dead letters in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryDeadLetters(Arc<Mutex<Keys>>);

fn place(stream: &str, key: &ItemKey) -> (String, ItemKey) {
    (stream.to_owned(), key.clone())
}

impl OfKey {
    fn open(&self) -> impl Iterator<Item = &Letter> {
        self.letters.values().filter(|letter| letter.envelope.open)
    }

    fn write(&mut self, letter: &Letter) {
        if self.open().next().is_none() {
            (self.reason, self.claim) = (Some(letter.envelope.reason), None);
        }
        let mut letter = letter.clone();
        match self.letters.get_mut(&letter.record.sequence_number) {
            Some(standing) if standing.envelope.open => {}
            Some(settled) => {
                letter.envelope.deeds = std::mem::take(&mut settled.envelope.deeds);
                *settled = letter;
            }
            None => {
                let number = letter.record.sequence_number.clone();
                self.letters.insert(number, letter);
            }
        }
    }

    /// How it is parked, if it is.
    fn parked(&self, key: &ItemKey) -> Option<ParkedKey> {
        let first = self.open().next()?;
        Some(ParkedKey {
            key: key.clone(),
            keys: first.envelope.keys.clone(),
            letters: self.open().count() as u64,
            since: self.open().map(|letter| letter.envelope.written).min()?,
            reason: self.reason,
            claim: self.claim.clone(),
        })
    }
}

impl MemoryDeadLetters {
    fn all(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: &LetterId, change: impl FnOnce(&mut Letter)) -> Option<()> {
        let mut all = self.all();
        let of = all.get_mut(&place(&id.stream, &id.key))?;
        let letter = of.letters.get_mut(&id.sequence_number)?;
        letter.envelope.open.then(|| change(letter))
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn park(&self, letter: &Letter) -> anyhow::Result<()> {
        let id = &letter.envelope.id;
        let mut all = self.all();
        all.entry(place(&id.stream, &id.key))
            .or_default()
            .write(letter);
        Ok(())
    }

    async fn follow(&self, letter: &Letter) -> anyhow::Result<Option<()>> {
        let id = &letter.envelope.id;
        let mut all = self.all();
        let of = all.get_mut(&place(&id.stream, &id.key));
        let Some(of) = of.filter(|of| of.open().next().is_some()) else {
            return Ok(None);
        };
        of.write(letter);
        Ok(Some(()))
    }

    async fn parked(&self, stream: &str) -> anyhow::Result<Vec<ParkedKey>> {
        let all = self.all();
        let of_stream = all.iter().filter(|(place, _)| place.0 == stream);
        let parked = of_stream.filter_map(|((_, key), of)| of.parked(key));
        Ok(parked.collect())
    }

    async fn is_parked(&self, stream: &str, key: &ItemKey) -> anyhow::Result<bool> {
        let all = self.all();
        let of = all.get(&place(stream, key));
        Ok(of.is_some_and(|of| of.open().next().is_some()))
    }

    async fn next_of(&self, stream: &str, key: &ItemKey) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let of = all.get(&place(stream, key));
        Ok(of.and_then(|of| of.open().next()).cloned())
    }

    async fn next_after(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let Some(of) = all.get(&place(&id.stream, &id.key)) else {
            return Ok(None);
        };
        let behind = (Bound::Excluded(&id.sequence_number), Bound::Unbounded);
        let mut behind = of.letters.range::<SequenceNumber, _>(behind);
        let next = behind.find(|(_, letter)| letter.envelope.open);
        Ok(next.map(|(_, letter)| letter.clone()))
    }

    async fn read(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let of = all.get(&place(&id.stream, &id.key));
        Ok(of
            .and_then(|of| of.letters.get(&id.sequence_number))
            .cloned())
    }

    async fn settle(&self, id: &LetterId, deed: &Deed) -> anyhow::Result<Option<()>> {
        Ok(self.change(id, |letter| {
            letter.envelope.open = false;
            letter.envelope.deeds.push(deed.clone());
        }))
    }

    async fn note(&self, id: &LetterId, attempt: &Attempt) -> anyhow::Result<Option<()>> {
        Ok(self.change(id, |letter| {
            letter.envelope.attempts.push(attempt.at, &attempt.error);
        }))
    }

    async fn claim(
        &self,
        stream: &str,
        key: &ItemKey,
        claim: &Claim,
    ) -> anyhow::Result<Option<()>> {
        let mut all = self.all();
        let of = all.get_mut(&place(stream, key));
        let free = |of: &&mut OfKey| of.parked(key).is_some_and(|key| key.is_free_for(claim));
        Ok(of.filter(free).map(|of| of.claim = Some(claim.clone())))
    }

    async fn release(
        &self,
        stream: &str,
        key: &ItemKey,
        claim: &Claim,
        because: Option<Reason>,
    ) -> anyhow::Result<()> {
        let mut all = self.all();
        let of = all.get_mut(&place(stream, key));
        let mine = |of: &&mut OfKey| of.claim.as_ref().is_some_and(|held| held.by == claim.by);
        if let Some(of) = of.filter(mine) {
            of.claim = None;
            of.reason = because.or(of.reason);
        }
        Ok(())
    }

    async fn unpark_if_empty(&self, stream: &str, key: &ItemKey) -> anyhow::Result<bool> {
        Ok(!self.is_parked(stream, key).await?)
    }

    async fn list(&self, which: &Selection, _from: Option<&str>) -> anyhow::Result<Page> {
        let all = self.all();
        let letters = all.values().flat_map(|of| of.letters.values());
        let letters = letters.map(|letter| &letter.envelope);
        let letters = letters.filter(|letter| which.allows(letter)).cloned();
        Ok(Page {
            letters: letters.collect(),
            next: None,
        })
    }
}
