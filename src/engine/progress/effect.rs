//! What one effect has done and is doing now.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Counters, Histogram};
use crate::core::group::EffectName;
use crate::engine::dependency::{Dependency, Down};

/// What an effect of a consumer has done and is doing now.
#[derive(Debug)]
pub struct EffectProgress {
    name: EffectName,
    pub(crate) counters: Arc<Counters>,
    /// How long one attempt of the handler took.
    pub handling: Arc<Histogram>,
    /// From a record's commit until it was finished. Skipped and filtered records are not counted.
    pub finishing: Histogram,
    dependency: OnceLock<Dependency>,
}

impl EffectProgress {
    pub(crate) fn new(name: EffectName) -> Self {
        Self {
            name,
            counters: Arc::default(),
            handling: Arc::default(),
            finishing: Histogram::default(),
            dependency: OnceLock::new(),
        }
    }

    /// The effect's name.
    pub fn name(&self) -> &EffectName {
        &self.name
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Since when and why its handler's dependency is down; `None`: it is up, as far as is known.
    pub fn down(&self) -> Option<Down> {
        self.dependency.get()?.down()
    }

    /// How long its handler's dependency has been down.
    pub fn down_for(&self) -> Option<Duration> {
        self.dependency.get()?.down_for()
    }

    pub(crate) fn depends_on(&self, dependency: Dependency) {
        // A consumer runs only once.
        let _ = self.dependency.set(dependency);
    }
}
