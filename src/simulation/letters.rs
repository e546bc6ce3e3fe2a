//! A simulated worker's way to the dead letters: each call may be slow, lost, refused, or applied
//! without an answer.

use std::fmt;

use async_trait::async_trait;

use super::effects;
use super::flaw::Flaw;
use super::link::Link;
use crate::core::group::{EffectTable, GroupTable};
use crate::core::record::ItemKey;
use crate::stores::dead_letter::memory::MemoryDeadLetters;
use crate::stores::dead_letter::{
    Attempt, Claim, Coming, DeadLetters, Deed, Envelope, Fence, Letter, LetterId, LetterPage,
    ParkedPage, Reason, Selection, Written,
};
use crate::stores::rows::fence::Demand;

/// The dead letters, as a simulated worker reaches them.
#[derive(Clone)]
pub(super) struct LinkedLetters {
    link: Link,
    table: MemoryDeadLetters,
}

impl LinkedLetters {
    /// Those that one worker, or an operator, reaches by this link.
    pub fn new(link: Link, table: MemoryDeadLetters) -> Self {
        Self { link, table }
    }
}

impl fmt::Debug for LinkedLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkedLetters").finish_non_exhaustive()
    }
}

/// Whether nobody says that the lease is somebody else's.
pub(super) fn is_held(fence: Option<&Fence>) -> bool {
    match fence.map(Fence::demand) {
        Some(Demand::Asked(is_held)) => is_held(),
        None | Some(Demand::Row { .. }) => true,
    }
}

#[async_trait]
impl DeadLetters for LinkedLetters {
    async fn write(
        &self,
        letter: &Letter,
        coming: Coming,
        fence: Option<&Fence>,
    ) -> anyhow::Result<Written> {
        let (world, table) = (self.link.world().clone(), self.table.clone());
        let (letter, fence) = (letter.clone(), fence.cloned());
        let worker = self.link.worker();
        let apply = async move {
            let careless = world.has(Flaw::LetterWithoutLease);
            let demanded = fence.as_ref().filter(|_| !careless);
            let written = table.write(&letter, coming, demanded).await;
            if matches!(written, Ok(Written::Done)) {
                let Envelope { id, reason, .. } = &letter.envelope;
                let number = &id.sequence_number;
                world.note(worker, "dead-letters", format_args!("{number}, {reason}"));
                world.count(word(*reason));
                let effect = effects::number(&id.at.effect);
                let verdict = world.witness(effect, |witness| witness.lettered(&letter.record));
                world.judge(verdict);
                if !is_held(fence.as_ref()) {
                    world.judge(Err(format!(
                        "worker {worker} wrote {number} into the dead letters without its lease"
                    )));
                }
            }
            written
        };
        self.link.write("dead letter", apply).await
    }

    async fn parked_page(
        &self,
        at: &EffectTable,
        from: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<ParkedPage> {
        let world = self.link.world().clone();
        let (table, at, from) = (self.table.clone(), at.clone(), from.map(str::to_owned));
        let apply = async move {
            if world.has(Flaw::ParkedForgotten) {
                return Ok(ParkedPage::default());
            }
            table.parked_page(&at, from.as_deref(), limit).await
        };
        self.link.write("parked keys", apply).await
    }

    async fn is_parked(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        let (table, at, key) = (self.table.clone(), at.clone(), key.clone());
        let apply = async move { table.is_parked(&at, &key).await };
        self.link.write("parked key", apply).await
    }

    async fn next_of(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<Option<Letter>> {
        let (table, at, key) = (self.table.clone(), at.clone(), key.clone());
        let apply = async move { table.next_of(&at, &key).await };
        self.link.write("next letter", apply).await
    }

    async fn next_after(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let (table, id) = (self.table.clone(), id.clone());
        let apply = async move { table.next_after(&id).await };
        self.link.write("next letter", apply).await
    }

    async fn read(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        let (table, id) = (self.table.clone(), id.clone());
        let apply = async move { table.read(&id).await };
        self.link.write("read letter", apply).await
    }

    async fn close(&self, id: &LetterId, deed: &Deed) -> anyhow::Result<Option<()>> {
        let world = self.link.world().clone();
        let (table, id, deed) = (self.table.clone(), id.clone(), deed.clone());
        let apply = async move {
            let closed = table.close(&id, &deed).await;
            if matches!(closed, Ok(Some(()))) {
                world.count("dead letters redriven");
                let effect = effects::number(&id.at.effect);
                let verdict =
                    world.witness(effect, |witness| witness.redriven(&id.sequence_number));
                world.judge(verdict);
            }
            closed
        };
        self.link.write("finish letter", apply).await
    }

    async fn note(&self, id: &LetterId, attempt: &Attempt) -> anyhow::Result<Option<()>> {
        let (table, id, attempt) = (self.table.clone(), id.clone(), attempt.clone());
        let apply = async move { table.note(&id, &attempt).await };
        self.link.write("note attempt", apply).await
    }

    async fn claim(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
    ) -> anyhow::Result<Option<()>> {
        let (table, at) = (self.table.clone(), at.clone());
        let (key, claim) = (key.clone(), claim.clone());
        let apply = async move { table.claim(&at, &key, &claim).await };
        self.link.write("claim key", apply).await
    }

    async fn release(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
        because: Option<Reason>,
    ) -> anyhow::Result<()> {
        let (table, at) = (self.table.clone(), at.clone());
        let (key, claim) = (key.clone(), claim.clone());
        let apply = async move { table.release(&at, &key, &claim, because).await };
        self.link.write("release key", apply).await
    }

    async fn unpark_if_empty(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        let (table, at, key) = (self.table.clone(), at.clone(), key.clone());
        let apply = async move { table.unpark_if_empty(&at, &key).await };
        self.link.write("unpark key", apply).await
    }

    async fn of_key(&self, at: &GroupTable, key: &ItemKey) -> anyhow::Result<Vec<Envelope>> {
        self.table.of_key(at, key).await
    }

    async fn list(&self, which: &Selection, from: Option<&str>) -> anyhow::Result<LetterPage> {
        self.table.list(which, from).await
    }
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Rejected => "rejected records",
        Reason::Exhausted => "exhausted records",
        Reason::TooOld => "records that failed for too long",
        Reason::Rescued => "rescued records",
        Reason::Deferred => "deferred records",
        Reason::Followed => "followers of dead letters",
    }
}
