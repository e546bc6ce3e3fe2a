//! The page of a worker, as its user sees it in Chromium.
//!
//! Run by `tests/page/run.sh`, which gets the browser.

mod browser;
mod demo;
mod documents;
mod site;
mod views;
mod worker;

use serde_json::{Value, json};

use browser::Browser;
use documents::{empty, id, shard, troubled, well};
use site::Site;

const MARKUP: &str = "<img src=x onerror=alert(1)> <b>&amp;</b>";

/// A site that serves a document, and a browser that shows it.
fn shown(document: Value) -> (Site, Browser) {
    let site = Site::start(document);
    let browser = Browser::start();
    browser.looks(1600, 900, false);
    browser.open(&site.url);
    browser.wait("!document.getElementById('picture').hidden");
    (site, browser)
}

/// The cells of each row of a table, as a user reads them.
fn rows(browser: &Browser, table: &str) -> Vec<Vec<String>> {
    let cells = browser.value(&format!(
        "[...document.querySelectorAll('[aria-label={table}] tbody tr')]
           .map((row) => [...row.children].map((cell) => cell.innerText.trim()))"
    ));
    serde_json::from_value(cells).unwrap()
}

/// A total and the text below it.
fn total(browser: &Browser, head: &str) -> (String, String) {
    let reported = browser.value(&format!(
        "[...document.querySelectorAll('#totals > div')]
           .filter((one) => one.children[0].innerText === {head:?})
           .flatMap((one) => [one.children[1].innerText, one.children[2].innerText])"
    ));
    serde_json::from_value(reported).unwrap()
}

/// There were no complaints, and no requests to other hosts.
fn assert_clean(site: &Site, browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new());
    let requests = browser.requests();
    // The browser's first tab was a page within the browser.
    let own = |url: &&String| {
        [&*site.url, "data:", "chrome:", "chrome-untrusted:"]
            .iter()
            .any(|one| url.starts_with(one))
    };
    assert_eq!(requests.iter().find(|url| !own(url)), None);
    let looks = requests.iter().filter(|url| url.ends_with("/status.json"));
    assert!(looks.count() > 0, "{requests:?}");
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn a_fleet_that_is_well_is_shown_in_one_line_with_each_shard_below_its_parent() {
    let (site, browser) = shown(well());
    assert_eq!(browser.text("h1"), "All is well");
    assert_eq!(
        browser.value("document.querySelectorAll('#advice li').length"),
        0
    );
    assert_eq!(
        browser.value("document.title"),
        "All is well · orders · aftercommit"
    );
    let arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders";
    assert_eq!(
        browser.text("#streams .arn"),
        format!("Group confirmation · effect order-mail · {arn}")
    );
    let living = [
        "reading",
        "worker-1/a1b2",
        "3",
        "0.4 s",
        "24 h",
        "1,840 /min",
        "",
    ];
    let gone = ["ended", "–", "3", "–", "–", "–", ""];
    let row =
        |name: String, rest: [&str; 7]| [name].into_iter().chain(rest.map(str::to_owned)).collect();
    let child = |n| format!("{}, child of {}", id(n), id(1));
    let expected: Vec<Vec<String>> = vec![
        row(id(1), gone),
        row(child(2), living),
        row(child(3), living),
    ];
    let shards = rows(&browser, "Shards");
    let plain: Vec<Vec<String>> = shards
        .into_iter()
        .map(|row| row.into_iter().map(|cell| cell.replace('\n', "")).collect())
        .collect();
    assert_eq!(plain, expected);
    let indent = |row: u32| {
        let cell = format!("document.querySelectorAll('[aria-label=Shards] tbody th')[{row}]");
        let padding = browser.value(&format!("parseFloat(getComputedStyle({cell}).paddingLeft)"));
        padding.as_f64().unwrap()
    };
    assert!(indent(1) > indent(0), "a child is indented");
    let workers = rows(&browser, "Workers");
    assert_eq!(
        workers[0],
        [
            "worker-1/a1b2",
            "alive",
            "1.2 s ago",
            "2",
            "eu-central-1a",
            "0.1.0"
        ]
    );
    assert_eq!(
        total(&browser, "Mails accepted"),
        ("12,345".into(), "by this worker since 06:00:00 UTC".into())
    );
    assert_eq!(
        total(&browser, "Deferred"),
        ("3".into(), "4 suppressed, 0 parked".into())
    );
    assert_eq!(
        total(&browser, "Read ahead"),
        ("120.6 KiB".into(), "of 64 MiB".into())
    );
    assert!(
        browser
            .text("body")
            .contains("No gaps: nothing left the stream")
    );
    browser.picture("well-wide-light");
    assert_clean(&site, &browser);
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn trouble_is_reported_with_what_to_do_and_where_it_is() {
    let (site, browser) = shown(troubled("!"));
    assert_eq!(browser.text("h1"), "Needs attention");
    assert_eq!(browser.text("#advice"), "Start a worker. !\nResolve it. !");
    assert_eq!(
        browser.text("#process"),
        "worker-1 · version 0.1.0 · not ready: no heartbeat ! · a dependency has been down for 1 min 15 s"
    );
    for (head, n, more) in [
        ("Ambiguous", "2", "orders that may have been mailed"),
        ("Failed", "1", "mails refused for good, by this worker"),
        ("Dead letters", "1,201", "1,200 exhausted, 1 rejected"),
        (
            "Parked keys",
            "2",
            "whose records wait behind a dead letter",
        ),
        ("Gaps", "1", "records trimmed before they were read"),
    ] {
        assert_eq!(
            total(&browser, head),
            (n.to_owned(), more.to_owned()),
            "{head}"
        );
    }
    let shard = &rows(&browser, "Shards")[2];
    assert_eq!(shard[1..4], ["orphaned", "worker-2/c3d4 !", "3"]);
    assert_eq!(
        shard[4..],
        [
            "1 h 21 min",
            "2 h 30 min",
            "0 /min",
            "smtp: connection refused !"
        ]
    );
    assert_eq!(
        rows(&browser, "Workers")[1][1..3],
        ["silent", "1 h 21 min ago"]
    );
    let gaps = rows(&browser, "Gaps");
    let reported = [
        "100000000000000000007 !",
        "2026-11-24 07:00:00 UTC",
        "nothing yet",
        "2026-11-25 07:30:00 UTC",
        "not yet",
    ];
    assert_eq!(gaps[0][1..], reported);
    assert_eq!(gaps[1].last().unwrap(), "ada: mailed !");
    assert_eq!(rows(&browser, "Unreadable"), [["shard#9 !", "no epoch !"]]);
    browser.value("document.querySelector('input[value=troubled]').click()");
    assert_eq!(
        rows(&browser, "Shards").len(),
        1,
        "only the shard in trouble"
    );
    browser.picture("troubled-wide-light");
    assert_clean(&site, &browser);
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn the_curves_have_the_history_s_points_and_say_the_worst() {
    let (_site, browser) = shown(well());
    for (number, reported, points) in [
        (1, "Lag\n0.1 s\nhighest 9 s at 07:45:00 UTC", 360),
        (2, "Time to trim\n24 h\nlowest 24 h at 07:45:00 UTC", 360),
        (
            3,
            "Records finished\n600 /min\nhighest 600 /min at 07:59:55 UTC",
            359,
        ),
        (
            4,
            "Mails accepted\n120 /min\nhighest 120 /min at 07:59:55 UTC",
            359,
        ),
    ] {
        let figure = format!("#curves figure:nth-child({number})");
        assert_eq!(browser.text(&format!("{figure} figcaption")), reported);
        let path = format!(
            "document.querySelector('{figure} path.line').getAttribute('d').split(/[ML]/).length - 1"
        );
        assert_eq!(browser.value(&path), points, "{reported}");
    }
    // The value under the pointer, in the middle of the half hour.
    let place = browser.value("(({left, top, width}) => [left + width / 2, top + 9])(document.querySelector('#curves svg').getBoundingClientRect())");
    browser.devtools(
        "Input.dispatchMouseEvent",
        &json!({"type": "mouseMoved", "x": place[0], "y": place[1]}),
    );
    browser.wait("document.querySelector('#curves .note').innerText === 'at 07:45:00 UTC'");
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn the_page_follows_the_worker_without_a_reload() {
    let (site, browser) = shown(well());
    browser.value("window.mark = 'the same document'");
    let mut later = troubled("!");
    let shards = later["streams"][0]["shards"].as_array_mut().unwrap();
    shards.remove(0);
    shards.push(shard(4, Some(3)));
    site.set(Some(later));
    browser.wait("document.querySelector('h1').innerText === 'Needs attention'");
    assert_eq!(browser.value("window.mark"), "the same document");
    let shards: Vec<String> = rows(&browser, "Shards")
        .into_iter()
        .map(|mut row| row.remove(0))
        .collect();
    let ids = shards.iter().map(|name| &name[..id(2).len()]);
    assert!(ids.eq([id(2), id(3), id(4)]), "{shards:?}");
    // A shard's own curve grows by a point with each look.
    let points = "document.querySelector('.spark path').getAttribute('d').split(/[ML]/).length - 1";
    browser.wait(&format!("{points} >= 3"));
    assert_clean(&site, &browser);
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn markup_in_the_document_stays_text() {
    let (site, browser) = shown(troubled(MARKUP));
    assert_eq!(
        rows(&browser, "Shards")[2][7],
        format!("smtp: connection refused {MARKUP}")
    );
    assert_eq!(
        browser.text("#advice li"),
        format!("Start a worker. {MARKUP}")
    );
    assert_eq!(
        browser.value("document.querySelectorAll('main :is(img, b)').length"),
        0
    );
    let reported = browser.text("body").matches(MARKUP).count();
    assert_eq!(reported, 12, "every text of the document is shown");
    assert_clean(&site, &browser);
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn the_age_of_the_picture_is_that_of_its_rows() {
    let mut late = well();
    // 40 s after its rows were read.
    late["answered"] = "2026-11-25T08:00:39.000Z".into();
    let (_site, browser) = shown(late);
    browser.wait("/^4\\d seconds old$/.test(document.getElementById('age').innerText)");
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn a_worker_that_does_not_answer_leaves_its_last_picture_greyed_and_its_age() {
    let (site, browser) = shown(well());
    let opacity = "getComputedStyle(document.getElementById('picture')).opacity";
    assert_eq!(browser.value(opacity), "1");
    site.set(None);
    browser.wait("!document.getElementById('silence').hidden");
    assert_eq!(
        browser.text("#silence"),
        "The worker answers 503 Service Unavailable. This is the last picture."
    );
    assert_eq!(browser.value(opacity), "0.5");
    assert_eq!(rows(&browser, "Shards").len(), 3);
    let age = browser.wait("/^([3-9]|\\d\\d) seconds old, next look in [34] s$/.exec(document.getElementById('age').innerText)?.[0]");
    browser.picture("no-answer");
    site.set(Some(well()));
    browser.wait("document.getElementById('silence').hidden");
    assert_eq!(browser.value(opacity), "1", "{age}");
    drop(site);
    browser.wait("!document.getElementById('silence').hidden");
    assert_eq!(
        browser.text("#silence"),
        "The worker does not answer. This is the last picture."
    );
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn a_document_of_another_format_is_not_guessed_at() {
    let (site, browser) = shown(well());
    let mut later = troubled("!");
    later["format"] = json!(2);
    site.set(Some(later));
    browser.wait("!document.getElementById('silence').hidden");
    assert_eq!(
        browser.text("#silence"),
        "The worker's document has format 2, this page reads 1: reload it. This is the last picture."
    );
    assert_eq!(browser.text("h1"), "All is well");
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn where_there_is_nothing_yet_the_page_says_what_comes_there() {
    let (site, browser) = shown(empty());
    assert_eq!(browser.text("h1"), "Cannot tell");
    let text = browser.text("main");
    for reported in [
        "No shard yet. A worker lists",
        "Nobody reads this stream. Start a worker: aftercommit run --table",
        "begins a few seconds after the worker's start",
    ] {
        assert!(text.contains(reported), "{reported}: {text}");
    }
    assert_eq!(
        total(&browser, "Dead letters").0,
        "–",
        "not known is not zero"
    );
    let mut none = empty();
    none["streams"] = json!([]);
    none["process"] = Value::Null;
    site.set(Some(none));
    browser.wait("document.querySelector('main').innerText.includes('No stream yet')");
    browser.picture("empty");
    assert_clean(&site, &browser);
}
