//! What a worker's log says, and what it never says.

use std::path::Path;
use std::time::Duration;

use aftercommit::stores::dead_letter::DeadLetters as _;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::fleet::process::{Process, Signal, command};
use crate::monitor::watching::place_bad;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address, id};

const LIMIT: Duration = Duration::from_mins(4);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// No number that a clock could show.
const TOTAL: &str = "98765432101234";

/// An order that is part of a trace.
async fn place_traced(shop: &Shop) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = shop.client.put_item().table_name(&shop.orders);
    let put = put
        .item("id", text("traced"))
        .item("email", text("traced-customer@example.com"))
        .item("name", text("Zebulon Quist"))
        .item("note", text("leave it at the neighbour's"))
        .item("total", AttributeValue::N(TOTAL.to_owned()))
        .item("currency", text("EUR"))
        .item(
            "traceparent",
            text(&format!("00-{TRACE}-00f067aa0ba902b7-01")),
        );
    put.send().await.unwrap();
}

/// What the customers wrote, and what their mails say.
fn private(mails: &MailServer) -> Vec<String> {
    let mut words: Vec<_> = (0..10).map(address).collect();
    let of_traced = ["traced-customer", "Zebulon", "Quist", "neighbour", TOTAL];
    words.extend(of_traced.map(str::to_owned));
    for mail in mails.accepted() {
        let text = mail.text();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        // What is the same in every form, such as a boundary's dashes, is short.
        let lines = body.lines().map(str::trim).filter(|line| line.len() > 12);
        words.extend(lines.map(str::to_owned));
        words.push(mail.header("Subject").unwrap());
    }
    words
}

#[tokio::test]
async fn the_log_of_a_whole_run_names_orders_and_traces_and_no_address_and_no_mail() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    let to = |n, step, act| Fault::once(step, act).for_recipient(&address(n));
    let words = "550 5.1.1 <customer-1@example.com> nobody of that name";
    mails.add(to(1, Step::Rcpt, Act::Say(words)));
    mails.add(to(
        2,
        Step::Rcpt,
        Act::Say("450 4.2.1 <customer-2@example.com> not now"),
    ));
    mails.add(to(3, Step::Dot, Act::Close));
    mails.add(to(
        4,
        Step::Dot,
        Act::Say("554 5.7.1 <customer-4@example.com> is spam"),
    ));
    mails.add(to(
        5,
        Step::Dot,
        Act::Say("451 4.3.0 customer-5@example.com again"),
    ));
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&shop, &mails, None, "one");
    command.env("RUST_LOG", "debug").args(["--metrics", "emf"]);
    let lines = folder.path().join("lines");
    command.stdout(std::fs::File::create(&lines).unwrap());
    let mut process = Process::start(command, folder.path(), "one");
    let log = folder.path().join("one.log");
    let run = async {
        shop.place(0..10).await;
        place_bad(&shop).await;
        place_traced(&shop).await;
        // All but 1; the ambiguous one and those that were refused or deferred once more.
        mails.wait_accepted(10).await;
        loop {
            if shop
                .dead_letters()
                .parked(&shop.letters_at())
                .await
                .unwrap()
                .keys
                .len()
                == 2
            {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        process.signal(Signal::Stop).await;
        assert_eq!(process.ended().await.code(), Some(0));
    };
    timeout(LIMIT, run).await.unwrap();

    let log = std::fs::read_to_string(log).unwrap();
    for said in [
        "\"finished\"",
        "confirmed",
        "AMBIGUOUS",
        "dead letter",
        "deferred it",
        &id(7),
    ] {
        assert!(log.contains(said), "{said}");
    }
    let reported = log + &std::fs::read_to_string(lines).unwrap();
    for word in private(&mails) {
        let found = reported.lines().find(|line| line.contains(&word));
        assert_eq!(found, None, "{word:?} is in the log");
    }
    let events: Vec<Value> = reported
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let traced = events
        .iter()
        .filter(|event| event["span"]["trace_id"] == TRACE);
    let traced: Vec<_> = traced
        .filter_map(|event| event["message"].as_str())
        .collect();
    assert!(
        traced.contains(&"confirmed") && traced.contains(&"finished"),
        "{traced:?}"
    );
    let finished = events
        .iter()
        .filter(|event| event["message"] == "finished")
        .count();
    assert_eq!(finished, 12, "one event for each record");
}

/// An error that prints its source and hands it on as its source is printed twice by whoever prints the
/// whole chain.
#[test]
fn no_error_prints_a_source_that_it_also_hands_on() {
    let (mut found, mut files) = (Vec::new(), Vec::new());
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    crate::repository::arrows::files(&src, &mut files);
    assert!(files.len() > 100);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let variants = text.split("#[error(").skip(1);
        for variant in variants {
            let reported = variant.split(")]").next().unwrap();
            let fields = variant[reported.len()..].split("#[error(").next().unwrap();
            let field = fields.split(['}', ';']).next().unwrap();
            let field = field.split(",\n").next().unwrap();
            let hands_on = field.contains("#[from]") || field.contains("#[source]");
            if hands_on && reported.contains("{0") {
                found.push(format!("{}: {reported}", file.display()));
            }
        }
    }
    assert_eq!(found, [""; 0]);
}
