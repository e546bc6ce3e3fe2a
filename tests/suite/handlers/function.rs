//! A Lambda function whose processes the worker starts. The test is the runtime client of a process that
//! only says where its runtime API is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aftercommit::handlers::function::{FunctionHandler, FunctionSettings};
use aftercommit::internal::shard::ShardId;
use aftercommit::record::lambda_event;
use aftercommit::{Context, Failure, RecordHandler as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::http::Answer;
use crate::support::orders::inserted;

const STREAM: &str =
    "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000";
const LIMIT: Duration = Duration::from_mins(1);

/// A function of this command, which runs in a folder of its own as `$FOLDER`.
struct Function {
    handler: FunctionHandler,
    folder: tempfile::TempDir,
}

/// Adds a line with its runtime API and its process id for each start.
const STARTED: &str = "echo $AWS_LAMBDA_RUNTIME_API $$ >> $FOLDER/started;";

impl Function {
    async fn start(command: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let command = command.replace("$FOLDER", folder.path().to_str().unwrap());
        let handler = FunctionHandler::start(FunctionSettings::new(command));
        Self {
            handler: handler.await.unwrap(),
            folder,
        }
    }

    /// One that waits.
    async fn waiting() -> Self {
        Self::start(&format!("{STARTED} exec sleep 600")).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The runtime API and the process id of the start of this number, from 0.
    async fn started(&self, number: usize) -> (String, String) {
        let line = lines(&self.path("started"), number + 1)
            .await
            .remove(number);
        let (api, id) = line.split_once(' ').unwrap();
        (api.to_owned(), id.to_owned())
    }

    /// Handles an order as the engine does, within this time.
    fn handle(&self, context: Context, limit: Duration) -> JoinHandle<Option<Result<(), Failure>>> {
        let handler = self.handler.clone();
        tokio::spawn(async move {
            let order = inserted("1042", "ada@example.com");
            let context = context.ending(Instant::now() + limit);
            timeout(limit, handler.handle(&order, &context)).await.ok()
        })
    }

    fn handle_in_time(&self) -> JoinHandle<Option<Result<(), Failure>>> {
        self.handle(context(), LIMIT)
    }
}

/// Waits for so many lines in a file.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    let all = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.ends_with('\n') && text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, all).await.unwrap()
}

fn context() -> Context {
    Context::detached().of_shard(STREAM, &ShardId::new("shardId-1"))
}

/// A call of the runtime API.
async fn call(api: &str, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(api).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        code: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

async fn next(api: &str) -> Answer {
    let answer = call(api, "GET", "invocation/next", "").await;
    assert_eq!(answer.code, 200);
    answer
}

fn header(answer: &Answer, name: &str) -> String {
    let mut lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(key, _)| *key == format!("lambda-runtime-{name}"));
    found
        .unwrap_or_else(|| panic!("{name}: {}", answer.head))
        .1
        .to_owned()
}

/// Takes an invocation and answers it.
async fn answered(api: &str, what: &str, body: &str) -> u16 {
    let id = header(&next(api).await, "aws-request-id");
    call(api, "POST", &format!("invocation/{id}/{what}"), body)
        .await
        .code
}

fn is_alive(process: &str) -> bool {
    // One that has ended and is not yet reaped is a zombie.
    let status = std::fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

/// Waits until the process of this id has ended.
pub async fn until_gone(process: &str) {
    let gone = async {
        while is_alive(process) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, gone).await.unwrap();
}

#[tokio::test]
async fn an_invocation_is_an_event_with_one_record_and_its_response_finishes_it() {
    let function = Function::waiting().await;
    let (api, _) = function.started(0).await;
    let handled = function.handle(context().of_attempt(3), LIMIT);
    let invocation = next(&api).await;
    let event: Value = serde_json::from_str(&invocation.body).unwrap();
    let read = lambda_event::read_all(&event).unwrap();
    assert_eq!(
        read[0].record.new_image,
        inserted("1042", "ada@example.com").new_image
    );
    let custom: Value = serde_json::from_str(&header(&invocation, "client-context")).unwrap();
    let custom = &custom["custom"];
    assert!(
        custom["idempotency-key"]
            .as_str()
            .unwrap()
            .starts_with("confirmation#")
    );
    assert_eq!(custom["aftercommit-attempt"], "3");
    let arn = "arn:aws:lambda:eu-central-1:123456789012:function:handler";
    assert_eq!(header(&invocation, "invoked-function-arn"), arn);
    let deadline: u128 = header(&invocation, "deadline-ms").parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    assert!(
        (now + 30_000..=now + 60_000).contains(&deadline),
        "{deadline} {now}"
    );
    let id = header(&invocation, "aws-request-id");
    let response = format!("invocation/{id}/response");
    assert_eq!(call(&api, "POST", &response, "{}").await.code, 202);
    handled.await.unwrap().unwrap().unwrap();
    // It has ended.
    assert_eq!(call(&api, "POST", &response, "{}").await.code, 400);
}

#[tokio::test]
async fn an_error_and_batch_item_failures_are_retried() {
    let function = Function::waiting().await;
    let (api, _) = function.started(0).await;
    let error = json!({"errorType": "KeyError", "errorMessage": "'total'", "stackTrace": []});
    let failed = json!({"batchItemFailures": [{"itemIdentifier": "1"}]});
    for (what, body, reported) in [
        (
            "error",
            error.to_string(),
            "the function failed: KeyError: 'total'",
        ),
        (
            "error",
            "no JSON".to_owned(),
            "the function failed: no JSON",
        ),
        (
            "response",
            failed.to_string(),
            "the handler reported the record in batchItemFailures",
        ),
    ] {
        let handled = function.handle_in_time();
        assert_eq!(answered(&api, what, &body).await, 202);
        let failure = handled.await.unwrap().unwrap().unwrap_err();
        assert!(matches!(failure, Failure::Retry(_)));
        assert_eq!(failure.to_string(), reported);
    }
}

#[tokio::test]
async fn a_process_that_ends_costs_its_record_an_attempt_and_is_started_again() {
    let command = format!(
        "{STARTED} while [ ! -e $FOLDER/end ]; do sleep 0.02; done; rm $FOLDER/end; exit 3"
    );
    let function = Function::start(&command).await;
    let (api, _) = function.started(0).await;
    let handled = function.handle_in_time();
    next(&api).await;
    std::fs::write(function.path("end"), "").unwrap();
    let failure = handled.await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, Failure::Retry(_)));
    let reported = "the handler's process ended during the call: exit status: 3";
    assert_eq!(failure.to_string(), reported);
    let (again, _) = function.started(1).await;
    assert_eq!(again, api, "at the same address");
    let handled = function.handle_in_time();
    assert_eq!(answered(&again, "response", "null").await, 202);
    handled.await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_process_that_asks_for_the_next_record_without_a_response_has_failed_at_this_one() {
    let function = Function::waiting().await;
    let (api, _) = function.started(0).await;
    let handled = function.handle_in_time();
    next(&api).await;
    let asked = tokio::spawn(async move { next(&api).await });
    let failure = handled.await.unwrap().unwrap().unwrap_err();
    assert!(
        failure.to_string().contains("without a response"),
        "{failure}"
    );
    asked.abort();
}

#[tokio::test]
async fn a_process_past_its_deadline_is_killed_with_all_that_it_started_and_is_started_again() {
    let command = format!(
        "sleep 600 & echo $! > $FOLDER/child; {STARTED} trap '' TERM; while true; do sleep 0.1; done"
    );
    let function = Function::start(&command).await;
    let (api, process) = function.started(0).await;
    let child = lines(&function.path("child"), 1).await.remove(0);
    let handled = function.handle(context(), Duration::from_millis(500));
    next(&api).await;
    assert!(handled.await.unwrap().is_none(), "the time is up");
    let (_, other) = function.started(1).await;
    assert_ne!(process, other);
    until_gone(&process).await;
    until_gone(&child).await;
}

#[tokio::test]
async fn a_command_that_cannot_start_is_an_outage_with_its_reason_and_no_attempt() {
    let function = Function::start(&format!("{STARTED} no-such-command-at-all app.handler")).await;
    function.started(1).await;
    let handled = function.handle(context(), Duration::from_secs(2));
    let failure = handled.await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
    let reported = failure.to_string();
    assert!(
        reported.starts_with("no process of the handler asked for work within "),
        "{reported}"
    );
    assert!(reported.contains("exit status: 127"), "{reported}");
}

#[tokio::test]
async fn an_error_of_the_initialisation_is_the_reason() {
    let function = Function::waiting().await;
    let (api, _) = function.started(0).await;
    let error = json!({"errorType": "Runtime.ImportModuleError", "errorMessage": "no module app"});
    let said = call(&api, "POST", "init/error", &error.to_string()).await;
    assert_eq!(said.code, 202);
    let handled = function.handle(context(), Duration::from_secs(1));
    let failure = handled.await.unwrap().unwrap().unwrap_err();
    assert!(failure.to_string().contains("no module app"), "{failure}");
}

#[tokio::test]
async fn processes_are_stopped_with_the_worker() {
    let command = format!("{STARTED} sleep 600 & wait");
    let function = Function::start(&command).await;
    let (_, process) = function.started(0).await;
    function.handler.stop().await;
    assert!(!is_alive(&process));
    let failure = function.handle(context(), Duration::from_secs(1)).await;
    assert!(matches!(
        failure.unwrap(),
        Some(Err(Failure::Unavailable(_)))
    ));

    let stubborn = format!("trap '' TERM; {STARTED} while true; do sleep 0.1; done");
    let function = Function::start(&stubborn).await;
    let (_, process) = function.started(0).await;
    function.handler.stop().await;
    until_gone(&process).await;

    let function = Function::waiting().await;
    let (_, process) = function.started(0).await;
    drop(function.handler);
    until_gone(&process).await;
}

#[tokio::test]
async fn a_process_gets_the_environment_of_a_function() {
    let command = "env > $FOLDER/env; echo >> $FOLDER/env; exec sleep 600 app.handler";
    let function = Function::start(command).await;
    let text = lines(&function.path("env"), 5).await;
    let of = |name: &str| {
        let mut found = text
            .iter()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.next()
    };
    assert_eq!(of("_HANDLER"), Some("app.handler"));
    assert_eq!(of("AWS_LAMBDA_FUNCTION_VERSION"), Some("$LATEST"));
    assert!(
        of("AWS_LAMBDA_RUNTIME_API")
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    for name in [
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "LAMBDA_TASK_ROOT",
    ] {
        assert!(of(name).is_some(), "{name}");
    }
}
