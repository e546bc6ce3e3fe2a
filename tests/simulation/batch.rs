//! A handler that gets batches, under simulation: crashes, pauses and lost leases cut batches off, and
//! still nothing is lost and each item is handled in order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::Failure;
use aftercommit::engine::{BatchHandler, BatchLimits, BatchRecord, Batched};
use aftercommit::simulation::{Scenario, simulate_handler};
use aftercommit::stores::source::memory::Commit;

use crate::handler::numbered;

/// What the batches had.
#[derive(Default)]
struct Seen {
    largest: usize,
    failed: usize,
    cut_off: usize,
    /// Records that were in a batch with another record of their item.
    crowded: Vec<String>,
}

struct Index(Arc<Mutex<Seen>>);

/// Counts a batch that is dropped before its end.
struct Unfinished<'a>(&'a Mutex<Seen>, bool);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().cut_off += usize::from(self.1);
    }
}

impl BatchHandler for Index {
    async fn handle(&self, batch: &[BatchRecord]) -> Vec<Result<(), Failure>> {
        let mut unfinished = Unfinished(&self.0, true);
        tokio::time::sleep(Duration::from_millis(50)).await;
        unfinished.1 = false;
        let mut seen = self.0.lock().unwrap();
        seen.largest = seen.largest.max(batch.len());
        let mut items = BTreeSet::new();
        let result = |one: &BatchRecord| {
            if !items.insert(one.record.key()) {
                seen.crowded.push(format!("{:?}", one.record.keys));
            }
            // Now and then a first attempt fails, and the record comes alone the next time.
            if one.context.attempt() == 1 && fails_at_first(&one.record.event_id) {
                seen.failed += 1;
                return Err(Failure::retry("not now"));
            }
            Ok(())
        };
        batch.iter().map(result).collect()
    }
}

/// Whether this is a record of the tenth that fails.
fn fails_at_first(event_id: &str) -> bool {
    event_id
        .bytes()
        .map(u32::from)
        .sum::<u32>()
        .is_multiple_of(10)
}

fn change(rng: &mut fastrand::Rng, created: SystemTime) -> Commit {
    numbered(rng.u32(..20), created)
}

#[test]
fn a_batch_handler_loses_nothing_and_never_has_two_records_of_an_item_in_a_batch() {
    let seen = Arc::<Mutex<Seen>>::default();
    for seed in 0..12 {
        let shared = seen.clone();
        let scenario = Scenario::seeded(seed);
        let handler = move || {
            let mut limits = BatchLimits::default();
            (limits.max_records, limits.in_flight) = (5, 2);
            Batched::new(Index(shared.clone()), limits)
        };
        let outcome = simulate_handler(&scenario, handler, change);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.crowded, [] as [String; 0]);
    assert_eq!(seen.largest, 5);
    assert!(seen.failed > 0, "nothing failed");
    assert!(seen.cut_off > 0, "no batch was cut off");
}
