//! Orders in, mails out: the consumer, the leases, the ledger and SMTP together, on a real server.

use std::time::{Duration, Instant};

use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::stores::leases::{Checkpoint, Consistency, LeaseStore as _};
use aws_sdk_dynamodb::types::StreamSpecification;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::clients::localstack_url;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{MailServer, Script};
use crate::support::shop::{LEASE, Shop, check};

/// Far more than any of these takes.
const LIMIT: Duration = Duration::from_mins(4);

/// The seed of a run; `AFTERCOMMIT_SEED` replays one.
pub fn seed() -> u64 {
    let given = std::env::var("AFTERCOMMIT_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("AFTERCOMMIT_SEED={seed}");
    seed
}

/// How many orders of one shard a worker processes at once.
const IN_HAND: usize = 16;

/// A worker is dropped at random moments, and restarted each time.
async fn aborted(url: &str, orders: usize, aborts: usize, policy: OnAmbiguous) {
    let mut rng = fastrand::Rng::with_seed(seed());
    let shop = Shop::open(url).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(0..orders).await;
    // Some mails always remain to be sent, so that every abort strikes a worker at work, though each
    // may leave all in doubt that it had in hand, and under `park` those are sent no more.
    let most = orders - aborts * IN_HAND;
    let mut moments: Vec<_> = (0..aborts).map(|_| rng.usize(1..most)).collect();
    moments.sort_unstable();
    for (start, enough) in moments.into_iter().enumerate() {
        let worker = shop.worker(&format!("worker-{start}"), &mails, policy);
        let working = tokio::spawn(worker.run(std::future::pending()));
        mails.wait_accepted(enough).await;
        for _ in 0..rng.usize(0..100) {
            tokio::task::yield_now().await;
        }
        working.abort();
        assert!(working.await.unwrap_err().is_cancelled());
    }
    let quit = CancellationToken::new();
    let last = shop.worker("last", &mails, policy);
    let working = tokio::spawn(last.run(quit.clone().cancelled_owned()));
    let rows = shop.finished(orders, policy).await;
    quit.cancel();
    working.await.unwrap().unwrap();
    let doubts = check(&rows, &mails, policy);
    // One abort leaves at most the mails in doubt that were in flight.
    assert!(doubts <= aborts * IN_HAND, "{doubts} orders in doubt");
    eprintln!("{orders} orders, {aborts} aborts, {doubts} in doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_aborted_at_random_moments_mails_every_order_once_or_says_that_it_cannot_tell() {
    let server = Embedded::start();
    let run = aborted(server.url(), 500, 20, OnAmbiguous::Resend);
    timeout(LIMIT, run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_never_resends_mails_nobody_twice_when_it_is_aborted() {
    let server = Embedded::start();
    let run = aborted(server.url(), 100, 5, OnAmbiguous::Park);
    timeout(LIMIT, run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn on_localstack_a_worker_aborted_at_random_moments_mails_every_order_once_or_says_so() {
    let url = localstack_url();
    let run = aborted(&url, 500, 20, OnAmbiguous::Resend);
    timeout(LIMIT, run).await.unwrap();
}

/// Two workers on one stream; the first crashes or leaves, and the second takes over. Returns how
/// long it took until the next mail.
async fn second_takes_over(url: &str, crash: bool) -> Duration {
    let shop = Shop::open(url).await;
    let mails = MailServer::start(Script::default()).await;
    let quit = CancellationToken::new();
    let quit_first = CancellationToken::new();
    let first = shop.worker("first", &mails, OnAmbiguous::Resend);
    let mut first = tokio::spawn(first.run(quit_first.clone().cancelled_owned()));
    shop.place(0..10).await;
    shop.finished(10, OnAmbiguous::Resend).await;
    let second = shop.worker("second", &mails, OnAmbiguous::Resend);
    let second = tokio::spawn(second.run(quit.clone().cancelled_owned()));
    until(&shop, |owners| owners.len() == 2).await;
    let gone = Instant::now();
    if crash {
        first.abort();
        assert!((&mut first).await.unwrap_err().is_cancelled());
    } else {
        quit_first.cancel();
        (&mut first).await.unwrap().unwrap();
    }
    shop.place(10..20).await;
    mails.wait_accepted(20).await;
    let took = gone.elapsed();
    let rows = shop.finished(20, OnAmbiguous::Resend).await;
    quit.cancel();
    second.await.unwrap().unwrap();
    // Nothing was in flight when the first went, so nothing is in doubt.
    assert_eq!(check(&rows, &mails, OnAmbiguous::Resend), 0);
    took
}

/// Waits until the names of the workers in the table are as asked.
async fn until(shop: &Shop, asked: impl Fn(&[String]) -> bool) {
    let leases = shop.lease_store();
    loop {
        let view = leases.look(Consistency::Strong).await.unwrap();
        let names: Vec<_> = view.workers.keys().map(ToString::to_string).collect();
        if asked(&names) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is left to a worker once it may take over, on a busy machine.
const SLACK: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_worker_continues_when_the_first_crashes() {
    let server = Embedded::start();
    let took = timeout(LIMIT, second_takes_over(server.url(), true)).await;
    let took = took.unwrap();
    assert!(took < LEASE + SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_worker_continues_when_the_first_leaves() {
    let server = Embedded::start();
    let took = timeout(LIMIT, second_takes_over(server.url(), false)).await;
    let took = took.unwrap();
    assert!(took < SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn on_localstack_the_second_worker_continues_when_the_first_crashes_or_leaves() {
    let url = localstack_url();
    for crash in [true, false] {
        let took = timeout(LIMIT, second_takes_over(&url, crash)).await;
        let took = took.unwrap();
        eprintln!("crash: {crash}, next mail after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn on_localstack_a_shard_that_ends_is_read_to_its_end_and_written_down_as_ended() {
    let run = async {
        let shop = Shop::open(&localstack_url()).await;
        let mails = MailServer::start(Script::default()).await;
        shop.place(0..30).await;
        let quit = CancellationToken::new();
        let worker = shop.worker("one", &mails, OnAmbiguous::Resend);
        let working = tokio::spawn(worker.run(quit.clone().cancelled_owned()));
        mails.wait_accepted(10).await;
        let off = StreamSpecification::builder().stream_enabled(false);
        let update = shop.client.update_table().table_name(&shop.orders);
        let update = update.stream_specification(off.build().unwrap());
        update.send().await.unwrap();
        let rows = shop.finished(30, OnAmbiguous::Resend).await;
        let leases = shop.lease_store();
        loop {
            let view = leases.look(Consistency::Strong).await.unwrap();
            let mut checkpoints = view.leases.values().map(|row| &row.checkpoint);
            if checkpoints
                .all(|at| matches!(at, Checkpoint::End { children } if children.is_empty()))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        quit.cancel();
        working.await.unwrap().unwrap();
        assert_eq!(check(&rows, &mails, OnAmbiguous::Resend), 0);
    };
    timeout(LIMIT, run).await.unwrap();
}
