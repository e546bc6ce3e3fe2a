//! The handlers in `examples/python` and `examples/node`, behind the command.
//!
//! Run by `tests/handlers/run.sh`, which gets what they need.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use aftercommit::stores::dead_letter::{Envelope, Reason, Selection};
use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::function::until_gone;
use crate::cli::programs::built;
use crate::cli::start::{on_shop, text};
use crate::fleet::process::{Process, Signal};
use crate::support::embedded::Embedded;
use crate::support::letters::listed;
use crate::support::runtime_api::RuntimeApi;
use crate::support::shop::{Shop, id};

mod receipts;
mod storm;

const ORDERS: usize = 10;
const LIMIT: Duration = Duration::from_mins(2);

fn example(path: &str) -> String {
    format!("{}/examples/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// The Python that `tests/handlers/install.sh` made.
fn python() -> String {
    std::env::var("AFTERCOMMIT_HANDLERS_PYTHON").expect("run tests/handlers/run.sh")
}

/// A shop with good orders and a bad one, and a place for logs.
struct Stage {
    shop: Shop,
    folder: tempfile::TempDir,
    _server: Embedded,
}

impl Stage {
    async fn open() -> Self {
        let server = Embedded::start();
        let shop = Shop::open(server.url()).await;
        shop.place(0..ORDERS).await;
        let bad = shop.client.put_item().table_name(&shop.orders);
        let bad = bad.item("id", AttributeValue::S("bad".to_owned()));
        bad.send().await.unwrap();
        Self {
            shop,
            folder: tempfile::tempdir().unwrap(),
            _server: server,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self, name: &str) -> File {
        File::create(self.file(name)).unwrap()
    }

    fn worker(&self, arguments: &[&str]) -> Process {
        let mut command = on_shop(&self.shop);
        command
            .env("PATH", std::env::var_os("PATH").unwrap())
            .args(["run", "--effect", "placed", "--start", "trim-horizon"])
            .args(arguments);
        Process::start(command, self.folder.path(), "worker")
    }

    /// Waits until each good order is in the file and the bad one is a dead letter.
    async fn all_handled(&self, log: &str) -> Envelope {
        let handled = async {
            loop {
                let text = std::fs::read_to_string(self.file(log)).unwrap();
                let lines: Vec<_> = text
                    .lines()
                    .filter(|line| line.contains("handled"))
                    .collect();
                let there = |n: &usize| lines.iter().any(|line| line.contains(&id(*n)));
                let letters = listed(&self.shop.dead_letters(), &Selection::default()).await;
                if (0..ORDERS).all(|n| there(&n)) && !letters.is_empty() {
                    return letters;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let Ok(mut letters) = timeout(LIMIT, handled).await else {
            let logs = [log, "worker.log"].map(|log| std::fs::read_to_string(self.file(log)));
            panic!("not all orders are handled: {logs:#?}");
        };
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].key_in_words(), "id=bad");
        letters.remove(0)
    }
}

/// A program that serves HTTP.
struct Program {
    _process: Child,
    port: u16,
}

impl Program {
    /// Starts it with a free port as its argument; with another one if somebody else took that.
    async fn start(
        program: &str,
        (script, environment): (String, &[(&str, &str)]),
        log: File,
    ) -> Self {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let mut command = Command::new(program);
            command.args([&script, &port.to_string()]);
            command.envs(environment.iter().copied());
            command.stdout(log.try_clone().unwrap()).kill_on_drop(true);
            let mut process = command.spawn().unwrap();
            while TcpStream::connect(("127.0.0.1", port)).await.is_err()
                && process.try_wait().unwrap().is_none()
            {
                sleep(Duration::from_millis(20)).await;
            }
            // It would have ended by now if another program listened there.
            sleep(Duration::from_millis(500)).await;
            if process.try_wait().unwrap().is_none() {
                return Self {
                    _process: process,
                    port,
                };
            }
        }
    }

    async fn python(log: File) -> Self {
        Self::start(&python(), (example("python/handler.py"), &[]), log).await
    }

    async fn node(log: File) -> Self {
        Self::start("node", (example("node/handler.mjs"), &[]), log).await
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/changes", self.port)
    }
}

async fn handles_orders(stage: &Stage, program: &Program, more: &[&str]) {
    let url = program.url();
    let mut worker = stage.worker(&[&["--id", "id", "--handler", &url], more].concat());
    let letter = stage.all_handled("program.log").await;
    worker.stop().await;
    assert_eq!(letter.reason, Reason::Rejected);
    let log = std::fs::read_to_string(stage.file("program.log")).unwrap();
    let keys: BTreeSet<_> = log
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap())
        .collect();
    let expected: BTreeSet<_> = (0..ORDERS).map(|n| format!("placed#{}", id(n))).collect();
    assert!(
        keys.iter().copied().eq(expected.iter().map(String::as_str)),
        "{log}"
    );
    let worker = std::fs::read_to_string(stage.file("worker.log")).unwrap();
    let why = "the handler answered 422: the order has no email";
    assert!(worker.contains(why), "{worker}");
}

/// Holds the handler at this address against the rules.
async fn conformance(url: &str, arguments: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/handlers/conformance.py");
    let mut command = Command::new(python());
    command.args([script, url]).args(arguments);
    command.output().await.unwrap()
}

/// The program keeps so many rules.
async fn conforms(program: &Program, arguments: &[&str], rules: usize) {
    let output = conformance(&program.url(), arguments).await;
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    let kept = told.lines().filter(|line| line.ends_with(": ok")).count();
    assert_eq!(kept, rules, "{told}");
}

/// The same, with an item that it has to refuse.
async fn conforms_and_refuses(stage: &Stage, program: &Program) {
    let bad = stage.file("bad.json");
    std::fs::write(&bad, r#"{"id": {"S": "bad"}}"#).unwrap();
    conforms(program, &["--bad", bad.to_str().unwrap()], 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python: run tests/handlers/run.sh"]
async fn a_handler_that_checks_signatures_takes_what_the_worker_signs_and_nothing_else() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let stage = Stage::open().await;
    let secret = stage.file("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let secret = secret.to_str().unwrap();
    let log = stage.log("program.log");
    let set = [("SECRET", SECRET)];
    let program = Program::start(&python(), (example("python/signed.py"), &set), log).await;
    conforms(&program, &["--secret", secret], 8).await;
    let url = program.url();
    let flags = [
        "--id",
        "id",
        "--handler",
        &url,
        "--handler-secret-file",
        secret,
    ];
    let mut worker = stage.worker(&flags);
    let handled = async {
        let all = (0..ORDERS).map(|n| format!("handled placed#{}\n", id(n)));
        let all: Vec<_> = all.collect();
        loop {
            let text = std::fs::read_to_string(stage.file("program.log")).unwrap();
            if all.iter().all(|line| text.contains(line)) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, handled).await.unwrap();
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python and Node: run tests/handlers/run.sh"]
async fn handlers_in_python_and_node_handle_batches() {
    let stage = Stage::open().await;
    let program = Program::python(stage.log("program.log")).await;
    handles_orders(&stage, &program, &["--batch", "10"]).await;
    let stage = Stage::open().await;
    let program = Program::node(stage.log("program.log")).await;
    handles_orders(&stage, &program, &["--batch", "10"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python: run tests/handlers/run.sh"]
async fn a_handler_in_python_handles_orders_and_conforms() {
    let stage = Stage::open().await;
    let program = Program::python(stage.log("program.log")).await;
    handles_orders(&stage, &program, &[]).await;
    conforms_and_refuses(&stage, &program).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node: run tests/handlers/run.sh"]
async fn a_handler_in_node_handles_orders_and_conforms() {
    let stage = Stage::open().await;
    let program = Program::node(stage.log("program.log")).await;
    handles_orders(&stage, &program, &[]).await;
    conforms_and_refuses(&stage, &program).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python: run tests/handlers/run.sh"]
async fn a_handler_that_loses_records_does_not_conform() {
    let stage = Stage::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let failed = r#"{"batchItemFailures": [{"itemIdentifier": "1"}]}"#;
    let router = Router::new().fallback(async move || failed);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let output = conformance(&format!("http://127.0.0.1:{port}/"), &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("a change is handled: BROKEN"));
    drop(stage);
}

/// What starts Lambda's runtime client for the example's function.
fn function() -> String {
    format!(
        "cd {} && exec {} -m awslambdaric function.handler",
        example("python"),
        python()
    )
}

/// The function handles orders as two processes of a worker that gets these arguments, too.
async fn runs_as_processes(function: &str, more: &[&str]) {
    let stage = Stage::open().await;
    // The function can only report a bad order as failed, so that its time has to run out.
    let arguments = [
        "--processes",
        "2",
        "--max-age",
        "1s",
        "--handler-command",
        function,
    ];
    let mut worker = stage.worker(&[&arguments, more].concat());
    let letter = stage.all_handled("worker.log").await;
    worker.stop().await;
    assert_eq!(letter.reason, Reason::TooOld);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Lambda's runtime client: run tests/handlers/run.sh"]
async fn a_powertools_function_runs_unchanged_as_processes_of_the_worker() {
    runs_as_processes(&function(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Lambda's runtime client: run tests/handlers/run.sh"]
async fn a_powertools_function_gets_batches_and_reports_the_bad_order_of_one() {
    runs_as_processes(&function(), &["--batch", "10"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "builds an example: run tests/handlers/run.sh"]
async fn a_function_in_rust_runs_unchanged_as_processes_of_the_worker() {
    runs_as_processes(built("function").to_str().unwrap(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Lambda's runtime client: run tests/handlers/run.sh"]
async fn a_function_ends_when_its_worker_is_killed() {
    let stage = Stage::open().await;
    let started = stage.file("started");
    let command = format!("echo $$ >> {}; {}", started.display(), function());
    let mut worker = stage.worker(&["--max-age", "1s", "--handler-command", &command]);
    stage.all_handled("worker.log").await;
    worker.signal(Signal::Kill).await;
    worker.ended().await;
    let process = std::fs::read_to_string(&started).unwrap();
    until_gone(process.trim()).await;
}

/// Stands in for the emulator of a Lambda container, in front of the function's runtime client.
async fn emulator(log: File) -> (Child, String) {
    let api = Arc::new(RuntimeApi::start().await);
    let mut client = Command::new("/bin/sh");
    client
        .args(["-c", &function()])
        .env("AWS_LAMBDA_RUNTIME_API", api.address())
        .env("AWS_LAMBDA_FUNCTION_NAME", "function")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("_HANDLER", "function.handler")
        .env("LAMBDA_TASK_ROOT", example("python"))
        .stdout(log)
        .kill_on_drop(true);
    let client = client.spawn().unwrap();
    let invoke = async |State(api): State<Arc<RuntimeApi>>, event: String| {
        let event: Value = serde_json::from_str(&event).unwrap();
        let outcome = api.invoke(event, Duration::from_secs(30)).await;
        // An error is a body as any other there.
        outcome.unwrap_or_else(|error| error).to_string()
    };
    let path = "/2015-03-31/functions/function/invocations";
    let router = Router::new().route(path, post(invoke)).with_state(api);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (client, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Lambda's runtime client: run tests/handlers/run.sh"]
async fn a_powertools_function_runs_unchanged_behind_the_emulator_of_its_container() {
    let stage = Stage::open().await;
    let (_function, url) = emulator(stage.log("function.log")).await;
    let mut worker = stage.worker(&["--max-age", "1s", "--handler", &url]);
    let letter = stage.all_handled("function.log").await;
    worker.stop().await;
    assert_eq!(letter.reason, Reason::TooOld);
    let log = std::fs::read_to_string(stage.file("worker.log")).unwrap();
    assert!(
        log.contains("reported the record in batchItemFailures"),
        "{log}"
    );
}
