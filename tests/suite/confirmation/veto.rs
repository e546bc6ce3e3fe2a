//! Orders that are not confirmed: gone, cancelled, or to an address that is spared.

use std::sync::Mutex;

use aftercommit::confirmation::expression::Expression;
use aftercommit::confirmation::lookup::{Current, Lookup, address_hash};
use aftercommit::internal::claim::{Liveness, OnAmbiguous, State};
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Event, Failure, Record, RecordHandler};
use serde_dynamo::{Item, to_item};

use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, quick, row, rules, worker};

/// Answers as it is set to.
struct Ended {
    now: Mutex<Option<Current>>,
    spared: Option<String>,
}

impl Ended {
    fn now(now: Option<Current>) -> Self {
        Self {
            now: Mutex::new(now),
            spared: None,
        }
    }
}

impl Lookup for Ended {
    async fn order(&self, _: &Item) -> anyhow::Result<Current> {
        let now = self.now.lock().unwrap().clone();
        now.ok_or_else(|| anyhow::anyhow!("the table does not answer"))
    }

    async fn is_suppressed(&self, hash: &str) -> anyhow::Result<bool> {
        Ok(self.spared.as_deref() == Some(hash))
    }
}

fn order(status: &str, email: &str) -> Current {
    let item = serde_json::json!({
        "id": "o1", "email": email, "total": 2500, "currency": "EUR", "status": status,
    });
    Current::Item(to_item(item).unwrap())
}

fn cancelled() -> Expression {
    Expression::parse("status == 'CANCELLED'").unwrap()
}

#[tokio::test]
async fn what_is_true_now_is_confirmed_not_what_was_recorded() {
    let server = MailServer::start(Script::default()).await;
    let now = Ended::now(Some(order("PAID", "new@example.com")));
    let worker = worker(
        MemoryLedger::new(),
        quick(&server),
        rules(OnAmbiguous::Resend),
    );
    let worker = worker.looking_up(now).suppressing(cancelled());
    let record = inserted("o1", "old@example.com");
    worker.handle(&record, &Context::detached()).await.unwrap();
    let mails = server.accepted();
    assert_eq!(mails[0].to, ["new@example.com"]);
    assert!(mails[0].text().contains("25.00"));
}

#[tokio::test]
async fn an_order_that_is_gone_or_cancelled_or_spared_is_suppressed_until_a_later_record() {
    let spared = Ended {
        spared: Some(address_hash(&"ANN@example.com".parse().unwrap())),
        ..Ended::now(Some(Current::AsRecorded))
    };
    for (lookup, reason) in [
        (Ended::now(Some(Current::Gone)), "gone"),
        (
            Ended::now(Some(order("CANCELLED", "ann@example.com"))),
            "CANCELLED",
        ),
        (spared, "suppression list"),
    ] {
        let server = MailServer::start(Script::default()).await;
        let ledger = MemoryLedger::new();
        let record = inserted("o1", "ann@example.com");
        let first = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
        let first = first.looking_up(lookup).suppressing(cancelled());
        for attempt in 1..3 {
            let context = Context::detached().of_attempt(attempt);
            first.handle(&record, &context).await.unwrap();
        }
        let row = row(&ledger, "o1").await.unwrap();
        assert_eq!(
            (row.state, row.revision),
            (State::Suppressed, 1),
            "{reason}"
        );
        assert!(row.reply.unwrap().contains(reason), "{reason}");
        assert!(server.accepted().is_empty(), "{reason}");
        // No mail was ever begun, so a later record decides again: the order was paid, say.
        let next = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
        let next = next.of_modified_orders_too();
        let paid = Record {
            event: Event::Modify,
            ..record
        };
        next.handle(&paid, &Context::detached()).await.unwrap();
        assert_eq!(server.accepted().len(), 1, "{reason}");
    }
}

/// In one transaction, before either record was read: what was deleted is gone, what was put is there.
#[tokio::test]
async fn an_order_that_moved_to_another_followed_table_is_mailed_once_in_either_order() {
    for gone_first in [true, false] {
        let server = MailServer::start(Script::default()).await;
        let ledger = MemoryLedger::new();
        let record = inserted("o1", "ann@example.com");
        let worker_of = |now| {
            let worker = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
            worker.looking_up(Ended::now(Some(now)))
        };
        let of_table = |table: &str| {
            let stream = format!("arn:aws:dynamodb:us-east-1:0:table/{table}/stream/2026");
            Context::detached().of_shard(&stream, &ShardId::new("s"))
        };
        let (here, there) = (worker_of(Current::Gone), worker_of(Current::AsRecorded));
        let (orders, archive) = (of_table("orders"), of_table("archive"));
        if gone_first {
            here.handle(&record, &orders).await.unwrap();
        }
        there.handle(&record, &archive).await.unwrap();
        here.handle(&record, &orders).await.unwrap();
        assert_eq!(server.accepted().len(), 1, "{gone_first}");
        let row = row(&ledger, "o1").await.unwrap();
        assert_eq!(row.state, State::Sent, "{gone_first}");
        assert!(row.item.unwrap().table.ends_with("archive"));
    }
}

#[tokio::test]
async fn an_order_cannot_be_suppressed_once_its_mail_may_be_out() {
    let lost = Fault::once(Step::Dot, Act::Close).keeping();
    let server = MailServer::start(Script::default().fault(lost)).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let first = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
    let context = Context::detached().of_worker("first", Liveness::Dead);
    first.handle(&record, &context).await.unwrap_err();
    let next = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
    let next = next.looking_up(Ended::now(Some(Current::Gone)));
    next.handle(&record, &Context::detached().of_attempt(2))
        .await
        .unwrap();
    assert_eq!(row(&ledger, "o1").await.unwrap().state, State::Ambiguous);
    assert_eq!(server.accepted().len(), 1);
}

#[tokio::test]
async fn a_table_that_does_not_answer_holds_the_mail_back() {
    let server = MailServer::start(Script::default()).await;
    let worker = worker(
        MemoryLedger::new(),
        quick(&server),
        rules(OnAmbiguous::Resend),
    );
    let worker = worker.looking_up(Ended::now(None));
    let result = worker
        .handle(&inserted("o1", "ann@example.com"), &Context::detached())
        .await;
    assert!(matches!(result, Err(Failure::Unavailable(_))), "{result:?}");
    assert!(server.accepted().is_empty());
}

#[test]
fn an_expression_that_cannot_be_read_says_so() {
    let error = Expression::parse("status == ").unwrap_err();
    assert!(error.to_string().contains("status =="), "{error}");
}
