//! What an operator sees and does: the ledger's rows, their settlement, the list of spared
//! addresses.

use std::time::{Duration, SystemTime};

use aftercommit::confirmation::mail::message_id_local;
use aftercommit::decide::claim::{
    Ask, Claimant, Entry, Happened, Liveness, OnAmbiguous, State, Verdict, claim, transition,
};
use aftercommit::group::Effect;
use aftercommit::ledger::{EffectKey, Ledger as _};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use tokio::process::Command;

use crate::cli::{aftercommit, complaint, text};
use crate::process;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address, id};

/// The command, pointed at the shop's tables.
fn command(shop: &Shop, arguments: &[&str]) -> Command {
    let mut command = aftercommit();
    command
        .env("AWS_ENDPOINT_URL", &shop.url)
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AFTERCOMMIT_LEDGER_TABLE", &shop.ledger)
        .args(arguments);
    command
}

/// What the command prints when it does what it was told.
async fn does(shop: &Shop, arguments: &[&str]) -> String {
    let output = command(shop, arguments).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The line with which the command says that it cannot be done.
async fn cannot(shop: &Shop, arguments: &[&str]) -> String {
    let output = command(shop, arguments).output().await.unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.matches('\n').count(), 1, "one line: {told}");
    told
}

fn ask(deadline: SystemTime) -> Ask {
    Ask {
        claimant: Claimant {
            incarnation: "worker-a/17".into(),
            nonce: fastrand::u64(..),
            deadline,
        },
        digest: Some("d".into()),
        item: None,
        kept: None,
        abandoned: Vec::new(),
        policy: OnAmbiguous::Resend,
        now: now(),
    }
}

/// In whole milliseconds.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap().as_millis().try_into().unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

async fn put(shop: &Shop, n: usize, before: Option<&Entry>, next: &Entry) {
    let key = EffectKey::new(&Effect::default(), &id(n));
    let revision = before.map(|row| row.revision);
    shop.ledger().swap(&key, revision, next).await.unwrap();
}

/// Claims an order for another worker.
async fn claimed(shop: &Shop, n: usize, deadline: SystemTime) -> Entry {
    let Verdict::Claim(row) = claim(None, &ask(deadline), Liveness::Unknown) else {
        panic!("a new effect can be claimed");
    };
    put(shop, n, None, &row).await;
    row
}

/// An order that was claimed, and of which this became.
async fn became(shop: &Shop, n: usize, what: impl Fn(u64, String) -> Happened) {
    let row = claimed(shop, n, now() + Duration::from_hours(1)).await;
    let next = transition(Some(&row), &what(1, "so it said".into()), now()).unwrap();
    put(shop, n, Some(&row), &next).await;
}

fn in_doubt(fence: u64, reply: String) -> Happened {
    Happened::NoReply { fence, reply }
}

fn sent(fence: u64, reply: String) -> Happened {
    Happened::Accepted { fence, reply }
}

async fn row(shop: &Shop, n: usize) -> Entry {
    let key = EffectKey::new(&Effect::default(), &id(n));
    shop.ledger().read(&key).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_ledger_is_listed_by_state_for_people_and_for_scripts() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    became(&shop, 1, in_doubt).await;
    became(&shop, 2, sent).await;
    claimed(&shop, 3, now() + Duration::from_hours(1)).await;
    let doubts = does(&shop, &["ledger", "list", "--state", "ambiguous"]).await;
    assert!(doubts.starts_with("T-000001\tAMBIGUOUS\t"), "{doubts}");
    assert_eq!(doubts.lines().count(), 1);
    let sending = does(&shop, &["ledger", "list", "--state", "SENDING", "--json"]).await;
    let sending: Value = serde_json::from_str(&sending).unwrap();
    assert_eq!(sending["order"], "T-000003");
    assert_eq!(sending["claimant"], "worker-a/17");
    assert_eq!(does(&shop, &["ledger", "list"]).await.lines().count(), 3);
    assert_eq!(
        does(&shop, &["ledger", "list", "--state", "failed"]).await,
        ""
    );
}

#[tokio::test]
async fn an_order_is_told_in_full_with_what_to_do() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    became(&shop, 1, in_doubt).await;
    let told = does(&shop, &["ledger", "show", &id(1)]).await;
    let message_id = message_id_local(&EffectKey::new(&Effect::default(), &id(1)));
    for part in [
        "order T-000001: AMBIGUOUS",
        "worker-a/17",
        "so it said",
        "fence 1",
        &message_id,
        "settle ORDER --sent",
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    let json = does(&shop, &["ledger", "show", &id(1), "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["state"], "AMBIGUOUS");
    assert_eq!(json["doubtful"], serde_json::json!([1]));
    assert_eq!(
        (&json["ambiguities"], &json["fence"]),
        (&1.into(), &1.into())
    );
    let missing = cannot(&shop, &["ledger", "show", "nobody"]).await;
    assert!(
        missing.contains("order nobody is not in the ledger"),
        "{missing}"
    );
}

#[tokio::test]
async fn an_operators_word_stands_on_the_row_and_only_where_there_was_a_doubt() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    became(&shop, 1, in_doubt).await;
    became(&shop, 2, sent).await;
    claimed(&shop, 3, now() + Duration::from_hours(1)).await;
    claimed(&shop, 4, now() - Duration::from_secs(1)).await;
    let settle = |n, verdict: &'static str| {
        let (shop, order) = (&shop, id(n));
        async move {
            let words = ["--reason", "in the log", "--by", "ops"];
            let arguments = [&["ledger", "settle", &order, verdict], &words[..]].concat();
            let output = command(shop, &arguments).output().await.unwrap();
            (output.status.code().unwrap(), text(&output.stderr))
        }
    };
    assert_eq!(settle(1, "--sent").await, (0, String::new()));
    let first = row(&shop, 1).await;
    assert_eq!((first.state, first.settlements.len()), (State::Sent, 1));
    assert_eq!(first.settlements[0].by, "ops");
    assert_eq!(first.settlements[0].reason, "in the log");
    for (n, verdict, state) in [
        (1, "--resend", "SENT"),
        (2, "--resend", "SENT"),
        (3, "--sent", "SENDING"),
    ] {
        let before = row(&shop, n).await;
        let (code, told) = settle(n, verdict).await;
        assert_eq!(code, 1, "{told}");
        assert!(
            told.contains(&format!("is {state}, which cannot be settled")),
            "{told}"
        );
        assert_eq!(row(&shop, n).await, before);
    }
    assert_eq!(settle(9, "--sent").await.0, 1);
    // Its claimant's time is over.
    assert_eq!(settle(4, "--resend").await, (0, String::new()));
    assert_eq!(row(&shop, 4).await.state, State::Retry);
    let wrong: [&[&str]; 4] = [
        &["ledger", "settle", "1", "--sent"],
        &["ledger", "settle", "1", "--reason", "x"],
        &[
            "ledger", "settle", "1", "--sent", "--resend", "--reason", "x",
        ],
        &["ledger", "settle", "1", "--sent", "--reason", " "],
    ];
    for arguments in wrong {
        complaint(&command(&shop, arguments).output().await.unwrap());
    }
}

/// `ledger send` with a mail server.
async fn send(shop: &Shop, mails: &MailServer, n: usize, more: &[&str]) -> (i32, String) {
    let (order, url) = (id(n), mails.url());
    let mut arguments = vec!["ledger", "send", &order, "--table", &shop.orders];
    arguments.extend(["--mail-from", "shop@example.com", "--smtp-url", &url]);
    arguments.extend(more);
    let output = command(shop, &arguments).output().await.unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

#[tokio::test]
async fn a_released_order_is_read_back_and_sent_once() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(1..4).await;
    became(&shop, 1, in_doubt).await;
    let (code, told) = send(&shop, &mails, 1, &[]).await;
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("only one that is RETRY is sent by hand"),
        "{told}"
    );
    let order = id(1);
    let settled = does(
        &shop,
        &[
            "ledger",
            "settle",
            &order,
            "--resend",
            "--reason",
            "not in the log",
        ],
    )
    .await;
    assert!(
        settled.starts_with("order T-000001 is RETRY now\n"),
        "{settled}"
    );
    assert!(
        settled.contains("aftercommit ledger send ORDER"),
        "{settled}"
    );
    let (code, told) = send(&shop, &mails, 1, &[]).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.starts_with("T-000001\tSENT\t"), "{told}");
    assert_eq!(
        mails.by_recipient().into_iter().collect::<Vec<_>>(),
        [(address(1), 1)]
    );
    let first = row(&shop, 1).await;
    assert_eq!((first.state, first.fence), (State::Sent, 2));
    let again = send(&shop, &mails, 1, &[]).await;
    assert_eq!((again.0, mails.count()), (1, 1));
    // Never begun by any worker: not for an operator to begin.
    assert_eq!(send(&shop, &mails, 2, &[]).await.0, 1);
    assert_eq!(mails.count(), 1);
}

#[tokio::test]
async fn a_released_order_that_is_gone_or_spared_or_in_doubt_again_is_told_so() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(2..4).await;
    for n in 1..4 {
        became(&shop, n, |fence, reply| Happened::NotAccepted {
            fence,
            reply,
        })
        .await;
    }
    let (code, told) = send(&shop, &mails, 1, &[]).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("is not in table"), "{told}");
    assert_eq!(row(&shop, 1).await.state, State::Retry);
    let (code, told) = send(&shop, &mails, 2, &["--suppress-when", "currency == 'EUR'"]).await;
    assert_eq!((code, mails.count()), (0, 0), "{told}");
    assert!(told.contains("SUPPRESSED"), "{told}");
    mails.add(Fault::once(Step::Dot, Act::Close).keeping());
    let (code, told) = send(&shop, &mails, 3, &[]).await;
    assert_eq!((code, mails.count()), (1, 1), "{told}");
    assert_eq!(row(&shop, 3).await.state, State::Ambiguous, "{told}");
    let other = send(&shop, &mails, 1, &["--key", r#"{"id": "T-000003"}"#]).await;
    assert_eq!(other.0, 2, "{}", other.1);
    assert_eq!(mails.count(), 1);
}

#[tokio::test]
async fn an_address_is_put_on_the_list_told_by_its_hash_and_taken_off() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let list = ["--suppression-table", "spared"];
    let with = |words: &[&'static str]| [words, &list[..]].concat();
    let absent = with(&["suppress", "list"]);
    let told = complaint(&command(&shop, &absent).output().await.unwrap());
    assert!(told.contains("table spared does not exist"), "{told}");
    does(&shop, &with(&["tables", "create"])).await;
    let add = with(&["suppress", "add", "Ada@example.com", "--reason", "bounced"]);
    assert!(does(&shop, &add).await.ends_with(": added\n"));
    assert!(does(&shop, &add).await.ends_with(": was on the list\n"));
    let listed = does(&shop, &absent).await;
    assert!(listed.ends_with("\tbounced\n"), "{listed}");
    assert!(!listed.to_lowercase().contains("ada"), "{listed}");
    let json = does(&shop, &with(&["suppress", "list", "--json"])).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["reason"], "bounced");
    // A row that is damaged keeps nobody from the others.
    for row in ["0a1b", "ada@example.com"] {
        let put = shop.client.put_item().table_name("spared");
        let put = put.item("address", AttributeValue::S(row.to_owned()));
        put.send().await.unwrap();
    }
    let output = command(&shop, &absent).output().await.unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), listed);
    let warned = text(&output.stderr);
    assert!(
        warned.contains("0a1b") && !warned.contains("ada"),
        "{warned}"
    );
    does(&shop, &with(&["suppress", "remove", "ada@EXAMPLE.com"])).await;
    assert_eq!(does(&shop, &absent).await, "");
    let wrong = with(&["suppress", "add", "no address", "--reason", "x"]);
    complaint(&command(&shop, &wrong).output().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_sends_by_the_rules_that_it_was_started_with() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let lost = Fault::always(Step::Dot, Act::Close).keeping();
    let lost = lost.for_recipient(&address(1));
    let mails = MailServer::start(Script::default().fault(lost)).await;
    shop.place(0..5).await;
    let gone = shop.client.delete_item().table_name(&shop.orders);
    let gone = gone.key("id", AttributeValue::S(id(0)));
    gone.send().await.unwrap();
    let spare = "--suppression-table";
    does(&shop, &["tables", "create", spare, "spared"]).await;
    let (spared, why) = (address(2), ["--reason", "bounced"]);
    let add = ["suppress", "add", &spared, spare, "spared"];
    does(&shop, &[&add, &why[..]].concat()).await;
    let mut run = process::command(&shop, &mails, None, "worker");
    run.args([spare, "spared", "--refetch", "--on-ambiguous", "park"])
        .args(["--suppress-when", "id == 'T-000003'"])
        .args(["--ehlo-name", "shop.example.com", "--smtp-connections", "2"]);
    let worker = run.spawn().unwrap();
    let settled = shop.settled(5, OnAmbiguous::Park);
    let rows = tokio::time::timeout(Duration::from_mins(1), settled).await;
    drop(worker);
    let states: Vec<_> = rows.unwrap().into_values().map(|row| row.state).collect();
    let spared = State::Suppressed;
    let expected = [spared, State::Ambiguous, spared, spared, State::Sent];
    assert_eq!(states, expected);
    // Two mails: one of them in doubt, and never sent twice.
    let by_recipient: Vec<_> = mails.by_recipient().into_iter().collect();
    assert_eq!(by_recipient, [(address(1), 1), (address(4), 1)]);
    assert!(mails.most_open() <= 2);
    let heard = mails.heard();
    assert!(
        heard
            .iter()
            .any(|(_, line)| line == "EHLO shop.example.com"),
        "{heard:?}"
    );
}
