//! A worker that is watched: its endpoints, its numbers, and what it says of itself in trouble.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::stores::dead_letter::DeadLetters as _;
use aftercommit::stores::leases::{Consistency, LeaseStore as _};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::start::text;
use crate::fleet::process::{Process, Signal, command};
use crate::monitor::health::health;
use crate::support::embedded::Embedded;
use crate::support::http::{Answer, get, request};
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address};

const LIMIT: Duration = Duration::from_mins(4);

/// Where the worker serves its status, as its row tells.
pub async fn served(shop: &Shop) -> String {
    loop {
        let view = shop.lease_store().look(Consistency::Strong).await.unwrap();
        let mut workers = view.workers.into_values();
        if let Some(address) = workers.find_map(|row| row.status_address) {
            return address;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Asks until the answer is as wanted.
pub async fn until(address: &str, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    loop {
        let answer = get(address, path).await;
        if wanted(&answer) {
            return answer;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// An order without an address.
pub async fn place_bad(shop: &Shop) {
    let put = shop.client.put_item().table_name(&shop.orders);
    let put = put.item("id", AttributeValue::S("bad".to_owned()));
    put.send().await.unwrap();
}

/// A shop with 21 orders, one of which is refused for good, and one without an address.
pub async fn trading(server: &Embedded) -> (Shop, MailServer) {
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    let refused = Fault::always(Step::Rcpt, Act::Say("550 5.1.1 nobody"));
    mails.add(refused.for_recipient(&address(3)));
    shop.place(0..21).await;
    place_bad(&shop).await;
    (shop, mails)
}

/// Every line is a document of its own; the sum of each total over all of them.
fn totals(path: &Path) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["_aws"]["Timestamp"].as_u64().unwrap() > 1_700_000_000_000);
        for (name, value) in line.as_object().unwrap() {
            if name.ends_with("_total") {
                *sums.entry(name.clone()).or_default() += value.as_u64().unwrap();
            }
        }
    }
    sums
}

/// 20 of 22 orders are mailed, one is refused, one is bad.
async fn metrics_are_right(at: &str, table: &str) {
    let of_table = format!("{{group=\"confirmation\",effect=\"confirmation\",table=\"{table}\"");
    let line = |name: &str, value: &str| format!("aftercommit_{name}{of_table}}} {value}");
    let last = [
        line("dead_letters_total", "2"),
        line("records_handled_total", "20"),
        line("commit_to_finished_seconds_count", "22"),
    ];
    let has = |answer: &Answer, line: &String| answer.body.lines().any(|one| one == line);
    let done = |answer: &Answer| last.iter().all(|line| has(answer, line));
    let metrics = until(at, "/metrics", done).await;
    for line in [
        line("effects_accepted_total", "20"),
        line("effects_failed_total", "1"),
        line("effects_ambiguous_total", "0"),
        line("gaps_total", "0"),
        line("handle_seconds_count", "22"),
        line("shards_owned", "1"),
        "aftercommit_buffer_limit_bytes 67108864".to_owned(),
        "aftercommit_dependency_down_seconds 0".to_owned(),
    ] {
        assert!(has(&metrics, &line), "{line}\n{}", metrics.body);
    }
    let kind = "content-type: text/plain; version=0.0.4";
    assert!(metrics.head.contains(kind), "{}", metrics.head);
    let lag = format!("aftercommit_lag_seconds{of_table},shard=");
    let caught_up = |answer: &Answer| {
        let mut lines = answer.body.lines();
        lines.any(|line| line.starts_with(&lag) && line.ends_with(" 0"))
    };
    until(at, "/metrics", caught_up).await;
}

/// The same in the document.
async fn document_is_right(at: &str, table: &str) {
    let parked = |answer: &Answer| answer.body.contains("\"parked_keys\":2");
    let status = until(at, "/status.json", parked).await;
    let status: Value = serde_json::from_str(&status.body).unwrap();
    assert_eq!(
        (&status["format"], &status["verdict"]),
        (&1.into(), &"attention".into())
    );
    let stream = &status["streams"][0];
    assert_eq!(stream["table"], *table);
    assert_eq!(stream["dead_letters"]["rejected"], 2);
    assert_eq!(stream["workers"][0]["status_address"], *at);
    let process = &status["process"];
    assert_eq!(
        (&process["ready"], &process["mails"]["accepted"]),
        (&true.into(), &20.into())
    );
    assert!(process["worker"].as_str().unwrap().starts_with("one/"));
    assert!(!process["history"].as_array().unwrap().is_empty());
}

/// Nothing can be changed, and no page elsewhere can use it.
async fn answers_are_strict(at: &str) {
    let page = get(at, "/").await;
    assert!(page.code == 200 && page.body.contains("<!doctype html>"));
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/status.json",
        "/nowhere",
    ] {
        let answer = get(at, path).await;
        for header in [
            "content-security-policy: default-src 'none'; ",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(answer.head.contains(header), "{path}: {}", answer.head);
        }
        let expected = if path == "/nowhere" {
            (404, 404)
        } else {
            (200, 405)
        };
        let posted = request(at, "POST", path).await;
        assert_eq!((answer.code, posted.code), expected, "{path}");
    }
}

#[tokio::test]
async fn the_endpoints_report_what_happens_while_mails_go_out() {
    let server = Embedded::start();
    let (shop, mails) = trading(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("lines");
    let mut command = command(&shop, &mails, None, "one");
    command.args(["--http", "127.0.0.1:0", "--metrics", "emf"]);
    command.stdout(File::create(&lines).unwrap());
    let mut process = Process::start(command, folder.path(), "one");
    let run = async {
        let at = served(&shop).await;
        mails.wait_accepted(20).await;
        metrics_are_right(&at, &shop.orders).await;
        document_is_right(&at, &shop.orders).await;
        answers_are_strict(&at).await;
        assert_eq!(get(&at, "/healthz").await.body, "ok\n");
        assert_eq!(get(&at, "/readyz").await.body, "ok\n");
        let well = health(&at).await;
        assert_eq!(
            (well.status.code(), &*text(&well.stdout)),
            (Some(0), "ok\n")
        );
        process_ends(&mut process).await;
        let gone = health(&at).await;
        let reported = text(&gone.stderr);
        assert_eq!(
            (gone.status.code(), reported.matches('\n').count()),
            (Some(1), 1)
        );
        assert!(
            reported.starts_with("error: no answer from 127.0.0.1:"),
            "{reported}"
        );
    };
    timeout(LIMIT, run).await.unwrap();
    let totals = totals(&lines);
    assert_eq!(totals["aftercommit_records_handled_total"], 20);
    assert_eq!(totals["aftercommit_effects_accepted_total"], 20);
    assert_eq!(totals["aftercommit_dead_letters_total"], 2);
    assert!(totals["aftercommit_heartbeats_total"] > 0);
}

#[tokio::test]
async fn an_order_in_doubt_is_still_reported_by_a_worker_that_never_had_it() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let lost = Fault::once(Step::Dot, Act::Close).keeping();
    let mails = MailServer::start(Script::default().fault(lost)).await;
    shop.place(0..1).await;
    let quit = CancellationToken::new();
    let first = shop.worker("one", &mails, OnAmbiguous::Park);
    let working = tokio::spawn(first.run(quit.clone().cancelled_owned()));
    shop.finished(1, OnAmbiguous::Park).await;
    quit.cancel();
    working.await.unwrap().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&shop, &mails, None, "two");
    command.args(["--http", "127.0.0.1:0", "--on-ambiguous", "park"]);
    let mut process = Process::start(command, folder.path(), "two");
    let run = async {
        let at = served(&shop).await;
        let counted = |answer: &Answer| answer.body.contains("\"ambiguous\":1,");
        let reported = until(&at, "/status.json", counted).await.body;
        assert!(
            reported.contains("ledger list --state ambiguous"),
            "{reported}"
        );
        process_ends(&mut process).await;
    };
    timeout(LIMIT, run).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_of_a_worker_that_was_killed_is_still_a_level_of_the_next_one() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    place_bad(&shop).await;
    let quit = CancellationToken::new();
    let first = shop.worker("one", &mails, OnAmbiguous::Park);
    let working = tokio::spawn(first.run(quit.clone().cancelled_owned()));
    let parked = async || {
        let parked = shop.dead_letters().parked(&shop.letters_at()).await;
        parked.unwrap().keys.len()
    };
    while parked().await == 0 {
        sleep(Duration::from_millis(50)).await;
    }
    // It dies before it has reported this to anybody.
    working.abort();

    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&shop, &mails, None, "two");
    command.args(["--http", "127.0.0.1:0", "--lease-duration", "2s"]);
    let mut process = Process::start(command, folder.path(), "two");
    let run = async {
        let of_table = format!(
            "{{group=\"confirmation\",effect=\"confirmation\",table=\"{}\"",
            shop.orders
        );
        let at = served(&shop).await;
        let line = format!("aftercommit_parked_keys_failed{of_table}}} 1\n");
        let reported = until(&at, "/metrics", |answer| answer.body.contains(&line))
            .await
            .body;
        for line in [
            format!("aftercommit_dead_letters_total{of_table}}} 0\n"),
            format!("aftercommit_parked_keys{of_table},reason=\"rejected\"}} 1\n"),
            format!("aftercommit_orders_ambiguous{of_table}}} 0\n"),
            format!("aftercommit_gaps_open{of_table}}} 0\n"),
        ] {
            assert!(reported.contains(&line), "{line}{reported}");
        }
        process_ends(&mut process).await;
    };
    timeout(LIMIT, run).await.unwrap();
}

pub async fn process_ends(process: &mut Process) {
    process.signal(Signal::Stop).await;
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_worker_that_does_not_keep_up_is_unready_until_it_does_and_never_unhealthy() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    mails.add(Fault::always(Step::Mail, Act::Close));
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&shop, &mails, None, "one");
    command.args(["--http", "127.0.0.1:0", "--memory-budget", "2560KiB"]);
    // A minute of overload is six of these.
    command.args(["--lease-duration", "1s"]);
    let mut process = Process::start(command, folder.path(), "one");
    let run = async {
        let at = served(&shop).await;
        until(&at, "/readyz", |answer| answer.code == 200).await;
        shop.place(0..50).await;
        let down = |answer: &Answer| {
            answer.body.starts_with("the mail server 127.0.0.1:")
                && answer.body.contains(" is down for ")
        };
        let reported = until(&at, "/readyz", down).await;
        assert!(
            reported
                .body
                .contains("MAIL: the server closed the connection"),
            "{}",
            reported.body
        );
        let status: Value = serde_json::from_str(&get(&at, "/status.json").await.body).unwrap();
        assert_eq!(status["verdict"], "attention");
        assert_eq!(
            (reported.code, reported.body.matches('\n').count()),
            (503, 1)
        );
        until(&at, "/healthz", |answer| answer.code == 200).await;
        let metrics = get(&at, "/metrics").await.body;
        assert!(
            !metrics.contains("aftercommit_dependency_down_seconds 0\n"),
            "{metrics}"
        );
        mails.heal();
        mails.wait_accepted(50).await;
        until(&at, "/readyz", |answer| answer.code == 200).await;
        process_ends(&mut process).await;
    };
    timeout(LIMIT, run).await.unwrap();
    // The default level names the server, the step, the reply, and how many wait.
    let log = std::fs::read_to_string(folder.path().join("one.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let said = |message: &str| {
        let starts = |line: &&Value| line["message"].as_str().unwrap().starts_with(message);
        let found = lines.iter().find(starts);
        found.unwrap_or_else(|| panic!("{message}: {log}")).clone()
    };
    let began = said("the dependency is down");
    assert_eq!(
        began["name"],
        format!("the mail server {}", mails.address())
    );
    let error = began["error"].as_str().unwrap();
    assert!(
        error.contains("MAIL: the server closed the connection"),
        "{error}"
    );
    assert!(began["waiting"].as_u64().unwrap() >= 1, "{began}");
    let ended = said("the dependency is back");
    assert!(ended["down_for"].is_string(), "{ended}");
}
