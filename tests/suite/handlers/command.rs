//! `aftercommit run --handler`: a handler in another language, in place of the confirmation.

use std::collections::BTreeSet;
use std::time::Duration;

use aftercommit::stores::dead_letter::{Reason, Selection};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::function::until_gone;
use crate::cli::start::{aftercommit, complaint, on_shop, text};
use crate::fleet::process::Process;
use crate::support::embedded::Embedded;
use crate::support::handler_server::{HandlerServer, Posted, answer};
use crate::support::letters::listed;
use crate::support::shop::{Shop, id};

const LIMIT: Duration = Duration::from_mins(2);

/// `aftercommit run` with a handler, and no setting of mail.
fn run(shop: &Shop, url: &str) -> Command {
    let mut command = on_shop(shop);
    command
        .args(["run", "--effect", "placed", "--handler", url])
        .args(["--start", "trim-horizon"]);
    command
}

fn order_of(posted: &Posted) -> String {
    let id = &posted.body()["Records"][0]["dynamodb"]["Keys"]["id"]["S"];
    id.as_str().unwrap().to_owned()
}

async fn until_letters(shop: &Shop, count: usize) {
    let all = async {
        while listed(&shop.dead_letters(), &Selection::default())
            .await
            .len()
            < count
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_is_posted_once_under_the_key_of_its_effect_and_no_mail_setting_is_needed() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let handler = HandlerServer::start(|_| answer(200, "", "{}")).await;
    shop.place(0..10).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = run(&shop, &handler.url("/changes"));
    command.args(["--id", "id"]);
    let mut worker = Process::start(command, folder.path(), "worker");
    timeout(LIMIT, handler.wait(10)).await.unwrap();
    worker.stop().await;
    let seen = handler.seen();
    let keys: BTreeSet<_> = seen
        .iter()
        .map(|one| one.header("idempotency-key").unwrap())
        .collect();
    let expected: Vec<_> = (0..10).map(|n| format!("placed#{}", id(n))).collect();
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(seen.len(), 10);
    let log = std::fs::read_to_string(folder.path().join("worker.log")).unwrap();
    assert!(
        log.contains("stopped") && !log.contains("accepted"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_change_is_a_dead_letter_that_the_same_handler_redrives() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let strict = HandlerServer::start(|posted| {
        if order_of(posted) == id(1) {
            answer(422, "", "no such customer")
        } else {
            answer(200, "", "{}")
        }
    });
    let strict = strict.await;
    shop.place(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let command = run(&shop, &strict.url("/"));
    let mut worker = Process::start(command, folder.path(), "worker");
    until_letters(&shop, 1).await;
    timeout(LIMIT, strict.wait(3)).await.unwrap();
    worker.stop().await;
    let letters = listed(&shop.dead_letters(), &Selection::default()).await;
    assert_eq!(letters[0].reason, Reason::Rejected);

    let kind = HandlerServer::start(|_| answer(200, "", "{}")).await;
    let redrive = async |more: &[&str]| {
        let mut command = on_shop(&shop);
        command
            .args(["dead-letters", "redrive", "--all"])
            .args(more);
        command.output().await.unwrap()
    };
    let mails = [
        "--mail-from",
        "a@example.com",
        "--smtp-url",
        "smtp://localhost:1",
    ];
    let reported = complaint(&redrive(&mails).await);
    assert!(
        reported.contains("the group's records go to a handler"),
        "{reported}"
    );
    let mut send = on_shop(&shop);
    send.args(["send", &id(1)]).args(mails);
    let reported = complaint(&send.output().await.unwrap());
    assert!(reported.contains("the group sends no email"), "{reported}");
    let done = redrive(&["--handler", &kind.url("/")]).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("1 letter redriven"));
    // The same change under the same key, whoever calls.
    let (seen, redriven) = (strict.seen(), kind.seen());
    let first = seen.iter().find(|one| order_of(one) == id(1)).unwrap();
    assert_eq!(redriven.len(), 1);
    assert_eq!(order_of(&redriven[0]), id(1));
    let key = redriven[0].header("idempotency-key");
    assert!(key.unwrap().starts_with("placed#"));
    assert_eq!(first.header("idempotency-key"), key);
    assert_eq!(first.body(), redriven[0].body());
}

#[tokio::test]
async fn a_wrong_handler_is_one_line_that_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let no_secret = folder.path().join("secret");
    std::fs::write(&no_secret, "hunter2").unwrap();
    let file = no_secret.to_str().unwrap();
    let of = async |arguments: &[&str]| {
        let mut command = aftercommit();
        command
            .args(["run", "--table", "orders", "--handler"])
            .args(arguments);
        let reported = complaint(&command.output().await.unwrap());
        assert!(!reported.contains("hunter2"), "{reported}");
        reported
    };
    let good = "http://127.0.0.1:8080/";
    for (arguments, expected) in [
        (
            &["htp://hunter2/"] as &[_],
            "--handler: expected a URL such as http://",
        ),
        (
            &["http://me:hunter2@example.com/"],
            "--handler: the URL has a user",
        ),
        (
            &[good, "--handler-secret", "hunter2"],
            "--handler-secret: the secret is not",
        ),
        (&[good, "--handler-secret-file", file], "the secret is not"),
        (
            &[good, "--handler-secret-file", "/nowhere"],
            "/nowhere: No such file",
        ),
        (
            &[good, "--handler-ca-file", "/nowhere"],
            "/nowhere: No such file",
        ),
        (
            &["https://127.0.0.1:1/", "--handler-ca-file", file],
            "cannot be read",
        ),
        (
            &[good, "--handler-format", "xml"],
            "[possible values: lambda, json]",
        ),
        (&[good], "no AWS Region"),
    ] {
        let reported = of(arguments).await;
        assert!(reported.contains(expected), "{arguments:?}: {reported}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_a_host_that_has_no_address_yet() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let command = run(&shop, "http://handler.invalid:8080/");
    let mut worker = Process::start(command, folder.path(), "worker");
    let reported = || std::fs::read_to_string(folder.path().join("worker.log")).unwrap();
    let waits = async {
        while !reported().contains("the start waits") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, waits).await.unwrap();
    let log = reported();
    let why = "--handler http://handler.invalid:8080/: host handler.invalid has no address";
    assert!(log.contains(why), "{log}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_of_a_command_are_started_watched_and_stopped_with_the_worker() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    let mut command = on_shop(&shop);
    let function = format!(
        "echo $AFTERCOMMIT_TABLE$AWS_LAMBDA_RUNTIME_API $$ >> {}; echo hello from the function; \
         exec sleep 600",
        started.display()
    );
    command
        .args(["run", "--effect", "placed", "--handler-command", &function])
        .args(["--processes", "2", "--start", "trim-horizon"]);
    let mut worker = Process::start(command, folder.path(), "worker");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let log = folder.path().join("worker.log");
    let both = async {
        while read(&started).lines().count() < 2 || !read(&log).contains("hello from the function")
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, both).await.unwrap();
    worker.stop().await;
    for line in read(&started).lines() {
        let (api, process) = line.split_once(' ').unwrap();
        assert!(
            api.starts_with("127.0.0.1:"),
            "the worker's settings are its own: {api}"
        );
        until_gone(process).await;
    }
}

#[tokio::test]
async fn a_handler_is_a_url_or_a_command() {
    let mut command = aftercommit();
    command
        .args([
            "run",
            "--table",
            "orders",
            "--handler",
            "http://127.0.0.1:1/",
        ])
        .args(["--handler-command", "true"]);
    let reported = complaint(&command.output().await.unwrap());
    assert!(reported.contains("cannot be used with"), "{reported}");
}

/// The orders of a call with several changes.
fn orders_of(posted: &Posted) -> Vec<String> {
    let body = posted.body();
    let records = body["Records"].as_array().unwrap().iter();
    let id = |record: &serde_json::Value| record["dynamodb"]["Keys"]["id"]["S"].clone();
    records
        .map(|record| id(record).as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_batch_a_call_carries_many_changes_and_only_the_bad_one_is_a_dead_letter() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let strict = HandlerServer::start(|posted| {
        if orders_of(posted).contains(&id(7)) {
            return answer(422, "", "no such customer");
        }
        answer(200, "", "{}")
    });
    let strict = strict.await;
    shop.place(0..60).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = run(&shop, &strict.url("/"));
    command.args(["--batch", "20", "--window", "500ms"]);
    let mut worker = Process::start(command, folder.path(), "worker");
    until_letters(&shop, 1).await;
    let done = || {
        let calls = strict.seen().into_iter().map(|call| orders_of(&call));
        let good = calls.filter(|orders| !orders.contains(&id(7))).flatten();
        good.collect::<BTreeSet<_>>()
    };
    let all = async {
        while done().len() < 59 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, all).await.unwrap();
    worker.stop().await;
    let letters = listed(&shop.dead_letters(), &Selection::default()).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, Reason::Rejected);
    let calls = strict.seen().len();
    assert!(calls <= 30, "{calls} calls");
}
