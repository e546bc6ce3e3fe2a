//! Dead letters in this process, for tests and simulations.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use async_trait::async_trait;

use super::{
    Attempt, Claim, Coming, DeadLetters, Deed, Envelope, Fence, Letter, LetterId, LetterPage,
    ParkedKey, ParkedPage, Reason, Selection, Written,
};
use crate::core::group::{EffectTable, GroupTable};
use crate::core::record::{ItemKey, SequenceNumber};
use crate::stores::rows::fence::Demand;

/// The letters of a key, in order, and why it is parked.
#[derive(Debug, Default)]
struct OfKey {
    letters: BTreeMap<LetterPlace, Letter>,
    reason: Option<Reason>,
    claim: Option<Claim>,
}

/// A letter's place among those of its key: its stream's label, and its position in the stream.
type LetterPlace = (Arc<str>, SequenceNumber);

type LettersOfKeys = BTreeMap<(EffectTable, ItemKey), OfKey>;

/// Dead letters in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryDeadLetters(Arc<Mutex<LettersOfKeys>>);

fn of_key(at: &EffectTable, key: &ItemKey) -> (EffectTable, ItemKey) {
    (at.clone(), key.clone())
}

fn place(id: &LetterId) -> LetterPlace {
    (id.label.clone(), id.sequence_number.clone())
}

/// Whether a lease in this process is still held.
fn holds(fence: Option<&Fence>) -> anyhow::Result<bool> {
    match fence.map(Fence::demand) {
        None => Ok(true),
        Some(Demand::Asked(is_held)) => Ok(is_held()),
        Some(Demand::Row { table, .. }) => bail!(
            "dead letters in memory cannot check a lease in the table {table}: keep both in \
             DynamoDB, or both in memory"
        ),
    }
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
        match self.letters.get_mut(&place(&letter.envelope.id)) {
            Some(standing) if standing.envelope.open => {}
            Some(closed) => {
                letter.envelope.deeds = std::mem::take(&mut closed.envelope.deeds);
                *closed = letter;
            }
            None => {
                self.letters.insert(place(&letter.envelope.id), letter);
            }
        }
    }

    /// Why and since when it is parked, if it is.
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
    fn all(&self) -> MutexGuard<'_, LettersOfKeys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: &LetterId, change: impl FnOnce(&mut Letter)) -> Option<()> {
        let mut all = self.all();
        let of = all.get_mut(&of_key(&id.at, &id.key))?;
        let letter = of.letters.get_mut(&place(id))?;
        letter.envelope.open.then(|| change(letter))
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn write(
        &self,
        letter: &Letter,
        coming: Coming,
        fence: Option<&Fence>,
    ) -> anyhow::Result<Written> {
        let id = &letter.envelope.id;
        let mut all = self.all();
        if !holds(fence)? {
            return Ok(Written::LeaseLost);
        }
        let of = all.entry(of_key(&id.at, &id.key)).or_default();
        if coming == Coming::Behind && of.open().next().is_none() {
            return Ok(Written::KeyFree);
        }
        of.write(letter);
        Ok(Written::Done)
    }

    async fn parked_page(
        &self,
        at: &EffectTable,
        from: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<ParkedPage> {
        let all = self.all();
        let behind = |key: &ItemKey| from.is_none_or(|from| key.as_str() > from);
        let of_group = all.iter().filter(|(of, _)| of.0 == *at && behind(&of.1));
        let mut parked = of_group.filter_map(|((_, key), of)| of.parked(key));
        let keys: Vec<_> = parked.by_ref().take(limit).collect();
        let last = keys.last().map(|last| last.key.as_str().to_owned());
        Ok(ParkedPage {
            keys,
            unreadable: Vec::new(),
            next: last.filter(|_| parked.next().is_some()),
        })
    }

    async fn is_parked(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        let all = self.all();
        let of = all.get(&of_key(at, key));
        Ok(of.is_some_and(|of| of.open().next().is_some()))
    }

    async fn next_of(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let of = all.get(&of_key(at, key));
        Ok(of.and_then(|of| of.open().next()).cloned())
    }

    async fn next_after(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let Some(of) = all.get(&of_key(&id.at, &id.key)) else {
            return Ok(None);
        };
        let behind = (Bound::Excluded(place(id)), Bound::Unbounded);
        let mut behind = of.letters.range(behind);
        let next = behind.find(|(_, letter)| letter.envelope.open);
        Ok(next.map(|(_, letter)| letter.clone()))
    }

    async fn read(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let of = all.get(&of_key(&id.at, &id.key));
        Ok(of.and_then(|of| of.letters.get(&place(id))).cloned())
    }

    async fn close(&self, id: &LetterId, deed: &Deed) -> anyhow::Result<Option<()>> {
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
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
    ) -> anyhow::Result<Option<()>> {
        let mut all = self.all();
        let of = all.get_mut(&of_key(at, key));
        let free = |of: &&mut OfKey| of.parked(key).is_some_and(|key| key.is_free_for(claim));
        Ok(of.filter(free).map(|of| of.claim = Some(claim.clone())))
    }

    async fn release(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
        because: Option<Reason>,
    ) -> anyhow::Result<()> {
        let mut all = self.all();
        let of = all.get_mut(&of_key(at, key));
        let mine = |of: &&mut OfKey| of.claim.as_ref().is_some_and(|held| held.by == claim.by);
        if let Some(of) = of.filter(mine) {
            of.claim = None;
            of.reason = because.or(of.reason);
        }
        Ok(())
    }

    async fn unpark_if_empty(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        Ok(!self.is_parked(at, key).await?)
    }

    async fn of_key(&self, at: &GroupTable, key: &ItemKey) -> anyhow::Result<Vec<Envelope>> {
        let all = self.all();
        let of_key = all
            .iter()
            .filter(|((of, known), _)| of.at == *at && known == key);
        let letters = of_key.flat_map(|(_, of)| of.letters.values());
        Ok(letters.map(|letter| letter.envelope.clone()).collect())
    }

    async fn list(&self, which: &Selection, _from: Option<&str>) -> anyhow::Result<LetterPage> {
        let all = self.all();
        let letters = all.values().flat_map(|of| of.letters.values());
        let letters = letters.map(|letter| &letter.envelope);
        let letters = letters.filter(|letter| which.allows(letter)).cloned();
        Ok(LetterPage {
            letters: letters.collect(),
            ..LetterPage::default()
        })
    }
}
