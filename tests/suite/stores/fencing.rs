//! Letters and leases in tables: a letter and the lease under which it is written are one
//! transaction.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::dead_letter::EffectTable;
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::dead_letter::{Coming, DeadLetters as _, Fence, Letter, Written};
use aftercommit::stores::leases::{
    Hold, Incarnation, InitialPosition, LeaseRow, LeaseStore as _, Take,
};
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{Consumer, Context, Event, Failure, Record, RecordHandler, Settings};
use futures_util::future::join_all;
use serde_dynamo::{AttributeValue, to_item};

use crate::stores::leases::OnServer as Leases;
use crate::support::letters::{OnServer as Letters, id, is_parked, letter, place};
use crate::support::server::{Server, on_each_server};
use crate::support::wiretap::Wiretap;

on_each_server! {
    Both::on;
    a_worker_whose_lease_was_taken_writes_no_letter,
    letters_that_wait_for_one_lease_share_transactions_and_its_fence,
    a_letter_that_cannot_be_written_holds_up_no_other,
}

/// Both tables on a server.
struct Both {
    leases: Leases,
    letters: Letters,
}

impl Both {
    async fn on(server: Server) -> Self {
        let letters = Letters::on(Server::like(&server)).await;
        let leases = Leases::on(server).await;
        Self { leases, letters }
    }
}

fn take(by: &str, seen_epoch: u64) -> Take {
    Take {
        shard: ShardId::new("a"),
        from: None,
        seen_epoch,
        owner: Incarnation::from_row(by),
        epoch: seen_epoch + 1,
    }
}

impl Both {
    /// Takes a lease.
    async fn hold(&self) -> Hold {
        let leases = self.leases.leases();
        let row = LeaseRow::new(ShardId::new("a"), None, 0);
        leases.create(&[row]).await.unwrap();
        let mine = leases.take(&take("one", 0)).await.unwrap().unwrap();
        Hold {
            shard: mine.shard,
            owner: Incarnation::from_row("one"),
            epoch: 1,
        }
    }

    /// Gives it away: the epoch moves on.
    async fn give_away(&self, hold: &Hold) {
        let report = aftercommit::stores::leases::Report::default();
        let horizon = aftercommit::record::Position::Horizon;
        let leases = self.leases.leases();
        let given = leases.hand_over(hold, None, &horizon, &report).await;
        given.unwrap().unwrap();
    }
}

async fn a_worker_whose_lease_was_taken_writes_no_letter(both: Both) {
    let (hold, letters) = (both.hold().await, both.letters.letters());
    let fence = both.leases.leases().fence(&hold);
    let write = async |letter, coming| letters.write(letter, coming, Some(&fence)).await.unwrap();
    let first = letter(&place(), "a", 7);
    assert_eq!(write(&first, Coming::Behind).await, Written::KeyFree);
    assert_eq!(write(&first, Coming::First).await, Written::Done);

    both.give_away(&hold).await;
    let (other, follower) = (letter(&place(), "b", 8), letter(&id(&first).at, "a", 9));
    assert_eq!(write(&other, Coming::First).await, Written::LeaseLost);
    assert_eq!(write(&follower, Coming::Behind).await, Written::LeaseLost);
    assert!(!is_parked(&letters, &other).await);
    assert_eq!(letters.read(id(&follower)).await.unwrap(), None);
}

/// This many letters, each with its own key.
fn several(count: u64) -> Vec<Letter> {
    let place = place();
    let of = |n: u64| letter(&place, &format!("key-{n:03}"), n + 1);
    (0..count).map(of).collect()
}

/// Writes all of them at the same time.
async fn write_all(
    letters: &DynamoDbDeadLetters,
    fence: &Fence,
    all: &[Letter],
) -> Vec<anyhow::Result<Written>> {
    let write = |letter| letters.write(letter, Coming::First, Some(fence));
    join_all(all.iter().map(write)).await
}

async fn letters_that_wait_for_one_lease_share_transactions_and_its_fence(both: Both) {
    let (hold, letters) = (both.hold().await, both.letters.letters());
    let fence = both.leases.leases().fence(&hold);
    let all = several(60);
    // One is open since an earlier attempt, and one would have to follow others.
    letters.park(&all[7]).await.unwrap();
    let free = letters.write(&all[3], Coming::Behind, Some(&fence));
    let (free, written) = tokio::join!(free, write_all(&letters, &fence, &all[4..]));
    assert_eq!(free.unwrap(), Written::KeyFree);
    assert!(written.into_iter().all(|one| one.unwrap() == Written::Done));
    let parked = letters.parked(&id(&all[0]).at).await.unwrap().keys;
    assert_eq!(parked.len(), 56);
    assert!(parked.iter().all(|key| key.letters == 1));
    for letter in &all[4..] {
        assert_eq!(
            letters.read(id(letter)).await.unwrap().as_ref(),
            Some(letter)
        );
    }

    both.give_away(&hold).await;
    let late = several(60);
    let written = write_all(&letters, &fence, &late).await;
    assert!(
        written
            .into_iter()
            .all(|one| one.unwrap() == Written::LeaseLost)
    );
    assert_eq!(letters.parked(&id(&late[0]).at).await.unwrap().keys, []);
    assert_eq!(letters.read(id(&late[0])).await.unwrap(), None);
}

#[tokio::test]
async fn letters_that_are_refused_at_first_go_together_a_moment_later() {
    let both = Both::on(Server::hindered()).await;
    letters_that_wait_for_one_lease_share_transactions_and_its_fence(both).await;
}

async fn a_letter_that_cannot_be_written_holds_up_no_other(both: Both) {
    let (hold, letters) = (both.hold().await, both.letters.letters());
    let fence = both.leases.leases().fence(&hold);
    let all = several(20);
    let mut huge = letter(&id(&all[0]).at, "huge", 100);
    let fill = AttributeValue::S("x".repeat(500_000));
    huge.envelope.keys = HashMap::from([("id".to_owned(), fill)]).into();
    let until_written = async |letter: &Letter| {
        loop {
            let written = letters.write(letter, Coming::First, Some(&fence)).await;
            if let Ok(written) = written {
                return written;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let others = async {
        let written = join_all(all.iter().map(until_written)).await;
        assert!(written.into_iter().all(|one| one == Written::Done));
    };
    tokio::select! {
        _ = until_written(&huge) => panic!("no row is that large"),
        () = others => {}
    }
    let parked = letters.parked(&id(&all[0]).at).await.unwrap().keys;
    assert_eq!(parked.len(), all.len());
}

/// Rejects everything.
struct Rejecting;

impl RecordHandler for Rejecting {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        Err(Failure::reject("no"))
    }
}

/// How many letters each transaction wrote, each under the fence of its lease.
fn letters_by_transaction(wiretap: &Wiretap) -> Vec<usize> {
    let mut sizes = Vec::new();
    for request in wiretap.taken() {
        let Some(parts) = request.body["TransactItems"].as_array() else {
            continue;
        };
        let is_letter = |part: &&serde_json::Value| {
            part["Update"]["UpdateExpression"]
                .as_str()
                .is_some_and(|how| how.contains("#sequence_number"))
        };
        let letters = parts.iter().filter(is_letter).count();
        if letters > 0 {
            let fences = parts
                .iter()
                .filter(|part| !part["ConditionCheck"].is_null());
            assert_eq!(fences.count(), 1);
            sizes.push(letters);
        }
    }
    sizes
}

#[tokio::test]
async fn rejected_records_of_a_shard_go_into_the_table_several_in_a_transaction() {
    const RECORDS: usize = 300;
    let (wiretap, server) = Server::heard();
    let both = Both::on(server).await;
    let stream = MemoryStream::new(1, RECORDS);
    for n in 0..RECORDS {
        stream.commit(Commit {
            event: Event::Insert,
            keys: to_item(serde_json::json!({ "id": n.to_string() })).unwrap(),
            old_image: None,
            new_image: None,
            created: SystemTime::now(),
        });
    }
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    let (at, letters) = (both.leases.place.clone(), both.letters.letters());
    let letters_at = EffectTable::new(at.clone(), EffectName::default());
    let consumer = Consumer::new(at.clone(), stream, both.leases.leases())
        .handler(Rejecting)
        .settings(settings)
        .dead_letters(letters.clone());
    let working = tokio::spawn(Box::pin(consumer.run(std::future::pending())));
    let all = async {
        while letters.parked(&letters_at).await.unwrap().keys.len() < RECORDS {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(3), all)
        .await
        .unwrap();
    working.abort();
    let sizes = letters_by_transaction(&wiretap);
    assert_eq!(sizes.iter().sum::<usize>(), RECORDS);
    assert!(sizes.len() < RECORDS / 5, "{} transactions", sizes.len());
}
