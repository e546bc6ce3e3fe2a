//! Events with records that cannot be read, that come late, or that belong to others.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::Failure;
use aftercommit::engine::lambda::{Function, Invoked, Refused};
use serde_json::json;
use tokio::time::Instant;

use crate::support::lambda_events::event;

use super::desk::{
    Desk, LONG, STREAM, batch, documented, failing, function, handled, old, place, records,
};

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_holds_what_follows_and_nothing_before_it() {
    let desk = Desk::new(|_, _| Ok(()));
    let (function, _) = function(&desk);
    let mut odd = batch("abc");
    odd["Records"][1]["eventName"] = "MERGE".into();
    let answer = handled(&function, &odd, LONG).await;
    assert_eq!(
        (answer.unfinished(), desk.begun()),
        (Some("2"), vec!["1".to_owned()])
    );
    let change = odd["Records"][1]["dynamodb"].as_object_mut().unwrap();
    change.remove("SequenceNumber");
    let refused = function
        .handle(&odd, Instant::now() + LONG)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("Records[1].dynamodb.SequenceNumber"),
        "{refused}"
    );
    assert_eq!(desk.begun(), ["1", "1"]);
    // The reported record must precede the one that cannot be read.
    let desk = failing("a", || Failure::reject("bad"));
    let function = Function::new(place(STREAM), desk);
    let answer = handled(&function, &odd, LONG).await;
    assert_eq!(answer.unfinished(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_waits_since_its_commit_if_that_is_known() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let seen = reported.clone();
    let (function, _) = function(&Desk::new(|_, _| Ok(())));
    let function = function.on_invoked(move |invoked| {
        seen.lock().unwrap().push(invoked);
        std::future::ready(())
    });
    let mut odd = batch("ab");
    handled(&function, &odd, LONG).await;
    odd["Records"][1]["dynamodb"]["ApproximateCreationDateTime"] = json!(1_700_000_000);
    odd["Records"][1]["eventName"] = "MERGE".into();
    handled(&function, &odd, LONG).await;
    let change = odd["Records"][1]["dynamodb"].as_object_mut().unwrap();
    change.remove("SequenceNumber");
    let ends = Instant::now() + LONG;
    function.handle(&odd, ends).await.unwrap_err();
    let nothing = json!({"Records": "none"});
    function.handle(&nothing, ends).await.unwrap_err();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let waits = Invoked::Waiting(Some(then));
    let expected = [Invoked::Finished, waits, waits, Invoked::Waiting(None)];
    assert_eq!(*reported.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_fell_behind_by_most_of_a_day_leaves_a_gap_or_is_refused() {
    let desk = Desk::new(|_, _| Ok(()));
    let (function, _) = function(&desk);
    let gaps = Arc::new(Mutex::new(Vec::new()));
    let (written, away) = (gaps.clone(), Arc::new(Mutex::new(true)));
    let is_away = away.clone();
    let function = function.gaps(move |gap| {
        let answer = if *is_away.lock().unwrap() {
            Err(anyhow::anyhow!("no table"))
        } else {
            written.lock().unwrap().push(gap);
            Ok(())
        };
        std::future::ready(answer)
    });
    let ends = Instant::now() + LONG;
    handled(&function, &old("a", 19), LONG).await;
    assert!(gaps.lock().unwrap().is_empty(), "as in an outage");
    let refused = function.handle(&old("b", 24), ends).await.unwrap_err();
    let reported = refused.to_string();
    assert!(reported.contains("records may be lost, and the gap cannot be recorded: no table"));
    *away.lock().unwrap() = false;
    for _ in 0..2 {
        handled(&function, &old("b", 24), LONG).await;
    }
    let gaps = gaps.lock().unwrap();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0].shard.to_string().contains("lambda-"), "{gaps:?}");
    assert_eq!(function.counters().gaps.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_others_is_refused() {
    let desk = Desk::new(|_, _| Ok(()));
    let (function, _) = function(&desk);
    for (event, reported) in [
        (json!({"key1": "value1"}), "Records: expected a list"),
        (json!([]), "Records: expected a list"),
        (
            json!({"Records": [{"kinesis": {}}]}),
            "Records[0].dynamodb: not there",
        ),
    ] {
        let refused = function
            .handle(&event, Instant::now() + LONG)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains(reported), "{refused}");
    }
    let refused = function.handle(&documented(), Instant::now() + LONG).await;
    assert!(
        matches!(refused, Err(Refused::Foreign { .. })),
        "{refused:?}"
    );
    let enabled_again = STREAM.replace("2026", "2027");
    let answer = handled(
        &function,
        &event(&enabled_again, &records("a", Duration::ZERO)),
        LONG,
    )
    .await;
    assert_eq!(answer.unfinished(), None);
}
