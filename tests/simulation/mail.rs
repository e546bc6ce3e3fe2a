//! Confirmations in bad weather: a fleet on a ledger whose calls get lost, before a mail server that
//! refuses, hangs up, and keeps mails without a word.

use std::time::Duration;

use aftercommit::decide::claim::OnAmbiguous;
use aftercommit::simulation::{Counts, Flaw, Scenario, simulate, simulate_all};

use crate::flaws::unnoticed;

/// How many seeds a run of the tests takes.
const SEEDS: u64 = 2_000;

/// How long the weather lasts, in virtual seconds.
const WEATHER: u64 = 30;

/// The policies take turns.
fn scenario(seed: u64) -> Scenario {
    let policies = [OnAmbiguous::Resend, OnAmbiguous::Park];
    Scenario {
        weather: Duration::from_secs(WEATHER),
        calm: Duration::from_mins(10),
        mail: Some(policies[usize::from(seed % 2 == 1)]),
        ..Scenario::seeded(seed)
    }
}

fn replay(scenario: &Scenario) -> String {
    let (seed, policy) = (scenario.seed, scenario.mail);
    let policy = if policy == Some(OnAmbiguous::Park) {
        "park"
    } else {
        "resend"
    };
    format!(
        "cargo run --release --example simulate -- --replay {seed} --weather {WEATHER} --mail {policy}"
    )
}

#[test]
fn no_mail_is_silently_sent_twice_and_none_is_forgotten() {
    let mut counts = Counts::default();
    let mut broken = Vec::new();
    simulate_all((0..SEEDS).map(scenario), |scenario, outcome| {
        counts.absorb(&outcome.counts);
        if let Some(violation) = &outcome.violation {
            let (seed, replay) = (scenario.seed, replay(scenario));
            broken.push(format!("seed {seed}: {violation}\n  replay: {replay}"));
        }
        broken.len() < 10
    });
    println!("{SEEDS} seeds hit:\n{counts}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    for what in [
        "SENT",
        "FAILED",
        "RETRY",
        "AMBIGUOUS",
        "mails accepted",
        "mails refused",
        "replies lost",
        "crashes",
        "freezes",
        "lost calls",
    ] {
        assert!(
            counts.0.get(what).is_some_and(|n| *n > 0),
            "no {what} in\n{counts}"
        );
    }
}

#[test]
fn a_seed_with_mails_replays_to_the_letter() {
    let traced = Scenario {
        traced: true,
        ..scenario(12)
    };
    let trace = simulate(&traced).trace;
    assert!(trace.contains("server accepts"), "{trace}");
    assert_eq!(trace, simulate(&traced).trace);
}

#[test]
fn every_rule_of_the_sender_that_is_left_out_is_missed() {
    let unnoticed = unnoticed(Flaw::OF_THE_SENDER, SEEDS, scenario);
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}
