//! The first table of `docs/guarantees.md` comes from the tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::support::fault_cases::{Case, Ended, deed, place, table};
use crate::support::mail_server::Step;
use aftercommit::internal::claim::State;

const BEGIN: &str = "<!-- Faults that strike once: made by the tests, which compare it. -->\n";
const END: &str = "<!-- End of Faults that strike once. -->\n";

fn reported(reported: Ended) -> &'static str {
    match reported {
        Ended::Done => "finishes the record",
        Ended::Retry => "tries again",
        Ended::Reject => "gives it up; a redrive tries again",
        Ended::Refused => "tries again until it is known whose fault it is",
        Ended::Unavailable => "waits until the server is well",
        Ended::Overloaded => "slows down",
        Ended::Busy => "waits",
    }
}

/// Under `resend` and under `park`, where they differ.
fn worker([resend, park]: [Ended; 2]) -> String {
    if resend == park {
        reported(resend).to_owned()
    } else {
        format!("`resend`: {}; `park`: {}", reported(resend), reported(park))
    }
}

/// What a line of the table says of its faults.
fn outcome(case: &Case) -> String {
    let state = case.state.map_or("nothing", State::word);
    let kept = if case.kept {
        ", and keeps the mail"
    } else {
        ""
    };
    let [resend, park] = case.mails;
    format!(
        "{kept} | {} | {} | {resend} | {park} |",
        if case.state.is_some() {
            format!("`{state}`")
        } else {
            state.to_owned()
        },
        worker(case.reported),
    )
}

/// Steps at which the same faults have the same result share a line.
fn rendered() -> String {
    let mut order: Vec<String> = Vec::new();
    let mut deeds: BTreeMap<String, BTreeMap<Step, Vec<String>>> = BTreeMap::new();
    for case in table() {
        let outcome = outcome(&case);
        if !order.contains(&outcome) {
            order.push(outcome.clone());
        }
        let steps = deeds.entry(outcome).or_default();
        let done = steps.entry(case.step).or_default();
        if !done.contains(&deed(case.step, &case.act)) {
            done.push(deed(case.step, &case.act));
        }
    }
    let mut text = String::from(
        "| At | the mail server | the ledger then | the worker | mails in the end: `resend` | `park` |\n\
         |---|---|---|---|---|---|\n",
    );
    for outcome in order {
        let mut lines: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
        for (step, deeds) in &deeds[&outcome] {
            let place = place(*step);
            match lines.iter_mut().find(|(those, _)| those == deeds) {
                Some((_, places)) => places.push(place),
                None => lines.push((deeds.clone(), vec![place])),
            }
        }
        for (deeds, places) in lines {
            let (places, deeds) = (places.join(", "), deeds.join(", "));
            writeln!(text, "| {places} | {deeds}{outcome}").unwrap();
        }
    }
    text
}

#[test]
fn a_fault_that_strikes_once_costs_what_the_page_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guarantees.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (shown, after) = rest.split_once(END).unwrap();
    let table = rendered();
    if std::env::var_os("AFTERCOMMIT_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        shown == table,
        "docs/guarantees.md has changed: write it with `just docs`. The table is now\n{table}"
    );
}
