//! The command as an AWS Lambda function: the real process, against the runtime API.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use aftercommit::internal::claim::State;
use aftercommit::stores::dead_letter::{Reason, Selection};
use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::cli::start::{complaint, on_shop};
use crate::support::embedded::Embedded;
use crate::support::handler_server::{HandlerServer, answer};
use crate::support::lambda_events::{event, records};
use crate::support::letters::listed;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::runtime_api::RuntimeApi;
use crate::support::shop::{Shop, address, id, specify_stream};

/// Long enough for everything.
const LONG: Duration = Duration::from_mins(1);

/// The function, set by its environment.
pub fn function(shop: &Shop, mails: &MailServer, runtime_api: &str) -> Command {
    let mut command = on_shop(shop);
    command
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
        .env("AWS_LAMBDA_FUNCTION_NAME", "confirm")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AFTERCOMMIT_LEASE_TABLE", "there-is-none")
        .env("AFTERCOMMIT_MAIL_FROM", "Shop <shop@example.com>")
        .env("AFTERCOMMIT_SMTP_URL", mails.url());
    command
}

/// A shop, its mail server, and the function that serves it.
struct Stage {
    shop: Shop,
    mails: MailServer,
    api: RuntimeApi,
    function: Child,
    _server: Embedded,
}

impl Stage {
    async fn open(set: &[(&str, &str)]) -> Self {
        let server = Embedded::start();
        let shop = Shop::open(server.url()).await;
        let mails = MailServer::start(Script::default()).await;
        let api = RuntimeApi::start().await;
        let mut command = function(&shop, &mails, &api.address());
        command.envs(set.iter().copied());
        let function = command.stdout(Stdio::piped()).spawn().unwrap();
        Self {
            shop,
            mails,
            api,
            function,
            _server: server,
        }
    }

    async fn event(&self) -> Value {
        event(&self.shop.arn, &records(&self.shop).await)
    }

    async fn invoke(&self, event: &Value, time: Duration) -> Result<Value, Value> {
        let outcome = self.api.invoke(event.clone(), time);
        tokio::time::timeout(LONG, outcome).await.unwrap()
    }
}

fn number(event: &Value, n: usize) -> &str {
    let number = &event["Records"][n]["dynamodb"]["SequenceNumber"];
    number.as_str().unwrap()
}

fn failed(at: &str) -> Value {
    json!({"batchItemFailures": [{"itemIdentifier": at}]})
}

fn done() -> Value {
    json!({"batchItemFailures": []})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_mailed_once_however_often_it_comes() {
    let stage = Stage::open(&[]).await;
    stage.shop.place(0..12).await;
    let event = stage.event().await;
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    assert_eq!(stage.mails.count(), 12);
    let heard = stage.mails.heard().len();
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    assert_eq!(stage.mails.count(), 12);
    assert_eq!(
        stage.mails.heard().len(),
        heard,
        "the mail server is not even asked"
    );
    let rows = stage.shop.rows(12).await;
    for row in rows.values() {
        assert_eq!(row.state, State::Sent);
        let claimant = row.claimant.as_ref().unwrap();
        assert!(claimant.incarnation.starts_with("~lambda-"), "{claimant:?}");
        // The invocation's end and what clocks may differ by; not the 20 minutes of a worker.
        let stands = claimant.deadline.duration_since(row.first_claimed.unwrap());
        assert!(
            stands.unwrap() <= LONG + Duration::from_mins(5),
            "{claimant:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_stream_that_was_replaced_are_mailed_and_counted() {
    let mut stage = Stage::open(&[("AFTERCOMMIT_METRICS", "emf")]).await;
    stage.shop.place(0..2).await;
    let event = stage.event().await;
    let (client, orders) = (&stage.shop.client, &stage.shop.orders);
    specify_stream(client, orders, None).await;
    specify_stream(client, orders, Some(StreamViewType::NewAndOldImages)).await;
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    assert_eq!(stage.mails.count(), 2);
    let mut lines = BufReader::new(stage.function.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(LONG, lines.next_line()).await.unwrap();
    let metrics: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
    assert_eq!(metrics["aftercommit_events_of_earlier_streams_total"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fails_in_the_middle_is_reported_and_all_others_are_mailed() {
    let stage = Stage::open(&[("AFTERCOMMIT_MAX_ATTEMPTS", "1000000")]).await;
    let later = Fault::always(Step::Rcpt, Act::Say("450 4.2.1 later"));
    stage.mails.add(later.for_recipient(&address(4)));
    stage.shop.place(0..10).await;
    let event = stage.event().await;
    let at = (0..10).find(|n| {
        let mail = &event["Records"][n]["dynamodb"]["NewImage"]["email"]["S"];
        mail == &json!(address(4))
    });
    let answer = stage.invoke(&event, Duration::from_secs(25)).await;
    assert_eq!(answer, Ok(failed(number(&event, at.unwrap()))));
    assert_eq!(stage.mails.count(), 9);
    stage.mails.heal();
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    assert_eq!(stage.mails.count(), 10);
    assert_eq!(stage.mails.by_recipient().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_order_becomes_a_dead_letter_and_the_batch_is_finished() {
    let stage = Stage::open(&[]).await;
    stage.shop.place(0..2).await;
    let put = stage.shop.client.put_item().table_name(&stage.shop.orders);
    let put = put.item("id", AttributeValue::S("bad".to_owned()));
    put.send().await.unwrap();
    stage.shop.place(2..4).await;
    let event = stage.event().await;
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    assert_eq!(stage.mails.count(), 4);
    let letters = listed(&stage.shop.dead_letters(), &Selection::default()).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].reason, letters[0].key_in_words()),
        (Reason::Rejected, "id=bad".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_an_order_to_confirm_is_finished_without_a_mail() {
    let stage = Stage::open(&[
        ("AFTERCOMMIT_ONLY", "id is startingwith('ORDER#')"),
        ("AFTERCOMMIT_NOT_BEFORE", "2026-01-01"),
        ("AFTERCOMMIT_CREATED_AT", "placed"),
    ])
    .await;
    for (n, (id, placed)) in [
        ("ORDER#0", "2026-05-01"),
        ("ORDER#1", "2023-05-01"),
        ("PROFILE", "2026-05-01"),
        ("ORDER#3", "some day"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let put = stage.shop.client.put_item().table_name(&stage.shop.orders);
        let put = put
            .item("id", text(id))
            .item("email", text(&address(n)))
            .item("placed", text(placed));
        put.send().await.unwrap();
    }
    let event = stage.event().await;
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    let mailed: Vec<_> = stage.mails.by_recipient().into_keys().collect();
    assert_eq!(mailed, [address(0)]);
    // It is unknown when the last one was placed.
    let letters = listed(&stage.shop.dead_letters(), &Selection::default()).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].key_in_words(), "id=ORDER#3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_the_end_nothing_is_begun_and_no_mail_passes_its_point_of_no_return() {
    let stage = Stage::open(&[]).await;
    stage.shop.place(0..3).await;
    let event = stage.event().await;
    let first = failed(number(&event, 0));
    assert_eq!(
        stage.invoke(&event, Duration::from_secs(9)).await,
        Ok(first.clone())
    );
    assert_eq!(stage.mails.connections(), 0);
    // The go-ahead for the message comes when the end is near.
    let slow = Act::Late(Duration::from_secs(3));
    stage.mails.add(Fault::always(Step::Data, slow));
    assert_eq!(
        stage.invoke(&event, Duration::from_secs(12)).await,
        Ok(first)
    );
    assert_eq!(stage.mails.count(), 0);
    let rows = stage.shop.rows(3).await;
    assert!(rows.values().all(|row| row.ambiguities == 0), "{rows:?}");
    stage.mails.heal();
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    assert_eq!(stage.mails.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_reported_or_fails_the_invocation() {
    let stage = Stage::open(&[]).await;
    stage.shop.place(0..3).await;
    let mut event = stage.event().await;
    event["Records"][1]["dynamodb"]["NewImage"]["total"] = json!({"X": 1});
    let answer = stage.invoke(&event, LONG).await;
    assert_eq!(answer, Ok(failed(number(&event, 1))));
    assert_eq!(stage.mails.count(), 1);
    let change = event["Records"][1]["dynamodb"].as_object_mut().unwrap();
    change.remove("SequenceNumber");
    let error = stage.invoke(&event, LONG).await.unwrap_err();
    let reported = error["errorMessage"].as_str().unwrap();
    assert!(
        reported.contains("Records[1].dynamodb.SequenceNumber: not there"),
        "{reported}"
    );
    // The process continues.
    assert_eq!(stage.invoke(&stage.event().await, LONG).await, Ok(done()));
    assert_eq!(stage.mails.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_whose_settings_are_wrong_says_so_in_one_line_and_ends() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    for (name, reported) in [
        ("AFTERCOMMIT_TABLE", "--table <TABLE>"),
        ("AFTERCOMMIT_SMTP_URL", "AFTERCOMMIT_SMTP_URL"),
        (
            "AFTERCOMMIT_LEDGER_TABLE",
            "table aftercommit-ledger does not exist",
        ),
        (
            "AWS_LAMBDA_FUNCTION_NAME",
            "AWS_LAMBDA_FUNCTION_NAME is not set",
        ),
    ] {
        let output = function(&shop, &mails, "127.0.0.1:1")
            .env_remove(name)
            .output()
            .await;
        let complaint = complaint(&output.unwrap());
        assert!(complaint.contains(reported), "{complaint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_over_http_takes_the_place_of_the_confirmation_here_too() {
    let handler = HandlerServer::start(|posted| {
        let number = posted.header("aftercommit-sequence-number").unwrap();
        // The last of them is not done yet.
        let failed = posted.body().to_string().contains(&id(2));
        let failed = failed.then(|| json!({"itemIdentifier": number}));
        let body = json!({"batchItemFailures": failed.into_iter().collect::<Vec<_>>()});
        answer(200, "", &body.to_string())
    })
    .await;
    let url = handler.url("/");
    let stage = Stage::open(&[("AFTERCOMMIT_HANDLER", &url)]).await;
    stage.shop.place(0..3).await;
    let event = stage.event().await;
    let third = (0..3).find(|n| event["Records"][n].to_string().contains(&id(2)));
    let reported = stage.invoke(&event, Duration::from_secs(15)).await;
    assert_eq!(reported, Ok(failed(number(&event, third.unwrap()))));
    let posted: BTreeSet<_> = handler
        .seen()
        .iter()
        .map(|one| one.body().to_string())
        .collect();
    assert_eq!(posted.len(), 3);
    assert_eq!(stage.mails.count(), 0);
}

#[tokio::test]
async fn a_function_starts_no_other_function() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    let mut function = function(&shop, &mails, "127.0.0.1:1");
    function.env("AFTERCOMMIT_HANDLER_COMMAND", "true");
    let reported = complaint(&function.output().await.unwrap());
    assert!(
        reported.contains("--handler-command starts a Lambda function outside of Lambda"),
        "{reported}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_event_a_line_reports_its_result_to_cloudwatch() {
    let mut stage = Stage::open(&[("AFTERCOMMIT_METRICS", "emf")]).await;
    let mut lines = BufReader::new(stage.function.stdout.take().unwrap()).lines();
    let mut line = async || -> Value {
        let line = tokio::time::timeout(LONG, lines.next_line()).await;
        serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap()
    };
    stage.shop.place(0..3).await;
    let event = stage.event().await;
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    let first = line().await;
    assert_eq!(first["table"], *stage.shop.orders);
    assert_eq!(first["aftercommit_effects_accepted_total"], 3);
    assert_eq!(first["aftercommit_lag_seconds"], 0.0);
    assert_eq!(first["aftercommit_until_trim_seconds"], 86_400.0);
    assert_eq!(stage.invoke(&event, LONG).await, Ok(done()));
    let again = line().await;
    assert_eq!(again["aftercommit_effects_accepted_total"], 0);
    assert_eq!(again["aftercommit_records_handled_total"], 3);
}
