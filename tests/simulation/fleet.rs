//! The fleet in bad weather: 2,000 seeds, and every deliberate mistake is noticed within as many.

use std::time::Duration;

use aftercommit::simulation::{Counts, Flaw, Scenario, simulate, simulate_all};

use crate::flaws::unnoticed;

/// How many seeds a run of the tests takes.
const SEEDS: u64 = 2_000;

fn scenario(seed: u64) -> Scenario {
    Scenario {
        weather: Duration::from_mins(1),
        ..Scenario::seeded(seed)
    }
}

#[test]
fn no_promise_is_broken() {
    let mut counts = Counts::default();
    let mut broken = Vec::new();
    simulate_all((0..SEEDS).map(scenario), |scenario, outcome| {
        counts.absorb(&outcome.counts);
        if let Some(violation) = &outcome.violation {
            broken.push((scenario.seed, violation.clone()));
        }
        broken.len() < 10
    });
    println!("{SEEDS} seeds hit:\n{counts}");
    for (seed, violation) in &broken {
        println!("seed {seed}: {violation}");
        println!(
            "  replay: cargo run --release --example simulate -- --replay {seed} --weather 60"
        );
    }
    assert!(broken.is_empty(), "{} seeds broke a promise", broken.len());
}

#[test]
fn every_kind_of_bad_weather_comes() {
    let mut counts = Counts::default();
    simulate_all((0..100).map(scenario), |_, outcome| {
        counts.absorb(&outcome.counts);
        true
    });
    for what in [
        "crashes",
        "freezes",
        "stops",
        "splits",
        "rollovers",
        "late children",
        "trims",
        "forgotten shards",
        "rows deleted or damaged",
        "expired iterators",
        "empty batches",
        "duplicate batches",
        "lost calls",
        "throttles",
        "failed attempts",
        "lapses",
        "gaps",
        "rows too new for a look",
    ] {
        assert!(
            counts.0.get(what).is_some_and(|n| *n > 0),
            "no {what} in\n{counts}"
        );
    }
}

#[test]
fn a_seed_replays_to_the_letter() {
    let traced = Scenario {
        traced: true,
        ..scenario(11)
    };
    assert_eq!(simulate(&traced).trace, simulate(&traced).trace);
}

#[test]
fn every_rule_that_is_left_out_is_missed() {
    let unnoticed = unnoticed(Flaw::ALL, SEEDS, scenario);
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}
