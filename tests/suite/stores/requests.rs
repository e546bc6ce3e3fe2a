//! What the stores ask of DynamoDB, read from their requests: an emulator answers every read
//! consistently, so that only the request tells whether consistency was asked for.

use std::time::Duration;

use aftercommit::stores::dead_letter::DeadLetters as _;
use aftercommit::stores::leases::{Consistency, LeaseStore as _};
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use aftercommit::stores::tables::dynamodb::create_ledger_table;

use crate::stores::leases::OnServer as Leases;
use crate::support::letters::{OnServer as Letters, id, letter, place};
use crate::support::server::Server;
use crate::support::wiretap::{Refusal, Request};

fn is_consistent(request: &Request) -> bool {
    request.body["ConsistentRead"] == true
}

#[tokio::test]
async fn a_consistent_look_asks_for_consistent_reads_and_another_one_does_not() {
    let (wiretap, server) = Server::heard();
    let on = Leases::on(server).await;
    let leases = on.leases();
    for (consistency, asked) in [(Consistency::Strong, true), (Consistency::Eventual, false)] {
        wiretap.taken();
        leases.look(consistency).await.unwrap();
        let requests = wiretap.taken();
        assert!(!requests.is_empty());
        for request in requests {
            assert_eq!(request.operation, "Query");
            assert_eq!(is_consistent(&request), asked, "{consistency:?}");
        }
    }
}

#[tokio::test]
async fn whether_a_key_is_parked_and_what_comes_next_is_read_consistently() {
    let (wiretap, server) = Server::heard();
    let on = Letters::on(server).await;
    let letters = on.letters();
    let letter = letter(&place(), "a", 7);
    letters.park(&letter).await.unwrap();
    wiretap.taken();
    let of = id(&letter);
    letters.parked_page(&of.at, None, 10).await.unwrap();
    letters.is_parked(&of.at, &of.key).await.unwrap();
    letters.next_of(&of.at, &of.key).await.unwrap();
    letters.next_after(of).await.unwrap();
    letters.read(of).await.unwrap();
    let requests = wiretap.taken();
    assert_eq!(requests.len(), 5);
    for request in &requests {
        assert!(is_consistent(request), "{request:?}");
    }
}

#[tokio::test]
async fn a_claim_is_decided_on_a_consistent_read() {
    let (wiretap, server) = Server::heard();
    create_ledger_table(&server.client, "ledger").await.unwrap();
    let ledger = DynamoDbLedger::new(server.client.clone(), "ledger", Duration::from_hours(24));
    wiretap.taken();
    let key = EffectKey::from_row("confirmation#1");
    assert!(ledger.read(&key).await.unwrap().is_none());
    let requests = wiretap.taken();
    assert!(requests.iter().all(is_consistent) && !requests.is_empty());
}

/// A transaction that meets another one is repeated, one whose condition failed is not.
#[tokio::test]
async fn a_transaction_that_meets_others_is_repeated_until_it_is_given_up() {
    let (wiretap, server) = Server::heard();
    let on = Letters::on(server).await;
    let letters = on.letters();
    let first = letter(&place(), "a", 7);
    let transactions = |wiretap: &crate::support::wiretap::Wiretap| {
        let requests = wiretap.taken().into_iter();
        let all = requests.filter(|request| request.operation == "TransactWriteItems");
        all.count()
    };
    wiretap.refuse("TransactWriteItems", Refusal::Conflict, 3);
    letters.park(&first).await.unwrap();
    assert_eq!(transactions(&wiretap), 4);
    wiretap.refuse("TransactWriteItems", Refusal::Conflict, 1000);
    let given_up = letters.park(&letter(&place(), "b", 8)).await;
    let reported = format!("{:#}", given_up.unwrap_err());
    assert!(
        reported.contains("TransactionConflict") || reported.contains("another write"),
        "{reported}"
    );
    assert!(transactions(&wiretap) <= 20);
}
