//! What a consumer has done since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stores::dead_letter::Reason;

/// What a consumer has done since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that the handler finished.
    pub handled: AtomicU64,
    /// Skipped records: older than the start.
    pub skipped: AtomicU64,
    /// Records that the filters excluded, or that belong to another Region.
    pub filtered: AtomicU64,
    /// Records that became dead letters because they failed, and rescued or deferred ones whose
    /// redrive failed for good.
    pub dead_letters: AtomicU64,
    /// Records that followed a dead letter of their key.
    pub followed: AtomicU64,
    /// Records that became dead letters because they were about to leave the stream.
    pub rescued: AtomicU64,
    /// Records that became dead letters because their shard ended while they were failing.
    pub deferred: AtomicU64,
    /// Dead letters whose copy could not be sent.
    pub uncopied: AtomicU64,
    /// Dead letters that were redriven automatically.
    pub redriven: AtomicU64,
    /// Failed attempts. Those that a dependency deferred are not counted.
    pub failed_attempts: AtomicU64,
    /// Reads and listings of the stream that failed.
    pub reads_failed: AtomicU64,
    /// Reads of the stream that were throttled.
    pub reads_throttled: AtomicU64,
    /// Gaps: stretches of records that were trimmed before they could be read.
    pub gaps: AtomicU64,
    /// Lambda events of a stream that is not the table's latest.
    pub of_earlier_streams: AtomicU64,
    /// Leases taken that were free or belonged to dead workers.
    pub takes: AtomicU64,
    /// Leases handed over to other workers.
    pub hand_overs: AtomicU64,
    /// How many times trust ended before a heartbeat renewed it.
    pub lapses: AtomicU64,
    /// Heartbeats that were accepted.
    pub heartbeats: AtomicU64,
    /// Checkpoints written.
    pub checkpoints: AtomicU64,
    /// Writes that were refused because another worker holds the lease.
    pub refused: AtomicU64,
}

impl Counters {
    /// The counter for dead letters with this reason.
    pub(crate) fn of(&self, reason: Reason) -> &AtomicU64 {
        match reason {
            Reason::Rescued => &self.rescued,
            Reason::Deferred => &self.deferred,
            Reason::Followed => &self.followed,
            Reason::Rejected | Reason::Exhausted | Reason::TooOld => &self.dead_letters,
        }
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many records are finished, in any way. A record that was rescued or deferred and then failed
    /// for good counts twice.
    pub fn finished(&self) -> u64 {
        let all = [
            &self.handled,
            &self.skipped,
            &self.filtered,
            &self.dead_letters,
            &self.followed,
            &self.rescued,
            &self.deferred,
        ];
        all.iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }
}
