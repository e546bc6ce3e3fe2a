//! The runbook, played: each of its paragraphs whose work is done by commands, with the commands that
//! it names, on the embedded DynamoDB. A command that a test runs must be in the paragraph word for
//! word, so that the runbook cannot drift from what works.

use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::internal::claim::{OnAmbiguous, State};
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::leases::{GapRow, LeaseStore as _};
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cli::start::{on_shop, text};
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address, id};

/// A shop with an operator, who has the runbook open at a paragraph.
struct Operator<'a> {
    shop: &'a Shop,
    mails: &'a MailServer,
    paragraph: String,
}

/// A paragraph of the runbook on one line; of its head with an empty name.
fn paragraph(name: &str) -> String {
    let runbook = include_str!("../../../infra/RUNBOOK.md");
    let mut parts = runbook.split("\n## ");
    let head = parts.next().unwrap();
    let found = parts.find_map(|part| part.strip_prefix(&format!("{name}\n")));
    let text = if name.is_empty() {
        head
    } else {
        found.unwrap()
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<'a> Operator<'a> {
    fn at(shop: &'a Shop, mails: &'a MailServer, name: &str) -> Self {
        let paragraph = paragraph(name);
        Self {
            shop,
            mails,
            paragraph,
        }
    }

    /// Runs a command of the paragraph, with these values in place of its words in capitals.
    /// What it prints, and its exit code.
    async fn runs(&self, command: &str, values: &[(&str, &str)]) -> (String, i32) {
        let written = format!("aftercommit {command}");
        let is_there = ["`", " "].iter().any(|end| {
            let end = format!("{written}{end}");
            self.paragraph.contains(&end)
        });
        assert!(is_there, "{written:?} is not in: {}", self.paragraph);
        let words = command.split(' ').map(|word| {
            let value = values.iter().find(|(name, _)| *name == word);
            value.map_or(word.trim_matches('"'), |(_, value)| value)
        });
        let words: Vec<_> = words.collect();
        self.run(&words).await
    }

    async fn run(&self, words: &[&str]) -> (String, i32) {
        let mut command = on_shop(self.shop);
        command
            .env("AFTERCOMMIT_MAIL_FROM", "Shop <shop@example.com>")
            .env("AFTERCOMMIT_SMTP_URL", self.mails.url())
            .env("AFTERCOMMIT_BY", "ada")
            .args(words);
        let output = command.output().await.unwrap();
        let code = output.status.code().unwrap();
        (text(&output.stdout) + &text(&output.stderr), code)
    }

    /// Runs a command that must succeed.
    async fn does(&self, command: &str, values: &[(&str, &str)]) -> String {
        let (reported, code) = self.runs(command, values).await;
        assert_eq!(code, 0, "{command}: {reported}");
        reported
    }

    /// What `status` says to do, except for starting workers, which none of these has.
    async fn to_do(&self) -> Vec<String> {
        let (reported, _) = self.run(&["status", "--json"]).await;
        let reported: Value = serde_json::from_str(&reported).unwrap();
        let advice = reported["advice"].as_array().unwrap().iter();
        let advice = advice.map(|words| words.as_str().unwrap().to_owned());
        advice
            .filter(|words| !words.starts_with("No worker"))
            .collect()
    }
}

/// Works until `done` says so, and leaves.
async fn work(shop: &Shop, mails: &MailServer, done: impl AsyncFn() -> bool) {
    let quit = CancellationToken::new();
    let worker = shop.worker("one", mails, OnAmbiguous::Park);
    let working = tokio::spawn(worker.run(quit.clone().cancelled_owned()));
    while !done().await {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    quit.cancel();
    working.await.unwrap().unwrap();
}

async fn put_email(shop: &Shop, n: usize, email: Option<&str>) {
    let put = shop.client.put_item().table_name(&shop.orders);
    let put = put
        .item("id", AttributeValue::S(id(n)))
        .item("total", AttributeValue::N("1999".to_owned()))
        .item("currency", AttributeValue::S("EUR".to_owned()));
    let put = match email {
        Some(email) => put.item("email", AttributeValue::S(email.to_owned())),
        None => put,
    };
    put.send().await.unwrap();
}

async fn has_letters(shop: &Shop, keys: usize) -> bool {
    use aftercommit::stores::dead_letter::DeadLetters as _;
    let parked = shop.dead_letters().parked(&shop.letters_at()).await;
    parked.unwrap().keys.len() == keys
}

async fn state(shop: &Shop, n: usize) -> Option<State> {
    let key = EffectKey::new(&EffectName::default(), &id(n));
    let entry = shop.ledger().read(&key).await.unwrap();
    entry.map(|entry| entry.state)
}

#[tokio::test]
async fn dead_letters_are_fixed_in_their_table_and_mailed_or_given_up() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    // Two orders without an address, one of which is written again with one.
    put_email(&shop, 1, None).await;
    put_email(&shop, 2, None).await;
    work(&shop, &mails, async || has_letters(&shop, 2).await).await;
    let ops = Operator::at(&shop, &mails, "dead-letters");
    assert_ne!(ops.to_do().await, [""; 0]);
    let listed = ops.does("dead-letters list", &[]).await;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let (one, two) = (id(1), id(2));
    let order = [("ORDER", &*one)];
    let shown = ops.does("dead-letters show --key ORDER", &order).await;
    assert!(
        shown.contains("rejected") && shown.contains("email"),
        "{shown}"
    );
    // The order is fixed where it is.
    put_email(&shop, 1, Some(&address(1))).await;
    let dry = "dead-letters redrive --key ORDER --dry-run";
    assert!(ops.does(dry, &order).await.starts_with("would redrive\t"));
    let done = ops
        .runs("dead-letters redrive --reason rejected", &[])
        .await;
    assert_eq!(done.1, 1, "the other order is still bad: {}", done.0);
    assert_eq!(
        mails.by_recipient().into_keys().collect::<Vec<_>>(),
        [address(1)]
    );
    let give_up = "dead-letters discard --key ORDER --note \"...\"";
    let reported = ops.does(give_up, &[("ORDER", &two)]).await;
    assert!(
        reported.starts_with("1 letter discarded; nothing waits behind"),
        "{reported}"
    );
    assert_eq!(ops.to_do().await, [""; 0]);
    assert_eq!(ops.does("dead-letters list", &[]).await, "");
    assert_eq!(mails.count(), 1);
}

#[tokio::test]
async fn an_address_that_was_refused_is_changed_in_the_table_and_mailed() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let refused = Fault::always(Step::Rcpt, Act::Say("550 5.1.1 no such user"));
    let refused = refused.for_recipient(&address(1));
    let mails = MailServer::start(Script::default().fault(refused)).await;
    shop.place(1..2).await;
    work(&shop, &mails, async || has_letters(&shop, 1).await).await;
    assert_eq!(state(&shop, 1).await, Some(State::Failed));
    put_email(&shop, 1, Some("new@example.com")).await;
    let ops = Operator::at(&shop, &mails, "dead-letters");
    ops.does("dead-letters redrive --reason rejected", &[])
        .await;
    assert_eq!(mails.accepted()[0].to, ["new@example.com"]);
    assert_eq!(ops.to_do().await, [""; 0]);
}

#[tokio::test]
async fn what_was_rescued_is_mailed_once_the_mail_server_is_back() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    mails.go_away();
    shop.place(1..3).await;
    let ops = Operator::at(&shop, &mails, "rescued");
    rescue(&shop, 1..3).await;
    let listed = ops.does("dead-letters list --reason rescued", &[]).await;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let to = [("ADDRESS", "me@example.com")];
    let (reported, code) = ops.runs("send-test --to ADDRESS", &to).await;
    assert_eq!(code, 1, "{reported}");
    assert!(reported.contains("nothing was sent"), "{reported}");
    mails.come_back().await;
    ops.does("send-test --to ADDRESS", &to).await;
    ops.does("dead-letters redrive --reason rescued", &[]).await;
    assert_eq!(mails.count(), 3);
    assert_eq!(ops.to_do().await, [""; 0]);
}

/// The orders' records, as a worker writes them down before they leave the stream.
async fn rescue(shop: &Shop, numbers: std::ops::Range<usize>) {
    use aftercommit::stores::dead_letter::{Attempts, DeadLetters as _, Letter, Reason};
    for n in numbers {
        let record = crate::support::orders::inserted(&id(n), &address(n));
        let shard = ShardId::of_stream("2026-01-01T00:00:00.000", "shardId-1");
        let origin = (&shop.letters_at(), &shard);
        let now = SystemTime::now();
        let letter = Letter::new(origin, record, Reason::Rescued, Attempts::default(), now);
        shop.dead_letters().park(&letter).await.unwrap();
    }
}

#[tokio::test]
async fn orders_in_doubt_are_resolved_one_by_one_and_all_of_an_incident_at_once() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let lost = Fault::always(Step::Dot, Act::Close);
    let mails = MailServer::start(Script::default().fault(lost)).await;
    shop.place(1..6).await;
    let all = async || {
        let mut doubts = 0;
        for n in 1..6 {
            doubts += usize::from(state(&shop, n).await == Some(State::Ambiguous));
        }
        doubts == 5
    };
    work(&shop, &mails, all).await;
    mails.heal();
    let ops = Operator::at(&shop, &mails, "ambiguous");
    let listed = ops.does("ledger list --state ambiguous", &[]).await;
    assert_eq!(listed.lines().count(), 5, "{listed}");
    let ids: Vec<_> = (1..6).map(id).collect();
    let order = |n: usize| [("ORDER", &*ids[n - 1])];
    let explained = ops.does("explain ORDER", &order(1)).await;
    assert!(explained.contains("claim 1: AMBIGUOUS"), "{explained}");
    let shown = ops.does("ledger show ORDER", &order(1)).await;
    assert!(shown.contains("Message-ID"), "{shown}");
    ops.does("ledger resolve ORDER --sent --note \"...\"", &order(1))
        .await;
    ops.does("ledger resolve ORDER --send --note \"...\"", &order(2))
        .await;
    assert_eq!(
        mails.by_recipient().into_keys().collect::<Vec<_>>(),
        [address(2)]
    );
    ops.does("ledger resolve ORDER --skip --note \"...\"", &order(3))
        .await;
    let incident = "ledger resolve --state ambiguous --since 2h --sent --note \"...\" --dry-run";
    let dry = ops.does(incident, &[]).await;
    assert_eq!(dry.lines().count(), 2, "{dry}");
    let done = ops.does(incident, &[("--dry-run", "--yes")]).await;
    assert!(done.starts_with("2 of 2 resolved as sent\n"), "{done}");
    assert_eq!(ops.to_do().await, [""; 0]);
    let (_, code) = ops.runs("ledger list --state ambiguous", &[]).await;
    assert_eq!(code, 1, "nothing is left");
    let (_, code) = ops.runs("ledger list --state released", &[]).await;
    assert_eq!(code, 1, "nothing is left");
    let explained = ops.does("explain ORDER", &order(3)).await;
    assert!(
        explained.contains("resolved by ada as SUPPRESSED"),
        "{explained}"
    );
}

#[tokio::test]
async fn a_released_order_needs_attention_until_it_is_sent() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let lost = Fault::always(Step::Dot, Act::Close);
    let mails = MailServer::start(Script::default().fault(lost)).await;
    shop.place(1..2).await;
    let doubt = async || state(&shop, 1).await == Some(State::Ambiguous);
    work(&shop, &mails, doubt).await;
    let ops = Operator::at(&shop, &mails, "ambiguous");
    let one = id(1);
    mails.heal();
    mails.go_away();
    let (reported, code) = ops
        .runs(
            "ledger resolve ORDER --send --note \"...\"",
            &[("ORDER", &one)],
        )
        .await;
    assert_eq!(code, 1, "{reported}");
    assert_ne!(ops.to_do().await, [""; 0]);
    let listed = ops.does("ledger list --state released", &[]).await;
    assert!(listed.starts_with(&one), "{listed}");
    mails.come_back().await;
    ops.does("send ORDER", &[("ORDER", &one)]).await;
    assert_eq!(ops.to_do().await, [""; 0]);
    assert_eq!(mails.count(), 1);
}

#[tokio::test]
async fn the_orders_of_a_gap_are_accounted_for_and_the_gap_is_resolved() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(0..1).await;
    let sent = async || state(&shop, 0).await == Some(State::Sent);
    work(&shop, &mails, sent).await;
    shop.place(1..3).await;
    let gap = GapRow {
        shard: ShardId::of_stream("2026-01-01T00:00:00.000", "shardId-1"),
        last_handled: None,
        last_handled_time: None,
        first_after: None,
        detected: SystemTime::now(),
        resolved: None,
    };
    let recorded = shop.lease_store().record_gap(&gap, None).await;
    recorded.unwrap().unwrap();
    let ops = Operator::at(&shop, &mails, "gaps");
    assert_ne!(ops.to_do().await, [""; 0]);
    let listed = ops.does("gaps list", &[]).await;
    assert!(
        listed.contains("shardId-1: after the beginning"),
        "{listed}"
    );
    let ids = [id(1), id(2)];
    let order = |n: usize| [("ORDER", &*ids[n - 1])];
    let explained = ops.does("explain ORDER", &order(1)).await;
    assert!(
        explained.contains("The ledger does not know it"),
        "{explained}"
    );
    for n in 1..3 {
        ops.does("send ORDER", &order(n)).await;
        let (reported, code) = ops.runs("send ORDER", &order(n)).await;
        assert_eq!(code, 1, "{reported}");
    }
    assert_eq!(mails.count(), 3);
    let resolve = "gaps resolve --shard SHARD --note \"...\"";
    ops.does(resolve, &[("SHARD", "shardId-1")]).await;
    assert_eq!(ops.to_do().await, [""; 0]);
}

#[tokio::test]
async fn every_paragraph_begins_with_commands_that_answer() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(1..2).await;
    let sent = async || state(&shop, 1).await == Some(State::Sent);
    work(&shop, &mails, sent).await;
    let one = id(1);
    let head = Operator::at(&shop, &mails, "");
    let explained = head.does("explain ORDER", &[("ORDER", &one)]).await;
    assert!(explained.contains("The ledger says SENT"), "{explained}");
    for name in ["", "lag", "trim", "no-heartbeat"] {
        let ops = Operator::at(&shop, &mails, name);
        let (reported, _) = ops.runs("status", &[]).await;
        assert!(
            reported.contains("WORKER") && reported.contains("SHARD"),
            "{reported}"
        );
    }
    for name in ["lag", "iterator-age"] {
        let ops = Operator::at(&shop, &mails, name);
        let to = [("ADDRESS", "me@example.com")];
        ops.does("send-test --to ADDRESS", &to).await;
    }
}
