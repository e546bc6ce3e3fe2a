//! How long it takes to share shards out among workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aftercommit::decide::assign::assign;
use aftercommit::decide::lease::Incarnation;
use aftercommit::decide::shard::ShardId;

#[derive(clap::Args)]
pub struct Options {
    /// How many shards.
    #[arg(long, default_value_t = 10_000)]
    shards: u64,
    /// How many workers.
    #[arg(long, default_value_t = 100)]
    workers: u64,
    /// Rounds; the quickest counts, as nothing else ran then.
    #[arg(long, default_value_t = 101)]
    rounds: usize,
}

/// Prints how long it takes from nothing, as after every look, and after a worker has gone.
pub fn run(options: &Options) {
    let workers = |count| -> BTreeSet<_> {
        (0..count)
            .map(|n| Incarnation::new(&format!("worker-{n}"), n))
            .collect()
    };
    let live = workers(options.workers);
    let fewer = workers(options.workers.saturating_sub(1).max(1));
    let shards: Vec<_> = (0..options.shards)
        .map(|n| ShardId::new(format!("shardId-{n:020}-{n:08x}")))
        .collect();
    let none: BTreeMap<_, _> = shards.iter().map(|id| (id, None)).collect();
    let settled: BTreeMap<_, _> = assign(&live, none.iter().map(|(id, owner)| (*id, *owner)))
        .into_iter()
        .map(|(id, owner)| (id, Some(owner)))
        .collect();
    let quickest = |live: &BTreeSet<Incarnation>,
                    held: &BTreeMap<&ShardId, Option<&Incarnation>>| {
        let round = |_| {
            let began = Instant::now();
            let targets = assign(live, held.iter().map(|(id, owner)| (*id, *owner)));
            std::hint::black_box(targets.len());
            began.elapsed()
        };
        let times = (0..options.rounds.max(1)).map(round);
        times.min().unwrap_or_default()
    };
    let all = [
        ("nobody has any", quickest(&live, &none)),
        ("nothing to do", quickest(&live, &settled)),
        ("one worker has gone", quickest(&fewer, &settled)),
    ];
    let (shards, workers) = (options.shards, options.workers);
    println!("{shards} shards on {workers} workers:");
    for (what, time) in &all {
        println!("{what:>20} {:>8.2} ms", millis(*time));
    }
    let worst = all
        .iter()
        .map(|(_, time)| millis(*time))
        .fold(0.0, f64::max);
    println!(
        "\n{{\"bench\":\"plan\",\"shards\":{shards},\"workers\":{workers},\"milliseconds\":{worst:.2}}}"
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
