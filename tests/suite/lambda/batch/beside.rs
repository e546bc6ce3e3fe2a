//! The log, the home Region, and copies of dead letters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aftercommit::Failure;
use aftercommit::engine::lambda::{Function, MARGIN};
use aftercommit::filter::HomeRegion;
use serde_dynamo::AttributeValue;
use tracing::subscriber::DefaultGuard;

use super::desk::{Desk, LONG, STREAM, batch, failing, function, handled, place, records};
use crate::confirmation::secrets::Log;
use crate::support::lambda_events::event;

/// Keeps what this thread logs.
fn listening() -> (Log, DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(log.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    (log, guard)
}

#[tokio::test(start_paused = true)]
async fn the_log_says_what_was_not_begun_and_where_reading_continues() {
    let (log, _guard) = listening();
    let (function, _) = function(&Desk::new(|_, _| Ok(())));
    handled(&function, &batch("ab"), MARGIN).await;
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("delivered again"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 1, "{text}");
    for reported in [
        "the time is over: unfinished records are delivered again",
        r#""from":"1""#,
        r#""finished":0"#,
        r#""unfinished":2"#,
    ] {
        assert!(lines[0].contains(reported), "{reported} in {}", lines[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_that_has_too_little_time_says_so_once() {
    let (log, _guard) = listening();
    let (function, _) = function(&Desk::new(|_, _| Ok(())));
    handled(&function, &batch("a"), Duration::from_secs(30)).await;
    let reported = || log.text().matches("raise its timeout").count();
    assert_eq!(reported(), 0);
    for _ in 0..2 {
        handled(&function, &batch("a"), Duration::from_secs(11)).await;
    }
    assert_eq!(reported(), 1, "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn on_a_replica_of_a_global_table_only_the_records_of_its_region_are_handled() {
    let desk = Desk::new(|_, _| Ok(()));
    let (function, _) = function(&desk);
    let function = function.home_region(HomeRegion::new("home", "eu-central-1"));
    let mut all = records("abc", Duration::ZERO);
    for (record, region) in all.iter_mut().zip(["us-east-1", "eu-central-1"]) {
        let region = AttributeValue::S(region.to_owned());
        let mut image = record.new_image.take().unwrap().into_inner();
        image.insert("home".to_owned(), region);
        record.new_image = Some(image.into());
    }
    let answer = handled(&function, &event(STREAM, &all), LONG).await;
    assert_eq!(answer.unfinished(), None);
    assert_eq!(desk.begun(), ["2"], "the third is of no region");
    assert_eq!(function.counters().filtered.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_dead_letter_is_copied_to_the_queue_from_lambda_too() {
    let services = crate::stores::copies::Services::start().await;
    let (_, letters) = services.copied(crate::stores::copies::QUEUE).await;
    let desk = failing("b", || Failure::reject("bad"));
    let function = Function::new(place(STREAM), desk).dead_letters(Arc::new(letters));
    let answer = handled(&function, &batch("abc"), LONG).await;
    assert_eq!(answer.unfinished(), None);
    let sent = services.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    let (operation, fields) = &sent[0];
    assert_eq!(operation, "SendMessage");
    let body: serde_json::Value = serde_json::from_str(&fields["MessageBody"]).unwrap();
    let place = &body["DDBStreamBatchInfo"];
    assert_eq!(place["startSequenceNumber"], "2", "{body}");
    assert_eq!(place["streamArn"], STREAM, "{body}");
}
