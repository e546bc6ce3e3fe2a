//! Letters and leases in tables: a letter and the lease under which it is written are one
//! transaction.

use aftercommit::dead_letter::{Coming, DeadLetters as _, Written};
use aftercommit::decide::shard::ShardId;
use aftercommit::leases::{Hold, Incarnation, LeaseRow, LeaseStore as _, Take};

use crate::dynamodb_leases::OnServer as Leases;
use crate::support::letters::{OnServer as Letters, id, is_parked, letter, place};
use crate::support::server::{Server, on_each_server};

on_each_server! {
    Both::on;
    a_worker_whose_lease_was_taken_writes_no_letter,
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

async fn a_worker_whose_lease_was_taken_writes_no_letter(both: Both) {
    let (leases, letters) = (both.leases.leases(), both.letters.letters());
    let row = LeaseRow::new(ShardId::new("a"), None, 0);
    leases.create(&[row]).await.unwrap();
    let mine = leases.take(&take("one", 0)).await.unwrap().unwrap();
    let hold = Hold {
        shard: mine.shard,
        owner: Incarnation::from_row("one"),
        epoch: 1,
    };
    let fence = leases.fence(&hold);
    let write = async |letter, coming| letters.write(letter, coming, Some(&fence)).await.unwrap();
    let first = letter(&place(), "a", 7);
    assert_eq!(write(&first, Coming::Behind).await, Written::KeyFree);
    assert_eq!(write(&first, Coming::First).await, Written::Done);

    // Handed over: the epoch goes on.
    let report = aftercommit::leases::Report::default();
    let horizon = aftercommit::record::Position::Horizon;
    let given = leases.hand_over(&hold, None, &horizon, &report).await;
    given.unwrap().unwrap();
    let (other, follower) = (letter(&place(), "b", 8), letter(&id(&first).at, "a", 9));
    assert_eq!(write(&other, Coming::First).await, Written::LeaseLost);
    assert_eq!(write(&follower, Coming::Behind).await, Written::LeaseLost);
    assert!(!is_parked(&letters, &other).await);
    assert_eq!(letters.read(id(&follower)).await.unwrap(), None);
}
