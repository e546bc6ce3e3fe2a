//! The command behind an emulator of AWS Lambda that others wrote: cargo-lambda's.
//!
//! Run by `tests/lambda/run.sh`, which gets it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::lambda::process::function;
use crate::support::embedded::Embedded;
use crate::support::lambda_events::{event, records};
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address};

/// Where functions ask the emulator for their invocations. It knows them by the names of the
/// package's binaries.
const NAME: &str = "aftercommit";

/// Far more than the gate and a batch take.
const LIMIT: Duration = Duration::from_mins(3);

/// The emulator. Killed when dropped.
struct Emulator {
    _process: Child,
    port: u16,
}

fn cargo_lambda() -> Command {
    let mut command = Command::new("cargo-lambda");
    command
        .arg("lambda")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .kill_on_drop(true);
    command
}

impl Emulator {
    async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut process = cargo_lambda()
            .args([
                "watch",
                "--only-lambda-apis",
                "--invoke-address",
                "127.0.0.1",
            ])
            .args(["--invoke-port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cargo-lambda on the PATH: run tests/lambda/run.sh");
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            assert_eq!(
                process.try_wait().unwrap(),
                None,
                "the emulator ended at once"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self {
            _process: process,
            port,
        }
    }

    /// Invokes the function as a developer does: what it answered, or how it failed.
    async fn invoke(&self, event: &Value, folder: &Path) -> Result<Value, String> {
        let file = folder.join("event.json");
        std::fs::write(&file, event.to_string()).unwrap();
        let output = cargo_lambda()
            .args(["invoke", NAME, "--output-format", "json"])
            .args([
                "--invoke-address",
                "127.0.0.1",
                "--invoke-port",
                &self.port.to_string(),
            ])
            .arg("--data-file")
            .arg(file)
            .output();
        let output = output.await.unwrap();
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).unwrap());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs cargo-lambda: run tests/lambda/run.sh"]
async fn behind_cargo_lambdas_emulator_every_order_has_one_mail_and_what_fails_is_reported() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    let emulator = Emulator::start().await;
    let folder = tempfile::tempdir().unwrap();
    let runtime_api = format!("http://127.0.0.1:{}/.rt/{NAME}", emulator.port);
    let _function = function(&shop, &mails, &runtime_api).spawn().unwrap();
    shop.place(0..20).await;
    // The mail server is down from one order on.
    let down = Fault::always(Step::Mail, Act::Close).after(7);
    mails.add(down);
    let batch = event(&shop.arn, &records(&shop).await);
    let answer = emulator.invoke(&batch, folder.path()).await.unwrap();
    let reported = answer["batchItemFailures"][0]["itemIdentifier"].as_str();
    let numbers = batch["Records"].as_array().unwrap().iter();
    let mut numbers = numbers.map(|record| record["dynamodb"]["SequenceNumber"].as_str());
    let first = numbers.position(|number| number == reported);
    assert!(first.is_some_and(|first| first <= 7), "{answer}");
    mails.heal();
    // The gate lets a probe through within a minute.
    let finished = async {
        while emulator.invoke(&batch, folder.path()).await.unwrap()
            != json!({"batchItemFailures": []})
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(LIMIT, finished)
        .await
        .expect("the batch is finished");
    let mailed = mails.by_recipient();
    assert_eq!(mails.count(), 20);
    assert!(
        (0..20).all(|n| mailed.get(&address(n)) == Some(&1)),
        "{mailed:?}"
    );
    // The developer guide's own example names another table.
    let foreign = json!({"Records": [{"eventID": "1", "eventName": "INSERT",
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/ExampleTableWithStream/stream/2015-06-27T00:48:05.899",
        "dynamodb": {"Keys": {"Id": {"N": "101"}}, "SequenceNumber": "111"}}]});
    let refused = emulator.invoke(&foreign, folder.path()).await;
    let reported = refused.unwrap_err();
    assert!(reported.contains("ExampleTableWithStream"), "{reported}");
}
