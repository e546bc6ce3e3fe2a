//! What a handler that is called once returns: the ledger keeps it, and shows it to the operator.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::storm::{COUNTING, calls};
use super::{LIMIT, ORDERS, Program, Stage, conforms, python};
use crate::cli::start::{on_shop, text};
use crate::support::shop::id;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python: run tests/handlers/run.sh"]
async fn a_handler_that_returns_receipts_conforms_and_the_operator_sees_them() {
    let stage = Stage::open().await;
    let log = stage.log("program.log");
    let set = [("LATE", "0")];
    let program = Program::start(&python(), (COUNTING.to_owned(), &set), log).await;
    let url = program.url();
    let mut worker = stage.worker(&["--id", "id", "--once", "--handler", &url]);
    let all = async {
        // The bad order is one of them: this handler takes everything.
        while calls(&program).await.len() <= ORDERS {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, all).await.unwrap();
    worker.stop().await;
    let told = async |arguments: &[&str]| {
        let mut command = on_shop(&stage.shop);
        let output = command.args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    for call in calls(&program).await {
        let order = &*call.order;
        let shown = told(&["ledger", "show", order, "--json"]).await;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["receipt"], call.receipt, "{shown}");
        assert_eq!(shown["effect_key"], call.key);
        let explained = told(&["explain", order]).await;
        assert!(explained.contains(&call.receipt), "{explained}");
    }
    assert!(told(&["ledger", "list"]).await.contains(&id(0)));
    conforms(&program, &["--receipt"], 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python: run tests/handlers/run.sh"]
async fn a_handler_without_receipts_does_not_conform_where_they_are_asked_for() {
    let stage = Stage::open().await;
    let program = Program::python(stage.log("program.log")).await;
    let output = super::conformance(&program.url(), &["--receipt"]).await;
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    let broken: Vec<_> = told
        .lines()
        .filter(|line| line.contains("BROKEN"))
        .collect();
    assert_eq!(broken.len(), 1, "{told}");
    assert!(broken[0].starts_with("a receipt is a line"), "{told}");
}
