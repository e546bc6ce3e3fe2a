//! Worker processes with three effects, two emails and a handler in Python, killed and frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercommit::internal::claim::{Entry, OnAmbiguous, State};
use aftercommit::stores::dead_letter::Selection;
use aftercommit::stores::ledger::EffectKey;
use serde_json::Value;
use tokio::time::{interval, sleep, timeout};

use super::{Program, python};
use crate::cli::start::{on_shop, text};
use crate::fleet::storm::{Blow, Storm, folder, mail_server_late_by};
use crate::support::embedded::Embedded;
use crate::support::http::get;
use crate::support::letters::listed;
use crate::support::mail_server::MailServer;
use crate::support::shop::{Shop, id, is_doubt, is_finished};
use crate::support::streams_server::StreamsServer;

const POLICY: OnAmbiguous = OnAmbiguous::Resend;
const ORDERS: usize = 300;
/// Longer than a busy machine lets a worker wait.
const LEASE: Duration = Duration::from_secs(4);
/// Far more than it takes, which is about a minute.
const LIMIT: Duration = Duration::from_mins(6);
/// How many orders are placed at a time, or shipped.
const BATCH: usize = 10;
/// How many batches later orders are shipped.
const TRANSIT: usize = 4;
/// How long processes are struck, and how long orders come in.
const STORM: Duration = Duration::from_secs(30);
/// How long after an effect its answer comes: a process that is struck in between cannot know.
const LATE: Duration = Duration::from_millis(200);
const MAILS: [&str; 2] = ["placed", "shipped"];
const BOOKS: &str = "books";

/// The handler that counts its calls.
pub const COUNTING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/handlers/counting.py");

/// `aftercommit.toml` with an email when an order is placed, another one when it is shipped, and a call for
/// each change.
fn config(folder: &Path, smtp: &str, handler: &str) -> PathBuf {
    for mail in MAILS {
        let templates = folder.join(mail);
        std::fs::create_dir(&templates).unwrap();
        for file in ["subject.txt", "body.txt"] {
            let template = format!("{mail}#{{{{ order.id }}}}");
            std::fs::write(templates.join(file), template).unwrap();
        }
    }
    let (placed, shipped) = (folder.join("placed"), folder.join("shipped"));
    let file = format!(
        r#"
start = "trim-horizon"
smtp-url = "{smtp}"
mail-from = "Shop <shop@example.com>"

[[effect]]
name = "placed"
template-dir = '{}'

[[effect]]
name = "shipped"
template-dir = '{}'
filter = '{{"dynamodb": {{"NewImage": {{"status": {{"S": ["SHIPPED"]}}}}}}}}'

[[effect]]
name = "{BOOKS}"
handler = "{handler}"
once = true
filter = '{{"eventName": ["INSERT", "MODIFY"]}}'
"#,
        placed.display(),
        shipped.display()
    );
    let path = folder.join("aftercommit.toml");
    std::fs::write(&path, file).unwrap();
    path
}

async fn trade(shop: Arc<Shop>) {
    let batches = ORDERS / BATCH;
    let step = STORM / u32::try_from(batches + TRANSIT).unwrap();
    // Missed ones are made up for, so that a busy machine does not prolong the storm.
    let mut steps = interval(step);
    for batch in 0..batches + TRANSIT {
        steps.tick().await;
        let orders = |batch: usize| batch * BATCH..(batch + 1) * BATCH;
        if batch < batches {
            shop.place(orders(batch)).await;
        }
        if let Some(shipped) = batch.checked_sub(TRANSIT) {
            shop.ship(orders(shipped)).await;
        }
    }
}

/// Waits until every effect of every order has a row, and nothing more is going to happen to any.
async fn finished(shop: &Shop) -> BTreeMap<EffectKey, Entry> {
    let all = ORDERS * (MAILS.len() + 2);
    loop {
        let began = Instant::now();
        let rows = shop.all_rows().await;
        if rows.len() >= all && rows.values().all(|row| is_finished(row, POLICY)) {
            assert_eq!(rows.len(), all);
            return rows;
        }
        // The workers need the server, too.
        sleep(began.elapsed() * 10).await;
    }
}

/// A call of the handler.
pub struct Call {
    pub key: String,
    pub order: String,
    event: String,
    sequence: u128,
    pub receipt: String,
}

pub async fn calls(handler: &Program) -> Vec<Call> {
    let address = format!("127.0.0.1:{}", handler.port);
    let calls: Vec<Vec<String>> = serde_json::from_str(&get(&address, "/").await.body).unwrap();
    let call = |call: Vec<String>| {
        let [key, order, event, sequence, receipt] = call.try_into().unwrap();
        Call {
            key,
            order,
            event,
            sequence: sequence.parse().unwrap(),
            receipt,
        }
    };
    calls.into_iter().map(call).collect()
}

/// Each change of each order was handled, and the changes of an order in their order. A change that was in
/// doubt twice is given up, and a process that thaws may still make its call.
fn check_order(calls: &[Call], rows: &BTreeMap<EffectKey, Entry>) {
    let mut handled: BTreeMap<&str, Vec<(&str, u128)>> = BTreeMap::new();
    for call in calls {
        let of_order = handled.entry(&call.order).or_default();
        let change = (&*call.event, call.sequence);
        // A change that was in doubt comes once more.
        if !of_order.contains(&change) {
            of_order.push(change);
        }
    }
    let books = rows.iter().filter(|(key, _)| key.effect() == BOOKS);
    let given_up = books.filter(|(_, row)| row.doubtful.len() > 1);
    let given_up = given_up.map(|(_, row)| row.item.as_ref().unwrap().to_string());
    let given_up: Vec<_> = given_up.collect();
    for order in (0..ORDERS).map(id) {
        let changes = handled.remove(&*order).unwrap_or_default();
        let events: Vec<_> = changes.iter().map(|(event, _)| *event).collect();
        let in_order = events == ["INSERT", "MODIFY"] && changes[0].1 < changes[1].1;
        let excused = || given_up.iter().any(|item| item.contains(&order));
        assert!(in_order || excused(), "{order}: {changes:?}");
    }
}

/// How often each effect took place, by its key.
fn counts(mails: &MailServer, calls: &[Call]) -> BTreeMap<String, usize> {
    let mut counts = mails.by_header("Subject");
    for call in calls {
        *counts.entry(call.key.clone()).or_default() += 1;
    }
    counts
}

/// What the command lists as in doubt at some time.
async fn listed_doubts(shop: &Shop) -> BTreeSet<String> {
    let mut list = on_shop(shop);
    let listed = list.args(["ledger", "list", "--json"]).output().await;
    let listed = listed.unwrap();
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    let rows = text(&listed.stdout);
    let rows = rows
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).unwrap() });
    let doubts = rows.filter(|row| row["ambiguities"].as_u64() > Some(0));
    let key = |row: Value| row["effect_key"].as_str().unwrap().to_owned();
    doubts.map(key).collect()
}

async fn rage(server: &Embedded) {
    let shop = Arc::new(Shop::open(server.url()).await);
    let streams = StreamsServer::start(server, &shop.arn, 6);
    let mails = mail_server_late_by(LATE).await;
    let folder = folder("effects");
    let log = File::create(folder.join("handler.log")).unwrap();
    let late = LATE.as_secs_f64().to_string();
    let handler = Program::start(&python(), (COUNTING.to_owned(), &[("LATE", &late)]), log).await;
    let config = config(&folder, &mails.url(), &handler.url());
    let (of, streams_url) = (shop.clone(), streams.url().to_owned());
    let mut storm = Storm::start((shop.clone(), LEASE), folder, move |name| {
        let mut command = on_shop(&of);
        command
            .args(["run", "--worker-id", name])
            .arg("--config")
            .arg(&config);
        command.args(["--streams-endpoint-url", &streams_url]);
        command
    });
    let blows = [Blow::Kill, Blow::Kill, Blow::Freeze];
    storm.rage((STORM, &blows, 0), trade(shop.clone())).await;
    let calm = Instant::now();
    let rows = finished(&shop).await;
    eprintln!(
        "finished {:.1} s after the storm",
        calm.elapsed().as_secs_f64()
    );
    storm.stop().await;

    let calls = calls(&handler).await;
    let (counts, listed_doubts) = (counts(&mails, &calls), listed_doubts(&shop).await);
    let mut doubts: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, row) in &rows {
        let count = counts.get(key.as_str()).copied().unwrap_or(0);
        if is_doubt(key.as_str(), row, count, POLICY) {
            *doubts.entry(key.effect()).or_default() += 1;
            assert!(listed_doubts.contains(key.as_str()), "{key} is not listed");
        }
        if key.effect() == BOOKS && row.state == State::Sent {
            let mut of_key = calls.iter().filter(|call| call.key == key.as_str());
            let is_kept = |call: &Call| row.reply.as_deref() == Some(&call.receipt);
            assert!(of_key.any(is_kept), "{key}: {row:?}");
        }
    }
    let keys: BTreeSet<_> = rows.keys().map(EffectKey::as_str).collect();
    for mail in MAILS {
        let mut orders = (0..ORDERS).map(id);
        let all = orders.all(|order| keys.contains(&*format!("{mail}#{order}")));
        assert!(all, "{mail}");
    }
    let stranger = counts.keys().find(|key| !keys.contains(&***key));
    assert_eq!(stranger, None, "an effect without a row");
    check_order(&calls, &rows);
    let twice = counts.values().filter(|count| **count > 1).count();
    eprintln!("{ORDERS} orders, effects in doubt: {doubts:?}, {twice} took place twice");
    let letters = listed(&shop.dead_letters(), &Selection::default()).await;
    assert!(letters.is_empty(), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python: run tests/handlers/run.sh"]
async fn three_effects_of_processes_that_are_struck_take_place_once_or_the_ledger_names_the_doubt()
{
    let server = Embedded::start();
    timeout(LIMIT, rage(&server)).await.unwrap();
}
