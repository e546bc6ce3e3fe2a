//! How long it takes to plan: who should have which shard, and what I do about it.

use std::time::{Duration, Instant};

use aftercommit::internal::fleet::assign::assign;
use aftercommit::internal::fleet::holdings::Holdings;
use aftercommit::internal::fleet::membership::Members;
use aftercommit::internal::fleet::plan::Planner;
use aftercommit::internal::shard::ShardId;
use aftercommit::stores::leases::{Incarnation, LeaseRow, View, WorkerRow};
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
    let new = view(&workers, options.shards);
    let balanced = balanced(&new);
    let mut fewer = balanced.clone();
    if let Some(gone) = workers.last().filter(|_| workers.len() > 1) {
        fewer.workers.remove(gone);
    }
    let quickest = |view: &View| {
        let mut members = Members::new(workers[0].clone(), PATIENCE);
        // Who is gone has been gone for long enough.
        for seconds in (0..=PATIENCE.as_secs()).step_by(2) {
            members.see(view, Duration::from_secs(seconds));
        }
        let planner = Planner {
            view,
            members: &members,
            holdings: &Holdings::new(PATIENCE, None),
            left_out: None,
        };
        let round = |_| {
            let began = Instant::now();
            let live = members.live(view, PATIENCE, false);
            let actions = planner.plan(&live, PATIENCE).actions;
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
        ("nothing to do", quickest(&balanced)),
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

/// A stream without a reader yet.
fn view(workers: &[Incarnation], shards: u64) -> View {
    let worker = |name: &Incarnation| WorkerRow {
        incarnation: name.clone(),
        beat: 1,
        draining: false,
        unable_to_list: false,
        lease_duration: PATIENCE,
        version: String::new(),
        reads: 1,
        zone: None,
        status_address: None,
        trouble: None,
        stuck: None,
        effects: Vec::new(),
        at: None,
    };
    let shards = (0..shards).map(|n| ShardId::new(format!("shardId-{n:020}-{n:08x}")));
    let workers = workers.iter().map(|name| (name.clone(), worker(name)));
    let lease = |id: ShardId| (id.clone(), LeaseRow::new(id, None, 1));
    View {
        workers: workers.collect(),
        leases: shards.map(lease).collect(),
        ..View::default()
    }
}

/// The same, once everybody has a share.
fn balanced(new: &View) -> View {
    let live = new.workers.keys().cloned().collect();
    let targets = assign(&live, new.leases.keys().map(|id| (id, None)));
    let mut balanced = new.clone();
    for (id, row) in &mut balanced.leases {
        row.owner = targets.get(id).map(|owner| (*owner).clone());
    }
    balanced
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
