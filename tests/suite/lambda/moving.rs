//! A stream that moves from Lambda to a fleet and back, over the shared ledger, and an invocation
//! that dies in the middle of a mail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aftercommit::Clock;
use aftercommit::confirmation::Confirmation;
use aftercommit::engine::lambda::Function;
use aftercommit::internal::claim::{OnAmbiguous, State};
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::memory::MemoryLedger;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::clients::localstack_url;
use crate::support::embedded::Embedded;
use crate::support::lambda_events::{event, records};
use crate::support::letters;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, row, rules, smtp_settings, worker};
use crate::support::shop::{Shop, address, check};

const LIMIT: Duration = Duration::from_mins(3);
const POLICY: OnAmbiguous = OnAmbiguous::Resend;
const BATCH: usize = 10;

/// A new execution environment of the function.
fn environment(shop: &Shop, mails: &MailServer) -> Function<Confirmation<DynamoDbLedger>> {
    let handler = worker(shop.ledger(), smtp_settings(mails), rules(POLICY));
    Function::new(shop.group_table(), handler).dead_letters(Arc::new(shop.dead_letters()))
}

/// Passes the stream's records from this one to that one, as a mapping does: in batches, and again from
/// the reported record.
async fn mapped(shop: &Shop, mails: &MailServer, from: usize, to: usize) {
    let function = environment(shop, mails);
    let all = records(shop).await;
    let mut next = from;
    while next < to {
        let batch = &all[next..to.min(next + BATCH)];
        let ends = Instant::now() + Duration::from_mins(1);
        let answer = function
            .handle(&event(&shop.arn, batch), ends)
            .await
            .unwrap();
        next = match answer.unfinished() {
            Some(number) => {
                let is_it =
                    |record: &aftercommit::Record| record.sequence_number.as_str() == number;
                all.iter().position(is_it).unwrap()
            }
            None => next + batch.len(),
        };
    }
}

/// Works as a fleet until it has read all these orders and all are finished, then stops in order.
/// A busy machine costs it no lease.
async fn fleet(shop: &Shop, mails: &MailServer, orders: usize) {
    let quit = CancellationToken::new();
    let mut settings = Shop::settings("one");
    settings.timing.lease_duration = Duration::from_secs(10);
    let one = shop.worker("one", mails, POLICY).settings(settings);
    let counters = one.counters();
    let working = tokio::spawn(one.run(quit.clone().cancelled_owned()));
    while counters.handled.load(Ordering::Relaxed) < orders as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shop.finished(orders, POLICY).await;
    quit.cancel();
    working.await.unwrap().unwrap();
}

async fn there_and_back(url: &str) {
    let shop = Shop::open(url).await;
    let mails = MailServer::start(Script::default()).await;
    // On Lambda, some of them; one order is deferred for a while, so that its batch is delivered again.
    mails.add(
        Fault::always(Step::Rcpt, Act::Say("450 4.2.1 later"))
            .times(3)
            .for_recipient(&address(4)),
    );
    shop.place(0..40).await;
    mapped(&shop, &mails, 0, 25).await;
    assert_eq!(mails.count(), 25);
    // To a fleet, from the horizon: it reads everything that Lambda did.
    shop.place(40..60).await;
    fleet(&shop, &mails, 60).await;
    assert_eq!(mails.count(), 60);
    // Back, from the horizon, to a mapping whose batches overlap, in two environments at once.
    shop.place(60..80).await;
    tokio::join!(mapped(&shop, &mails, 0, 80), mapped(&shop, &mails, 55, 75));
    let rows = shop.finished(80, POLICY).await;
    assert_eq!(rows.len(), 80, "none is missing");
    assert_eq!(check(&rows, &mails, POLICY), 0, "none is in doubt");
    assert_eq!(mails.count(), 80, "none has two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_has_one_mail_when_a_stream_moves_from_lambda_to_a_fleet_and_back() {
    let server = Embedded::start();
    timeout(LIMIT, there_and_back(server.url())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn on_localstack_every_order_has_one_mail_when_a_stream_moves_and_comes_back() {
    let url = localstack_url();
    timeout(LIMIT, there_and_back(&url)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_reads_beside_the_mapping_costs_no_order_a_second_mail() {
    let run = async {
        let server = Embedded::start();
        let shop = Shop::open(server.url()).await;
        let mails = MailServer::start(Script::default()).await;
        shop.place(0..60).await;
        tokio::join!(mapped(&shop, &mails, 0, 60), fleet(&shop, &mails, 60));
        let rows = shop.finished(60, POLICY).await;
        assert_eq!((rows.len(), check(&rows, &mails, POLICY)), (60, 0));
        assert_eq!(mails.count(), 60);
    };
    timeout(LIMIT, Box::pin(run)).await.unwrap();
}

#[tokio::test]
async fn a_claim_of_a_killed_invocation_is_waited_for_until_its_end_and_is_then_in_doubt() {
    let mails = MailServer::start(Script::default()).await;
    mails.add(Fault::once(Step::Dot, Act::Silence).keeping());
    let (ledger, place) = (MemoryLedger::new(), letters::place().at);
    let batch = event(
        &place.stream(Some("2026-01-01T00:00:00.000")),
        &[inserted("o1", "ann@example.com")],
    );
    let function = |later: Duration| {
        let clock = Clock::new(move || SystemTime::now() + later);
        let mut rules = rules(POLICY);
        rules.clock = clock;
        let settings = smtp_settings(&mails);
        Function::new(place.clone(), worker(ledger.clone(), settings, rules))
    };
    let time = Duration::from_secs(20);
    let ends = Instant::now() + time;
    let one = function(Duration::ZERO);
    let killed = one.handle(&batch, ends);
    let sent = mails.wait_accepted(1);
    tokio::select! {
        answer = killed => panic!("{answer:?}"),
        () = sent => {}
    }
    let claimed = row(&ledger, "o1").await.unwrap();
    assert_eq!(claimed.state, State::Sending);
    // It is unknown whether it still acts: the worker waits for it, and then reports it.
    let answer = function(Duration::ZERO)
        .handle(&batch, Instant::now() + Duration::from_secs(12))
        .await;
    assert_eq!(answer.unwrap().unfinished(), Some("1"));
    assert_eq!(row(&ledger, "o1").await, Some(claimed));
    // Its end, and what clocks may differ by, have passed.
    let later = function(time + Duration::from_mins(5));
    let answer = later
        .handle(&batch, Instant::now() + Duration::from_mins(1))
        .await;
    assert_eq!(answer.unwrap().unfinished(), None);
    let finished = row(&ledger, "o1").await.unwrap();
    assert_eq!((finished.state, finished.ambiguities), (State::Sent, 1));
    assert_eq!(mails.by_message_id().into_values().collect::<Vec<_>>(), [2]);
}
