//! What faults of the mail server come to that last: the second table of `docs/guarantees.md`. Virtual
//! time.

use std::fmt::Write as _;
use std::time::Duration;

use aftercommit::internal::claim::OnAmbiguous;
use tokio::time::{Instant, sleep};

use crate::fault_cases::{deed, place};
use crate::mail_server::{Act, Fault, Script, Step};
use crate::relay::{Fate, Shop, Staff, is_of_the_connection};

/// So many orders come while a fault lasts: half of them in its first minute, the others evenly.
const ORDERS: u32 = 20;

const BEGIN: &str = "<!-- Faults that last: made by the tests, which compare it. -->\n";
const END: &str = "<!-- End of Faults that last. -->\n";

/// A fault, and whether the server keeps the mail all the same.
type Lasting = (Step, Act, bool);

/// One of each kind: what differs in nothing but the way a connection breaks is left out.
fn faults() -> Vec<Lasting> {
    let say = |step, words| (step, Act::Say(words), false);
    vec![
        (Step::Connect, Act::Close, false),
        say(Step::Greeting, "421 4.3.2 too many connections"),
        (Step::Greeting, Act::Silence, false),
        say(Step::Auth, "535 5.7.8 wrong password"),
        say(Step::Mail, "451 4.7.1 the filter is away"),
        say(Step::Rcpt, "450 4.2.1 greylisted"),
        say(Step::Rcpt, "553 5.7.1 not your sender"),
        (Step::Data, Act::Close, false),
        say(Step::Dot, "452 4.3.1 disk full"),
        say(Step::Dot, "454 4.7.0 throttled"),
        say(
            Step::Dot,
            "454 Throttling failure: Daily message quota exceeded.",
        ),
        say(Step::Dot, "550 5.4.5 daily limit reached"),
        (Step::Dot, Act::Close, false),
        (Step::Dot, Act::Close, true),
        (Step::Dot, Act::Silence, false),
    ]
}

/// What became of the orders, and how long after the end of the fault the last one was mailed.
async fn fate(fault: &Lasting, lasts: Duration, policy: OnAmbiguous) -> (Fate, Duration) {
    let (step, act, keeps) = fault.clone();
    let script = Script {
        auth: "PLAIN",
        ..Script::default()
    };
    let mut shop = Shop::open(
        Staff {
            workers: 1,
            policy,
            seed: 7,
        },
        script,
    );
    // It has been busy until now.
    shop.orders(20, Duration::from_secs(20)).await;
    if step == Step::Connect || is_of_the_connection(step) {
        shop.server.go_away();
    }
    if step != Step::Connect {
        if is_of_the_connection(step) {
            shop.server.come_back_in_memory();
        }
        let strikes = Fault::always(step, act);
        let strikes = if keeps { strikes.keeping() } else { strikes };
        shop.server.add(strikes);
    }
    let minute = Duration::from_mins(1);
    shop.orders(ORDERS / 2, minute).await;
    shop.orders(ORDERS / 2, lasts.saturating_sub(minute)).await;
    shop.server.heal();
    shop.server.come_back_in_memory();
    let well = Instant::now();
    loop {
        let fate = shop.fate().await;
        if fate.waiting == 0 {
            return (fate, well.elapsed());
        }
        assert!(
            well.elapsed() < Duration::from_hours(6),
            "{fault:?} for {lasts:?}, {policy:?}: {fate:?}"
        );
        sleep(Duration::from_secs(5)).await;
    }
}

/// In words, without the orders from before the fault.
fn words((fate, late): &(Fate, Duration)) -> String {
    let before = fate.orders - ORDERS as usize;
    let mut words = format!("{} mailed", fate.mailed - before);
    if fate.twice > 0 {
        write!(words, ", {} of them twice", fate.twice).unwrap();
    }
    let in_doubt = fate.in_doubt;
    if in_doubt > 0 {
        write!(words, ", {in_doubt} in doubt").unwrap();
    }
    let letters: usize = fate.letters.values().sum();
    if letters > 0 {
        write!(words, ", {letters} dead letters").unwrap();
    }
    let bounds = [1, 2, 5, 10, 30, 60, 120];
    let minutes = bounds
        .into_iter()
        .find(|bound| *late <= Duration::from_mins(*bound));
    write!(words, " ({} min)", minutes.unwrap()).unwrap();
    words
}

/// A cell of the table.
async fn cell(fault: &Lasting, lasts: Duration) -> String {
    let resend = words(&fate(fault, lasts, OnAmbiguous::Resend).await);
    // Only what is in doubt is a matter of the policy.
    if fault.0 != Step::Dot || matches!(fault.1, Act::Say(_)) {
        return resend;
    }
    let park = words(&fate(fault, lasts, OnAmbiguous::Park).await);
    format!("`resend`: {resend}; `park`: {park}")
}

async fn rendered() -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for fault in faults() {
        let (step, act, keeps) = &fault;
        let mut cells = String::new();
        for minutes in [3, 60, 24 * 60] {
            let cell = cell(&fault, Duration::from_mins(minutes)).await;
            write!(cells, " {cell} |").unwrap();
        }
        let kept = if *keeps { ", and keeps the mail" } else { "" };
        let what = format!("{}: {}{kept}", place(*step), deed(*step, act));
        match rows.iter_mut().find(|(those, _)| *those == cells) {
            Some((_, faults)) => faults.push(what),
            None => rows.push((cells, vec![what])),
        }
    }
    let mut text = String::from(
        "| The mail server | for 3 minutes | for an hour | for a day |\n|---|---|---|---|\n",
    );
    for (cells, faults) in rows {
        writeln!(text, "| {} |{cells}", faults.join("; ")).unwrap();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_lasts_costs_what_the_page_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guarantees.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (shown, after) = rest.split_once(END).unwrap();
    let table = rendered().await;
    if std::env::var_os("AFTERCOMMIT_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        shown == table,
        "docs/guarantees.md has changed: write it with `just docs`. The table is now\n{table}"
    );
}
