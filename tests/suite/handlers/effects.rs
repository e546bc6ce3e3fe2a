//! Several effects in one process: `aftercommit.toml` with an `[[effect]]` for each.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::cli::start::{on_shop, text};
use crate::fleet::process::Process;
use crate::support::embedded::Embedded;
use crate::support::handler_server::{HandlerServer, answer};
use crate::support::shop::Shop;

const LIMIT: Duration = Duration::from_mins(2);

/// A command with a file of these effects, each with its handler.
fn command(shop: &Shop, folder: &Path, effects: &[(&str, String)], arguments: &[&str]) -> Command {
    let mut file = "start = 'trim-horizon'\ngroup = 'shop'\n".to_owned();
    for (name, url) in effects {
        let effect = format!("[[effect]]\nname = '{name}'\nhandler = '{url}'\nid = 'id'\n");
        file.push_str(&effect);
    }
    let path = folder.join("aftercommit.toml");
    std::fs::write(&path, file).unwrap();
    let mut command = on_shop(shop);
    command.args(arguments).arg("--config").arg(path);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_of_one_process_get_every_order_and_one_that_is_down_holds_no_other() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let down = Arc::new(AtomicBool::new(true));
    let placed = HandlerServer::start(|_| answer(200, "", "{}")).await;
    let is_down = down.clone();
    let search = HandlerServer::start(move |_| {
        let status = if is_down.load(Ordering::Relaxed) {
            503
        } else {
            200
        };
        answer(status, "", "{}")
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let effects = [
        ("placed", placed.url("/placed")),
        ("search", search.url("/search")),
    ];
    let run = command(&shop, folder.path(), &effects, &["run"]);
    let mut worker = Process::start(run, folder.path(), "worker");
    shop.place(0..10).await;
    timeout(LIMIT, placed.wait(10)).await.unwrap();
    down.store(false, Ordering::Relaxed);
    let all = async {
        loop {
            let keys: std::collections::BTreeSet<_> = search
                .seen()
                .iter()
                .map(|one| one.header("idempotency-key").unwrap().to_owned())
                .collect();
            if keys.len() == 10 {
                return keys;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let keys = timeout(LIMIT, all).await.unwrap();
    assert!(
        keys.iter().all(|key| key.starts_with("search#")),
        "{keys:?}"
    );
    assert_eq!(placed.seen().len(), 10, "it is not called again");

    let mut list = command(&shop, folder.path(), &effects, &["effects", "list"]);
    let listed = list.output().await.unwrap();
    let listed = text(&listed.stdout);
    assert!(
        listed.contains("placed  table") && listed.contains("search  table"),
        "{listed}"
    );
    assert!(listed.contains("1 worker"), "{listed}");
    let retire = ["effects", "retire", "search"];
    let refused = command(&shop, folder.path(), &effects, &retire).output();
    let refused = refused.await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let why = text(&refused.stderr);
    assert!(
        why.contains("performs effect search: stop it first"),
        "{why}"
    );
    worker.stop().await;

    let retired = command(&shop, folder.path(), &effects, &retire).output();
    let retired = retired.await.unwrap();
    assert!(retired.status.success(), "{}", text(&retired.stderr));
    let listed = command(&shop, folder.path(), &effects, &["effects", "list"]).output();
    let listed = text(&listed.await.unwrap().stdout);
    assert!(!listed.contains("search"), "{listed}");
}
