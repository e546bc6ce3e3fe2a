//! One attempt at one effect, and why it stops.

use std::time::{Duration, SystemTime};

use crate::core::claim::{Claimant, Entry, ItemRef, Kept, State};
use crate::engine::handler::Context;
use crate::stores::ledger::EffectKey;

/// One attempt at one effect.
pub(super) struct Job {
    pub(super) key: EffectKey,
    pub(super) item: ItemRef,
    pub(super) context: Context,
    /// The ledger's row, if it is known.
    pub(super) row: Option<Entry>,
    pub(super) began: SystemTime,
    /// The nonces of claims of this process that never began.
    pub(super) abandoned: Vec<u64>,
}

/// The basis from which an attempt prepares its effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Basis {
    /// When the effect was first claimed, or when the attempt began if it never was.
    pub(super) date: SystemTime,
    /// The packed payload of an earlier attempt that is in doubt.
    pub(super) to_repeat: Option<Kept>,
}

/// Why an attempt stops before its effect begins.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nothing is left to do.
    Done,
    /// It is unknown whether the effect took place, and a person decides.
    Parked,
    /// Another worker performs it: look again after this long.
    Busy(Duration),
    /// The effect key belongs to another item.
    Collision(ItemRef),
    /// The basis of the preparation has changed.
    Changed,
    /// The ledger does not answer.
    Unavailable(anyhow::Error),
}

impl Job {
    /// The payload that must be repeated, because an earlier claim is in doubt or is about to be: it
    /// has another claimant.
    pub(super) fn to_repeat<'a>(&self, row: &'a Entry) -> Option<&'a Kept> {
        let mine = |by: &Claimant| self.abandoned.contains(&by.nonce);
        let claimed = row.state == State::Sending && !row.claimant.as_ref().is_some_and(mine);
        let in_doubt = claimed || !row.doubtful.is_empty();
        row.kept.as_ref().filter(|_| in_doubt)
    }
}
