//! What the ledger's row keeps beside the outcome: the item that it stands for, and the mail that may
//! have to be repeated.

use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::smtp::Smtp;
use aftercommit::confirmation::template::Templates;
use aftercommit::confirmation::{Confirmation, Counted};
use aftercommit::internal::claim::{Liveness, OnAmbiguous, State, StepKind};
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Event, Failure, Record, RecordHandler};
use serde_dynamo::to_item;

use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, quick, row, rules, worker};

fn of_table(table: &str) -> Context {
    let stream = format!("arn:aws:dynamodb:us-east-1:0:table/{table}/stream/2026");
    Context::detached().of_shard(&stream, &ShardId::new("s"))
}

fn of_item(key: &str, email: &str) -> Record {
    Record {
        keys: to_item(serde_json::json!({ "sk": key })).unwrap(),
        ..inserted("o1", email)
    }
}

#[tokio::test]
async fn a_second_item_with_the_id_of_an_order_is_a_dead_letter_that_names_both() {
    let server = MailServer::start(Script::default()).await;
    let ledger = MemoryLedger::new();
    let worker = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
    let worker = worker.of_modified_orders_too();
    let first = of_item("ORDER#1", "ann@example.com");
    worker.handle(&first, &of_table("orders")).await.unwrap();
    for (key, email, table) in [
        ("ORDER#2", "ann@example.com", "orders"),
        ("ORDER#1", "bob@example.com", "orders-eu"),
    ] {
        let record = of_item(key, email);
        let result = worker.handle(&record, &of_table(table)).await;
        let Err(Failure::Reject(error)) = result else {
            panic!("{table}: {result:?}");
        };
        let error = error.to_string();
        assert!(error.contains("ORDER#1") && error.contains(key), "{error}");
        assert!(error.contains(table) && !error.contains('@'), "{error}");
    }
    assert_eq!(worker.tally().of(Counted::Collisions), 2);
    // A later image of the item is no other item, nor is the item in the table of what is done.
    let changed = Record {
        event: Event::Modify,
        ..of_item("ORDER#1", "ann@other.example")
    };
    worker.handle(&changed, &of_table("orders")).await.unwrap();
    worker.handle(&first, &of_table("done")).await.unwrap();
    assert_eq!(
        (
            server.accepted().len(),
            worker.tally().of(Counted::Collisions)
        ),
        (1, 2)
    );
}

/// A worker after a deployment: another subject, another sender.
fn deployed(ledger: &MemoryLedger, server: &MailServer, body: &str) -> Confirmation<MemoryLedger> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("subject.txt"),
        "Thank you for {{ order.id }}",
    )
    .unwrap();
    std::fs::write(dir.path().join("body.txt"), body).unwrap();
    let templates = Templates::from_dir(dir.path()).unwrap();
    let from = "New shop <hello@new.example.com>".parse().unwrap();
    let letterhead = Letterhead::new(templates, from);
    let smtp = Smtp::new(quick(server)).unwrap();
    let rules = rules(OnAmbiguous::Resend);
    Confirmation::new(
        ledger.clone(),
        smtp,
        letterhead,
        rules,
        fastrand::Rng::new(),
    )
}

/// The first worker is killed while it waits for the reply to its final dot.
#[tokio::test]
async fn a_doubtful_mail_is_repeated_byte_for_byte_by_a_worker_with_other_templates() {
    let held = Fault::once(Step::Dot, Act::Hold);
    let server = MailServer::start(Script::default().fault(held)).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let killed = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
    let me = Context::detached().of_worker("killed", Liveness::Dead);
    tokio::select! {
        result = killed.handle(&record, &me) => panic!("{result:?}"),
        () = server.wait_accepted(1) => {}
    }
    drop(killed);
    let next = deployed(&ledger, &server, "Thanks.");
    let other = Context::detached().of_worker("next", Liveness::Dead);
    next.handle(&record, &other.of_attempt(2)).await.unwrap();
    let mails = server.accepted();
    assert_eq!(mails.len(), 2, "one mail or two, never none");
    assert_eq!(mails[0].bytes, mails[1].bytes);
    assert_eq!(
        (&mails[0].from, &mails[0].to),
        (&mails[1].from, &mails[1].to)
    );
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!((row.state, row.kept), (State::Sent, None));
}

/// Random text cannot be packed, so a row does not keep it.
#[tokio::test]
async fn a_doubtful_mail_too_large_to_keep_is_written_again_under_its_message_id_and_reported() {
    let lost = Fault::once(Step::Dot, Act::Close).keeping();
    let server = MailServer::start(Script::default().fault(lost)).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let noise: String = (0..30_000).map(|_| fastrand::alphanumeric()).collect();
    let first = deployed(&ledger, &server, &noise);
    let me = Context::detached().of_worker("first", Liveness::Dead);
    first.handle(&record, &me).await.unwrap_err();
    let next = deployed(&ledger, &server, "Thanks.");
    let other = Context::detached().of_worker("next", Liveness::Dead);
    next.handle(&record, &other.of_attempt(2)).await.unwrap();
    assert_eq!(server.accepted().len(), 2);
    assert_eq!(server.by_message_id().len(), 1, "one Message-ID");
    let row = row(&ledger, "o1").await.unwrap();
    let steps = row.history.steps();
    assert!(
        steps.iter().any(|step| step.kind == StepKind::Rewritten),
        "{steps:?}"
    );
}
