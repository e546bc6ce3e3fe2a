//! Programs around a handler of their own: the examples, as a shell sees them.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aftercommit::EffectName;
use aftercommit::internal::claim::State;
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use aftercommit::stores::tables::dynamodb::create_orders_table;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use tokio::process::{Child, Command};

use crate::cli::ledger::leave_in_doubt;
use crate::cli::start::{complaint, text};
use crate::cli::tables::against;
use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::handler_server::{HandlerServer, Posted, Reaction, answer};

/// The example's program. It is built here, because `cargo test --test` builds no example.
pub fn built(example: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_aftercommit"))
        .parent()
        .unwrap();
    let mut cargo = std::process::Command::new(env!("CARGO"));
    // With the variables of this package, build scripts of dependencies would run again.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name != "CARGO_HOME") {
        if name.to_string_lossy().starts_with("CARGO") {
            cargo.env_remove(name);
        }
    }
    let built = cargo
        .args(["build", "--quiet", "--locked", "--all-features"])
        .args(["--example", example])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", folder.parent().unwrap())
        .status();
    assert!(built.unwrap().success());
    folder.join("examples").join(example)
}

/// A program on an embedded DynamoDB with a table of orders.
struct Program {
    path: PathBuf,
    dynamodb: Embedded,
    client: Client,
    set: Vec<(&'static str, String)>,
}

impl Program {
    async fn new(example: &str, set: Vec<(&'static str, String)>) -> Self {
        let dynamodb = Embedded::start();
        let client = clients::dynamodb(dynamodb.url());
        create_orders_table(&client, "orders").await.unwrap();
        let program = Self {
            path: built(example),
            dynamodb,
            client,
            set,
        };
        let created = program.output(&["tables", "create"]).await;
        assert!(created.status.success(), "{}", text(&created.stderr));
        program
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let like = against(&self.dynamodb);
        let mut command = Command::new(&self.path);
        command.env_clear().kill_on_drop(true);
        for (name, value) in like.as_std().get_envs() {
            command.env(name, value.unwrap());
        }
        command.env("AFTERCOMMIT_TABLE", "orders");
        command.envs(self.set.iter().cloned()).args(arguments);
        command
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    fn run(&self) -> Child {
        let mut command = self.command(&["run", "--start", "trim-horizon"]);
        command.args(["--lease-duration", "2s"]).spawn().unwrap()
    }

    async fn put(&self, id: &str, total: AttributeValue) {
        let put = self.client.put_item().table_name("orders");
        let put = put.item("id", AttributeValue::S(id.to_owned()));
        put.item("total", total).send().await.unwrap();
    }
}

fn number(n: u32) -> AttributeValue {
    AttributeValue::N(n.to_string())
}

/// Ends it as a container does.
async fn stop(mut child: Child) {
    let id = child.id().unwrap().to_string();
    let sent = Command::new("/bin/kill")
        .args(["-TERM", &id])
        .status()
        .await;
    assert!(sent.unwrap().success());
    assert!(child.wait().await.unwrap().success());
}

async fn create_totals(client: &Client) {
    let order = AttributeDefinition::builder().attribute_name("order");
    let order = order.attribute_type(ScalarAttributeType::S).build();
    let key = KeySchemaElement::builder().attribute_name("order");
    let key = key.key_type(KeyType::Hash).build();
    let table = client.create_table().table_name("order-totals");
    let table = table.billing_mode(BillingMode::PayPerRequest);
    let table = table.attribute_definitions(order.unwrap());
    table.key_schema(key.unwrap()).send().await.unwrap();
}

/// The totals that the projection shows, by the order's key.
async fn totals(client: &Client) -> Vec<String> {
    let rows = client.scan().table_name("order-totals").send();
    let rows = rows.await.unwrap();
    let shown = |row: &std::collections::HashMap<String, AttributeValue>| {
        let total = row.get("total").and_then(|total| total.as_n().ok());
        let total = total.map_or("removed", |total| total);
        format!("{} {total}", row["order"].as_s().unwrap())
    };
    let mut shown: Vec<_> = rows.items().iter().map(shown).collect();
    shown.sort();
    shown
}

#[tokio::test]
async fn a_program_has_its_own_name_and_flags_and_knows_nothing_of_mail() {
    for (example, name, about) in [
        (
            "projection",
            "order-totals",
            "Keeps the total of each order",
        ),
        (
            "search_index",
            "search-index",
            "Keeps an index of OpenSearch",
        ),
        ("webhook", "webhook", "Posts each new order to a URL"),
    ] {
        let path = built(example);
        let output = async |arguments: &[&str]| {
            let mut command = Command::new(&path);
            command.env_clear().args(arguments).output().await.unwrap()
        };
        let version = text(&output(&["--version"]).await.stdout);
        assert_eq!(version, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        let help = text(&output(&["--help"]).await.stdout);
        assert!(help.starts_with(about), "{help}");
        let of_run = text(&output(&["run", "--help"]).await.stdout);
        assert!(of_run.contains(&format!("[default: {name}]")), "{of_run}");
        assert_eq!(of_run.contains("--receiver <URL>"), example == "webhook");
        let of_redrive = text(&output(&["dead-letters", "redrive", "--help"]).await.stdout);
        let of_ledger = text(&output(&["ledger", "--help"]).await.stdout);
        let of_resolve = text(&output(&["ledger", "resolve", "--help"]).await.stdout);
        for text in [&help, &of_run, &of_redrive, &of_ledger, &of_resolve] {
            for word in ["mail", "smtp", "template", "--handler ", "send-test"] {
                assert!(!text.contains(word), "{word} is in {text}");
            }
        }
        for wrong in [
            &["run", "--table", "orders", "--mail-from", "a@example.com"] as &[_],
            &["run", "--table", "orders", "--handler", "http://localhost"],
            &["send", "1042"],
            &["preview"],
        ] {
            let reported = complaint(&output(wrong).await);
            assert!(reported.contains("see --help"), "{reported}");
        }
    }
}

#[tokio::test]
async fn a_projection_shows_each_order_as_it_is_now() {
    let program = Program::new("projection", Vec::new()).await;
    create_totals(&program.client).await;
    for total in 1..4 {
        program.put("P-1", number(total)).await;
        program.put("P-2", number(10 * total)).await;
    }
    let delete = program.client.delete_item().table_name("orders");
    let delete = delete.key("id", AttributeValue::S("P-2".to_owned()));
    delete.send().await.unwrap();
    let worker = program.run();
    let expected = ["2:id4:SP-1 3", "2:id4:SP-2 removed"];
    while totals(&program.client).await != expected {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = program.output(&["status", "--json"]).await;
    let shown = text(&status.stdout);
    assert!(shown.contains("\"order-totals\""), "{shown}");
    assert_eq!(status.status.code(), Some(0), "{shown}");
    stop(worker).await;
    let explained = program.output(&["explain", "P-1", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&explained.stdout).unwrap();
    assert_eq!(shown["item"]["total"], 3, "{shown}");
}

#[tokio::test]
async fn a_program_shows_and_resolves_what_its_handler_left_in_doubt() {
    let receiver = ("WEBHOOK_RECEIVER", "http://127.0.0.1:9/".to_owned());
    let program = Program::new("webhook", vec![receiver]).await;
    let key = EffectKey::new(&EffectName::new("webhook").unwrap(), "W-1");
    let retention = Duration::from_hours(24 * 401);
    let ledger = DynamoDbLedger::new(program.client.clone(), "aftercommit-ledger", retention);
    leave_in_doubt(&ledger, &key).await;

    let reported = async |arguments: &[&str]| {
        let output = program.output(arguments).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let listed = reported(&["ledger", "list", "--state", "ambiguous"]).await;
    assert!(listed.starts_with("W-1\tAMBIGUOUS\twebhook\t"), "{listed}");
    let effect = ["--effect", "webhook"];
    let shown = reported(&[&["ledger", "show", "W-1"], &effect[..]].concat()).await;
    assert!(shown.contains("AMBIGUOUS"), "{shown}");
    let resolve = [
        "ledger",
        "resolve",
        "W-1",
        "--sent",
        "--note",
        "it is in their log",
    ];
    let resolved = reported(&[&resolve, &effect[..]].concat()).await;
    assert!(resolved.starts_with("order W-1 is now SENT"), "{resolved}");
    let state = ledger.read(&key).await.unwrap().unwrap().state;
    assert_eq!(state, State::Sent);
}

#[tokio::test]
async fn a_dead_letter_is_redriven_with_the_programs_own_handler() {
    let good = Arc::new(AtomicBool::new(false));
    let is_good = good.clone();
    let server = HandlerServer::start(move |_| {
        let status = if is_good.load(Ordering::Relaxed) {
            204
        } else {
            400
        };
        answer(status, "", "")
    });
    let server = server.await;
    let receiver = ("WEBHOOK_RECEIVER", server.url("/orders"));
    let program = Program::new("webhook", vec![receiver]).await;
    program.put("W-1", number(7)).await;
    program
        .put("W-2", AttributeValue::S("seven".to_owned()))
        .await;
    let worker = program.run();
    let listed = loop {
        let listed = text(&program.output(&["dead-letters", "list"]).await.stdout);
        if listed.lines().count() == 2 {
            break listed;
        }
    };
    stop(worker).await;
    assert!(listed.contains("answer 400"), "{listed}");
    assert!(listed.contains("total"), "{listed}");
    good.store(true, Ordering::Relaxed);
    let redrive = ["dead-letters", "redrive", "--key", "W-1"];
    let redriven = program.output(&redrive).await;
    assert!(redriven.status.success(), "{}", text(&redriven.stderr));
    assert!(text(&redriven.stdout).starts_with("1 letter redriven"));
    let last = server.seen().pop().unwrap();
    assert_eq!(last.header("idempotency-key"), Some("W-1"));
    assert_eq!(last.body()["total"], 7);
    // Another program's handler is not this one's.
    let mut other = against(&program.dynamodb);
    let other = other.args(["dead-letters", "redrive", "--all", "--group", "webhook"]);
    let reported = complaint(
        &other
            .args(["--handler", &server.url("/")])
            .output()
            .await
            .unwrap(),
    );
    assert!(reported.contains("a program of yours"), "{reported}");
}

/// What an index answers to a bulk call, in which it rejects the order S-13.
fn indexed(posted: &Posted) -> Reaction {
    let lines = String::from_utf8(posted.raw.clone()).unwrap();
    let actions = lines.lines().step_by(2);
    let item = |action: &str| {
        let status = if action.contains("S-13") { 400 } else { 200 };
        serde_json::json!({"update": {"status": status}})
    };
    let items: Vec<_> = actions.map(item).collect();
    answer(200, "", &serde_json::json!({"items": items}).to_string())
}

#[tokio::test]
async fn a_search_index_gets_many_changes_in_a_call_and_rejects_one_of_them() {
    let server = HandlerServer::start(indexed).await;
    let program = Program::new(
        "search_index",
        vec![("SEARCH_INDEX", server.url("/orders"))],
    )
    .await;
    for order in 0..60 {
        program.put(&format!("S-{order}"), number(order)).await;
    }
    let worker = program.run();
    let listed = loop {
        let listed = text(&program.output(&["dead-letters", "list"]).await.stdout);
        if listed.lines().count() == 1 {
            break listed;
        }
    };
    assert!(listed.contains("answer 400"), "{listed}");
    let indexed = || {
        let calls = server.seen();
        let lines = calls
            .iter()
            .map(|call| String::from_utf8_lossy(&call.raw).lines().count());
        (calls.len(), lines.sum::<usize>() / 2)
    };
    while indexed().1 < 60 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop(worker).await;
    let (calls, changes) = indexed();
    assert_eq!(changes, 60);
    assert!(calls <= 20, "{calls} calls");
}
