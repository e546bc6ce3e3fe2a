//! Which row formats a build reads and writes, so that two versions can share a fleet.
//!
//! Rows are written in the newest format that every worker of the fleet reads, as each worker's own row
//! says. So a newer build writes what only it can read once the last older build has left. If an older
//! build comes back, the newer ones hand over the leases that it cannot read (to themselves, too),
//! because that rewrites the rows. A lease never goes to a worker that cannot read it. The rows by
//! which builds recognise each other, the group's and the workers', always have the first format.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{FORMAT, View};

/// What one process reads and writes.
#[derive(Debug, Clone)]
pub(in crate::stores::leases) struct Formats {
    reads: u32,
    writes: Arc<AtomicU32>,
    /// Whether this build writes rows that others cannot read, for a simulation.
    careless: bool,
}

impl Default for Formats {
    fn default() -> Self {
        Self::of_build(FORMAT)
    }
}

impl Formats {
    /// A build that reads rows up to this format.
    pub fn of_build(reads: u32) -> Self {
        Self {
            reads,
            writes: Arc::new(AtomicU32::new(reads)),
            careless: false,
        }
    }

    /// A build that writes the newest rows that it reads, whatever others read.
    #[cfg(feature = "simulation")]
    pub fn careless(self) -> Self {
        let careless = true;
        Self { careless, ..self }
    }

    /// The newest format that this build reads.
    pub fn reads(&self) -> u32 {
        self.reads
    }

    /// The newest format that everybody reads, according to the last look.
    pub fn writes(&self) -> u32 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Handles a look that showed the workers.
    pub fn saw(&self, view: &View) {
        let all = view.read_by_all().min(self.reads);
        let written = if self.careless { self.reads } else { all };
        self.writes.store(written, Ordering::Relaxed);
    }
}
