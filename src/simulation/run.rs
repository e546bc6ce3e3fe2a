//! One run of a simulation: bad weather, then calm, in which everything has to settle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::changes::Commits;
use super::redriver::Redriver;
use super::weather;
use super::worker::Worker;
use super::world::World;
use super::{Scenario, SimulationOutcome};
use crate::engine::handler::RecordHandler;

/// Within this time a fleet that is settled handles what is committed: an attempt that mails takes
/// some of it.
const SOON: Duration = Duration::from_mins(1);

pub(super) async fn run<H: RecordHandler>(
    scenario: &Scenario,
    handler: Arc<dyn Fn() -> H + Send + Sync>,
    commits: Commits,
) -> SimulationOutcome {
    let world = Arc::new(World::new(scenario, commits));
    world.shards_changed();
    let mut workers: Vec<_> = (0..scenario.workers)
        .map(|index| Worker::new(world.clone(), handler.clone(), index))
        .collect();
    let mut redriver = Redriver::of(&world, &*handler, scenario.workers);
    workers.iter_mut().for_each(Worker::start);
    weather::storm(&world, &mut workers, redriver.as_mut(), scenario.weather).await;
    world.clear_up();
    weather::clear(&world, &mut workers);
    // A worker whose last mails ended in doubt tries the server again minutes later.
    let soon = scenario.mail.map_or(SOON, |_| scenario.calm);
    for within in [scenario.calm, soon] {
        world.commit_everywhere();
        settle(&world, &mut workers, redriver.as_mut(), within).await;
    }
    if let Some(redriver) = &mut redriver {
        redriver.interrupt();
    }
    workers.iter_mut().for_each(Worker::crash);
    workers.iter().for_each(Worker::account);
    world.outcome()
}

/// Waits until everything is settled, which must be within this time. Who was about to leave when
/// the weather cleared is started anew.
async fn settle<H: RecordHandler>(
    world: &World,
    workers: &mut [Worker<H>],
    mut redriver: Option<&mut Redriver<H>>,
    within: Duration,
) {
    let limit = Instant::now() + within;
    let mut settled = world.settled(workers.len());
    while settled.is_err() && Instant::now() < limit && !world.is_violated() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        weather::start_all(workers);
        if let Some(redriver) = redriver.as_mut().filter(|_| world.parked() > 0) {
            redriver.redrive();
        }
        settled = world.settled(workers.len());
    }
    world.judge(settled.map_err(|left| format!("not settled after {within:?}: {left}")));
}
