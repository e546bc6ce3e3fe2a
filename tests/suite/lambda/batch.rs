//! A batch behind an event source mapping: what is finished, and what is reported.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercommit::engine::lambda::{Function, MARGIN};
use aftercommit::filter::Filters;
use aftercommit::stores::dead_letter::{DeadLetters as _, LetterOutcome, Reason, Selection};
use aftercommit::{Failure, Settings};
use serde_json::json;
use tokio::time::Instant;

use crate::support::lambda_events::event;
use crate::support::letters;

mod beside;
mod desk;
mod unreadable;

use desk::{
    Desk, LONG, STREAM, batch, documented, failing, function, handled, old, parked, place, records,
    retry,
};

#[tokio::test(start_paused = true)]
async fn the_documented_event_is_handled_in_order_and_answered_as_documented() {
    let desk = Desk::new(|_, _| Ok(()));
    let arn = documented()["Records"][0]["eventSourceARN"].to_string();
    let function = Function::new(place(arn.trim_matches('"')), desk.clone());
    let answer = handled(&function, &documented(), LONG).await;
    assert_eq!(
        serde_json::to_value(&answer).unwrap(),
        json!({"batchItemFailures": []})
    );
    assert_eq!(desk.begun(), ["111", "222", "333"]);
    let failing = Desk::new(|record, _| {
        let bad = record.sequence_number.as_str() == "222";
        if bad {
            Err(Failure::reject("bad"))
        } else {
            Ok(())
        }
    });
    let function = Function::new(place(arn.trim_matches('"')), failing.clone());
    let answer = handled(&function, &documented(), LONG).await;
    let reported = json!({"batchItemFailures": [{"itemIdentifier": "222"}]});
    assert_eq!(serde_json::to_value(&answer).unwrap(), reported);
    assert_eq!(
        failing.begun(),
        ["111", "222"],
        "333 is a later change of the same item"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_of_an_earlier_stream_is_handled_and_counted() {
    let later = STREAM.replace("2026-01-01", "2026-01-02");
    let (desk, asked) = (Desk::new(|_, _| Ok(())), Arc::new(Mutex::new(0)));
    let (function, _) = function(&desk);
    let (latest, count) = (Arc::<str>::from(&*later), asked.clone());
    let function = function.latest_stream(move || {
        *count.lock().unwrap() += 1;
        std::future::ready(Some(latest.clone()))
    });
    let earlier = || {
        function
            .counters()
            .of_earlier_streams
            .load(Ordering::Relaxed)
    };
    assert_eq!(
        handled(&function, &batch("ab"), LONG).await.unfinished(),
        None
    );
    assert_eq!((desk.begun().len(), earlier()), (2, 1));
    handled(&function, &batch("cd"), LONG).await;
    assert_eq!(
        (*asked.lock().unwrap(), earlier()),
        (1, 2),
        "one answer serves for minutes"
    );
    let of_later = event(&later, &records("e", Duration::ZERO));
    handled(&function, &of_later, LONG).await;
    assert_eq!((desk.begun().len(), earlier()), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_does_not_answer_holds_no_event() {
    let desk = Desk::new(|_, _| Ok(()));
    let (function, _) = function(&desk);
    let function = function.latest_stream(std::future::pending);
    let began = Instant::now();
    assert_eq!(
        handled(&function, &batch("ab"), LONG).await.unfinished(),
        None
    );
    assert!(
        began.elapsed() <= Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn without_dead_letters_a_bad_record_is_reported_its_key_stops_and_all_others_continue() {
    let desk = failing("b", || Failure::reject("bad"));
    let function = Function::new(place(STREAM), desk.clone());
    let began = Instant::now();
    let answer = handled(&function, &batch("abcbac"), LONG).await;
    assert_eq!(answer.unfinished(), Some("2"));
    let mut calls = desk.begun();
    calls.sort();
    assert_eq!(calls, ["1", "2", "3", "5", "6"], "4 waits for 2");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "nothing to wait for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejected_record_becomes_a_dead_letter_and_its_key_follows_also_in_the_next_batch() {
    let desk = failing("b", || Failure::reject("bad"));
    let (function, letters) = function(&desk);
    let answer = handled(&function, &batch("abcb"), LONG).await;
    assert_eq!(answer.unfinished(), None);
    let both = [
        ("2".to_owned(), Reason::Rejected),
        ("4".to_owned(), Reason::Followed),
    ];
    assert_eq!(parked(&letters).await, both);
    let mut next = records("zzzzbb", Duration::ZERO).split_off(4);
    let answer = handled(&function, &event(STREAM, &next), LONG).await;
    assert_eq!(answer.unfinished(), None);
    assert_eq!(parked(&letters).await.len(), 4);
    assert_eq!(desk.begun().len(), 3, "the handler saw 1, 2 and 3 only");
    // Once the letters are gone, the key continues.
    for letter in letters::listed(&*letters, &Selection::default()).await {
        let deed = letters::deed(LetterOutcome::Discarded);
        letters.close(&letter.id, &deed).await.unwrap().unwrap();
    }
    next[0].keys = letters::record("c", 1).keys;
    let answer = handled(&function, &event(STREAM, &next[..1]), LONG).await;
    assert_eq!(answer.unfinished(), None);
    assert_eq!(desk.begun().last().map(String::as_str), Some("5"));
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_handler_panics_is_tried_as_often_as_by_an_owner_of_its_shard() {
    let desk = failing("b", || panic!("it panics"));
    let (function, letters) = function(&desk);
    let answer = handled(&function, &batch("abb"), LONG).await;
    assert_eq!(answer.unfinished(), None);
    let both = [
        ("2".to_owned(), Reason::Exhausted),
        ("3".to_owned(), Reason::Followed),
    ];
    assert_eq!(parked(&letters).await, both);
    let tries = desk
        .calls
        .lock()
        .unwrap()
        .iter()
        .filter(|(n, _)| n == "2")
        .count();
    assert_eq!(tries, 10);
    assert_eq!(
        function.counters().failed_attempts.load(Ordering::Relaxed),
        10
    );
    assert_eq!(function.counters().dead_letters.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_still_fails_when_the_time_is_over_comes_again_unless_it_is_too_old() {
    let desk = failing("b", retry);
    let (function, letters) = function(&desk);
    let mut many = Settings::default();
    many.attempts.attempts = 1_000_000;
    let function = function.settings(many);
    let short = Duration::from_secs(20);
    let began = Instant::now();
    let answer = handled(&function, &batch("abcb"), short).await;
    assert_eq!(answer.unfinished(), Some("2"));
    assert!(began.elapsed() + MARGIN <= short, "{:?}", began.elapsed());
    assert_eq!(parked(&letters).await, []);
    let answer = handled(&function, &old("abcb", 7), short).await;
    assert_eq!(answer.unfinished(), None);
    let both = [
        ("2".to_owned(), Reason::TooOld),
        ("4".to_owned(), Reason::Followed),
    ];
    assert_eq!(parked(&letters).await, both);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_has_failed_for_as_long_as_it_may_is_given_up_within_the_invocation() {
    let desk = failing("b", retry);
    let (function, letters) = function(&desk);
    let mut settings = Settings::default();
    settings.attempts.attempts = 1_000_000;
    settings.attempts.age = Duration::from_secs(20);
    let function = function.settings(settings);
    let answer = handled(&function, &batch("ab"), LONG).await;
    assert_eq!(answer.unfinished(), None);
    assert_eq!(parked(&letters).await, [("2".to_owned(), Reason::TooOld)]);
}

#[tokio::test(start_paused = true)]
async fn when_a_dependency_is_down_the_batch_ends_at_once_and_nobody_calls_it_but_a_probe() {
    let desk = Desk::new(|_, _| Err(Failure::unavailable("no route")));
    let (function, letters) = function(&desk);
    let mut settings = Settings::default();
    settings.concurrency = 2;
    let function = function.settings(settings);
    let began = Instant::now();
    let answer = handled(&function, &batch("abcdef"), LONG).await;
    assert_eq!(answer.unfinished(), Some("1"));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(desk.begun(), ["1", "2"], "two at a time");
    let answer = handled(&function, &batch("abcdef"), LONG).await;
    assert_eq!(answer.unfinished(), Some("1"));
    assert_eq!(desk.begun().len(), 2, "the gate is shut");
    assert_eq!(parked(&letters).await, []);
    assert_eq!(
        function.counters().failed_attempts.load(Ordering::Relaxed),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_back_is_found_by_one_probe_and_the_same_batch_continues() {
    let down = Arc::new(Mutex::new(true));
    let reported = down.clone();
    let desk = Desk::new(move |_, _| {
        if *reported.lock().unwrap() {
            Err(Failure::unavailable("no route"))
        } else {
            Ok(())
        }
    });
    let (function, _) = function(&desk);
    handled(&function, &batch("abcdef"), LONG).await;
    *down.lock().unwrap() = false;
    tokio::time::advance(Duration::from_mins(2)).await;
    let answer = handled(&function, &batch("abcdef"), LONG).await;
    assert_eq!(answer.unfinished(), None);
}

/// A probe that asks nothing of the dependency, such as for an order that was mailed before, leaves the
/// turn to the next record of the same batch.
#[tokio::test(start_paused = true)]
async fn a_record_that_was_finished_before_does_not_use_up_the_probe_of_its_batch() {
    let down = Arc::new(Mutex::new(true));
    let is_down = down.clone();
    let desk = Desk::new(move |record, context| {
        if record.sequence_number.as_str() == "1" {
            context.did_not_ask();
            return Ok(());
        }
        if *is_down.lock().unwrap() {
            return Err(Failure::unavailable("no route"));
        }
        Ok(())
    });
    let (function, _) = function(&desk);
    let answer = handled(&function, &batch("abc"), LONG).await;
    assert_eq!(answer.unfinished(), Some("2"));
    *down.lock().unwrap() = false;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let answer = handled(&function, &batch("abc"), LONG).await;
    assert_eq!(answer.unfinished(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_leave_the_stream_is_rescued_while_a_dependency_is_down() {
    let desk = Desk::new(|_, _| Err(Failure::unavailable("no route")));
    let (function, letters) = function(&desk);
    let answer = handled(&function, &old("aba", 21), LONG).await;
    assert_eq!(answer.unfinished(), None);
    let all = parked(&letters).await;
    let reasons: Vec<_> = all.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(
        reasons,
        [Reason::Rescued, Reason::Rescued, Reason::Followed]
    );
    assert_eq!(function.counters().rescued.load(Ordering::Relaxed), 2);
    let answer = handled(&function, &old("c", 19), LONG).await;
    assert_eq!(answer.unfinished(), Some("1"), "that one may wait");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_when_the_end_is_near() {
    let desk = Desk::new(|_, _| Ok(()));
    let (function, _) = function(&desk);
    for time in [Duration::ZERO, Duration::from_millis(500), MARGIN] {
        let answer = handled(&function, &batch("ab"), time).await;
        assert_eq!(answer.unfinished(), Some("1"), "{time:?}");
    }
    assert_eq!(desk.begun().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_may_not_act_near_the_end_and_is_given_up_before_it() {
    let acting = Arc::new(Mutex::new(Vec::new()));
    let seen = acting.clone();
    let desk = Desk::slow(Duration::from_secs(15), move |_, context| {
        seen.lock()
            .unwrap()
            .push((context.may_act(), context.ends().is_some()));
        Ok(())
    });
    let (function, _) = function(&desk);
    let answer = handled(&function, &batch("a"), Duration::from_secs(20)).await;
    assert_eq!(answer.unfinished(), None, "it still ends in time");
    assert_eq!(*acting.lock().unwrap(), [(false, true)]);
    let began = Instant::now();
    let answer = handled(&function, &batch("a"), Duration::from_secs(12)).await;
    assert_eq!(answer.unfinished(), Some("1"));
    assert_eq!(began.elapsed(), Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_are_set_and_none_before_the_earlier_ones_of_its_key() {
    let desk = Desk::slow(Duration::from_secs(1), |_, _| Ok(()));
    let (function, _) = function(&desk);
    let mut settings = Settings::default();
    settings.concurrency = 3;
    let function = function.settings(settings);
    for (keys, seconds) in [("abcdef", 2), ("aaabcd", 3)] {
        let began = Instant::now();
        let answer = handled(&function, &batch(keys), LONG).await;
        assert_eq!(answer.unfinished(), None);
        assert_eq!(began.elapsed().as_secs(), seconds, "{keys}, 3 at a time");
    }
    let begun = desk.begun().split_off(6);
    let place = |number: &str| begun.iter().position(|one| one == number);
    assert!(
        place("1") < place("2") && place("2") < place("3"),
        "{begun:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn filtered_records_are_finished_at_once_and_counted() {
    let desk = Desk::new(|_, _| Ok(()));
    let (function, _) = function(&desk);
    let only_b = r#"{"dynamodb": {"Keys": {"id": {"S": ["b"]}}}}"#;
    let function = function.filters(Filters::new([only_b.parse().unwrap()]));
    let answer = handled(&function, &batch("abc"), LONG).await;
    assert_eq!(answer.unfinished(), None);
    assert_eq!(desk.begun(), ["2"]);
    assert_eq!(function.counters().filtered.load(Ordering::Relaxed), 2);
}
