//! Simulates any number of fleets under faults, and reports what broke.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 1000000
//! cargo run --release --example simulate -- --replay 4711
//! cargo run --release --example simulate -- --flaw TakeWithoutBeat
//! cargo run --release --example simulate -- --mail park --flaw ParkIgnored
//! ```
//!
//! The exit code is 1 if a promise was broken. A seed that breaks one is printed with the command
//! that replays it, the first of them with its trace.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::simulation::{Counts, Flaw, Scenario, SimulationOutcome, simulate, simulate_all};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Simulates fleets in bad weather.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this seed alone and prints its trace.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    replay: Option<u64>,
    /// How many workers the fleet has, in place of what the seed says.
    #[arg(long)]
    workers: Option<usize>,
    /// How many shards the stream begins with, in place of what the seed says.
    #[arg(long)]
    shards: Option<u64>,
    /// For how many seconds of virtual time things go wrong.
    #[arg(long, default_value_t = 120)]
    weather: u64,
    /// The fleet confirms orders by mail, under this policy: resend or park.
    #[arg(long, value_parser = policy)]
    mail: Option<OnAmbiguous>,
    /// Leaves a rule out, to see it missed.
    #[arg(long, value_parser = flaw)]
    flaw: Option<Flaw>,
}

fn flaw(name: &str) -> Result<Flaw, String> {
    let all = || Flaw::ALL.into_iter().chain(Flaw::OF_THE_SENDER);
    let named = all().find(|flaw| format!("{flaw:?}").eq_ignore_ascii_case(name));
    named.ok_or_else(|| {
        let known: Vec<_> = all().map(|flaw| format!("{flaw:?}")).collect();
        format!("unknown flaw: the flaws are {}", known.join(", "))
    })
}

fn policy(name: &str) -> Result<OnAmbiguous, String> {
    match name {
        "resend" => Ok(OnAmbiguous::Resend),
        "park" => Ok(OnAmbiguous::Park),
        _ => Err("it is resend or park".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scenario = |seed| Scenario {
        workers: arguments.workers.unwrap_or(Scenario::seeded(seed).workers),
        shards: arguments.shards.unwrap_or(Scenario::seeded(seed).shards),
        weather: Duration::from_secs(arguments.weather),
        // A claim in doubt delays its order for minutes.
        calm: Duration::from_mins(15),
        mail: arguments.mail,
        flaw: arguments.flaw,
        ..Scenario::seeded(seed)
    };
    let broken = match arguments.replay {
        Some(seed) => replay(&Scenario {
            traced: true,
            ..scenario(seed)
        }),
        None => run(&arguments, scenario),
    };
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(scenario: &Scenario) -> usize {
    let SimulationOutcome {
        violation,
        counts,
        trace,
    } = simulate(scenario);
    print!("{trace}{counts}");
    let verdict = violation.as_deref().unwrap_or("every promise was kept");
    println!("seed {}: {verdict}", scenario.seed);
    usize::from(violation.is_some())
}

fn run(arguments: &Arguments, scenario: impl Fn(u64) -> Scenario + Send) -> usize {
    let bar = ProgressBar::new(arguments.seeds);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let look = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left{msg}";
    if let Ok(style) = ProgressStyle::with_template(look) {
        bar.set_style(style);
    }
    let mut counts = Counts::default();
    let mut broken = 0;
    let started = Instant::now();
    let seeds = arguments.from..arguments.from + arguments.seeds;
    simulate_all(seeds.map(scenario), |scenario, outcome| {
        counts.absorb(&outcome.counts);
        bar.inc(1);
        if let Some(violation) = &outcome.violation {
            broken += 1;
            bar.suspend(|| {
                if broken == 1 {
                    print!("{}", scenario.trace());
                }
                println!("seed {}: {violation}", scenario.seed);
                println!("  replay: {}", scenario.replay());
            });
            bar.set_message(format!(", {broken} broken"));
        }
        true
    });
    bar.finish_and_clear();
    let each = started.elapsed() / u32::try_from(arguments.seeds.max(1)).unwrap_or(u32::MAX);
    println!(
        "{} seeds ({each:.1?} each), {broken} with a broken promise. They hit:",
        arguments.seeds
    );
    print!("{counts}");
    broken
}
