//! The command's dead letters, on the embedded DynamoDB and a mail server.

use std::process::Output;
use std::time::{Duration, SystemTime};

use aftercommit::internal::shard::ShardId;
use aftercommit::record::lambda_event;
use aftercommit::stores::dead_letter::EffectTable;
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::dead_letter::{Attempts, DeadLetters as _, Letter, Reason};
use aftercommit::stores::tables::dynamodb::table_arn;
use aftercommit::{EffectName, Group, GroupTable};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use crate::cli::start::{complaint, text};
use crate::cli::tables::{against, create};
use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};

mod identity;

/// A letter that was written a minute ago.
fn letter(at: &EffectTable, (id, number): (&str, u64), address: &str, reason: Reason) -> Letter {
    let order = json!({"id": {"S": id}, "email": {"S": address}, "total": {"N": "4890"},
        "currency": {"S": "EUR"}});
    // Recent, because the handler rejects orders that its ledger may have forgotten.
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
        at,
        &ShardId::of_stream("2026-01-01T00:00:00.000", "shardId-1"),
    );
    Letter::new(origin, record, reason, attempts, created)
}

struct Shop {
    dynamodb: Embedded,
    mail: MailServer,
    client: Client,
    letters: DynamoDbDeadLetters,
    at: EffectTable,
}

impl Shop {
    /// Two orders with a letter each, and one whose second letter is good while its first is not. In
    /// their table they are as their last letters have them, but the third one is still bad.
    async fn with_letters() -> Self {
        let dynamodb = Embedded::start();
        create(&dynamodb).await;
        let client = clients::dynamodb(dynamodb.url());
        let letters = DynamoDbDeadLetters::new(client.clone(), "aftercommit-dead-letters");
        let arn = table_arn(&client, "orders").await.unwrap();
        let group = GroupTable::new(Group::default(), &arn);
        let at = EffectTable::new(group, EffectName::default());
        for letter in [
            letter(&at, ("1", 1), "ada@example.com", Reason::Rescued),
            letter(&at, ("2", 2), "bob@example.com", Reason::Exhausted),
            letter(&at, ("3", 3), "no address", Reason::Rejected),
            letter(&at, ("3", 4), "eve@example.com", Reason::Followed),
        ] {
            letters.park(&letter).await.unwrap();
        }
        let mail = MailServer::start(Script::default()).await;
        let shop = Self {
            dynamodb,
            mail,
            client,
            letters,
            at,
        };
        for (id, address) in [
            ("1", "ada@example.com"),
            ("2", "bob@example.com"),
            ("3", "no address"),
        ] {
            shop.put(id, address).await;
        }
        shop
    }

    /// Writes an order into its table.
    async fn put(&self, id: &str, address: &str) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let put = self.client.put_item().table_name("orders");
        let put = put
            .item("id", text(id))
            .item("email", text(address))
            .item("total", AttributeValue::N("4890".to_owned()))
            .item("currency", text("EUR"));
        put.send().await.unwrap();
    }

    async fn delete(&self, id: &str) {
        let delete = self.client.delete_item().table_name("orders");
        let delete = delete.key("id", AttributeValue::S(id.to_owned()));
        delete.send().await.unwrap();
    }

    async fn dead_letters(&self, arguments: &[&str]) -> Output {
        let mut command = against(&self.dynamodb);
        command.env("AFTERCOMMIT_TABLE", "orders");
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
        let parked = self.letters.parked(&self.at).await.unwrap().keys;
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
    assert_eq!(old.status.code(), Some(1));
    assert!(text(&old.stderr).starts_with("error: no dead letter matches"));
    let shown = lines(&shop.dead_letters(&["show", "--key", "3", "--json"]).await);
    assert_eq!(shown.len(), 2);
    let first: Value = serde_json::from_str(&shown[0]).unwrap();
    assert_eq!(
        first["record"]["dynamodb"]["NewImage"]["email"]["S"],
        "no address"
    );
    assert_eq!(first["attempts"][0]["error"], "it failed\nin two lines");
    assert_eq!(first["reason"], "rejected");
    let stream = shop.at.at.stream(Some("2026-01-01T00:00:00.000"));
    let record = lambda_event::read(&first["record"]).unwrap();
    assert_eq!(record.stream.as_deref(), Some(&*stream));
    let none = shop.dead_letters(&["show", "--key", "99"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no dead letter matches"));
    let wrong = complaint(&shop.dead_letters(&["list", "--reason", "odd"]).await);
    assert!(
        wrong.contains("rejected, exhausted, too-old, rescued, deferred, followed"),
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
    let reported =
        "1 letter redriven; keys: 1 free, 0 stopped, 0 not tried, 0 redriven by another process";
    assert_eq!(lines(&output), [reported]);
    let output = shop.redrive(&["--all", "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    let reported: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({"redriven": 1, "keys_free": 1, "keys_stopped": 1, "keys_untried": 0, "keys_taken": 0});
    assert_eq!(reported, expected);
    let reported = text(&output.stderr);
    for part in [
        "id=3 stopped: ",
        "1 of 3 done",
        "error: 1 key is still parked",
    ] {
        assert!(reported.contains(part), "{part}: {reported}");
    }
    assert_eq!(
        shop.mail.by_recipient().into_keys().collect::<Vec<_>>(),
        ["ada@example.com", "bob@example.com"]
    );
    assert_eq!(shop.parked().await, ["2:id2:S3 2"]);
    let closed = lines(
        &shop
            .dead_letters(&["list", "--closed", "--key", "id=1"])
            .await,
    );
    assert!(closed[0].contains("rescued, redriven by ada"), "{closed:?}");
}

#[tokio::test]
async fn discarding_frees_what_follows() {
    let shop = Shop::with_letters().await;
    let reported = complaint(&shop.dead_letters(&["discard"]).await);
    assert!(reported.contains("no letters are selected"), "{reported}");
    let dry = shop
        .dead_letters(&["discard", "--reason", "rejected", "--dry-run"])
        .await;
    assert!(lines(&dry)[0].starts_with("would discard\t"));
    let arguments = ["discard", "--reason", "rejected", "--note", "no address"];
    assert_eq!(
        lines(&shop.dead_letters(&arguments).await),
        [
            "1 letter discarded; 1 later letter of the same item is not handled yet: `aftercommit \
             dead-letters redrive --key id=3`"
        ]
    );
    let closed = shop.dead_letters(&["list", "--closed", "--json", "--reason", "rejected"]);
    let closed: Value = serde_json::from_str(&lines(&closed.await)[0]).unwrap();
    assert_eq!(closed["deeds"][0]["note"], "no address");
    let again = shop
        .dead_letters(&["discard", "--reason", "rejected", "--json"])
        .await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).starts_with("error: no dead letter matches"));
    assert_eq!(
        shop.parked().await,
        ["2:id2:S1 1", "2:id2:S2 1", "2:id2:S3 1"]
    );
    shop.put("3", "eve@example.com").await;
    let output = shop.redrive(&["--key", "3"]).await;
    assert!(lines(&output)[0].starts_with("1 letter redriven; keys: 1 free"));
    shop.mail.wait_accepted(1).await;
    assert_eq!(shop.mail.accepted()[0].to, ["eve@example.com"]);
}

#[tokio::test]
async fn discarding_a_key_gives_up_the_letter_that_failed_and_no_good_one() {
    let shop = Shop::with_letters().await;
    let reported = lines(
        &shop
            .dead_letters(&["discard", "--key", "3", "--json"])
            .await,
    );
    assert_eq!(reported, [r#"{"selected":1,"discarded":1,"waiting":1}"#]);
    let left = lines(&shop.dead_letters(&["list", "--key", "3"]).await);
    assert!(
        left.len() == 1 && left[0].contains("\tfollowed\t"),
        "{left:?}"
    );
    let reported = lines(&shop.dead_letters(&["discard", "--key", "3"]).await);
    assert_eq!(reported, ["1 letter discarded; nothing waits behind"]);
    let all = shop.dead_letters(&["discard", "--key", "id=9"]).await;
    assert_eq!(all.status.code(), Some(1));
}

#[tokio::test]
async fn an_order_that_is_fixed_in_its_table_is_mailed_as_it_is_there() {
    let shop = Shop::with_letters().await;
    let bad = shop.redrive(&["--key", "3"]).await;
    assert_eq!(bad.status.code(), Some(1));
    shop.put("3", "fixed@example.com").await;
    let old = shop.redrive(&["--key", "3", "--as-recorded"]).await;
    assert_eq!(old.status.code(), Some(1), "the record is still bad");
    let output = shop.redrive(&["--key", "3"]).await;
    assert!(lines(&output)[0].starts_with("2 letters redriven; keys: 1 free"));
    let mails: Vec<_> = shop.mail.by_recipient().into_iter().collect();
    assert_eq!(mails, [("fixed@example.com".to_owned(), 1)]);
    assert_eq!(shop.parked().await.len(), 2);
}

#[tokio::test]
async fn an_order_that_was_refused_is_redriven_once_its_cause_is_fixed() {
    let shop = Shop::with_letters().await;
    for (step, reply) in [
        (Step::Rcpt, "550 no such user"),
        (Step::Dot, "554 rejected"),
    ] {
        shop.mail.add(Fault::once(step, Act::Say(reply)));
        let refused = shop.redrive(&["--key", "1"]).await;
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    }
    assert_eq!(shop.mail.count(), 0);
    shop.put("1", "ada.new@example.com").await;
    let output = shop.redrive(&["--key", "1"]).await;
    assert!(lines(&output)[0].starts_with("1 letter redriven; keys: 1 free"));
    shop.mail.wait_accepted(1).await;
    assert_eq!(shop.mail.accepted()[0].to, ["ada.new@example.com"]);
}

#[tokio::test]
async fn redriving_holds_back_what_a_worker_would_hold_back() {
    let shop = Shop::with_letters().await;
    let list = ["--suppression-table", "spared"];
    let make = [&["tables", "create"], &list[..]].concat();
    let add = ["suppress", "add", "ada@example.com", "--note", "bounced"];
    for arguments in [make, [&add[..], &list].concat()] {
        let mut command = against(&shop.dynamodb);
        lines(&command.args(arguments).output().await.unwrap());
    }
    let short = shop.redrive(&["--all", "--ledger-retention", "1h"]).await;
    assert!(complaint(&short).contains("--ledger-retention is shorter"));
    let spared = shop.redrive(&["--key", "1", list[0], list[1]]).await;
    assert!(lines(&spared)[0].starts_with("1 letter redriven"));
    shop.delete("2").await;
    let gone = shop.redrive(&["--key", "2"]).await;
    assert_eq!(gone.status.code(), Some(1));
    let reported = text(&gone.stderr);
    assert!(
        reported.contains("the item is no longer in table orders: discard"),
        "{reported}"
    );
    let gone = shop.redrive(&["--key", "2", "--refetch"]).await;
    assert!(lines(&gone)[0].starts_with("1 letter redriven"));
    assert_eq!((shop.mail.count(), shop.parked().await.len()), (0, 1));
    let mut command = against(&shop.dynamodb);
    let ledger = command.args(["ledger", "list", "--state", "suppressed"]);
    assert_eq!(lines(&ledger.output().await.unwrap()).len(), 2);
}

#[tokio::test]
async fn a_mail_server_that_is_down_leaves_every_letter_as_it_was() {
    let shop = Shop::with_letters().await;
    let mut command = against(&shop.dynamodb);
    // Nobody listens on a port that was just released.
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
    let reported: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&reported["redriven"], &reported["keys_stopped"]),
        (&json!(0), &json!(2))
    );
    let all = lines(&shop.dead_letters(&["list"]).await);
    assert!(
        all.len() == 4 && all.iter().all(|line| line.contains("\tattempts 1\t")),
        "{all:?}"
    );
}

#[tokio::test]
async fn a_missing_table_is_reported_with_the_command_that_makes_it() {
    let dynamodb = Embedded::start();
    let mut command = against(&dynamodb);
    let output = command
        .args(["dead-letters", "list"])
        .output()
        .await
        .unwrap();
    let reported = complaint(&output);
    assert!(
        reported.contains("table aftercommit-dead-letters does not exist: create it with"),
        "{reported}"
    );
}
