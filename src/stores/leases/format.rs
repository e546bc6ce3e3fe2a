//! Which formats of rows a build reads and writes, so that two versions can share a fleet.
//!
//! Rows are written in the newest format that every worker of the fleet reads: each says in its
//! own row what it reads. So a newer build writes what it alone can read only once the last older
//! one has left. If an older one comes back, the newer ones hand over what it cannot read (to
//! themselves, too), since that writes the row anew; a row never goes to a worker that could not read
//! it. The rows by which builds come to know each
//! other, the group's and the workers', always have the first format.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{FORMAT, View};

/// What one process reads and writes.
#[derive(Debug, Clone)]
pub(in crate::stores::leases) struct Formats {
    reads: u32,
    writes: Arc<AtomicU32>,
    /// Whether others cannot read what this build writes, for a simulation.
    careless: bool,
}

impl Default for Formats {
    fn default() -> Self {
        Self::of_build(FORMAT)
    }
}

impl Formats {
    /// Those of a build that reads rows up to this format.
    pub fn of_build(reads: u32) -> Self {
        Self {
            reads,
            writes: Arc::new(AtomicU32::new(reads)),
            careless: false,
        }
    }

    /// Those of a build that writes the newest rows that it reads, whoever else reads them.
    #[cfg(feature = "simulation")]
    pub fn careless(self) -> Self {
        let careless = true;
        Self { careless, ..self }
    }

    /// The newest format that this build reads.
    pub fn reads(&self) -> u32 {
        self.reads
    }

    /// The newest format that everybody reads, as far as the last look told.
    pub fn writes(&self) -> u32 {
        self.writes.load(Ordering::Relaxed)
    }

    /// A look showed who is there.
    pub fn saw(&self, view: &View) {
        let all = view.read_by_all().min(self.reads);
        let written = if self.careless { self.reads } else { all };
        self.writes.store(written, Ordering::Relaxed);
    }
}
