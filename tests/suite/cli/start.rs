//! The command, as a shell sees it.

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use crate::support::mail_server::{MailServer, Script};
use crate::support::shop::Shop;

/// The command in an empty environment, with no look around for a Region.
pub fn aftercommit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aftercommit"));
    command
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .kill_on_drop(true);
    command
}

/// The command, with credentials for a server that replaces AWS.
pub fn on_aws(url: &str) -> Command {
    let mut command = aftercommit();
    command
        .env("AWS_ENDPOINT_URL", url)
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    command
}

/// The command, pointed at a shop's tables; which one holds its orders is not said.
pub fn on_tables(shop: &Shop) -> Command {
    let mut command = on_aws(&shop.url);
    command
        .env("AFTERCOMMIT_LEASE_TABLE", &shop.leases)
        .env("AFTERCOMMIT_LEDGER_TABLE", &shop.ledger)
        .env("AFTERCOMMIT_DEAD_LETTER_TABLE", &shop.letters);
    command
}

/// The same, for its orders.
pub fn on_shop(shop: &Shop) -> Command {
    let mut command = on_tables(shop);
    command.env("AFTERCOMMIT_TABLE", &shop.orders);
    command
}

async fn output(arguments: &[&str]) -> Output {
    aftercommit().args(arguments).output().await.unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The one line on standard error of a command that refused its settings.
pub fn complaint(output: &Output) -> String {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(text(&output.stdout), "");
    assert!(told.starts_with("error: "), "{told}");
    assert_eq!(told.matches('\n').count(), 1, "one line: {told}");
    told
}

const ORDER: &str = r#"{"id": "1042", "email": "ada@example.com", "name": "Ada", "total": 4890,
    "currency": "EUR", "lines": [{"name": "Tea", "quantity": 2, "unit_price": 2445}]}"#;

fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_help_teaches_with_examples() {
    for (arguments, example) in [
        (&["--help"] as &[_], "aftercommit run --table orders"),
        (&["--help"], "aftercommit preview order.json --out preview/"),
        (&["run", "--help"], "--start trim-horizon"),
        (&["preview", "--help"], "aws dynamodb get-item"),
        (&["ledger", "--help"], "ledger list --state ambiguous"),
        (&["suppress", "--help"], "suppress add ada@example.com"),
        (
            &["dead-letters", "--help"],
            "discard --table orders --key 1042 --note",
        ),
        (&["dead-letters", "redrive", "--help"], "--all --dry-run"),
        (&["filter", "explain", "--help"], "--record record.json"),
    ] {
        let output = output(arguments).await;
        assert!(output.status.success());
        let help = text(&output.stdout);
        assert!(
            help.contains("Examples:") && help.contains(example),
            "{help}"
        );
    }
}

#[tokio::test]
async fn every_flag_is_an_environment_variable_too() {
    for arguments in [
        &["run", "--help"] as &[_],
        &["preview", "--help"],
        &["send-test", "--help"],
        &["tables", "create", "--help"],
    ] {
        let help = text(&output(arguments).await.stdout);
        let (options, _) = help.split_once("Examples:").unwrap_or((&help, ""));
        let flags = options
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("--"))
            .map(|line| line.split(' ').next().unwrap());
        let mut seen = 0;
        for flag in flags {
            let variable = format!("AFTERCOMMIT_{}", flag.to_uppercase().replace('-', "_"));
            assert!(
                help.contains(&format!("[env: {variable}")),
                "{variable} in {help}"
            );
            seen += 1;
        }
        assert!(seen > 2, "{help}");
    }
}

#[tokio::test]
async fn a_setting_from_the_environment_counts_and_a_secret_one_is_not_shown() {
    let output = aftercommit()
        .args(["run", "--help"])
        .env("AFTERCOMMIT_TABLE", "my-own-orders")
        .env("AFTERCOMMIT_SMTP_PASSWORD", "hunter2")
        .env("AFTERCOMMIT_SMTP_URL", "smtps://me:hunter2@example.com")
        .output()
        .await
        .unwrap();
    let help = text(&output.stdout);
    assert!(help.contains("[env: AFTERCOMMIT_TABLE=my-own-orders]"));
    assert!(!help.contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_setting_is_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let templates = dir.path().to_str().unwrap();
    write(dir.path(), "body.txt", "Hello\n{{ order.id");
    let run = [
        "run",
        "--table",
        "orders",
        "--mail-from",
        "shop@example.com",
    ];
    let with = |more: &[&'static str]| [&run[..], more].concat();
    let cases = [
        (vec!["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (
            vec!["run", "--tabel", "x"],
            "a similar argument exists: '--table'",
        ),
        (vec!["run", "--table", "x"], "--smtp-url <URL>"),
        (
            vec!["run", "--table", "x", "--smtp-url", "smtp://localhost"],
            "--mail-from (or AFTERCOMMIT_MAIL_FROM) is missing",
        ),
        (
            with(&["--stream-arn", "y", "--smtp-url", "smtp://localhost"]),
            "cannot be used with",
        ),
        (
            with(&["--smtp-url", "http://localhost"]),
            "--smtp-url: the SMTP URL begins with neither",
        ),
        (
            with(&["--smtp-url", "smtps://me@example.com"]),
            "needs a password",
        ),
        (
            with(&["--smtp-url", "smtp://localhost", "--start", "now"]),
            "[possible values: latest, trim-horizon]",
        ),
        (
            with(&["--smtp-url", "smtp://localhost", "--reply-to", "nobody"]),
            "an address has the form name@example.com",
        ),
        (
            with(&[
                "--smtp-url",
                "smtp://localhost",
                "--idempotency-header",
                "Subject",
            ]),
            "the header Subject has a meaning",
        ),
        (
            with(&[
                "--smtp-url",
                "smtps://me@example.com",
                "--smtp-password-file",
                "/nowhere",
            ]),
            "--smtp-password-file /nowhere: No such file",
        ),
        (
            with(&["--smtp-url", "smtp://localhost", "--memory-budget", "2MiB"]),
            "the memory budget must be at least 2.5 MiB",
        ),
        (
            with(&["--mail", "ses", "--bounces-to", "bounces@example.com"]),
            "--bounces-to and --order-bounces-to cannot be used with --mail ses",
        ),
        (
            with(&["--smtp-url", "smtp://localhost"]),
            "no AWS Region: set AWS_REGION",
        ),
        (
            vec!["preview", "/nowhere.json"],
            "/nowhere.json: No such file",
        ),
        (
            vec!["preview", "/nowhere.json", "--log", "loud"],
            "[possible values: json, pretty]",
        ),
    ];
    for (arguments, expected) in cases {
        let told = complaint(&output(&arguments).await);
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
    let order = write(dir.path(), "1042.json", ORDER);
    let told = complaint(&output(&["preview", &order, "--template-dir", templates]).await);
    assert!(told.contains("body.txt, line 2: syntax error"), "{told}");
    write(
        dir.path(),
        "body.txt",
        "Hello\n{{ order.at|date(tz='Europe/Berln') }}",
    );
    let told = complaint(&output(&["preview", &order, "--template-dir", templates]).await);
    assert!(
        told.contains("body.txt, line 2: syntax error: unknown time zone"),
        "{told}"
    );
}

#[tokio::test]
async fn rules_of_sending_that_cannot_hold_are_refused_at_the_start() {
    for (flag, value, expected) in [
        (
            "--ledger-retention",
            "400d",
            "--ledger-retention is shorter than --replay-horizon and 24 h",
        ),
        (
            "--replay-horizon",
            "9601h",
            "may be delivered again for 9625",
        ),
        (
            "--suppress-when",
            "status ==",
            "--suppress-when: the expression",
        ),
        ("--ehlo-name", "two words", "the EHLO name"),
        ("--smtp-connections", "0", "--smtp-connections"),
        ("--on-ambiguous", "maybe", "[possible values: resend, park]"),
    ] {
        let run = ["run", "--table", "x", "--mail-from", "shop@example.com"];
        let smtp = ["--smtp-url", "smtp://localhost"];
        let arguments = [&run[..], &smtp, &[flag, value]].concat();
        let told = complaint(&output(&arguments).await);
        assert!(told.contains(expected), "{flag} {value}: {told}");
        let variable = format!("AFTERCOMMIT_{}", flag[2..].to_uppercase().replace('-', "_"));
        let mut command = aftercommit();
        command.args(run).args(smtp).env(variable, value);
        let told = complaint(&command.output().await.unwrap());
        assert!(told.contains(expected), "{flag} {value}: {told}");
    }
}

#[tokio::test]
async fn a_key_for_signing_is_refused_where_amazon_ses_signs() {
    let dir = tempfile::tempdir().unwrap();
    let key = include_str!("../../golden/dkim_rsa.pem");
    let key = write(dir.path(), "key.pem", key);
    let run = ["run", "--table", "x", "--mail-from", "shop@example.com"];
    let key = ["--dkim-key", &key, "--dkim-selector", "shop"];
    let told = complaint(&output(&[&run[..], &["--mail", "ses"], &key].concat()).await);
    assert!(
        told.contains("--dkim-key cannot be used with --mail ses"),
        "{told}"
    );
}

#[tokio::test]
async fn a_preview_is_three_files() {
    let dir = tempfile::tempdir().unwrap();
    let order = write(dir.path(), "order.1042.json", ORDER);
    let out = dir.path().join("out/new");
    let output = output(&["preview", &order, "--out", out.to_str().unwrap()]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("Subject: Your order 1042 is confirmed\n"));
    let read = |ending| std::fs::read_to_string(out.join(format!("order.1042.{ending}"))).unwrap();
    assert!(
        read("eml").starts_with("From: Shop <orders@example.com>\r\nTo: Ada <ada@example.com>\r\n")
    );
    assert!(read("html").contains("<strong") && read("html").contains("EUR 48.90"));
    assert!(read("txt").contains("2 x Tea: EUR 48.90"));
}

#[tokio::test]
async fn a_preview_reads_what_the_aws_tools_print() {
    let dir = tempfile::tempdir().unwrap();
    let item = r#"{"Item": {"pk": {"S": "7"}, "email": {"S": "ada@example.com"},
        "total": {"N": "4890"}, "currency": {"S": "JPY"}}}"#;
    let order = write(dir.path(), "7.json", item);
    let out = dir.path().to_str().unwrap();
    let output = output(&["preview", &order, "--out", out, "--id", "pk"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = std::fs::read_to_string(dir.path().join("7.txt")).unwrap();
    assert!(told.contains("Total: JPY 4,890"), "{told}");
}

#[tokio::test]
async fn a_preview_of_a_bad_order_says_what_the_worker_would_say() {
    let dir = tempfile::tempdir().unwrap();
    for (content, expected) in [
        ("", "not valid JSON"),
        ("[1]", "not an order: expected a JSON object"),
        (
            &ORDER.replace("4890", "48.90"),
            "order 1042: total, from the expression \"total|minor\", fails: found the number 48.9; expected \
             a whole number of minor units",
        ),
        (
            &ORDER.replace('@', " at "),
            "order 1042: email, from the expression \"email\", is not an address to write to",
        ),
        (
            &ORDER.replace("\"id\"", "\"pk\""),
            "order (without id): id, from the expression \"id\", is missing; expected the order's id",
        ),
    ] {
        let order = write(dir.path(), "bad.json", content);
        let told = complaint(&output(&["preview", &order]).await);
        assert!(told.contains(expected), "{told}");
    }
}

#[tokio::test]
async fn a_test_mail_goes_out_each_time_it_is_sent() {
    let server = MailServer::start(Script::default()).await;
    for _ in 0..2 {
        let output = output(&[
            "send-test",
            "--to",
            "me@example.com",
            "--mail-from",
            "Shop <orders@example.com>",
            "--smtp-url",
            &server.url(),
        ])
        .await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("accepted <"));
    }
    let mails = server.accepted();
    assert_eq!(mails.len(), 2);
    assert_ne!(mails[0].message_id(), mails[1].message_id());
    assert_eq!(mails[0].to, ["me@example.com"]);
    assert_eq!(
        mails[0].header("Subject").as_deref(),
        Some("Your order SAMPLE-1042 is confirmed")
    );
}

#[tokio::test]
async fn a_test_mail_shows_an_order_of_a_file_and_goes_to_nobody_who_ordered() {
    let server = MailServer::start(Script::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let order = write(dir.path(), "1042.json", ORDER);
    let url = server.url();
    let send = ["send-test", "--to", "me@example.com", "--smtp-url", &url];
    let from = ["--mail-from", "shop@example.com", "--order", &order];
    let mailed = output(&[&send[..], &from].concat()).await;
    assert!(mailed.status.success(), "{}", text(&mailed.stderr));
    let mails = server.accepted();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["me@example.com"]);
    let subject = mails[0].header("Subject");
    assert_eq!(subject.as_deref(), Some("Your order 1042 is confirmed"));
    assert!(mails[0].text().contains("EUR 48.90"));
    let bad = write(dir.path(), "bad.json", &ORDER.replace("4890", "48.90"));
    let refused = output(&[&send[..], &from[..3], &[&bad]].concat()).await;
    let told = complaint(&refused);
    assert!(
        told.contains("--order ") && told.contains("total"),
        "{told}"
    );
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_test_mail_that_nobody_takes_is_exit_code_1() {
    let output = output(&[
        "send-test",
        "--to",
        "me@example.com",
        "--mail-from",
        "shop@example.com",
        "--smtp-url",
        "smtp://127.0.0.1:1",
    ])
    .await;
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.starts_with("error: 127.0.0.1:1: nothing was sent: "),
        "{told}"
    );
    assert_eq!(told.matches('\n').count(), 1, "{told}");
}
