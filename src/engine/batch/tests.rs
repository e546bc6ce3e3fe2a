#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::HashMap;
use std::sync::Mutex;

use futures_util::future::join_all;
use serde_dynamo::{AttributeValue, Item};

use super::*;
use crate::core::record::Event;
use crate::stores::clock::Clock;
use crate::stores::source::memory::{Commit, MemoryStream};

/// Keeps its batches; `bad` is rejected, `panic` panics, `hang` never ends, and `lost` has no
/// result.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<Vec<String>>>>);

impl BatchHandler for Keeper {
    async fn handle(&self, batch: &[BatchRecord]) -> Vec<Result<(), Failure>> {
        let ids: Vec<_> = batch.iter().map(|one| text(&one.record, "id")).collect();
        self.0.lock().unwrap().push(ids.clone());
        if ids.iter().any(|id| id == "hang") {
            std::future::pending::<()>().await;
        }
        assert!(!ids.iter().any(|id| id == "panic"), "it is the panic");
        let result = |id: &String| match &**id {
            "bad" => Err(Failure::reject("bad")),
            _ => Ok(()),
        };
        let known = ids.iter().filter(|id| *id != "lost");
        known.map(result).collect()
    }
}

impl Keeper {
    fn batches(&self) -> Vec<Vec<String>> {
        self.0.lock().unwrap().clone()
    }
}

fn text(record: &Record, name: &str) -> String {
    match record.keys.inner().get(name) {
        Some(AttributeValue::S(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn record(keys: &[(&str, &str)]) -> Record {
    let attribute =
        |(name, value): &(&str, &str)| ((*name).to_owned(), AttributeValue::S((*value).to_owned()));
    let keys: HashMap<_, _> = keys.iter().map(attribute).collect();
    let keys = Item::from(keys);
    let change = Commit {
        event: Event::Insert,
        keys: keys.clone(),
        old_image: None,
        new_image: Some(keys),
        created: Clock::system().now(),
    };
    MemoryStream::new(1, 10).commit(change).0
}

/// The limit of an attempt.
const ATTEMPT: Duration = Duration::from_secs(30);

async fn handled(batched: &Batched, id: &str, attempt: u32) -> Result<(), Failure> {
    let mut context = Context::detached().of_attempt(attempt);
    context.attempt_ends = Some(Instant::now() + ATTEMPT);
    batched.handle(&record(&[("id", id)]), &context).await
}

fn batched(limits: BatchLimits) -> (Batched, Keeper) {
    let keeper = Keeper::default();
    (Batched::new(keeper.clone(), limits), keeper)
}

#[tokio::test(start_paused = true)]
async fn each_record_has_the_result_that_the_batch_gives_it() {
    let (batched, keeper) = batched(BatchLimits::default());
    let ids = ["cow", "bad", "ant"];
    let results = join_all(ids.map(|id| handled(&batched, id, 1))).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(&results[1], Err(Failure::Reject(why)) if why.to_string() == "bad"));
    assert_eq!(
        keeper.batches(),
        [["ant", "bad", "cow"]],
        "one batch, sorted"
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_that_has_failed_comes_alone() {
    let (batched, keeper) = batched(BatchLimits::default());
    let calls = [("a", 1), ("again", 2), ("b", 1)];
    let results = join_all(calls.map(|(id, attempt)| handled(&batched, id, attempt))).await;
    assert!(results.iter().all(Result::is_ok));
    let with_it = keeper.batches().into_iter();
    let with_it: Vec<_> = with_it
        .filter(|batch| batch.contains(&"again".to_owned()))
        .collect();
    assert_eq!(with_it, [["again"]]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_a_hang_and_a_missing_result_fail_every_record_of_the_batch() {
    for (culprit, why) in [
        ("panic", "the handler panicked: it is the panic"),
        ("hang", "the handler took longer than "),
        ("lost", "the batch handler returned 2 results for 3 records"),
    ] {
        let (batched, _) = batched(BatchLimits::default());
        let results = join_all(["a", culprit, "b"].map(|id| handled(&batched, id, 1))).await;
        for result in results {
            let failure = result.unwrap_err();
            assert!(failure.to_string().starts_with(why), "{failure}");
            let is_crash = matches!(&failure, Failure::Retry(error) if error.is::<Crash>());
            assert_eq!(is_crash, culprit != "lost", "{failure}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_must_not_be_handled_any_more_ends_its_batch_and_the_others_come_again() {
    let (batched, _) = batched(BatchLimits::default());
    let lost = timeout(Duration::from_secs(1), handled(&batched, "hang", 1));
    let (lost, other) = tokio::join!(lost, handled(&batched, "a", 1));
    assert!(lost.is_err());
    assert!(matches!(other, Err(Failure::Busy(SOON))), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_batch_does_not_begin_in_half_of_its_time_comes_again_without_an_attempt() {
    let (batched, keeper) = batched(BatchLimits {
        max_records: 1,
        in_flight: 1,
        ..BatchLimits::default()
    });
    let (hung, waits) = tokio::join!(handled(&batched, "hang", 1), handled(&batched, "a", 1));
    assert!(matches!(waits, Err(Failure::Busy(SOON))), "{waits:?}");
    assert!(hung.is_err());
    assert_eq!(keeper.batches(), [["hang"]]);
}

#[test]
fn a_batch_is_sorted_by_the_partition_key_where_it_is_known() {
    let (batched, _) = batched(BatchLimits {
        partition_key: Some("shop".to_owned()),
        ..BatchLimits::default()
    });
    let mut records = [("1", "b"), ("2", "a"), ("3", "b")]
        .map(|(id, shop)| record(&[("id", id), ("shop", shop)]));
    records.sort_by_key(|record| batched.order(record));
    let shops = records.each_ref().map(|record| text(record, "shop"));
    assert_eq!(shops, ["a", "b", "b"]);
}
