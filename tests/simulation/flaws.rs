//! Rules that are left out, one at a time.

use aftercommit::simulation::{Flaw, Scenario, simulate_all};

/// The flaws that none of so many seeds notices; says which seed notices each other one.
pub fn unnoticed(
    flaws: impl IntoIterator<Item = Flaw>,
    seeds: u64,
    scenario: fn(u64) -> Scenario,
) -> Vec<Flaw> {
    let mut unnoticed = Vec::new();
    for flaw in flaws {
        let mut caught = None;
        let flawed = |seed| Scenario {
            flaw: Some(flaw),
            ..scenario(seed)
        };
        simulate_all((0..seeds).map(flawed), |scenario, outcome| {
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
