//! A mail whose record is taken away before its reply arrives.

use std::time::Duration;

use aftercommit::confirmation::Counted;
use aftercommit::internal::claim::{Liveness, OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Failure, RecordHandler};

use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, quick, row, rules, smtp_settings, worker};

const LIMIT: Duration = Duration::from_secs(30);

fn me() -> Context {
    Context::detached().of_worker("me/1", Liveness::Alive)
}

#[tokio::test]
async fn a_reply_that_comes_after_its_shard_moved_is_still_written_down() {
    let late = Fault::once(Step::Dot, Act::Late(Duration::from_millis(300)));
    let server = MailServer::start(Script::default().fault(late)).await;
    let ledger = MemoryLedger::new();
    let settings = quick(&server);
    let mine = worker(ledger.clone(), settings.clone(), rules(OnAmbiguous::Resend));
    let next = worker(ledger.clone(), settings, rules(OnAmbiguous::Resend));
    let record = inserted("o1", "ann@example.com");
    let context = me();
    tokio::select! {
        biased;
        () = server.wait_accepted(1) => {}
        result = mine.handle(&record, &context) => panic!("{result:?}"),
    }
    let other = Context::detached().of_worker("next/1", Liveness::Alive);
    let busy = next.handle(&record, &other).await;
    assert!(matches!(busy, Err(Failure::Busy(_))), "{busy:?}");

    assert_eq!(mine.finish(LIMIT).await, 0);
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Sent, 0));
    assert_eq!(mine.tally().of(Counted::Accepted), 1);
    next.handle(&record, &other).await.unwrap();
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_mail_whose_dot_has_not_left_is_given_up_and_any_worker_may_send_it_at_once() {
    let silent = Fault::once(Step::Data, Act::Silence);
    let server = MailServer::start(Script::default().fault(silent)).await;
    let ledger = MemoryLedger::new();
    let mine = worker(
        ledger.clone(),
        smtp_settings(&server),
        rules(OnAmbiguous::Park),
    );
    let record = inserted("o1", "ann@example.com");
    let context = me();
    let heard = async {
        while !server.heard().iter().any(|(_, line)| line == "DATA") {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = heard => {}
        result = mine.handle(&record, &context) => panic!("{result:?}"),
    }
    // Long before the server's silence would end it.
    assert_eq!(mine.finish(LIMIT).await, 0);
    assert_eq!(row(&ledger, "o1").await.unwrap().state, State::Retry);
    let next = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Park));
    let other = Context::detached().of_worker("next/1", Liveness::Alive);
    next.handle(&record, &other).await.unwrap();
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Sent, 0));
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn what_is_not_answered_in_time_is_counted_and_left_to_the_ledger() {
    let never = Fault::once(Step::Dot, Act::Late(Duration::from_hours(1)));
    let server = MailServer::start(Script::default().fault(never)).await;
    let ledger = MemoryLedger::new();
    let mut settings = quick(&server);
    settings.timeouts.after_dot = Duration::from_hours(2);
    let mine = worker(ledger.clone(), settings, rules(OnAmbiguous::Park));
    let record = inserted("o1", "ann@example.com");
    let context = me();
    tokio::select! {
        biased;
        () = server.wait_accepted(1) => {}
        result = mine.handle(&record, &context) => panic!("{result:?}"),
    }
    assert_eq!(mine.finish(Duration::from_millis(10)).await, 1);
    assert_eq!(row(&ledger, "o1").await.unwrap().state, State::Sending);
}
