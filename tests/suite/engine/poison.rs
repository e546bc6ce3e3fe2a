//! A bad order, orders that fail for a while, and a mail server that is down: on a real DynamoDB.

use std::time::Duration;

use aftercommit::Clock;
use aftercommit::engine::redrive::{How, RedrivenKey, Summary, redrive};
use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::stores::dead_letter::{DeadLetters as _, Reason};
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::clients::localstack_url;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{quick, rules, worker};
use crate::support::shop::{Shop, address};

const LIMIT: Duration = Duration::from_mins(4);
const POLICY: OnAmbiguous = OnAmbiguous::Resend;

/// An order without an address.
async fn place_bad(shop: &Shop) {
    let put = shop.client.put_item().table_name(&shop.orders);
    let put = put
        .item("id", AttributeValue::S("bad".to_owned()))
        .item("total", AttributeValue::N("-1".to_owned()))
        .item("currency", AttributeValue::S("EUR".to_owned()));
    put.send().await.unwrap();
}

/// Waits for this many parked keys.
async fn parked(shop: &Shop, count: usize) -> Vec<RedrivenKey> {
    loop {
        let parked = shop
            .dead_letters()
            .parked(&shop.letters_at())
            .await
            .unwrap()
            .keys;
        if parked.len() == count {
            let key = |parked: aftercommit::stores::dead_letter::ParkedKey| RedrivenKey {
                at: shop.letters_at(),
                key: parked.key,
            };
            return parked.into_iter().map(key).collect();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Redrives as an operator does.
async fn redriven(shop: &Shop, mails: &MailServer, keys: Vec<RedrivenKey>) -> Summary {
    let handler = worker(shop.ledger(), quick(mails), rules(POLICY));
    let how = How::new("operator", "operator/1", Clock::system());
    let mut rng = fastrand::Rng::new();
    redrive(
        &shop.dead_letters(),
        &handler,
        keys,
        (&how, &mut rng),
        |_| {},
    )
    .await
}

async fn lives_through_it_all(url: &str, outage: Duration) {
    let shop = Shop::open(url).await;
    let mails = MailServer::start(Script::default()).await;
    let quit = CancellationToken::new();
    let mut settings = Shop::settings("one");
    settings.attempts.age = Duration::from_secs(1);
    settings.backoff.cap = Duration::from_millis(200);
    let one = shop.worker("one", &mails, POLICY).settings(settings);
    let working = tokio::spawn(one.run(quit.clone().cancelled_owned()));

    // Three orders that the server puts off for longer than they may take.
    mails.add(Fault::always(Step::Rcpt, Act::Say("450 4.2.1 not now")));
    shop.place(0..3).await;
    let failing = parked(&shop, 3).await;
    mails.heal();

    // A bad order among good ones: it alone becomes a dead letter, as it was committed.
    shop.place(3..5).await;
    place_bad(&shop).await;
    shop.place(5..7).await;
    mails.wait_accepted(4).await;
    let all = parked(&shop, 4).await;
    let bad = all.into_iter().find(|key| !failing.contains(key)).unwrap();
    let letters = shop.dead_letters();
    let letter = letters
        .next_of(&shop.letters_at(), &bad.key)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(letter.envelope.reason, Reason::Rejected);
    assert_eq!(letter.record.new_image.unwrap().inner().len(), 3);
    let why = letter.envelope.attempts.last().next().unwrap();
    assert!(why.error.contains("email"), "{}", why.error);

    // The operator redrives: what failed is mailed, what is bad stays bad.
    let mut keys = failing;
    keys.push(bad);
    let summary = redriven(&shop, &mails, keys).await;
    assert_eq!((summary.free, summary.stopped), (3, 1));
    assert_eq!(mails.count(), 7);

    // The mail server goes away and comes back; no attempt is burned, nothing is lost.
    mails.go_away();
    shop.place(7..20).await;
    tokio::time::sleep(outage).await;
    assert_eq!(mails.count(), 7);
    mails.come_back().await;
    mails.wait_accepted(20).await;
    assert_eq!(parked(&shop, 1).await.len(), 1, "only the bad one waits");

    quit.cancel();
    working.await.unwrap().unwrap();
    let by_recipient = mails.by_recipient();
    for n in 0..20 {
        assert_eq!(by_recipient.get(&address(n)), Some(&1), "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_orders_failures_and_an_outage_cost_no_other_order_anything() {
    let server = Embedded::start();
    let run = lives_through_it_all(server.url(), Duration::from_secs(5));
    timeout(LIMIT, run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn on_localstack_bad_orders_failures_and_an_outage_cost_no_other_order_anything() {
    let url = localstack_url();
    let run = lives_through_it_all(&url, Duration::from_secs(30));
    timeout(LIMIT, run).await.unwrap();
}
