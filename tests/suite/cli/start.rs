//! The command: its help, its settings, and how it is started here.

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

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

pub async fn output(arguments: &[&str]) -> Output {
    aftercommit().args(arguments).output().await.unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The one line on standard error of a command that refused its settings.
pub fn complaint(output: &Output) -> String {
    let reported = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{reported}");
    assert_eq!(text(&output.stdout), "");
    assert!(reported.starts_with("error: "), "{reported}");
    assert_eq!(reported.matches('\n').count(), 1, "one line: {reported}");
    reported
}

pub const ORDER: &str = r#"{"id": "1042", "email": "ada@example.com", "name": "Ada", "total": 4890,
    "currency": "EUR", "lines": [{"name": "Tea", "quantity": 2, "unit_price": 2445}]}"#;

pub fn write(dir: &Path, name: &str, content: &str) -> String {
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
        let reported = complaint(&output(&arguments).await);
        assert!(reported.contains(expected), "{arguments:?}: {reported}");
    }
    let order = write(dir.path(), "1042.json", ORDER);
    let wrong = complaint(&output(&["preview", &order, "--template-dir", templates]).await);
    assert!(wrong.contains("body.txt, line 2: syntax error"), "{wrong}");
    write(
        dir.path(),
        "body.txt",
        "Hello\n{{ order.at|date(tz='Europe/Berln') }}",
    );
    let wrong = complaint(&output(&["preview", &order, "--template-dir", templates]).await);
    assert!(
        wrong.contains("body.txt, line 2: syntax error: unknown time zone"),
        "{wrong}"
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
        let reported = complaint(&output(&arguments).await);
        assert!(reported.contains(expected), "{flag} {value}: {reported}");
        let variable = format!("AFTERCOMMIT_{}", flag[2..].to_uppercase().replace('-', "_"));
        let mut command = aftercommit();
        command.args(run).args(smtp).env(variable, value);
        let reported = complaint(&command.output().await.unwrap());
        assert!(reported.contains(expected), "{flag} {value}: {reported}");
    }
}

#[tokio::test]
async fn a_key_for_signing_is_refused_where_amazon_ses_signs() {
    let dir = tempfile::tempdir().unwrap();
    let key = include_str!("../../golden/dkim_rsa.pem");
    let key = write(dir.path(), "key.pem", key);
    let run = ["run", "--table", "x", "--mail-from", "shop@example.com"];
    let key = ["--dkim-key", &key, "--dkim-selector", "shop"];
    let reported = complaint(&output(&[&run[..], &["--mail", "ses"], &key].concat()).await);
    assert!(
        reported.contains("--dkim-key cannot be used with --mail ses"),
        "{reported}"
    );
}
