//! Batches of changes for a program.
//!
//! A failure that concerns a whole batch (status 422 or 500, an error of a function) may be due to one
//! record. The halves of the batch are then called one after the other, and their halves, until the record
//! is found. Two records that fail alone while none has succeeded show that no single record is to blame:
//! then the rest of the batch fails with them, without a call.

use std::ops::Range;
use std::time::Duration;

use super::call::{BatchPart, ProgramCall};
use super::event::{BatchItemFailures, wanted_again};
use super::program::Program;
use crate::engine::handler::{Crash, Failure};
use crate::engine::{BatchHandler, BatchRecord};
use crate::handlers::body::BodyFormat;

/// When a record comes again that its function may not have come to.
const AT_ONCE: Duration = Duration::from_millis(50);

/// So many records that fail alone show that no record is to blame.
const ENOUGH: usize = 2;

type Results = Vec<Result<(), Failure>>;

impl BatchHandler for Program {
    async fn handle(&self, batch: &[BatchRecord]) -> Results {
        let mut all: Results = batch.iter().map(|_| Ok(())).collect();
        let mut parts = Vec::new();
        for numbered in batch.iter().enumerate() {
            match BatchPart::of(self.keys(), self.format(), numbered) {
                Ok(part) => parts.push(part),
                Err(failure) => all[numbered.0] = Err(failure),
            }
        }
        let mut search = Search::of(parts.len());
        while let Some(range) = search.next() {
            let part = &parts[range.clone()];
            let call = ProgramCall::of_several(self.format(), part);
            match self.post(call).await {
                Ok(failures) => {
                    search.served = true;
                    for (one, result) in part.iter().zip(results(self.format(), part, &failures)) {
                        all[one.place] = result;
                    }
                }
                Err(failure) => {
                    for place in search.failed(range, &failure) {
                        all[parts[place].place] = Err(failure.copied());
                    }
                }
            }
        }
        all
    }
}

/// What became of each change, of which the program wants these again.
fn results(format: BodyFormat, batch: &[BatchPart<'_>], failures: &BatchItemFailures) -> Results {
    let listed = |numbers: &[String], part: &BatchPart<'_>| {
        let number = part.of.record.sequence_number.as_str();
        numbers.iter().any(|listed| listed == number)
    };
    let known = |numbers: &[String]| batch.iter().filter(|part| listed(numbers, part)).count();
    let numbers = match failures {
        BatchItemFailures::Of(numbers) if known(numbers) >= numbers.len() => Some(numbers),
        // Lambda takes a number of no record of the batch for a failure of everything, too.
        BatchItemFailures::Of(_) | BatchItemFailures::All => None,
    };
    let wanted = |part: &BatchPart<'_>| numbers.is_none_or(|numbers| listed(numbers, part));
    // A function of Lambda may stop at the first failure and report only that, because there
    // everything from the first failure on is delivered again.
    let stops = format == BodyFormat::Lambda;
    let mut has_failed = false;
    let result = |part: &BatchPart<'_>| {
        if wanted(part) {
            has_failed = true;
            return Err(wanted_again());
        }
        if has_failed && stops {
            return Err(Failure::Busy(AT_ONCE));
        }
        Ok(())
    };
    batch.iter().map(result).collect()
}

/// The search for the record that fails a batch.
struct Search {
    /// The parts that are still to be called, the next one last.
    waiting: Vec<Range<usize>>,
    /// Whether a call has succeeded.
    served: bool,
    /// How many records have failed alone.
    alone: usize,
}

impl Search {
    /// Of a batch of so many records.
    fn of(records: usize) -> Self {
        Self {
            waiting: (records > 0).then_some(0..records).into_iter().collect(),
            served: false,
            alone: 0,
        }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        self.waiting.pop()
    }

    /// The call for these records failed as a whole. Returns those that fail with it.
    fn failed(&mut self, records: Range<usize>, failure: &Failure) -> Vec<usize> {
        let one_may_be_to_blame = match failure {
            Failure::Reject(_) | Failure::Refused(_) => true,
            Failure::Retry(error) => !error.is::<Crash>(),
            _ => false,
        };
        if one_may_be_to_blame && records.len() > 1 {
            let middle = records.start + records.len() / 2;
            self.waiting.push(middle..records.end);
            self.waiting.push(records.start..middle);
            return Vec::new();
        }
        self.alone += 1;
        let hopeless = !one_may_be_to_blame || (!self.served && self.alone >= ENOUGH);
        let rest = if hopeless {
            std::mem::take(&mut self.waiting)
        } else {
            Vec::new()
        };
        records.chain(rest.into_iter().flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// The calls that are made for a batch of so many, of which these records fail whatever they are
    /// called with, and the records that fail in the end.
    fn searched(records: usize, bad: &[usize]) -> (usize, Vec<usize>) {
        let mut search = Search::of(records);
        let (mut calls, mut failed) = (0, Vec::new());
        while let Some(range) = search.next() {
            calls += 1;
            if bad.iter().any(|bad| range.contains(bad)) {
                failed.extend(search.failed(range, &Failure::reject("bad")));
            } else {
                search.served = true;
            }
        }
        failed.sort_unstable();
        (calls, failed)
    }

    #[test]
    fn one_bad_record_is_found_among_a_hundred_in_a_few_calls() {
        for bad in 0..100 {
            let (calls, failed) = searched(100, &[bad]);
            assert_eq!(failed, [bad]);
            assert!(calls <= 15, "{calls}");
        }
        assert_eq!(searched(100, &[]), (1, Vec::new()));
    }

    #[test]
    fn two_bad_records_fail_alone_if_a_good_one_was_served_before() {
        assert_eq!(searched(8, &[3, 7]).1, [3, 7]);
    }

    #[test]
    fn a_program_that_fails_everybody_is_called_a_few_times() {
        let all: Vec<_> = (0..100).collect();
        let (calls, failed) = searched(100, &all);
        assert_eq!(failed, all);
        assert!(calls <= 9, "{calls}");
    }

    #[test]
    fn what_no_record_is_to_blame_for_fails_all_of_them_after_one_call() {
        for failure in [
            Failure::unavailable("down"),
            Failure::overloaded("busy"),
            Failure::Busy(AT_ONCE),
            Failure::Retry(Crash::Died("it died".to_owned()).into()),
        ] {
            let mut search = Search::of(9);
            let range = search.next().unwrap();
            assert_eq!(search.failed(range, &failure), (0..9).collect::<Vec<_>>());
            assert_eq!(search.next(), None);
        }
    }
}
