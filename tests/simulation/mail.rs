//! Confirmations in bad weather: a fleet on a ledger whose calls get lost, before a mail server that
//! refuses, hangs up, and keeps mails without a word.

use std::time::Duration;

use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::simulation::{Flaw, Scenario};

use crate::seeds::{all_keep_their_promises, unnoticed};

/// How many seeds a run of the tests takes.
const SEEDS: u64 = 2_000;

/// The policies take turns.
fn scenario(seed: u64) -> Scenario {
    let policies = [OnAmbiguous::Resend, OnAmbiguous::Park];
    Scenario {
        workers: 3,
        shards: 2,
        weather: Duration::from_secs(30),
        // A claim of a worker that no living one ever saw waits for its deadline.
        calm: Duration::from_mins(30),
        mail: Some(policies[usize::from(seed % 2 == 1)]),
        ..Scenario::seeded(seed)
    }
}

#[test]
fn no_mail_is_silently_sent_twice_and_none_is_forgotten() {
    let counts = all_keep_their_promises(SEEDS, scenario);
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
        "lost requests",
        "lost replies",
    ] {
        assert!(
            counts.0.get(what).is_some_and(|n| *n > 0),
            "no {what} in\n{counts}"
        );
    }
}

#[test]
fn a_seed_with_mails_replays_to_the_letter() {
    let trace = scenario(12).trace();
    assert!(trace.contains("server accepts"), "{trace}");
    assert_eq!(trace, scenario(12).trace());
}

#[test]
fn every_rule_of_the_sender_that_is_left_out_is_missed() {
    let unnoticed = unnoticed(Flaw::OF_THE_SENDER, 0..SEEDS, scenario);
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}
