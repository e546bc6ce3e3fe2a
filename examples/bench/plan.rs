//! How long it takes to plan: who should have which shard, and what I do about it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aftercommit::internal::decide::assign::assign;
use aftercommit::internal::decide::lease::{Incarnation, Member, Peer, Row, Sight};
use aftercommit::internal::decide::shard::ShardId;
use anyhow::ensure;

/// How long an observer waits for a heartbeat.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// The most that it may take, in milliseconds.
    #[arg(long, default_value_t = 10.0)]
    limit: f64,
}

/// Prints how long it takes from nothing, as after every look, and after a worker has gone.
///
/// # Errors
///
/// If any of them takes longer than the limit.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let workers: Vec<_> = (0..options.workers.max(1))
        .map(|n| Incarnation::new(&format!("worker-{n}"), n))
        .collect();
    let new = sight(&workers, options.shards);
    let settled = settled(&new);
    let mut fewer = settled.clone();
    if let Some(gone) = workers.last().filter(|_| workers.len() > 1) {
        fewer.workers.remove(gone);
    }
    let quickest = |seen: &Sight| {
        let mut member = Member::new(workers[0].clone(), PATIENCE);
        // Who is gone has been gone for long enough.
        for seconds in (0..=PATIENCE.as_secs()).step_by(2) {
            member.see(seen, Duration::from_secs(seconds), true);
        }
        let round = |_| {
            let began = Instant::now();
            let live = member.live(seen, PATIENCE, false);
            let actions = member.plan(seen, &live, PATIENCE);
            std::hint::black_box(actions.len());
            began.elapsed()
        };
        (0..options.rounds.max(1))
            .map(round)
            .min()
            .unwrap_or_default()
    };
    let all = [
        ("nobody has any", quickest(&new)),
        ("nothing to do", quickest(&settled)),
        ("one worker has gone", quickest(&fewer)),
    ];
    let (shards, workers) = (options.shards, workers.len());
    println!("{shards} shards on {workers} workers:");
    for (what, time) in &all {
        println!("{what:>20} {:>8.2} ms", millis(*time));
    }
    let worst = all.iter().map(|(_, time)| millis(*time));
    let worst = worst.fold(0.0, f64::max);
    println!(
        "\n{{\"bench\":\"plan\",\"shards\":{shards},\"workers\":{workers},\"milliseconds\":{worst:.2}}}"
    );
    let limit = options.limit;
    ensure!(
        worst <= limit,
        "planning takes {worst:.2} ms, more than {limit} ms"
    );
    Ok(())
}

/// A stream that nobody reads yet.
fn sight(workers: &[Incarnation], shards: u64) -> Sight {
    let peer = Peer {
        beat: 1,
        draining: false,
        reads: 1,
        unable_to_list: false,
        patience: PATIENCE,
    };
    let row = Row {
        owner: None,
        epoch: 1,
        format: 1,
        ended: false,
    };
    let shards = (0..shards).map(|n| ShardId::new(format!("shardId-{n:020}-{n:08x}")));
    Sight {
        workers: workers
            .iter()
            .map(|name| (name.clone(), peer.clone()))
            .collect(),
        leases: shards.map(|id| (id, row.clone())).collect(),
        newest_format: 1,
        consistent: true,
        began: Duration::ZERO,
    }
}

/// The same, once everybody has a share.
fn settled(new: &Sight) -> Sight {
    let live = new.workers.keys().cloned().collect();
    let targets = assign(&live, new.leases.keys().map(|id| (id, None)));
    let owned = |(id, row): (&ShardId, &Row)| {
        let owner = targets.get(id).map(|owner| (*owner).clone());
        (
            id.clone(),
            Row {
                owner,
                ..row.clone()
            },
        )
    };
    let leases: BTreeMap<_, _> = new.leases.iter().map(owned).collect();
    Sight {
        leases,
        ..new.clone()
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
