//! A table of dead letters without any, that never answers for one effect.

use aftercommit::record::ItemKey;
use aftercommit::stores::dead_letter::{
    Attempt, Claim, Coming, DeadLetters, Deed, EffectTable, Envelope, Fence, Letter, LetterId,
    LetterPage, ParkedPage, Reason, Selection, Written,
};
use aftercommit::{EffectName, GroupTable};
use async_trait::async_trait;

/// Without letters; a question for the parked keys of `silent` has no answer.
#[derive(Debug)]
pub struct EmptyLetters {
    pub silent: EffectName,
}

#[async_trait]
impl DeadLetters for EmptyLetters {
    async fn parked_page(
        &self,
        at: &EffectTable,
        _: Option<&str>,
        _: usize,
    ) -> anyhow::Result<ParkedPage> {
        if at.effect == self.silent {
            std::future::pending::<()>().await;
        }
        Ok(ParkedPage::default())
    }

    async fn write(&self, _: &Letter, _: Coming, _: Option<&Fence>) -> anyhow::Result<Written> {
        anyhow::bail!("the table takes nothing")
    }

    async fn is_parked(&self, _: &EffectTable, _: &ItemKey) -> anyhow::Result<bool> {
        Ok(false)
    }

    async fn next_of(&self, _: &EffectTable, _: &ItemKey) -> anyhow::Result<Option<Letter>> {
        Ok(None)
    }

    async fn next_after(&self, _: &LetterId) -> anyhow::Result<Option<Letter>> {
        Ok(None)
    }

    async fn read(&self, _: &LetterId) -> anyhow::Result<Option<Letter>> {
        Ok(None)
    }

    async fn close(&self, _: &LetterId, _: &Deed) -> anyhow::Result<Option<()>> {
        Ok(None)
    }

    async fn note(&self, _: &LetterId, _: &Attempt) -> anyhow::Result<Option<()>> {
        Ok(None)
    }

    async fn claim(&self, _: &EffectTable, _: &ItemKey, _: &Claim) -> anyhow::Result<Option<()>> {
        Ok(None)
    }

    async fn release(
        &self,
        _: &EffectTable,
        _: &ItemKey,
        _: &Claim,
        _: Option<Reason>,
    ) -> anyhow::Result<()> {
        Ok(())
    }

    async fn unpark_if_empty(&self, _: &EffectTable, _: &ItemKey) -> anyhow::Result<bool> {
        Ok(true)
    }

    async fn of_key(&self, _: &GroupTable, _: &ItemKey) -> anyhow::Result<Vec<Envelope>> {
        Ok(Vec::new())
    }

    async fn list(&self, _: &Selection, _: Option<&str>) -> anyhow::Result<LetterPage> {
        Ok(LetterPage::default())
    }
}
