//! The fleet in bad weather: 2,000 seeds keep every promise, and every deliberate mistake is noticed.

use std::ops::Range;
use std::time::Duration;

use aftercommit::simulation::{Counts, Flaw, Scenario, simulate_all};

use crate::seeds::{self, all_keep_their_promises};

/// How many seeds a run of the tests takes.
const SEEDS: u64 = 2_000;

/// How many seeds may pass before a rule that is left out is missed. Most are missed by the first
/// hundred.
const SEEDS_WITHOUT_A_RULE: u64 = 8_000;

/// The large fleets that miss the rarest rule: one in some hundreds does, seed 20,518 among them.
const LARGE_FLEETS: Range<u64> = 20_270..20_670;

fn scenario(seed: u64) -> Scenario {
    Scenario {
        weather: Duration::from_mins(1),
        ..Scenario::seeded(seed)
    }
}

#[test]
fn no_promise_is_broken() {
    all_keep_their_promises(SEEDS, scenario);
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
        "blind spells",
        "stops",
        "splits",
        "rollovers",
        "late children",
        "trims",
        "forgotten shards",
        "leases deleted or damaged",
        "worker rows deleted or damaged",
        "group rows deleted or damaged",
        "gap rows deleted",
        "stream rows deleted",
        "streams switched off",
        "streams switched on",
        "streams gone",
        "times without any worker",
        "expired iterators",
        "empty batches",
        "duplicate batches",
        "lost requests",
        "lost replies",
        "throttles",
        "failed reads",
        "throttled reads",
        "failed attempts",
        "lapses",
        "gaps",
        "rows too new for a look",
        "further pages of a look",
        "items whose records fail",
        "outages of a dependency",
        "calls during an outage",
        "rejected records",
        "exhausted records",
        "rescued records",
        "deferred records",
        "followers of dead letters",
        "dead letters redriven",
        "redrives by an operator",
        "filtered records",
        "moments without memory",
        "halts at a gap",
    ] {
        assert!(
            counts.0.get(what).is_some_and(|n| *n > 0),
            "no {what} in\n{counts}"
        );
    }
}

#[test]
fn a_seed_replays_to_the_letter() {
    assert_eq!(scenario(11).trace(), scenario(11).trace());
}

/// A large fleet, for what two workers seldom do at the same moment.
fn large(seed: u64) -> Scenario {
    Scenario {
        workers: 12,
        shards: 50,
        ..scenario(seed)
    }
}

#[test]
fn every_rule_that_is_left_out_is_missed() {
    let is_rare = |flaw: &Flaw| *flaw == Flaw::EarlyReread;
    let (rare, others): (Vec<_>, Vec<_>) = Flaw::ALL.into_iter().partition(is_rare);
    let mut unnoticed = seeds::unnoticed(others, 0..SEEDS_WITHOUT_A_RULE, scenario);
    unnoticed.extend(seeds::unnoticed(rare, LARGE_FLEETS, large));
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}
