//! The page as a worker serves it.

use super::browser::Browser;
use super::{rows, total};

use crate::fleet::process::{Process, command};
use crate::monitor::watching::{served, trading};
use crate::support::embedded::Embedded;

// The browser's calls block; the servers have the other threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Chromium: run tests/page/run.sh"]
async fn a_worker_at_work_is_seen_through_its_own_server() {
    let server = Embedded::start();
    let (shop, mails) = trading(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&shop, &mails, None, "one");
    command.args(["--http", "127.0.0.1:0"]);
    let process = Process::start(command, folder.path(), "one");
    let url = format!("http://{}/", served(&shop).await);
    let browser = Browser::start();
    browser.looks(1600, 900, false);
    browser.open(&url);
    for (head, n) in [
        ("Mails accepted", "20"),
        ("Failed", "1"),
        ("Dead letters", "2"),
        ("Parked keys", "2"),
        ("Gaps", "0"),
    ] {
        browser.wait(&format!(
            "[...document.querySelectorAll('#totals > div')]
               .some((one) => one.children[0].innerText === {head:?} && one.children[1].innerText === {n:?})"
        ));
    }
    assert_eq!(total(&browser, "Dead letters").1, "2 rejected");
    browser.wait("document.querySelector('h1').innerText === 'Needs attention'");
    assert!(browser.text("#advice").contains("aftercommit dead-letters"));
    assert!(browser.text("#process").starts_with("one"));
    // The totals are from the work before it: it may not have taken the shard yet.
    browser
        .wait("document.querySelector('[aria-label=Shards] tbody').innerText.includes('reading')");
    let shards = rows(&browser, "Shards");
    assert_eq!((shards.len(), &*shards[0][1]), (1, "reading"), "{shards:?}");
    assert!(shards[0][2].starts_with("one"), "{shards:?}");
    let workers = rows(&browser, "Workers");
    assert_eq!(workers[0][5], env!("CARGO_PKG_VERSION"), "{workers:?}");
    browser.wait("document.querySelector('#curves path.line').getAttribute('d').includes('L')");
    browser.picture("worker");
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(process);
    browser.wait("!document.getElementById('silence').hidden");
    assert_eq!(
        browser.text("#silence"),
        "The worker does not answer. This is the last picture."
    );
}
