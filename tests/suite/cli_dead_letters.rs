//! The command's dead letters, on the embedded DynamoDB and a mail server.

use aftercommit::{Group, GroupTable};
use std::process::Output;
use std::time::{Duration, SystemTime};

use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::dead_letter::{Attempts, DeadLetters as _, Letter, Reason};
use aftercommit::decide::shard::ShardId;
use aftercommit::record::lambda_event;
use serde_json::{Value, json};

use crate::cli::{complaint, text};
use crate::cli_tables::{against, create};
use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{MailServer, Script};

const STREAM: &str = "arn:aws:dynamodb:eu-central-1:1:table/orders/stream/2026-01-01T00:00:00.000";

fn place() -> GroupTable {
    GroupTable::new(Group::default(), STREAM)
}

fn letter(id: &str, number: u64, address: &str, reason: Reason) -> Letter {
    let order = json!({"id": {"S": id}, "email": {"S": address}, "total": {"N": "4890"},
        "currency": {"S": "EUR"}});
    // Young, because the handler refuses what its ledger may have forgotten.
    let created = SystemTime::now() - Duration::from_mins(1);
    let seconds = created
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let event = json!({"eventName": "INSERT", "dynamodb": {"Keys": {"id": {"S": id}},
        "NewImage": order, "SequenceNumber": number.to_string(), "SizeBytes": 90,
        "ApproximateCreationDateTime": seconds, "StreamViewType": "NEW_AND_OLD_IMAGES"}});
    let record = lambda_event::read(&event).unwrap().record;
    let mut attempts = Attempts::default();
    attempts.push(created, "it failed\nin two lines");
    let origin = (
        &place(),
        &ShardId::of_stream("2026-01-01T00:00:00.000", "shardId-1"),
    );
    Letter::new(origin, record, reason, attempts, created)
}

struct Shop {
    dynamodb: Embedded,
    mail: MailServer,
    letters: DynamoDbDeadLetters,
}

impl Shop {
    /// Two orders with a letter each, and one whose second letter is good while its first is not.
    async fn with_letters() -> Self {
        let dynamodb = Embedded::start();
        create(&dynamodb).await;
        let client = clients::dynamodb(dynamodb.url());
        let letters = DynamoDbDeadLetters::new(client, "aftercommit-dead-letters");
        for letter in [
            letter("1", 1, "ada@example.com", Reason::Rescued),
            letter("2", 2, "bob@example.com", Reason::Exhausted),
            letter("3", 3, "no address", Reason::Rejected),
            letter("3", 4, "eve@example.com", Reason::Followed),
        ] {
            letters.park(&letter).await.unwrap();
        }
        let mail = MailServer::start(Script::default()).await;
        Self {
            dynamodb,
            mail,
            letters,
        }
    }

    async fn dead_letters(&self, arguments: &[&str]) -> Output {
        let mut command = against(&self.dynamodb);
        command.arg("dead-letters").args(arguments);
        command.output().await.unwrap()
    }

    async fn redrive(&self, arguments: &[&str]) -> Output {
        let url = self.mail.url();
        let mail = [
            "redrive",
            "--mail-from",
            "shop@example.com",
            "--smtp-url",
            &url,
        ];
        self.dead_letters(&[&mail, arguments].concat()).await
    }

    async fn parked(&self) -> Vec<String> {
        let parked = self.letters.parked(&place()).await.unwrap();
        parked
            .iter()
            .map(|one| format!("{} {}", one.key.as_str(), one.letters))
            .collect()
    }
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn letters_are_listed_and_shown() {
    let shop = Shop::with_letters().await;
    let all = lines(&shop.dead_letters(&["list"]).await);
    assert_eq!(all.len(), 4);
    let third = "Z\tid=3\t3\tINSERT\trejected\tattempts 1\tit failed in two lines";
    assert!(all[2].ends_with(third), "{all:?}");
    let some = shop
        .dead_letters(&["list", "--reason", "rescued", "--reason", "followed"])
        .await;
    assert_eq!(lines(&some).len(), 2);
    let old = shop.dead_letters(&["list", "--older-than", "1h"]).await;
    assert_eq!(lines(&old).len(), 0);
    let shown = lines(&shop.dead_letters(&["show", "--key", "3", "--json"]).await);
    assert_eq!(shown.len(), 2);
    let first: Value = serde_json::from_str(&shown[0]).unwrap();
    assert_eq!(
        first["record"]["dynamodb"]["NewImage"]["email"]["S"],
        "no address"
    );
    assert_eq!(first["attempts"][0]["error"], "it failed\nin two lines");
    assert_eq!(first["reason"], "rejected");
    let record = lambda_event::read(&first["record"]).unwrap();
    assert_eq!(record.stream.as_deref(), Some(STREAM));
    let none = shop.dead_letters(&["show", "--key", "99"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("there is no such dead letter"));
    let wrong = complaint(&shop.dead_letters(&["list", "--reason", "odd"]).await);
    assert!(
        wrong.contains("rejected, exhausted, too-old, rescued, followed"),
        "{wrong}"
    );
}

#[tokio::test]
async fn redriving_mails_in_order_and_stops_where_it_fails() {
    let shop = Shop::with_letters().await;
    let dry = lines(&shop.redrive(&["--all", "--dry-run"]).await);
    assert_eq!(dry.len(), 4);
    assert!(dry[0].starts_with("would redrive\t"));
    assert_eq!((shop.mail.count(), shop.parked().await.len()), (0, 3));
    let output = shop.redrive(&["--reason", "rescued", "--by", "ada"]).await;
    let told = "1 letters redriven; keys: 1 free, 0 stopped, 0 not tried, 0 in other hands";
    assert_eq!(lines(&output), [told]);
    let output = shop.redrive(&["--all", "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({"redriven": 1, "keys_free": 1, "keys_stopped": 1, "keys_untried": 0, "keys_taken": 0});
    assert_eq!(told, expected);
    let told = text(&output.stderr);
    for part in [
        "id=3 stopped: ",
        "1 of 3 done",
        "error: 1 keys are still parked",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(
        shop.mail.by_recipient().into_keys().collect::<Vec<_>>(),
        ["ada@example.com", "bob@example.com"]
    );
    assert_eq!(shop.parked().await, ["2:id2:S3 2"]);
    let settled = lines(
        &shop
            .dead_letters(&["list", "--settled", "--key", "id=1"])
            .await,
    );
    assert!(
        settled[0].contains("rescued, redriven by ada"),
        "{settled:?}"
    );
}

#[tokio::test]
async fn discarding_frees_what_follows() {
    let shop = Shop::with_letters().await;
    let told = complaint(&shop.dead_letters(&["discard"]).await);
    assert!(told.contains("no letters are selected"), "{told}");
    let dry = shop
        .dead_letters(&["discard", "--reason", "rejected", "--dry-run"])
        .await;
    assert!(lines(&dry)[0].starts_with("would discard\t"));
    let arguments = ["discard", "--reason", "rejected", "--why", "no address"];
    assert_eq!(
        lines(&shop.dead_letters(&arguments).await),
        ["1 of 1 letters discarded"]
    );
    let settled = shop.dead_letters(&["list", "--settled", "--json", "--reason", "rejected"]);
    let settled: Value = serde_json::from_str(&lines(&settled.await)[0]).unwrap();
    assert_eq!(settled["deeds"][0]["why"], "no address");
    let again = shop
        .dead_letters(&["discard", "--reason", "rejected", "--json"])
        .await;
    assert_eq!(lines(&again), [r#"{"discarded":0,"selected":0}"#]);
    assert_eq!(
        shop.parked().await,
        ["2:id2:S1 1", "2:id2:S2 1", "2:id2:S3 1"]
    );
    let output = shop.redrive(&["--key", "3"]).await;
    assert!(lines(&output)[0].starts_with("1 letters redriven; keys: 1 free"));
    shop.mail.wait_accepted(1).await;
    assert_eq!(shop.mail.accepted()[0].to, ["eve@example.com"]);
}

#[tokio::test]
async fn redriving_holds_back_what_a_worker_would_hold_back() {
    let shop = Shop::with_letters().await;
    let list = ["--suppression-table", "spared"];
    let make = [&["tables", "create"], &list[..]].concat();
    let add = ["suppress", "add", "ada@example.com", "--reason", "bounced"];
    for arguments in [make, [&add[..], &list].concat()] {
        let mut command = against(&shop.dynamodb);
        lines(&command.args(arguments).output().await.unwrap());
    }
    let short = shop.redrive(&["--all", "--ledger-retention", "1h"]).await;
    assert!(complaint(&short).contains("--ledger-retention is shorter"));
    let spared = shop.redrive(&["--key", "1", list[0], list[1]]).await;
    assert!(lines(&spared)[0].starts_with("1 letters redriven"));
    // The table of orders is empty: so this order is gone.
    let gone = shop.redrive(&["--key", "2", "--refetch"]).await;
    assert!(lines(&gone)[0].starts_with("1 letters redriven"));
    assert_eq!((shop.mail.count(), shop.parked().await.len()), (0, 1));
    let mut command = against(&shop.dynamodb);
    let ledger = command.args(["ledger", "list", "--state", "suppressed"]);
    assert_eq!(lines(&ledger.output().await.unwrap()).len(), 2);
}

#[tokio::test]
async fn a_mail_server_that_is_down_leaves_every_letter_as_it_was() {
    let shop = Shop::with_letters().await;
    let mut command = against(&shop.dynamodb);
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("smtp://{free}");
    let arguments = [
        "dead-letters",
        "redrive",
        "--reason=rescued",
        "--reason=exhausted",
        "--concurrency=1",
        "--json",
    ];
    command
        .args(arguments)
        .args(["--mail-from", "shop@example.com", "--smtp-url", &url]);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["redriven"], &told["keys_stopped"]),
        (&json!(0), &json!(2))
    );
    let all = lines(&shop.dead_letters(&["list"]).await);
    assert!(
        all.len() == 4 && all.iter().all(|line| line.contains("\tattempts 1\t")),
        "{all:?}"
    );
}

#[tokio::test]
async fn a_missing_table_is_told_with_the_command_that_makes_it() {
    let dynamodb = Embedded::start();
    let mut command = against(&dynamodb);
    let output = command
        .args(["dead-letters", "list"])
        .output()
        .await
        .unwrap();
    let told = complaint(&output);
    assert!(
        told.contains("table aftercommit-dead-letters does not exist: make it with"),
        "{told}"
    );
}
