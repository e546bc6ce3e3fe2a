//! Which committed changes a worker confirms: filters, and the home region of a global table.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::{Value, json};

use crate::cli::start::{complaint, on_aws};
use crate::fleet::process::{Process, command};
use crate::support::embedded::Embedded;
use crate::support::mail_server::{MailServer, Script};
use crate::support::shop::{Shop, address, id};

/// Writes an order, new or again, with this text attribute.
async fn put(shop: &Shop, order: usize, (name, value): (&str, &str)) {
    let put = shop.client.put_item().table_name(&shop.orders);
    put.item("id", AttributeValue::S(id(order)))
        .item("email", AttributeValue::S(address(order)))
        .item("total", AttributeValue::N("1999".to_owned()))
        .item("currency", AttributeValue::S("EUR".to_owned()))
        .item(name, AttributeValue::S(value.to_owned()))
        .send()
        .await
        .unwrap();
}

/// Runs a worker until it has sent this many mails and has stopped.
async fn run(shop: &Shop, arguments: &[&str], mails: &MailServer, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(shop, mails, None, "one");
    command.args(arguments);
    let mut worker = Process::start(command, folder.path(), "one");
    mails.wait_accepted(count).await;
    worker.stop().await;
}

#[tokio::test]
async fn an_order_is_confirmed_at_the_change_that_the_filter_asks_for_and_only_once() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    put(&shop, 0, ("status", "NEW")).await;
    put(&shop, 1, ("status", "NEW")).await;
    put(&shop, 0, ("status", "PAID")).await;
    put(&shop, 0, ("status", "PAID")).await;
    put(&shop, 2, ("status", "PAID")).await;
    let paid = r#"{"dynamodb": {"NewImage": {"status": {"S": ["PAID"]}}}}"#;
    run(&shop, &["--filter", paid], &mails, 2).await;
    let mailed = mails.by_recipient();
    let mailed: Vec<_> = mailed.iter().map(|(to, n)| (&**to, *n)).collect();
    let (first, last) = (address(0), address(2));
    assert_eq!(mailed, [(&*first, 1), (&*last, 1)]);
}

#[tokio::test]
async fn without_a_filter_only_new_orders_are_confirmed() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    // Another worker saw it come, before there was this ledger.
    put(&shop, 0, ("status", "NEW")).await;
    run(&shop, &[], &mails, 1).await;
    let row = shop.client.delete_item().table_name(&shop.ledger);
    let effect = AttributeValue::S(format!("confirmation#{}", id(0)));
    row.key("effect", effect).send().await.unwrap();
    put(&shop, 0, ("status", "PAID")).await;
    put(&shop, 1, ("status", "NEW")).await;
    run(&shop, &[], &mails, 2).await;
    assert_eq!(mails.by_recipient()[&address(0)], 1);
}

#[tokio::test]
async fn on_a_global_table_each_region_confirms_its_own_orders() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    put(&shop, 0, ("home", "us-east-1")).await;
    put(&shop, 1, ("nothing", "said")).await;
    put(&shop, 2, ("home", "eu-central-1")).await;
    run(&shop, &["--home-region", "home=eu-central-1"], &mails, 1).await;
    assert_eq!(
        mails.by_recipient().into_keys().collect::<Vec<_>>(),
        [address(2)]
    );
}

const ARN: &str =
    "arn:aws:dynamodb:eu-central-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000";

/// An AWS of which only the first calls of a worker matter. `table`: what it says to `DescribeTable`.
async fn aws(table: Option<Value>) -> String {
    async fn answer(
        State(table): State<Arc<Option<Value>>>,
        headers: HeaderMap,
    ) -> impl IntoResponse {
        let target = headers["x-amz-target"].to_str().unwrap();
        match (target.rsplit('.').next().unwrap(), &*table) {
            ("DescribeTable", Some(table)) => (StatusCode::OK, json!({"Table": table}).to_string()),
            ("DescribeStream", _) => {
                let view = "NEW_AND_OLD_IMAGES";
                let stream = json!({"StreamArn": ARN, "StreamViewType": view, "Shards": []});
                (
                    StatusCode::OK,
                    json!({"StreamDescription": stream}).to_string(),
                )
            }
            _ => {
                let denied = json!({"__type": "x#AccessDeniedException", "message": "not you"});
                (StatusCode::BAD_REQUEST, denied.to_string())
            }
        }
    }
    let router = Router::new()
        .route("/", post(answer))
        .with_state(Arc::new(table));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// The one line of a start that is refused.
async fn refused(url: &str, arguments: &[&str]) -> String {
    let mut command = on_aws(url);
    command
        .args(["run", "--mail-from", "shop@example.com"])
        .args(["--smtp-url", "smtp://localhost:1025"])
        .args(arguments);
    complaint(&command.output().await.unwrap())
}

#[tokio::test]
async fn a_replica_without_a_home_region_is_refused() {
    let url = aws(Some(json!({
        "TableName": "orders",
        "TableArn": ARN.split_once("/stream/").unwrap().0,
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        "LatestStreamArn": ARN,
        "Replicas": [{"RegionName": "us-east-1"}],
    })))
    .await;
    for which in [["--table", "orders"], ["--stream-arn", ARN]] {
        let reported = refused(&url, &which).await;
        assert!(
            reported.contains("is a replica of a global table"),
            "{reported}"
        );
        assert!(reported.contains("--home-region"), "{reported}");
    }
}

#[tokio::test]
async fn whether_it_is_a_replica_must_be_known() {
    let url = aws(None).await;
    let arguments = ["--stream-arn", ARN, "--id", "id"];
    let reported = refused(&url, &arguments).await;
    assert!(reported.contains("--home-region"), "{reported}");
    assert!(
        reported.contains("not you") || reported.contains("DescribeTable"),
        "{reported}"
    );
}
