//! A projection kept by a handler, under simulation: each row shows its item as the newest record
//! left it, whoever wrote late. Once with the record's version, once with the lease's epoch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::record::SequenceNumber;
use aftercommit::simulation::{Scenario, simulate_handler};
use aftercommit::stores::source::memory::Commit;
use aftercommit::{Context, Failure, Record, RecordHandler};

use crate::handler::numbered;

/// A table whose rows are written under a condition on `fence`, as DynamoDB decides it.
struct Table<F> {
    rows: BTreeMap<String, (F, SequenceNumber)>,
    /// Writes that were refused although the row was older.
    refused_newer: Vec<String>,
    refused_older: u32,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            refused_newer: Vec::new(),
            refused_older: 0,
        }
    }
}

impl<F: std::fmt::Debug> Table<F> {
    fn write(&mut self, record: &Record, fence: F, may: impl Fn(&F, &F) -> bool) {
        let (key, number) = (record.key(), record.sequence_number.clone());
        match self.rows.get(key.as_str()) {
            Some((of_row, shown)) if !may(of_row, &fence) => {
                if *shown < number {
                    let refused = format!("{number} under {fence:?}: {shown} under {of_row:?}");
                    self.refused_newer.push(refused);
                } else {
                    self.refused_older += 1;
                }
            }
            _ => drop(self.rows.insert(key.as_str().to_owned(), (fence, number))),
        }
    }
}

#[derive(Default)]
struct Projected {
    by_version: Table<String>,
    by_epoch: Table<u64>,
    /// The newest record of each item whose handler said that it was done.
    done: BTreeMap<String, SequenceNumber>,
}

impl Projected {
    /// Items whose row does not show the newest record that was handled.
    fn stale<F>(&self, table: &Table<F>) -> Vec<String> {
        let stale = |(key, number): &(&String, &SequenceNumber)| {
            table.rows.get(*key).is_none_or(|(_, shown)| shown < number)
        };
        let keys = self.done.iter().filter(stale);
        keys.map(|(key, number)| format!("{key} should show {number}"))
            .collect()
    }
}

struct Projection(Arc<Mutex<Projected>>);

impl RecordHandler for Projection {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        // Late enough to be frozen before the write.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let projected = &mut *self.0.lock().unwrap();
        let version = context.version(record);
        let newer = |row: &String, write: &String| row < write;
        projected.by_version.write(record, version, newer);
        // A dead letter that is redriven is handled under no lease.
        if let Some(epoch) = context.epoch() {
            let not_lower = |row: &u64, write: &u64| row <= write;
            projected.by_epoch.write(record, epoch, not_lower);
        }
        let done = projected.done.entry(record.key().as_str().to_owned());
        let newest = done.or_insert_with(|| record.sequence_number.clone());
        *newest = newest.clone().max(record.sequence_number.clone());
        Ok(())
    }
}

fn change(rng: &mut fastrand::Rng, created: SystemTime) -> Commit {
    numbered(rng.u32(..20), created)
}

#[test]
fn a_projection_refuses_no_newer_write_and_shows_no_stale_row() {
    let (mut splits, mut refused_older) = (0, 0);
    for seed in 0..12 {
        let projected = Arc::<Mutex<Projected>>::default();
        let shared = projected.clone();
        let scenario = Scenario::seeded(seed);
        let outcome = simulate_handler(&scenario, move || Projection(shared.clone()), change);
        assert_eq!(outcome.violation, None, "seed {seed}");
        let happened = |what| outcome.counts.0.get(what).copied().unwrap_or(0);
        splits += happened("splits");

        let projected = projected.lock().unwrap();
        let by_version = &projected.by_version;
        assert!(
            by_version.refused_newer.is_empty(),
            "seed {seed}: {:?}",
            by_version.refused_newer
        );
        assert_eq!(
            projected.stale(by_version),
            [] as [String; 0],
            "seed {seed}"
        );
        refused_older += by_version.refused_older;
        // With a lease's row an operator removes its epoch: it begins again below. A redrive writes under
        // none.
        let epochs_end = [
            "leases deleted or damaged",
            "group rows deleted or damaged",
            "dead letters redriven",
        ];
        if epochs_end.into_iter().all(|what| happened(what) == 0) {
            let by_epoch = &projected.by_epoch;
            assert!(
                by_epoch.refused_newer.is_empty(),
                "seed {seed}: {:?}",
                by_epoch.refused_newer
            );
            assert_eq!(projected.stale(by_epoch), [] as [String; 0], "seed {seed}");
        }
    }
    assert!(splits > 0, "no shard was split");
    assert!(refused_older > 0, "nobody wrote late");
}
