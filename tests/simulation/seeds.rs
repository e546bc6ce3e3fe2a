//! Many seeds, with all rules in place and with one of them left out.

use std::ops::Range;

use aftercommit::simulation::{Counts, Flaw, Scenario, simulate_all};

/// Runs so many seeds, of which none may break a promise, and answers what they hit.
pub fn all_keep_their_promises(seeds: u64, scenario: fn(u64) -> Scenario) -> Counts {
    let mut counts = Counts::default();
    let mut broken: Vec<(Scenario, String)> = Vec::new();
    simulate_all((0..seeds).map(scenario), |scenario, outcome| {
        counts.absorb(&outcome.counts);
        if let Some(violation) = &outcome.violation {
            broken.push((scenario.clone(), violation.clone()));
        }
        broken.len() < 10
    });
    println!("{seeds} seeds hit:\n{counts}");
    if let Some((first, _)) = broken.first() {
        println!("{}", first.trace());
    }
    for (scenario, violation) in &broken {
        println!("seed {}: {violation}", scenario.seed);
        println!("  replay: {}", scenario.replay());
    }
    assert!(broken.is_empty(), "{} seeds broke a promise", broken.len());
    counts
}

/// The flaws that none of these seeds notices. Prints which seed notices each of the others.
pub fn unnoticed(
    flaws: impl IntoIterator<Item = Flaw>,
    seeds: Range<u64>,
    scenario: fn(u64) -> Scenario,
) -> Vec<Flaw> {
    let mut unnoticed = Vec::new();
    for flaw in flaws {
        let mut caught = None;
        let flawed = |seed| Scenario {
            flaw: Some(flaw),
            ..scenario(seed)
        };
        simulate_all(seeds.clone().map(flawed), |scenario, outcome| {
            if let Some(violation) = &outcome.violation {
                caught = Some(format!("by seed {}: {violation}", scenario.seed));
            }
            caught.is_none()
        });
        match caught {
            Some(caught) => println!("{flaw:?} is noticed {caught}"),
            None => unnoticed.push(flaw),
        }
    }
    unnoticed
}
