//! Emails that nobody ordered: `aftercommit preview` and `aftercommit send-test`.

use crate::cli::start::{ORDER, complaint, output, text, write};
use crate::support::mail_server::{MailServer, Script};

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
    let reported = std::fs::read_to_string(dir.path().join("7.txt")).unwrap();
    assert!(reported.contains("Total: JPY 4,890"), "{reported}");
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
        let reported = complaint(&output(&["preview", &order]).await);
        assert!(reported.contains(expected), "{reported}");
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
    let reported = complaint(&refused);
    assert!(
        reported.contains("--order ") && reported.contains("total"),
        "{reported}"
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
    let reported = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{reported}");
    assert!(
        reported.starts_with("error: 127.0.0.1:1: nothing was sent: "),
        "{reported}"
    );
    assert_eq!(reported.matches('\n').count(), 1, "{reported}");
}
