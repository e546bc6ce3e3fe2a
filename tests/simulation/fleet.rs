//! The fleet in bad weather.

use aftercommit::simulation::{Counts, Flaw, Scenario, simulate};

#[test]
fn one() {
    let seeds: u64 = std::env::var("SEEDS").map_or(20, |s| s.parse().unwrap());
    let from: u64 = std::env::var("FROM").map_or(0, |s| s.parse().unwrap());
    if seeds == 1 {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .with_ansi(false)
            .init();
    }
    let mut counts = Counts::default();
    let mut bad = 0;
    for seed in from..from + seeds {
        let outcome = simulate(&Scenario {
            traced: seeds == 1,
            ..Scenario::seeded(seed)
        });
        counts.absorb(&outcome.counts);
        if let Some(v) = outcome.violation {
            bad += 1;
            if bad < 10 {
                println!("seed {seed}: {v}");
            }
            if seeds == 1 {
                println!("{}", outcome.trace);
            }
        }
    }
    println!("{bad} bad\n{counts}");
    let _ = Flaw::ALL;
    assert_eq!(bad, 0);
}
