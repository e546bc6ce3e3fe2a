//! The ledger: one row per effect, so that no effect is silently performed twice.
//!
//! The store only swaps whole rows under their revision. [`crate::core::claim`] decides which row
//! follows from which. An email costs two writes: the claim and its outcome.

use std::fmt;
use std::future::Future;

use crate::core::group::EffectName;

pub mod dynamodb;
mod item;
pub mod memory;
pub mod registration;
pub mod resolve;
pub(crate) mod row;

pub use crate::core::claim::{
    Attention, Claimant, Decision, Entry, History, ItemRef, Kept, Liveness, Resolution, State,
    Step, StepKind,
};
pub use item::{item_keys, item_ref};

/// The key under which an effect is idempotent, such as `confirmation#<order id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey(String);

impl EffectKey {
    /// The effect of this name, for the thing with this `id`.
    pub fn new(effect: &EffectName, id: &str) -> Self {
        Self(format!("{effect}#{id}"))
    }

    /// The effect's name, or empty if this is not an effect key.
    pub fn effect(&self) -> &str {
        self.0.split_once('#').map_or("", |(effect, _)| effect)
    }

    /// The part after the effect's name, or the whole text if this is not an effect key.
    pub fn id(&self) -> &str {
        self.0.split_once('#').map_or(&*self.0, |(_, id)| id)
    }

    /// Parses the text of [`EffectKey::as_str`].
    pub fn from_row(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // One at a time, on the stack; a box would only add noise.
pub enum Swap {
    /// The new row is in the ledger, from this write or from an earlier one whose answer was lost.
    Written,
    /// Another row is in the ledger (`None`: no row); nothing was written.
    Lost(Option<Entry>),
}

/// How many effects need a person's attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needed {
    /// It is unknown whether they were accepted, and a person has to find out.
    pub ambiguous: u64,
    /// It is unknown, and the worker that has their record sends them once more.
    pub resending: u64,
    /// Operators released them, and they are not sent yet.
    pub released: u64,
}

/// A page of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// The entries with their keys.
    pub entries: Vec<(EffectKey, Entry)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// The ledger's rows.
///
/// An `Err` of [`Ledger::swap`] means that it is unknown whether the row was written: repeat it, or
/// read the row. Rows outlive the stream by their retention. After that an order must not be delivered
/// again.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// The current row, read consistently.
    fn read(&self, key: &EffectKey) -> impl Future<Output = anyhow::Result<Option<Entry>>> + Send;

    /// Replaces the row at `expected` (a revision; `None`: no row) by `entry`, in one conditional
    /// write.
    fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> impl Future<Output = anyhow::Result<Swap>> + Send;

    /// Lists the entries in a state, one page at a time, in no particular order. Reads the whole table:
    /// for operators, not while sending.
    fn list(
        &self,
        state: Option<State>,
        from: Option<&str>,
    ) -> impl Future<Output = anyhow::Result<EntryPage>> + Send;
}
