//! `aftercommit health`, and the address of the endpoints.

use std::process::Output;

use crate::cli::start::{aftercommit, complaint, text};
use crate::support::mail_server::{MailServer, Script};

/// What `aftercommit health` says of a worker.
pub async fn health(at: &str) -> Output {
    let mut command = aftercommit();
    command
        .args(["health", "--http", at])
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_wrong_or_missing_address_is_one_line() {
    let mails = MailServer::start(Script::default()).await;
    let run = |http: String| {
        let url = mails.url();
        async move {
            let mut command = aftercommit();
            command.args([
                "run",
                "--table",
                "orders",
                "--mail-from",
                "shop@example.com",
            ]);
            let command = command.args(["--smtp-url", &url, "--http", &http]);
            complaint(&command.output().await.unwrap())
        }
    };
    let taken = mails.address().to_string();
    let reported = run(taken.clone()).await;
    assert!(
        reported.contains(&format!("--http {taken}: ")) && reported.contains("in use"),
        "{reported}"
    );
    let reported = run("9464".to_owned()).await;
    assert!(reported.contains("such as 127.0.0.1:9464"), "{reported}");
    let reported = complaint(&aftercommit().arg("health").output().await.unwrap());
    assert!(reported.contains("AFTERCOMMIT_HTTP"), "{reported}");
}

#[tokio::test]
async fn something_that_is_not_a_worker_is_not_healthy() {
    // It answers, and not with HTTP.
    let mails = MailServer::start(Script::default()).await;
    let address = mails.address().to_string();
    let health = aftercommit()
        .env("AFTERCOMMIT_HTTP", &address)
        .arg("health")
        .output()
        .await;
    let health = health.unwrap();
    assert_eq!(health.status.code(), Some(1), "{}", text(&health.stderr));
    assert_eq!(text(&health.stderr).matches('\n').count(), 1);
}
