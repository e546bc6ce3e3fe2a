//! A handler over HTTP that hangs or is down for long: nothing is lost, and nothing becomes a dead letter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aftercommit::handlers::http::HttpHandler;
use aftercommit::internal::dependency::{Dependency, Limits};
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::{Clock, Consumer, Settings};
use aftercommit::{Effect, EffectName};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answers::handler;
use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::handler_server::{HandlerServer, Posted, Reaction, answer};
use crate::support::shop::Shop;

/// The key of the first order.
const FIRST: &str = "\"T-000000\"";
const LIMIT: Duration = Duration::from_mins(4);

/// A worker that posts a shop's orders.
fn worker(
    shop: &Shop,
    handler: HttpHandler,
    (dependency, settings): (Dependency, Settings),
) -> Consumer<DynamoDbStream, DynamoDbLeases> {
    let source = DynamoDbStream::new(clients::streams(&shop.url), &shop.arn, Clock::system());
    Consumer::new(shop.group_table(), source, shop.lease_store())
        .effect(Effect::new(EffectName::default(), handler).dependency(dependency))
        .settings(settings)
        .dead_letters(shop.dead_letters())
}

fn dependency() -> Dependency {
    Dependency::new(&Limits::default(), fastrand::Rng::new())
}

fn settings() -> Settings {
    Shop::settings("poster")
}

/// The keys of the orders that were posted, in order.
fn orders(posted: &[Posted]) -> Vec<String> {
    let id = |one: &Posted| one.body()["Records"][0]["dynamodb"]["Keys"]["id"]["S"].to_string();
    posted.iter().map(id).collect()
}

async fn no_dead_letters(shop: &Shop) {
    use aftercommit::stores::dead_letter::DeadLetters as _;
    let parked = shop.dead_letters().parked(&shop.letters_at()).await;
    assert_eq!(parked.unwrap().keys.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_down_for_long_gets_every_change_when_it_is_back() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let handler_server = HandlerServer::start(move |_| {
        if is_up.load(Ordering::SeqCst) {
            answer(200, "", "{}")
        } else {
            Reaction::SendAndClose(String::new())
        }
    })
    .await;
    shop.place(0..30).await;
    let quit = CancellationToken::new();
    let dependency = dependency();
    let (handler, of) = (
        handler(&handler_server.url("/")),
        (dependency.clone(), settings()),
    );
    let worker = worker(&shop, handler, of);
    let running = tokio::spawn(worker.run(quit.clone().cancelled_owned()));
    // The circuit opens, and only probes call.
    while dependency.down_for().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let probes = handler_server.seen().len();
    assert!(probes < 30, "{probes} calls while it was down");
    no_dead_letters(&shop).await;
    up.store(true, Ordering::SeqCst);
    let all = async {
        loop {
            let seen = orders(&handler_server.seen()[probes..]);
            if seen.iter().collect::<BTreeSet<_>>().len() == 30 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, all).await.unwrap();
    quit.cancel();
    running.await.unwrap().unwrap();
    assert!(dependency.down_for().is_none());
    no_dead_letters(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_is_ended_by_the_handlers_time_and_holds_no_other_item() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let handler_server = HandlerServer::start(|posted: &Posted| {
        let attempt = posted.header("aftercommit-attempt");
        assert!(posted.header("aftercommit-epoch").is_some());
        assert!(posted.header("aftercommit-deadline").is_some());
        match orders(std::slice::from_ref(posted))[0].as_str() {
            // A header that comes slowly.
            FIRST if attempt == Some("1") => Reaction::SendAndHang("HTTP/1.1 200 O".to_owned()),
            _ => answer(200, "", "{}"),
        }
    })
    .await;
    shop.place(0..5).await;
    let mut settings = settings();
    settings.timing.handler_timeout = Duration::from_millis(500);
    let quit = CancellationToken::new();
    let handler = handler(&handler_server.url("/"));
    let worker = worker(&shop, handler, (dependency(), settings));
    let running = tokio::spawn(worker.run(quit.clone().cancelled_owned()));
    timeout(LIMIT, handler_server.wait(6)).await.unwrap();
    let seen = handler_server.seen();
    let distinct: BTreeSet<_> = orders(&seen).into_iter().collect();
    assert_eq!(distinct.len(), 5);
    let hung: Vec<_> = seen
        .iter()
        .filter(|one| orders(&[(*one).clone()])[0] == FIRST)
        .collect();
    assert_eq!(hung.len(), 2);
    assert_eq!(hung[1].header("aftercommit-attempt"), Some("2"));
    assert_eq!(
        hung[0].header("idempotency-key"),
        hung[1].header("idempotency-key")
    );
    quit.cancel();
    running.await.unwrap().unwrap();
    no_dead_letters(&shop).await;
}
