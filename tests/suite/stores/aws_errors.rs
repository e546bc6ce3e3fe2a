//! What AWS refuses, or never answers, in one clear line.

use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{ChildStderr, Command};

use crate::cli::start::{complaint, on_aws};
use crate::support::http::get;

/// A server that answers every call so; its URL.
async fn answering(status: u16, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let status = StatusCode::from_u16(status).unwrap();
    let router = Router::new().fallback(move || async move { (status, body) });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// An address at which nobody answers.
async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// `status`, with a home and credentials.
fn status(endpoint: &str, home: &std::path::Path) -> Command {
    let mut command = on_aws(endpoint);
    command
        .args(["status", "--table", "orders"])
        .env("HOME", home)
        .env("AWS_REGION", "us-east-1");
    command
}

#[tokio::test]
async fn a_refusal_of_aws_is_one_line_that_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    for (code, body, line) in [
        (
            400,
            r#"{"__type": "com.amazon.coral.service#UnrecognizedClientException",
                "message": "The security token included in the request is invalid."}"#,
            "error: DynamoDB DescribeTable on table aftercommit-leases: \
             UnrecognizedClientException: The security token included in the request is invalid; \
             check the access key, AWS_PROFILE, AWS_REGION and this machine's clock\n",
        ),
        (
            400,
            r#"{"__type": "com.amazonaws.dynamodb.v20120810#AccessDeniedException",
                "Message": "User: u is not authorized to perform: dynamodb:DescribeTable"}"#,
            "error: DynamoDB DescribeTable on table aftercommit-leases: AccessDeniedException: \
             User: u is not authorized to perform: dynamodb:DescribeTable; allow it in the policy \
             of this role or user\n",
        ),
        (
            400,
            r#"{"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException",
                "message": "Requested resource not found"}"#,
            "error: table aftercommit-leases does not exist: create it with `aftercommit tables \
             create`, or name another\n",
        ),
        (
            400,
            "<html>Please log in</html>",
            "error: DynamoDB DescribeTable on table aftercommit-leases: HTTP status 400; check \
             AWS_ENDPOINT_URL and the proxy: something else answered",
        ),
    ] {
        let url = answering(code, body).await;
        let reported = complaint(&status(&url, home.path()).output().await.unwrap());
        assert!(reported.starts_with(line), "{reported}");
    }
}

#[tokio::test]
async fn an_endpoint_that_nobody_serves_is_named() {
    let home = tempfile::tempdir().unwrap();
    let url = refusing().await;
    let reported = complaint(&status(&url, home.path()).output().await.unwrap());
    let line = format!(
        "error: DynamoDB DescribeTable on table aftercommit-leases: {url} cannot be reached: \
         Connection refused (os error 111); check the endpoint (AWS_REGION, AWS_ENDPOINT_URL) and \
         the network path to it: VPC endpoint, proxy, firewall\n"
    );
    assert_eq!(reported, line);
}

#[tokio::test]
async fn a_table_in_another_region_is_refused_with_the_region_to_set() {
    let home = tempfile::tempdir().unwrap();
    let url = answering(200, "{\"Table\": {}}").await;
    let mut command = status(&url, home.path());
    command.args([
        "--table",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/orders",
    ]);
    let reported = complaint(&command.output().await.unwrap());
    assert!(
        reported.contains("is in eu-west-1, and AWS_REGION is us-east-1"),
        "{reported}"
    );
    assert!(reported.contains("AWS_REGION=eu-west-1"), "{reported}");
}

#[tokio::test]
async fn credentials_that_cannot_be_found_are_asked_for() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let profiles = "[profile dev]\nregion = us-east-1\nsso_session = s\nsso_account_id = 1\n\
                    sso_role_name = Dev\n[sso-session s]\nsso_region = us-east-1\n\
                    sso_start_url = https://d-0.awsapps.com/start\n\
                    [profile run]\nregion = us-east-1\ncredential_process = false\n";
    std::fs::write(home.path().join(".aws/config"), profiles).unwrap();
    let url = refusing().await;
    for (profile, parts) in [
        (None, ["there are no AWS credentials", "set AWS_PROFILE"]),
        (
            Some("nope"),
            ["there are no AWS credentials", "set AWS_PROFILE"],
        ),
        (
            Some("dev"),
            ["(failed to load the cached SSO token)", "`aws sso login`"],
        ),
        (
            Some("run"),
            ["the AWS credential provider failed", "its process"],
        ),
    ] {
        let mut command = status(&url, home.path());
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
        if let Some(profile) = profile {
            command.env("AWS_PROFILE", profile);
        }
        let reported = complaint(&command.output().await.unwrap());
        assert!(
            parts.iter().all(|part| reported.contains(part)),
            "{profile:?}: {reported}"
        );
        assert!(reported.len() < 600, "{reported}");
    }
}

/// The next line of a worker's log with these words.
async fn logged(lines: &mut Lines<BufReader<ChildStderr>>, words: &str) -> String {
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(words) {
                return line;
            }
            assert!(!line.starts_with("error:"), "{line}");
        }
        panic!("it gave up");
    };
    let found = tokio::time::timeout(Duration::from_mins(1), found).await;
    found.unwrap_or_else(|_| panic!("it never says {words:?}"))
}

#[tokio::test]
async fn a_start_while_dynamodb_is_away_waits_and_says_so_in_the_log_and_over_http() {
    let url = refusing().await;
    let mut command = on_aws(&url);
    let mut worker = command
        .args(["run", "--log", "json", "--table", "orders"])
        .args([
            "--mail-from",
            "shop@example.com",
            "--smtp-url",
            "smtp://127.0.0.1:1",
        ])
        .args(["--http", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
    let served: Value =
        serde_json::from_str(&logged(&mut lines, "serving the status").await).unwrap();
    let at = served["address"].as_str().unwrap();
    let waits = logged(&mut lines, "the start waits and is retried").await;
    assert!(waits.contains(&url) && waits.contains("WARN"), "{waits}");

    let ready = get(at, "/readyz").await;
    assert_eq!(ready.code, 503);
    let reason = format!("table orders: {url} cannot be reached");
    assert!(ready.body.starts_with("starting: DynamoDB"), "{ready:?}");
    assert!(ready.body.contains(&reason), "{ready:?}");
    assert_eq!(get(at, "/healthz").await.code, 200);
    assert_eq!(get(at, "/").await.code, 200);
    assert_eq!(get(at, "/metrics").await.code, 200);
    let document = get(at, "/status.json").await.body;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["verdict"], "unknown");
    assert!(document["advice"].to_string().contains(&reason));
    assert_eq!(document["process"]["ready"], false);
}
