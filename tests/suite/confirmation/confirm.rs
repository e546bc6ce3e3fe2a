//! The confirmation handler and the ledger: claims, lost answers, races, late words.

use std::time::{Duration, SystemTime};

use aftercommit::confirmation::Counted;
use aftercommit::internal::claim::{
    Decision, Happened, Liveness, OnAmbiguous, Resolution, State, transition,
};
use aftercommit::stores::ledger::Ledger;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Event, Failure, RecordHandler};
use tokio::time::Instant;

use crate::support::flaky_ledger::{Fate, FlakyLedger};
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, key, row, rules, smtp_settings, worker};

const RESEND: OnAmbiguous = OnAmbiguous::Resend;

fn me() -> Context {
    Context::detached().of_worker("me", Liveness::Dead)
}

fn other(me_is: Liveness) -> Context {
    Context::detached().of_worker("other", me_is)
}

#[tokio::test]
async fn an_order_is_confirmed_once_however_often_its_record_comes() {
    let server = MailServer::start(Script::default()).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    for incarnation in ["a", "b"] {
        let worker = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
        for attempt in 1..3 {
            let context = Context::detached().of_worker(incarnation, Liveness::Dead);
            worker
                .handle(&record, &context.of_attempt(attempt))
                .await
                .unwrap();
        }
    }
    assert_eq!(server.accepted().len(), 1);
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!(
        (row.state, row.revision),
        (State::Sent, 2),
        "two writes a mail"
    );
    assert_eq!(row.reply.as_deref(), Some("250 2.0.0 queued as TEST"));
}

#[tokio::test]
async fn only_an_insert_is_confirmed() {
    let server = MailServer::start(Script::default()).await;
    let worker = worker(MemoryLedger::new(), smtp_settings(&server), rules(RESEND));
    for event in [Event::Modify, Event::Remove] {
        let mut record = inserted("o1", "ann@example.com");
        record.event = event;
        worker.handle(&record, &me()).await.unwrap();
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_order_older_than_the_ledgers_memory_is_refused() {
    let server = MailServer::start(Script::default()).await;
    let worker = worker(MemoryLedger::new(), smtp_settings(&server), rules(RESEND));
    let mut record = inserted("o1", "ann@example.com");
    record.created = SystemTime::now() - Duration::from_hours(24 * 401);
    let result = worker.handle(&record, &me()).await;
    assert!(matches!(result, Err(Failure::Reject(_))), "{result:?}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_ledger_that_forgets_before_a_replay_could_come_is_refused() {
    let horizon = aftercommit::confirmation::REPLAY_HORIZON;
    let mut rules = rules(RESEND);
    rules.retention = horizon + Duration::from_hours(24);
    assert!(rules.check_retention(horizon).is_ok());
    rules.retention -= Duration::from_secs(1);
    let error = rules.check_retention(horizon).unwrap_err().to_string();
    assert!(error.contains("9623") && error.contains("9624"), "{error}");
}

#[tokio::test]
async fn without_the_right_to_act_nothing_is_claimed() {
    let server = MailServer::start(Script::default()).await;
    let ledger = MemoryLedger::new();
    let worker = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    let record = inserted("o1", "ann@example.com");
    let result = worker.handle(&record, &me().until(Instant::now())).await;
    assert!(matches!(result, Err(Failure::Busy(_))), "{result:?}");
    assert_eq!(row(&ledger, "o1").await, None);
    assert!(server.accepted().is_empty());
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_found_again() {
    let server = MailServer::start(Script::default()).await;
    let ledger = FlakyLedger::new([Fate::AnswerLost]);
    let worker = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    let record = inserted("o1", "ann@example.com");
    worker.handle(&record, &me()).await.unwrap();
    let row = row(&ledger.inner, "o1").await.unwrap();
    assert_eq!((row.state, row.fence, row.ambiguities), (State::Sent, 1, 0));
    assert_eq!(server.accepted().len(), 1);
}

/// Whether the claim was applied at once, or much later, or never.
#[tokio::test]
async fn a_claim_that_was_given_up_is_taken_back_by_its_own_worker() {
    for fate in [Fate::AnswerLost, Fate::RequestLost, Fate::Delayed] {
        let server = MailServer::start(Script::default()).await;
        let ledger = FlakyLedger::new([fate; 3]);
        let worker = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
        let record = inserted("o1", "ann@example.com");
        let result = worker.handle(&record, &me()).await;
        assert!(
            matches!(result, Err(Failure::Unavailable(_))),
            "{fate:?}: {result:?}"
        );
        ledger.arrive().await;
        worker.handle(&record, &me().of_attempt(2)).await.unwrap();
        let row = row(&ledger.inner, "o1").await.unwrap();
        assert_eq!((row.state, row.ambiguities), (State::Sent, 0), "{fate:?}");
        assert_eq!(server.accepted().len(), 1, "{fate:?}");
    }
}

#[tokio::test]
async fn a_claim_of_a_live_worker_is_waited_for_and_one_of_a_dead_worker_is_in_doubt() {
    let server = MailServer::start(Script::default()).await;
    let ledger = FlakyLedger::new([Fate::AnswerLost; 3]);
    let record = inserted("o1", "ann@example.com");
    let first = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    first.handle(&record, &me()).await.unwrap_err();
    let second = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    for alive in [Liveness::Alive, Liveness::Unknown] {
        let result = second.handle(&record, &other(alive)).await;
        assert!(matches!(result, Err(Failure::Busy(_))), "{result:?}");
    }
    assert!(server.accepted().is_empty());
    second
        .handle(&record, &other(Liveness::Dead))
        .await
        .unwrap();
    let row = row(&ledger.inner, "o1").await.unwrap();
    assert_eq!((row.state, row.fence, row.ambiguities), (State::Sent, 2, 1));
}

/// Its record may have moved to another worker, which cannot know the outcome.
#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_recorded_once_the_ledger_answers_and_not_sent_again()
{
    for fate in [Fate::RequestLost, Fate::AnswerLost, Fate::Delayed] {
        let server = MailServer::start(Script::default()).await;
        let fates = [Fate::Fine].into_iter().chain([fate; 70]);
        let ledger = FlakyLedger::new(fates);
        let worker = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
        let record = inserted("o1", "ann@example.com");
        let result = worker.handle(&record, &me()).await;
        assert!(
            matches!(result, Err(Failure::Unavailable(_))),
            "{fate:?}: {result:?}"
        );
        assert_eq!(worker.finish(Duration::from_hours(1)).await, 0, "{fate:?}");
        ledger.arrive().await;
        worker.handle(&record, &me().of_attempt(2)).await.unwrap();
        let row = row(&ledger.inner, "o1").await.unwrap();
        assert_eq!((row.state, row.ambiguities), (State::Sent, 0), "{fate:?}");
        assert_eq!(row.second_acceptances(), 0, "{fate:?}");
        assert_eq!(server.accepted().len(), 1, "{fate:?}");
    }
}

#[tokio::test]
async fn an_outcome_that_dies_with_its_worker_is_a_doubt_for_the_next() {
    for (policy, mails) in [(OnAmbiguous::Resend, 2), (OnAmbiguous::Park, 1)] {
        let server = MailServer::start(Script::default()).await;
        let fates = [Fate::Fine].into_iter().chain([Fate::RequestLost; 100]);
        let ledger = FlakyLedger::new(fates);
        let record = inserted("o1", "ann@example.com");
        let first = worker(ledger.clone(), smtp_settings(&server), rules(policy));
        first.handle(&record, &me()).await.unwrap_err();
        ledger.arrive().await;
        drop(first);
        let second = worker(ledger.inner.clone(), smtp_settings(&server), rules(policy));
        second
            .handle(&record, &other(Liveness::Dead))
            .await
            .unwrap();
        assert_eq!(server.accepted().len(), mails, "{policy:?}");
        let row = row(&ledger.inner, "o1").await.unwrap();
        assert_eq!(row.ambiguities, 1, "{policy:?}");
        assert_eq!(
            server.by_message_id().len(),
            1,
            "{policy:?}: one Message-ID"
        );
    }
}

#[tokio::test]
async fn many_workers_on_the_same_orders_send_each_once() {
    let server = MailServer::start(Script::default()).await;
    let ledger = MemoryLedger::new();
    let workers: Vec<_> = (0..3)
        .map(|_| worker(ledger.clone(), smtp_settings(&server), rules(RESEND)))
        .collect();
    let records: Vec<_> = (0..20)
        .map(|i| inserted(&format!("o{i}"), &format!("u{i}@example.com")))
        .collect();
    let attempts = workers.iter().enumerate().flat_map(|(number, worker)| {
        records.iter().map(move |record| async move {
            let who = format!("worker{number}");
            let context = Context::detached().of_worker(&who, Liveness::Alive);
            worker.handle(record, &context).await
        })
    });
    let results = futures_util::future::join_all(attempts).await;
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Ok(()) | Err(Failure::Busy(_)))),
        "{results:?}"
    );
    assert_eq!(server.accepted().len(), 20);
    assert!(server.by_message_id().values().all(|count| *count == 1));
}

/// A claimant that others held dead gets its reply after all.
#[tokio::test]
async fn a_late_reply_turns_doubt_into_sent() {
    let held = Fault::once(Step::Dot, Act::Hold);
    let server = MailServer::start(Script::default().fault(held)).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let slow = worker(
        ledger.clone(),
        smtp_settings(&server),
        rules(OnAmbiguous::Park),
    );
    let next = worker(
        ledger.clone(),
        smtp_settings(&server),
        rules(OnAmbiguous::Park),
    );
    let context = me();
    let takeover = async {
        server.wait_accepted(1).await;
        next.handle(&record, &other(Liveness::Dead)).await.unwrap();
        assert_eq!(row(&ledger, "o1").await.unwrap().state, State::Ambiguous);
        server.release();
    };
    let (result, ()) = tokio::join!(slow.handle(&record, &context), takeover);
    result.unwrap();
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Sent, 1));
    assert_eq!(server.accepted().len(), 1);
    assert_eq!(next.tally().of(Counted::Parked), 1);
}

/// The same with `resend`: two mails, both recorded in the row.
#[tokio::test]
async fn a_second_acceptance_is_recorded_and_counted() {
    let held = Fault::once(Step::Dot, Act::Hold);
    let server = MailServer::start(Script::default().fault(held)).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let slow = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    let next = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    let context = me();
    let takeover = async {
        server.wait_accepted(1).await;
        next.handle(&record, &other(Liveness::Dead)).await.unwrap();
        server.release();
    };
    let (result, ()) = tokio::join!(slow.handle(&record, &context), takeover);
    result.unwrap();
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Sent, 1));
    assert_eq!(row.second_acceptances(), 1);
    assert_eq!(slow.tally().of(Counted::SecondAcceptances), 1);
    let mails = server.accepted();
    assert_eq!(mails.len(), 2);
    assert_eq!(
        mails[0].bytes, mails[1].bytes,
        "byte for byte the same mail"
    );
}

#[tokio::test]
async fn after_two_doubts_an_effect_waits_for_an_operator() {
    let script = Script::default().fault(Fault::once(Step::Dot, Act::Close).times(2));
    let server = MailServer::start(script).await;
    let ledger = MemoryLedger::new();
    let worker = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    let record = inserted("o1", "ann@example.com");
    let first = worker.handle(&record, &me()).await;
    assert!(matches!(first, Err(Failure::Retry(_))), "{first:?}");
    worker.handle(&record, &me().of_attempt(2)).await.unwrap();
    worker.handle(&record, &me().of_attempt(3)).await.unwrap();
    let parked = row(&ledger, "o1").await.unwrap();
    assert_eq!((parked.state, parked.ambiguities), (State::Ambiguous, 2));
    assert!(server.accepted().is_empty());

    let resolution = Resolution {
        by: "ops".into(),
        at: SystemTime::now(),
        note: "the relay never saw it".into(),
        decision: Decision::Send,
    };
    let resolved = Happened::Resolved(resolution);
    let next = transition(Some(&parked), &resolved, SystemTime::now()).unwrap();
    ledger
        .swap(&key("o1"), Some(parked.revision), &next)
        .await
        .unwrap();
    // The server that broke off twice is left alone by this worker for a while.
    let next = self::worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    next.handle(&record, &me().of_attempt(4)).await.unwrap();
    assert_eq!(row(&ledger, "o1").await.unwrap().state, State::Sent);
    assert_eq!(server.accepted().len(), 1);
}

/// The address may have become bad since then; the order was confirmed anyway.
#[tokio::test]
async fn a_sent_order_stays_sent_whatever_the_server_says_of_its_address_later() {
    let server = MailServer::start(Script::default()).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let first = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    first.handle(&record, &me()).await.unwrap();
    for reply in ["550 5.1.1 nobody", "450 4.2.1 grey"] {
        server.add(Fault::once(Step::Rcpt, Act::Say(reply)));
        let next = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
        next.handle(&record, &other(Liveness::Dead)).await.unwrap();
    }
    assert_eq!(server.accepted().len(), 1);
}

#[tokio::test]
async fn the_row_and_the_error_hold_the_servers_words_but_no_address() {
    let reply = "550 5.1.1 <ann@example.com>: no such user";
    let script = Script::default().fault(Fault::once(Step::Dot, Act::Say(reply)));
    let server = MailServer::start(script).await;
    let ledger = MemoryLedger::new();
    let worker = worker(ledger.clone(), smtp_settings(&server), rules(RESEND));
    let result = worker
        .handle(&inserted("o1", "ann@example.com"), &me())
        .await;
    let words = result.unwrap_err().to_string();
    assert!(
        words.contains("o1") && words.contains("no such user"),
        "{words}"
    );
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!(
        row.reply.as_deref(),
        Some("550 5.1.1 <address> no such user")
    );
    assert!(!format!("{words} {row:?}").contains("ann@"));
}
