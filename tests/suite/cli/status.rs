//! What an operator sees of a fleet and of an order.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::leases::{Consistency, GapRow, LeaseStore as _};
use aftercommit::stores::ledger::EffectKey;
use aftercommit::stores::tables::dynamodb::create_lease_table;
use axum::Router;
use axum::routing::get;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::start::{aftercommit, on_shop, text};
use crate::fleet::process::{self, Process};
use crate::support::ahead::ahead;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, id};

/// The command, pointed at the shop's tables.
fn command(shop: &Shop, arguments: &[&str]) -> Command {
    let mut command = on_shop(shop);
    command.args(arguments);
    command
}

/// What the command prints, and its exit code.
async fn output_of(shop: &Shop, arguments: &[&str]) -> (String, i32) {
    let output = command(shop, arguments).output().await.unwrap();
    let code = output.status.code().unwrap();
    (text(&output.stdout) + &text(&output.stderr), code)
}

async fn status(shop: &Shop) -> (Value, i32) {
    let (reported, code) = output_of(shop, &["status", "--json"]).await;
    (serde_json::from_str(&reported).unwrap(), code)
}

/// Works until these many orders are finished, and leaves.
async fn work(shop: &Shop, mails: &MailServer, orders: usize) {
    let quit = CancellationToken::new();
    let worker = shop.worker("one", mails, OnAmbiguous::Park);
    let working = tokio::spawn(worker.run(quit.clone().cancelled_owned()));
    shop.finished(orders, OnAmbiguous::Park).await;
    quit.cancel();
    working.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_status_of_a_stream_that_nobody_ever_read_is_unknown() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let (reported, code) = output_of(&shop, &["status"]).await;
    assert_eq!(code, 2, "{reported}");
    assert!(
        reported.contains("No worker has ever read this stream"),
        "{reported}"
    );
}

#[tokio::test]
async fn a_query_without_an_answer_is_never_reported_as_well() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(0..1).await;
    let folder = tempfile::tempdir().unwrap();
    let run = process::command(&shop, &mails, None, "one");
    let mut worker = Process::start(run, folder.path(), "one");
    mails.wait_accepted(1).await;
    while status(&shop).await.1 != 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (variable, flag) in [
        ("AFTERCOMMIT_DEAD_LETTER_TABLE", "--dead-letter-table"),
        ("AFTERCOMMIT_LEDGER_TABLE", "--ledger-table"),
    ] {
        let mut command = command(&shop, &["status"]);
        let output = command.env(variable, "nowhere").output().await.unwrap();
        let reported = text(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{reported}");
        assert!(reported.contains("The status is unknown."), "{reported}");
        let unread = "The status is incomplete: table nowhere cannot be read";
        assert!(
            reported.contains(unread) && reported.contains(flag),
            "{reported}"
        );
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_look_that_fails_is_reported_and_does_not_end_the_watch() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mut watch = command(&shop, &["status", "--watch", "--json"]);
    watch.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watch = watch.kill_on_drop(true).spawn().unwrap();
    let mut looks = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut failures = BufReader::new(watch.stderr.take().unwrap()).lines();
    let watched = async {
        looks.next_line().await.unwrap().unwrap();
        let gone = shop.client.delete_table().table_name(&shop.leases);
        gone.send().await.unwrap();
        let reported = failures.next_line().await.unwrap().unwrap();
        assert!(reported.contains("cannot read the status"), "{reported}");
        create_lease_table(&shop.client, &shop.leases)
            .await
            .unwrap();
        looks.next_line().await.unwrap().unwrap();
    };
    tokio::time::timeout(Duration::from_mins(2), watched)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_fleet_is_named_and_is_well_while_it_works_and_needs_attention_once_it_has_left() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let mut run = process::command(&shop, &mails, None, "host-1");
    run.args(["--group", "shop", "--effect", "order-mail"]);
    let mut worker = Process::start(run, folder.path(), "host-1");
    mails.wait_accepted(3).await;
    let look = ["status", "--group", "shop"];
    let status = async || {
        let (reported, code) = output_of(&shop, &[&look[..], &["--json"]].concat()).await;
        let document: Value = serde_json::from_str(&reported).unwrap();
        (document, code)
    };
    // The lease's row reports it a moment later.
    let mut now = status().await;
    while now.1 != 0 || now.0["streams"][0]["shards"][0]["lag_seconds"] != 0.0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        now = status().await;
    }
    let stream = &now.0["streams"][0];
    assert_eq!(now.0["verdict"], "well");
    assert_eq!(stream["shards"][0]["state"], "reading");
    assert_eq!(stream["shards"][0]["until_trim_seconds"], 86_400.0);
    assert_eq!(stream["workers"][0]["alive"], true);
    assert_eq!(stream["parked_keys"], 0);
    assert_eq!(now.0["ambiguous"], 0);
    assert_eq!(stream["group"], "shop");
    assert_eq!(stream["effects"][0]["name"], "order-mail");
    assert_eq!(stream["table"], shop.orders);
    let (well, code) = output_of(&shop, &look).await;
    assert_eq!(code, 0, "{well}");
    let heading = format!("\ngroup shop, effect order-mail, table {} (", shop.orders);
    assert!(well.contains(&heading), "{well}");
    assert!(
        well.contains("All is well.") && well.contains("host-1"),
        "{well}"
    );

    worker.stop().await;
    let (left, code) = output_of(&shop, &look).await;
    assert_eq!(code, 1, "{left}");
    assert!(left.contains("No worker is alive"), "{left}");
    assert!(left.contains("free"), "{left}");
}

#[tokio::test]
async fn an_order_in_doubt_is_counted_and_explained_in_the_order_of_time() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let lost = Fault::once(Step::Dot, Act::Close).keeping();
    let mails = MailServer::start(Script::default().fault(lost)).await;
    shop.place(0..1).await;
    work(&shop, &mails, 1).await;
    let (now, _) = status(&shop).await;
    assert_eq!(now["ambiguous"], 1);
    let advice = now["advice"].to_string();
    assert!(advice.contains("ledger list --state ambiguous"), "{advice}");

    let (explained, code) = output_of(&shop, &["explain", &id(0)]).await;
    assert_eq!(code, 0, "{explained}");
    let claimed = explained.find("claim 1 by ").unwrap();
    let doubt = explained
        .find("claim 1: AMBIGUOUS, unknown whether it was accepted")
        .unwrap();
    assert!(claimed < doubt, "{explained}");
    let item = format!("Its item in table {} is now", shop.orders);
    assert!(explained.contains(&item), "{explained}");
    let (json, _) = output_of(&shop, &["explain", &id(0), "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    let effect = EffectKey::new(&EffectName::default(), &id(0));
    assert_eq!(json["ledger"]["effect_key"], effect.as_str());
    assert_eq!(json["events"].as_array().unwrap().len(), 2);
}

/// Whether a lease's row reports a record that waits, and why.
async fn reported(shop: &Shop) -> bool {
    let view = shop.lease_store().look(Consistency::Strong).await.unwrap();
    let mut rows = view.leases.values();
    rows.any(|row| row.report.last_error.is_some() && row.report.waiting_since.is_some())
}

/// A worker whose mail server is away, once its row reports the order that waits for it.
async fn with_an_order_that_waits(
    shop: &Shop,
) -> (
    MailServer,
    CancellationToken,
    JoinHandle<anyhow::Result<()>>,
) {
    let mails = MailServer::start(Script::default()).await;
    mails.go_away();
    shop.place(0..1).await;
    let quit = CancellationToken::new();
    let worker = shop.worker("one", &mails, OnAmbiguous::Park);
    let working = tokio::spawn(worker.run(quit.clone().cancelled_owned()));
    while !reported(shop).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (mails, quit, working)
}

#[tokio::test]
async fn an_order_that_waits_for_the_mail_server_is_explained_with_where_and_why() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let (_away, quit, working) = with_an_order_that_waits(&shop).await;
    let (explained, code) = output_of(&shop, &["explain", &id(0)]).await;
    assert_eq!(code, 0, "{explained}");
    for part in [
        "The ledger does not know it",
        "It may wait in shard ",
        "; the oldest record there was committed at ",
        "last error: ",
    ] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let (json, _) = output_of(&shop, &["explain", &id(0), "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["waits"][0]["last_error"].is_string(), "{json}");
    quit.cancel();
    working.await.unwrap().unwrap();
}

#[tokio::test]
async fn how_far_behind_a_shard_is_goes_by_the_services_clock_and_not_by_the_operators() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let (_away, quit, working) = with_an_order_that_waits(&shop).await;
    let hour = Duration::from_hours(1);
    let url = ahead(server.url(), hour).await;
    let mut command = command(&shop, &["status", "--json"]);
    let output = command.env("AWS_ENDPOINT_URL", url).output().await.unwrap();
    let reported: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shard = &reported["streams"][0]["shards"][0];
    let lag = shard["lag_seconds"].as_f64().unwrap();
    let left = shard["until_trim_seconds"].as_f64().unwrap();
    // Dates are in whole seconds.
    assert!(lag >= 3_599.0, "{shard}");
    assert!((86_399.0..86_401.0).contains(&(lag + left)), "{shard}");
    let at = humantime::parse_rfc3339(reported["at"].as_str().unwrap()).unwrap();
    assert!(at > SystemTime::now() + hour / 2, "{}", reported["at"]);
    quit.cancel();
    working.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dead_letter_is_counted_by_its_reason_and_explained_with_its_attempts() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let refused = Fault::always(Step::Rcpt, Act::Say("550 5.1.1 no such user"));
    let mails = MailServer::start(Script::default().fault(refused)).await;
    shop.place(0..1).await;
    work(&shop, &mails, 1).await;
    let (now, code) = status(&shop).await;
    let stream = &now["streams"][0];
    assert_eq!((code, &stream["parked_keys"]), (1, &1.into()), "{now}");
    assert_eq!(stream["dead_letters"]["rejected"], 1);
    let (explained, _) = output_of(&shop, &["explain", &id(0)]).await;
    let in_order = [
        "INSERT committed",
        "attempt failed",
        "dead letter (rejected",
    ];
    let places = in_order.map(|words| explained.find(words).expect(words));
    assert!(places.is_sorted(), "{explained}");
    assert!(explained.contains("550 5.1.1 no such user"), "{explained}");
}

#[tokio::test]
async fn a_gap_needs_attention_until_an_operator_resolves_it() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let gap = GapRow {
        shard: ShardId::new("shard-1"),
        last_handled: None,
        last_handled_time: None,
        first_after: None,
        detected: SystemTime::UNIX_EPOCH,
        resolved: None,
    };
    let recorded = shop.lease_store().record_gap(&gap, None).await;
    recorded.unwrap().unwrap();
    let (listed, code) = output_of(&shop, &["gaps", "list"]).await;
    assert_eq!(code, 0, "{listed}");
    assert!(
        listed.starts_with("shard-1: after the beginning, before nothing yet"),
        "{listed}"
    );
    let (json, _) = output_of(&shop, &["gaps", "list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["shard"], "shard-1");

    let resolve = ["gaps", "resolve", "--shard", "shard-1", "--by", "ada"];
    let with = |note| [&resolve[..], &["--note", note]].concat();
    let (empty, code) = output_of(&shop, &with(" ")).await;
    assert_eq!(code, 2, "{empty}");
    let (resolved, code) = output_of(&shop, &with("mailed by hand")).await;
    assert_eq!((&*resolved, code), ("shard-1: resolved\n", 0));
    let (again, code) = output_of(&shop, &with("mailed by hand")).await;
    assert_eq!(code, 1, "{again}");
    assert!(again.contains("no open gap matches"), "{again}");

    assert_eq!(
        output_of(&shop, &["gaps", "list"]).await,
        (String::new(), 0)
    );
    let (listed, _) = output_of(&shop, &["gaps", "list", "--all"]).await;
    assert!(listed.contains("resolved by ada"), "{listed}");
    assert!(listed.contains("mailed by hand"), "{listed}");
    let (now, _) = status(&shop).await;
    assert_eq!(now["streams"][0]["gaps"][0]["resolved"]["by"], "ada");
    assert!(!now["advice"].to_string().contains("shard-1"), "{now}");
}

#[tokio::test]
async fn of_an_order_that_nobody_knows_nothing_is_explained() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let (reported, code) = output_of(&shop, &["explain", "4711"]).await;
    assert_eq!(code, 1);
    assert!(
        reported.contains("nothing is known about order 4711"),
        "{reported}"
    );
    assert_eq!(reported.matches('\n').count(), 1, "one line: {reported}");
}

/// What ECS tells a task.
async fn metadata() -> String {
    let body = r#"{"TaskARN": "arn:aws:ecs:eu-central-1:1:task/shop/4f2a",
        "AvailabilityZone": "eu-central-1b"}"#;
    let router = Router::new().route("/v4/abc/task", get(move || async move { body }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v4/abc")
}

#[tokio::test]
async fn a_task_of_ecs_has_its_id_and_zone_in_its_workers_row() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(0..1).await;
    let mut run = process::command(&shop, &mails, None, "");
    run.env("ECS_CONTAINER_METADATA_URI_V4", metadata().await);
    // As in a container, where the worker has no name.
    let arguments: Vec<_> = run
        .as_std()
        .get_args()
        .map(std::ffi::OsStr::to_owned)
        .collect();
    let named = arguments
        .iter()
        .position(|word| word == "--worker-id")
        .unwrap();
    let mut unnamed = aftercommit();
    for (name, value) in run.as_std().get_envs() {
        unnamed.env(name, value.unwrap());
    }
    unnamed.args(&arguments[..named]);
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Process::start(unnamed, folder.path(), "task");
    mails.wait_accepted(1).await;
    let (now, _) = status(&shop).await;
    let row = &now["streams"][0]["workers"][0];
    assert!(
        row["worker"].as_str().unwrap().starts_with("4f2a/"),
        "{row}"
    );
    assert_eq!(row["zone"], "eu-central-1b");
    worker.stop().await;
}
