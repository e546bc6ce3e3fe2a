//! Two versions in one fleet: through an upgrade and back.

use std::io::Write;
use std::sync::{Arc, Mutex};

use aftercommit::stores::leases::{Unfit, Unreadable};

use super::stage::{Stage, Worker, eventually, pass, secs};

/// The formats that the two builds read.
const OLDER: u32 = 1;
const NEWER: u32 = 2;

fn start(stage: &Stage, name: &str, reads: u32) -> Worker {
    let leases = stage.leases.of_build(reads);
    stage.worker_on(name, stage.stream.clone(), leases)
}

/// The formats of the leases, each once.
fn formats(stage: &Stage) -> Vec<u32> {
    let mut formats: Vec<_> = stage.view().leases.values().map(|row| row.format).collect();
    formats.sort_unstable();
    formats.dedup();
    formats
}

/// Commits to every shard; each record is handled, once.
async fn all_is_read(stage: &Stage, prefix: &str) {
    let count = stage.hand.done().len() + stage.commit_many(prefix, 40).len();
    eventually(secs(15), prefix, || stage.hand.done().len() >= count).await;
    pass(secs(15)).await;
    let handled = stage.hand.sorted();
    assert_eq!(handled.len(), count, "none of them twice");
    let mut each = handled.clone();
    each.dedup();
    assert_eq!(each, handled);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_one_by_one_loses_nothing_and_doubles_nothing() {
    let stage = Stage::new(4);
    let older = start(&stage, "older", OLDER);
    eventually(secs(5), "all", || stage.owned_by("older") == 4).await;
    all_is_read(&stage, "before").await;
    let _newer = start(&stage, "newer", NEWER);
    eventually(secs(15), "half of it", || stage.owned_by("newer") == 2).await;
    all_is_read(&stage, "both").await;
    assert_eq!(stage.owned_by("older"), 2);
    assert_eq!(formats(&stage), [OLDER], "both can read everything");
    older.leave().await;
    all_is_read(&stage, "after").await;
    assert_eq!(stage.owned_by("newer"), 4);
    assert_eq!(
        formats(&stage),
        [NEWER],
        "nobody is left who could not read it"
    );
}

#[tokio::test(start_paused = true)]
async fn an_older_worker_that_comes_back_can_take_everything_on() {
    let stage = Stage::new(4);
    let newer = start(&stage, "newer", NEWER);
    let dies = start(&stage, "dies", NEWER);
    eventually(secs(15), "half of it", || stage.owned_by("dies") == 2).await;
    all_is_read(&stage, "before").await;
    assert_eq!(formats(&stage), [NEWER]);
    // What a dead worker of the newer version held is to go to the older one, too.
    dies.crash().await;
    let _older = start(&stage, "older", OLDER);
    eventually(secs(20), "half of it", || stage.owned_by("older") == 2).await;
    pass(secs(5)).await;
    assert_eq!(formats(&stage), [OLDER]);
    all_is_read(&stage, "both").await;
    assert_eq!((stage.owned_by("newer"), stage.owned_by("older")), (2, 2));
    newer.leave().await;
    all_is_read(&stage, "after").await;
    assert_eq!(stage.owned_by("older"), 4);
}

/// Where a log goes that a test reads.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_worker_alone_leaves_what_it_cannot_read_and_says_so() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _told = tracing::subscriber::set_default(subscriber.finish());
    let stage = Stage::new(2);
    let newer = start(&stage, "newer", NEWER);
    eventually(secs(5), "all", || stage.owned_by("newer") == 2).await;
    newer.leave().await;
    let left = stage.view().leases;
    let _older = start(&stage, "older", OLDER);
    let names = stage.commit_many("item", 20);
    pass(secs(300)).await;
    assert_eq!(stage.view().leases, left);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for shard in left.keys() {
        let reported = log.lines().filter(|line| {
            line.contains("a row was written by a newer version and is left alone")
                && line.contains(shard.as_str())
        });
        assert_eq!(reported.count(), 1, "{log}");
    }
    let _newer = start(&stage, "newer", NEWER);
    eventually(secs(15), "all", || stage.hand.sorted() == names).await;
    eventually(secs(15), "half of it", || stage.owned_by("older") == 1).await;
}

/// Rows of kinds that only a later build can read: they are left alone, and the rest is read.
#[tokio::test(start_paused = true)]
async fn a_row_of_a_newer_worker_is_left_alone_and_the_rest_is_read() {
    let stage = Stage::new(4);
    let newer_shard = stage.stream.open_shards()[2].clone();
    let newer = [
        format!("shard#{newer_shard}"),
        "worker#newer/0000000000000001".to_owned(),
    ];
    let newer = newer.map(|row| Unreadable {
        row,
        why: Unfit::Newer { format: 2 },
    });
    stage.leases.tamper(|view| view.unreadable = newer.to_vec());
    let names = stage.commit_many("item", 40);
    let _older = stage.worker("older");
    eventually(secs(60), "the rest", || stage.owned_by("older") == 3).await;
    pass(secs(600)).await;
    let view = stage.view();
    assert_eq!(view.unreadable, newer, "reported, and as they were");
    assert!(!view.leases.contains_key(&newer_shard));
    let handled = stage.hand.done();
    assert!(handled.iter().all(|seen| seen.shard != newer_shard));
    assert!(!handled.is_empty() && handled.len() < names.len());
}
