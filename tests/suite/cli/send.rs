//! What an operator sends by hand.

use aftercommit::internal::claim::{Happened, State, transition};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType, StreamSpecification, StreamViewType,
};
use serde_json::Value;

use crate::cli::ledger::{became, command, does, in_doubt, now, put, row};
use crate::cli::start::{complaint, text};
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address, id};

/// `send` with a mail server.
async fn send(shop: &Shop, mails: &MailServer, n: usize, more: &[&str]) -> (i32, String) {
    let (order, url) = (id(n), mails.url());
    let mut arguments = vec!["send", &order, "--table", &shop.orders];
    arguments.extend(["--mail-from", "shop@example.com", "--smtp-url", &url]);
    arguments.extend(more);
    let output = command(shop, &arguments).output().await.unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

#[tokio::test]
async fn an_order_is_sent_by_hand_once_whether_the_ledger_knows_it_or_not() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(1..4).await;
    became(&shop, 1, in_doubt).await;
    let (code, reported) = send(&shop, &mails, 1, &[]).await;
    assert_eq!((code, mails.count()), (1, 0), "{reported}");
    assert!(
        reported.contains("is AMBIGUOUS: nothing was sent"),
        "{reported}"
    );
    let order = id(1);
    let release = [
        "ledger",
        "resolve",
        &order,
        "--send",
        "--note",
        "not in the log",
    ];
    let released = does(&shop, &release).await;
    assert!(
        released.starts_with("order T-000001 is now RETRY\n"),
        "{released}"
    );
    assert!(released.contains("aftercommit send ORDER"), "{released}");
    let (code, reported) = send(&shop, &mails, 1, &[]).await;
    assert_eq!(code, 0, "{reported}");
    assert!(reported.starts_with("T-000001\tSENT\t"), "{reported}");
    let first = row(&shop, 1).await;
    assert_eq!((first.state, first.fence), (State::Sent, 2));
    assert_eq!(first.attention(), None);
    // Never begun by any worker.
    let (code, reported) = send(&shop, &mails, 2, &["--note", "lost in a gap"]).await;
    assert_eq!(code, 0, "{reported}");
    for n in 1..3 {
        let again = send(&shop, &mails, n, &[]).await;
        assert_eq!(again.0, 1, "{}", again.1);
        assert!(again.1.contains("is SENT: nothing was sent"), "{}", again.1);
    }
    let by_recipient: Vec<_> = mails.by_recipient().into_iter().collect();
    assert_eq!(by_recipient, [(address(1), 1), (address(2), 1)]);
    let history = does(&shop, &["ledger", "show", &id(2)]).await;
    assert!(history.contains("RETRY: lost in a gap"), "{history}");
}

#[tokio::test]
async fn a_doubt_that_is_resolved_with_mail_settings_is_sent_at_once() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(1..3).await;
    became(&shop, 1, in_doubt).await;
    became(&shop, 2, in_doubt).await;
    let url = mails.url();
    let resolve = ["ledger", "resolve", "--send", "--note", "not in mail.log"];
    let mail = ["--mail-from", "shop@example.com", "--smtp-url", &url];
    let place = ["--table", &shop.orders];
    let one = id(1);
    let sent = does(&shop, &[&resolve[..], &mail, &place, &[&*one]].concat()).await;
    assert!(sent.starts_with("T-000001\tSENT\t"), "{sent}");
    let all = ["--state", "ambiguous", "--yes", "--json"];
    let sent = does(&shop, &[&resolve[..], &mail, &place, &all].concat()).await;
    let sent: Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(
        sent,
        serde_json::json!({"selected": 1, "resolved": 1, "sent": 1})
    );
    assert_eq!(mails.count(), 2);
}

#[tokio::test]
async fn an_order_that_cannot_be_sent_by_hand_says_why_and_stays_in_sight() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(2..5).await;
    for n in 1..4 {
        became(&shop, n, |fence, reply| Happened::NotAccepted {
            fence,
            reply,
        })
        .await;
    }
    let (code, reported) = send(&shop, &mails, 1, &[]).await;
    assert_eq!(code, 1, "{reported}");
    assert!(reported.contains("is not in table"), "{reported}");
    assert_eq!(row(&shop, 1).await.state, State::Retry);
    let (code, reported) = send(&shop, &mails, 2, &["--suppress-when", "currency == 'EUR'"]).await;
    assert_eq!((code, mails.count()), (1, 0), "{reported}");
    assert!(
        reported.contains("was not sent, it is SUPPRESSED"),
        "{reported}"
    );
    mails.add(Fault::once(Step::Dot, Act::Close).keeping());
    let (code, reported) = send(&shop, &mails, 3, &[]).await;
    assert_eq!((code, mails.count()), (1, 1), "{reported}");
    assert_eq!(row(&shop, 3).await.state, State::Ambiguous, "{reported}");
    let other = send(&shop, &mails, 1, &["--key", r#"{"id": "T-000003"}"#]).await;
    assert_eq!(other.0, 2, "{}", other.1);
    // The mail server goes away after the release: the order needs attention until it is sent.
    mails.go_away();
    let (code, reported) = send(&shop, &mails, 4, &[]).await;
    assert_eq!(code, 1, "{reported}");
    let released = does(&shop, &["ledger", "list", "--state", "released"]).await;
    assert!(released.starts_with("T-000004\tRETRY\t"), "{released}");
    mails.come_back().await;
    let (code, reported) = send(&shop, &mails, 4, &[]).await;
    assert_eq!((code, mails.count()), (0, 2), "{reported}");
}

#[tokio::test]
async fn what_was_refused_or_suppressed_is_sent_by_hand() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(1..3).await;
    became(&shop, 1, |fence, reply| Happened::Refused { fence, reply }).await;
    let reason = "status is PENDING".to_owned();
    let suppressed = transition(None, &Happened::Suppressed { reason }, now()).unwrap();
    put(&shop, 2, None, &suppressed).await;
    for n in 1..3 {
        let (code, reported) = send(&shop, &mails, n, &[]).await;
        assert_eq!(code, 0, "{reported}");
    }
    assert_eq!(mails.count(), 2);
}

/// A table with a sort key, and an order in it.
pub async fn composite(shop: &Shop, table: &str) {
    let key = |name, kind| {
        let key = KeySchemaElement::builder().attribute_name(name);
        key.key_type(kind).build().unwrap()
    };
    let text = |name| {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        let attribute = attribute.attribute_type(ScalarAttributeType::S);
        attribute.build().unwrap()
    };
    let stream = StreamSpecification::builder().stream_enabled(true);
    let stream = stream.stream_view_type(StreamViewType::NewAndOldImages);
    let create = shop.client.create_table().table_name(table);
    let create = create
        .key_schema(key("PK", KeyType::Hash))
        .key_schema(key("SK", KeyType::Range))
        .attribute_definitions(text("PK"))
        .attribute_definitions(text("SK"))
        .billing_mode(BillingMode::PayPerRequest)
        .stream_specification(stream.build().unwrap());
    create.send().await.unwrap();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = shop.client.put_item().table_name(table);
    let put = put
        .item("PK", text("CUST#7"))
        .item("SK", text("ORDER#1"))
        .item("email", text(&address(1)))
        .item("total", AttributeValue::N("1999".to_owned()))
        .item("currency", text("EUR"));
    put.send().await.unwrap();
}

#[tokio::test]
async fn an_order_of_a_table_with_a_sort_key_is_named_by_both_and_known_ones_by_their_id() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    composite(&shop, "single").await;
    let url = mails.url();
    let by_hand = ["send", "ORDER#1", "--table", "single", "--id", "SK"];
    let mail = ["--mail-from", "shop@example.com", "--smtp-url", &url];
    let with = |more: &[&'static str]| [&by_hand[..], &mail, more].concat();
    for (more, expected) in [
        (
            &[][..],
            "give the key of its item as --key PK=VALUE,SK=VALUE",
        ),
        (&["--key", "CUST#7"], "so write PK=CUST#7,SK=VALUE"),
    ] {
        let reported = complaint(&command(&shop, &with(more)).output().await.unwrap());
        assert!(reported.contains(expected), "{reported}");
    }
    let reported = does(&shop, &with(&["--key", "PK=CUST#7,SK=ORDER#1"])).await;
    assert!(reported.starts_with("ORDER#1\tSENT\t"), "{reported}");
    assert_eq!(mails.count(), 1);
    // The ledger knows where its item is.
    let letters = ["--dead-letter-table", &shop.letters];
    let explain = ["explain", "ORDER#1", "--table", "single"];
    let explained = does(&shop, &[&explain[..], &letters].concat()).await;
    assert!(
        explained.contains("Its item in table single is now"),
        "{explained}"
    );
}
