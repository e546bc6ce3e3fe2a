//! Dead letters in this process: for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Attempt, DeadLetters, Deed, Letter, LetterId, Page, ParkedKey, Selection};
use crate::record::{ItemKey, SequenceNumber};

/// The letters of a key, in order.
type OfKey = BTreeMap<SequenceNumber, Letter>;

/// Dead letters in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryDeadLetters(Arc<Mutex<BTreeMap<(String, ItemKey), OfKey>>>);

fn place(stream: &str, key: &ItemKey) -> (String, ItemKey) {
    (stream.to_owned(), key.clone())
}

fn open(of: &OfKey) -> impl Iterator<Item = &Letter> {
    of.values().filter(|letter| letter.envelope.open)
}

impl MemoryDeadLetters {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, ItemKey), OfKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: &LetterId, change: impl FnOnce(&mut Letter)) -> Option<()> {
        let mut all = self.all();
        let of = all.get_mut(&place(&id.stream, &id.key))?;
        let letter = of.get_mut(&id.sequence_number)?;
        letter.envelope.open.then(|| change(letter))
    }
}

fn write(of: &mut OfKey, letter: &Letter) {
    let mut letter = letter.clone();
    match of.get_mut(&letter.record.sequence_number) {
        Some(standing) if standing.envelope.open => {}
        Some(settled) => {
            letter.envelope.deeds = std::mem::take(&mut settled.envelope.deeds);
            *settled = letter;
        }
        None => {
            of.insert(letter.record.sequence_number.clone(), letter);
        }
    }
}

impl DeadLetters for MemoryDeadLetters {
    async fn park(&self, letter: &Letter) -> anyhow::Result<()> {
        let id = &letter.envelope.id;
        write(
            self.all().entry(place(&id.stream, &id.key)).or_default(),
            letter,
        );
        Ok(())
    }

    async fn follow(&self, letter: &Letter) -> anyhow::Result<Option<()>> {
        let id = &letter.envelope.id;
        let mut all = self.all();
        let of = all.entry(place(&id.stream, &id.key)).or_default();
        if open(of).next().is_none() {
            return Ok(None);
        }
        write(of, letter);
        Ok(Some(()))
    }

    async fn parked(&self, stream: &str) -> anyhow::Result<Vec<ParkedKey>> {
        let all = self.all();
        let of_stream = all.iter().filter(|(place, _)| place.0 == stream);
        let parked = of_stream.filter_map(|((_, key), of)| {
            let first = open(of).next()?;
            Some(ParkedKey {
                key: key.clone(),
                keys: first.envelope.keys.clone(),
                letters: open(of).count() as u64,
                since: open(of).map(|letter| letter.envelope.written).min()?,
            })
        });
        Ok(parked.collect())
    }

    async fn is_parked(&self, stream: &str, key: &ItemKey) -> anyhow::Result<bool> {
        let all = self.all();
        let of = all.get(&place(stream, key));
        Ok(of.is_some_and(|of| open(of).next().is_some()))
    }

    async fn next_of(&self, stream: &str, key: &ItemKey) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let of = all.get(&place(stream, key));
        Ok(of.and_then(|of| open(of).next()).cloned())
    }

    async fn read(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let all = self.all();
        let of = all.get(&place(&id.stream, &id.key));
        Ok(of.and_then(|of| of.get(&id.sequence_number)).cloned())
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

    async fn unpark_if_empty(&self, stream: &str, key: &ItemKey) -> anyhow::Result<bool> {
        Ok(!self.is_parked(stream, key).await?)
    }

    async fn list(&self, which: &Selection, _from: Option<&str>) -> anyhow::Result<Page> {
        let all = self.all();
        let letters = all.values().flat_map(BTreeMap::values);
        let letters = letters.map(|letter| &letter.envelope);
        let letters = letters.filter(|letter| which.allows(letter)).cloned();
        Ok(Page {
            letters: letters.collect(),
            next: None,
        })
    }
}
