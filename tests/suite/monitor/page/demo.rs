//! The demo in a browser.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::browser::Browser;
use super::rows;

/// The demo at work, and there until this ends it; it is killed when this is dropped.
struct Demo {
    process: Child,
    out: Lines<BufReader<ChildStdout>>,
    page: String,
    inbox: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let suite = std::env::current_exe().unwrap();
        let built = suite.parent().and_then(|deps| deps.parent()).unwrap();
        let mut process = Command::new(built.join("examples/demo"))
            .args(arguments)
            .arg("--stay")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the demo is built: run tests/page/run.sh");
        let out = BufReader::new(process.stdout.take().unwrap()).lines();
        let reported = BufReader::new(process.stderr.take().unwrap());
        let mut lines = reported.lines().map(Result::unwrap);
        let mut address = |name: &str| {
            let line = lines.next().expect("the first lines are addresses");
            let address = line.strip_prefix(name).expect(name);
            address.trim().to_owned()
        };
        let (page, inbox) = (address("page:"), address("inbox:"));
        // Nobody reads any more; a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            out,
            page,
            inbox,
        }
    }

    /// Its account, once it has done everything.
    fn account(&mut self) -> Value {
        let line = self.out.next().expect("it tells its account");
        serde_json::from_str(&line.unwrap()).unwrap()
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn the_demo_shows_the_mails_that_it_caught_and_ends_with_its_account() {
    let mut demo = Demo::start(&["--orders", "40", "--rate", "4", "--crash", "1"]);
    let browser = Browser::start();
    let began = Instant::now();
    let mails = loop {
        browser.open(&demo.inbox);
        let mails = rows(&browser, "Mails");
        if mails.len() > 1 {
            break mails;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "no mails");
    };
    browser.picture("demo-inbox");
    let oldest = &mails[mails.len() - 1];
    assert!(oldest[0].starts_with("Your order D-0000"), "{oldest:?}");
    assert!(oldest[1].ends_with("@example.com"), "{oldest:?}");
    assert!(oldest[2].ends_with(" UTC"), "{oldest:?}");
    browser.open(&format!("{}/1", demo.inbox));
    assert_eq!(browser.text("h1"), oldest[0]);
    assert!(browser.text("pre").contains("thank you for your order"));
    let headers = rows(&browser, "Headers");
    assert!(
        headers.iter().any(|row| row[0] == "Message-ID"),
        "{headers:?}"
    );
    assert_eq!(
        browser.value("document.querySelector('iframe').sandbox.length"),
        0
    );
    browser.picture("demo-mail");
    browser.open(&format!("{}/1/html", demo.inbox));
    assert!(browser.text("body").contains("Thank you, Customer"));
    assert_eq!(browser.console(), Vec::<String>::new());
    // The worker crashed and was restarted; the page is about the present one.
    let account = demo.account();
    assert_eq!(
        (&account["orders"], &account["missing"]),
        (&40.into(), &0.into())
    );
    browser.open(&demo.page);
    browser.wait(
        "document.querySelector('[aria-label=Shards] tbody tr')?.children[1].innerText.trim()
           === 'reading'",
    );
    assert_eq!(rows(&browser, "Shards").len(), 1);
    browser.picture("demo-page");
    assert_eq!(browser.console(), Vec::<String>::new());
    demo.end();
}
