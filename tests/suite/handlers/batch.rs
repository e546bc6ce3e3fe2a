//! Several changes in one call of a program.

use std::collections::BTreeSet;
use std::time::Duration;

use aftercommit::engine::{BatchLimits, Batched};
use aftercommit::handlers::Program;
use aftercommit::handlers::http::{BodyFormat, HttpHandler};
use aftercommit::record::{SequenceNumber, lambda_event};
use aftercommit::{Context, EffectName, Failure, RecordHandler as _};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::answers::settings;
use crate::support::handler_server::{HandlerServer, Posted, Reaction, answer};
use crate::support::orders::inserted;

/// A program over HTTP that gets at most so many changes in a call.
async fn batched(
    react: impl Fn(&Posted) -> Reaction + Send + Sync + 'static,
    (format, most): (BodyFormat, usize),
) -> (HandlerServer, Batched) {
    let server = HandlerServer::start(react).await;
    let mut settings = settings(&server.url("/changes"));
    settings.format = format;
    let http = HttpHandler::new(settings).unwrap();
    let http = http.effect(EffectName::new("placed").unwrap());
    let mut limits = BatchLimits::default();
    limits.max_records = most;
    // Longer than it takes to ask for all of them, and as long as nobody waits for it: batches are full.
    limits.max_wait = Duration::from_secs(5);
    (server, Batched::new(Program::Http(Box::new(http)), limits))
}

/// The change of this number, all of whose texts have one length.
async fn handle(batched: &Batched, number: usize) -> Result<(), Failure> {
    let mut order = inserted(&format!("{number:04}"), "ada@example.com");
    order.sequence_number = SequenceNumber::parse(number.to_string()).unwrap();
    batched.handle(&order, &Context::detached()).await
}

fn failures(numbers: &[&str]) -> String {
    let failed = numbers
        .iter()
        .map(|number| json!({"itemIdentifier": number}));
    json!({"batchItemFailures": failed.collect::<Vec<_>>()}).to_string()
}

/// The sequence numbers of the changes in a Lambda event.
fn numbers(posted: &Posted) -> Vec<String> {
    let body = posted.body();
    let records = body["Records"].as_array().unwrap().iter();
    let number = |record: &Value| {
        record["dynamodb"]["SequenceNumber"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    records.map(number).collect()
}

/// `+`, or the first letter of the failure.
fn sign(result: &Result<(), Failure>) -> char {
    match result {
        Ok(()) => '+',
        Err(Failure::Retry(_)) => 'r',
        Err(Failure::Reject(_)) => 'x',
        Err(Failure::Busy(_)) => 'b',
        Err(Failure::Unavailable(_)) => 'u',
        Err(other) => panic!("{other:?}"),
    }
}

async fn signs(batched: &Batched, numbers: impl IntoIterator<Item = usize>) -> String {
    let all = numbers.into_iter().map(|number| handle(batched, number));
    join_all(all).await.iter().map(sign).collect()
}

#[tokio::test]
async fn a_call_is_lambdas_event_with_all_changes_and_each_has_its_own_facts() {
    let of = (BodyFormat::Lambda, 3);
    let (server, batched) = batched(|_| answer(200, "", "{}"), of).await;
    assert_eq!(signs(&batched, [3, 1, 2]).await, "+++");
    let [call] = &server.seen()[..] else {
        panic!("{:?}", server.seen());
    };
    assert_eq!(numbers(call), ["1", "2", "3"], "sorted");
    let read = lambda_event::read_all(&call.body()).unwrap();
    assert_eq!(read.len(), 3);
    let records = call.body()["Records"].as_array().unwrap().clone();
    let keys = records
        .iter()
        .map(|record| record["aftercommit"]["idempotency-key"].to_string());
    assert_eq!(keys.collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(records[0]["aftercommit"]["aftercommit-attempt"], "1");
    let key = call.header("idempotency-key").unwrap();
    assert!(key.starts_with("placed#batch-"), "{key}");
    assert!(
        call.header("aftercommit-deadline").is_none(),
        "no limit here"
    );
}

#[tokio::test]
async fn plain_json_is_an_array_of_changes() {
    let (server, batched) = batched(|_| answer(200, "", ""), (BodyFormat::Json, 2)).await;
    assert_eq!(signs(&batched, [1, 2]).await, "++");
    let body = server.seen()[0].body();
    assert_eq!(body[0]["sequenceNumber"], "1");
    assert_eq!(body[1]["newImage"]["id"], "0002");
    assert!(body[1]["aftercommit"]["idempotency-key"].is_string());
}

#[tokio::test]
async fn what_is_in_batch_item_failures_is_retried_and_what_a_function_may_not_have_come_to_comes_again()
 {
    for (format, expected) in [(BodyFormat::Lambda, "+rbrb"), (BodyFormat::Json, "+r+r+")] {
        let failed = failures(&["2", "4"]);
        let react = move |_: &Posted| answer(200, "", &failed);
        let (server, batched) = batched(react, (format, 5)).await;
        assert_eq!(signs(&batched, 1..=5).await, expected, "{format:?}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_failure_that_names_no_record_of_the_batch_is_one_of_all_records() {
    for body in [
        failures(&["9"]),
        failures(&[""]),
        json!({"batchItemFailures": [{}]}).to_string(),
        json!({"batchItemFailures": "2"}).to_string(),
    ] {
        let of = (BodyFormat::Lambda, 3);
        let (_server, batched) = batched(move |_| answer(200, "", &body), of).await;
        assert_eq!(signs(&batched, 1..=3).await, "rrr");
    }
}

#[tokio::test]
async fn a_bad_record_is_found_by_halves_and_the_others_are_done() {
    let react = |posted: &Posted| {
        if numbers(posted).contains(&"7".to_owned()) {
            return answer(422, "", "no total");
        }
        answer(200, "", "{}")
    };
    let (server, batched) = batched(react, (BodyFormat::Lambda, 16)).await;
    assert_eq!(signs(&batched, 1..=16).await, "++++++x+++++++++");
    // 16, 8, 4, 2, 2, 1, 1, 4, 8
    assert_eq!(server.seen().len(), 9);
}

#[tokio::test]
async fn a_program_that_fails_everybody_is_not_called_for_each_record() {
    let of = (BodyFormat::Lambda, 16);
    let (server, batched) = batched(|_| answer(500, "", "broken"), of).await;
    assert_eq!(signs(&batched, 1..=16).await, "r".repeat(16));
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn a_program_that_is_down_is_called_once() {
    let of = (BodyFormat::Lambda, 16);
    let (server, batched) = batched(|_| answer(503, "", ""), of).await;
    assert_eq!(signs(&batched, 1..=16).await, "u".repeat(16));
    assert_eq!(server.seen().len(), 1);
}

/// How many calls are made for 1,000 changes of which so many run at a time.
async fn calls(most: usize, running: usize) -> usize {
    let (server, batched) = batched(|_| answer(200, "", "{}"), (BodyFormat::Lambda, most)).await;
    let changes = futures_util::stream::iter((1..=1000).map(|number| handle(&batched, number)));
    let failed = changes.buffer_unordered(running).filter(|result| {
        let failed = result.is_err();
        async move { failed }
    });
    assert_eq!(failed.count().await, 0);
    server.seen().len()
}

#[tokio::test]
async fn a_thousand_changes_take_a_thousand_calls_alone_and_twenty_in_batches_of_fifty() {
    assert_eq!(calls(1, 100).await, 1000);
    assert_eq!(calls(50, 100).await, 20);
}
