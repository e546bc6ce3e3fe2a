//! What an operator sees and does: the ledger's rows, what operators decide, the list of spared
//! addresses.

use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::confirmation::mail::message_id_local;
use aftercommit::internal::claim::{
    Ask, Claimant, Entry, Happened, Liveness, OnAmbiguous, State, Verdict, claim, transition,
};
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use tokio::process::Command;

use crate::cli::start::{complaint, on_tables, text};
use crate::fleet::process;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address, id};

/// The command, pointed at the shop's tables.
pub fn command(shop: &Shop, arguments: &[&str]) -> Command {
    let mut command = on_tables(shop);
    command.args(arguments);
    command
}

/// What the command prints when it succeeds.
pub async fn does(shop: &Shop, arguments: &[&str]) -> String {
    let output = command(shop, arguments).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The line with which the command says that it cannot be done.
pub async fn cannot(shop: &Shop, arguments: &[&str]) -> String {
    let output = command(shop, arguments).output().await.unwrap();
    let reported = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{reported}");
    assert_eq!(reported.matches('\n').count(), 1, "one line: {reported}");
    reported
}

fn ask(deadline: SystemTime) -> Ask {
    let claimant = Claimant {
        incarnation: "worker-a/17".into(),
        nonce: fastrand::u64(..),
        deadline,
    };
    Ask {
        digest: Some("d".into()),
        ..Ask::new(claimant, OnAmbiguous::Resend, now())
    }
}

/// An effect that was claimed and never heard of again.
pub async fn leave_in_doubt(ledger: &DynamoDbLedger, key: &EffectKey) {
    let Verdict::Claim(row) = claim(None, &ask(now()), Liveness::Unknown) else {
        panic!("a new effect can be claimed");
    };
    ledger.swap(key, None, &row).await.unwrap();
    let next = transition(Some(&row), &in_doubt(1, "no answer".into()), now()).unwrap();
    ledger.swap(key, Some(row.revision), &next).await.unwrap();
}

/// In whole milliseconds.
pub fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap().as_millis().try_into().unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

pub async fn put(shop: &Shop, n: usize, before: Option<&Entry>, next: &Entry) {
    let key = EffectKey::new(&EffectName::default(), &id(n));
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

/// An order that was claimed, with this outcome.
pub async fn became(shop: &Shop, n: usize, what: impl Fn(u64, String) -> Happened) {
    let row = claimed(shop, n, now() + Duration::from_hours(1)).await;
    let next = transition(Some(&row), &what(1, "so it said".into()), now()).unwrap();
    put(shop, n, Some(&row), &next).await;
}

pub fn in_doubt(fence: u64, reply: String) -> Happened {
    Happened::NoReply { fence, reply }
}

fn sent(fence: u64, reply: String) -> Happened {
    Happened::Accepted { fence, reply }
}

pub async fn row(shop: &Shop, n: usize) -> Entry {
    let key = EffectKey::new(&EffectName::default(), &id(n));
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
    let none = cannot(&shop, &["ledger", "list", "--state", "failed"]).await;
    assert!(none.contains("no order in the ledger matches"), "{none}");
    let so_it_said = ["ledger", "list", "--reason", "SO IT SAID", "--since", "1h"];
    assert_eq!(does(&shop, &so_it_said).await.lines().count(), 2);
    let before = ["ledger", "list", "--reason", "so it said", "--until", "1h"];
    cannot(&shop, &before).await;
}

#[tokio::test]
async fn an_order_is_shown_in_full_with_what_to_do() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    became(&shop, 1, in_doubt).await;
    let reported = does(&shop, &["ledger", "show", &id(1)]).await;
    let message_id = message_id_local(&EffectKey::new(&EffectName::default(), &id(1)));
    for part in [
        "order T-000001: AMBIGUOUS",
        "worker-a/17",
        "so it said",
        "claim 1",
        &message_id,
        "resolve ORDER --sent",
        "claim 1: AMBIGUOUS, unknown whether it was accepted",
    ] {
        assert!(reported.contains(part), "{part:?} in {reported}");
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
async fn an_operators_decision_goes_into_the_history_and_only_where_something_was_open() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    became(&shop, 1, in_doubt).await;
    became(&shop, 2, sent).await;
    claimed(&shop, 3, now() + Duration::from_hours(1)).await;
    claimed(&shop, 4, now() - Duration::from_secs(1)).await;
    became(&shop, 5, in_doubt).await;
    let resolve = |n, decision: &'static str| {
        let (shop, order) = (&shop, id(n));
        async move {
            let words = ["--note", "in the log", "--by", "ops"];
            let arguments = [&["ledger", "resolve", &order, decision], &words[..]].concat();
            let output = command(shop, &arguments).output().await.unwrap();
            (output.status.code().unwrap(), text(&output.stderr))
        }
    };
    assert_eq!(resolve(1, "--sent").await, (0, String::new()));
    let first = row(&shop, 1).await;
    assert_eq!(first.state, State::Sent);
    let step = first.history.steps().last().unwrap();
    assert_eq!(step.by.as_deref(), Some("ops"));
    assert_eq!(step.text.as_deref(), Some("SENT: in the log"));
    for (n, decision, state) in [
        (1, "--send", "SENT"),
        (2, "--send", "SENT"),
        (2, "--skip", "SENT"),
        (3, "--sent", "SENDING"),
    ] {
        let before = row(&shop, n).await;
        let (code, reported) = resolve(n, decision).await;
        assert_eq!(code, 1, "{reported}");
        let expected = format!("is {state}, which cannot be resolved as");
        assert!(reported.contains(&expected), "{reported}");
        assert_eq!(row(&shop, n).await, before);
    }
    assert_eq!(resolve(9, "--sent").await.0, 1);
    // Its claimant's time is over.
    assert_eq!(resolve(4, "--send").await, (0, String::new()));
    assert_eq!(row(&shop, 4).await.state, State::Retry);
    let released = does(&shop, &["ledger", "list", "--state", "released"]).await;
    assert!(released.starts_with("T-000004\tRETRY\t"), "{released}");
    assert_eq!(resolve(5, "--skip").await, (0, String::new()));
    assert_eq!(row(&shop, 5).await.state, State::Suppressed);
    let wrong: [&[&str]; 5] = [
        &["ledger", "resolve", "1", "--sent"],
        &["ledger", "resolve", "1", "--note", "x"],
        &["ledger", "resolve", "1", "--sent", "--send", "--note", "x"],
        &["ledger", "resolve", "1", "--sent", "--note", " "],
        &["ledger", "resolve", "--sent", "--note", "x"],
    ];
    for arguments in wrong {
        complaint(&command(&shop, arguments).output().await.unwrap());
    }
}

#[tokio::test]
async fn all_orders_of_an_incident_are_resolved_once_their_number_is_confirmed() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    for n in 1..4 {
        became(&shop, n, in_doubt).await;
    }
    became(&shop, 4, |fence, _| Happened::NoReply {
        fence,
        reply: "another cause".into(),
    })
    .await;
    let select = ["ledger", "resolve", "--state", "ambiguous", "--since", "1h"];
    let decide = ["--reason", "so it said", "--sent", "--note", "in mail.log"];
    let with = |more: &[&'static str]| [&select[..], &decide, more].concat();
    let dry = does(&shop, &with(&["--dry-run"])).await;
    assert_eq!(dry.lines().count(), 3);
    assert!(
        dry.lines()
            .all(|line| line.starts_with("would resolve as sent\t"))
    );
    let unconfirmed = command(&shop, &with(&[])).output().await.unwrap();
    let reported = complaint(&unconfirmed);
    assert!(
        reported.contains("3 orders would be resolved as sent: use --yes"),
        "{reported}"
    );
    assert_eq!(row(&shop, 1).await.state, State::Ambiguous);
    let done = does(&shop, &with(&["--yes"])).await;
    assert_eq!(done, "3 of 3 resolved as sent\n");
    let none = cannot(&shop, &with(&["--yes"])).await;
    assert!(none.contains("no order in the ledger matches"), "{none}");
    let left = does(&shop, &["ledger", "list", "--state", "ambiguous"]).await;
    assert!(left.starts_with("T-000004\t"), "{left}");
}

#[tokio::test]
async fn an_address_is_put_on_the_list_shown_by_its_hash_and_taken_off() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let list = ["--suppression-table", "spared"];
    let with = |words: &[&'static str]| [words, &list[..]].concat();
    let absent = with(&["suppress", "list"]);
    let reported = complaint(&command(&shop, &absent).output().await.unwrap());
    assert!(
        reported.contains("table spared does not exist"),
        "{reported}"
    );
    does(&shop, &with(&["tables", "create"])).await;
    let add = with(&["suppress", "add", "Ada@example.com", "--note", "bounced"]);
    assert!(does(&shop, &add).await.ends_with(": added\n"));
    assert!(does(&shop, &add).await.ends_with(": was on the list\n"));
    let listed = does(&shop, &absent).await;
    assert!(listed.ends_with("\tbounced\n"), "{listed}");
    assert!(!listed.to_lowercase().contains("ada"), "{listed}");
    let json = does(&shop, &with(&["suppress", "list", "--json"])).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["reason"], "bounced");
    // A damaged row does not prevent reading the others.
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
    let wrong = with(&["suppress", "add", "no address", "--note", "x"]);
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
    let (spared, why) = (address(2), ["--note", "bounced"]);
    let add = ["suppress", "add", &spared, spare, "spared"];
    does(&shop, &[&add, &why[..]].concat()).await;
    let mut run = process::command(&shop, &mails, None, "worker");
    run.args([spare, "spared", "--refetch", "--on-ambiguous", "park"])
        .args(["--suppress-when", "id == 'T-000003'"])
        .args(["--ehlo-name", "shop.example.com", "--smtp-connections", "2"]);
    let worker = run.spawn().unwrap();
    let finished = shop.finished(5, OnAmbiguous::Park);
    let rows = tokio::time::timeout(Duration::from_mins(1), finished).await;
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
