//! One run of a simulation: bad weather, then calm, in which everything must finish.

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

/// Within this time a fleet with nothing left to do handles what is committed. An attempt that sends an
/// email takes some of it.
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
        finish(&world, &mut workers, redriver.as_mut(), within).await;
    }
    if let Some(redriver) = &mut redriver {
        redriver.interrupt();
    }
    workers.iter_mut().for_each(Worker::crash);
    workers.iter().for_each(Worker::account);
    world.outcome()
}

/// Waits until everything is finished, which must be within this time. A worker that was about to leave
/// when the weather cleared is restarted.
async fn finish<H: RecordHandler>(
    world: &World,
    workers: &mut [Worker<H>],
    mut redriver: Option<&mut Redriver<H>>,
    within: Duration,
) {
    let limit = Instant::now() + within;
    let mut finished = world.finished(workers.len());
    while finished.is_err() && Instant::now() < limit && !world.is_violated() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        weather::start_all(workers);
        if let Some(redriver) = redriver.as_mut().filter(|_| world.parked() > 0) {
            redriver.redrive();
        }
        finished = world.finished(workers.len());
    }
    world.judge(finished.map_err(|left| format!("not finished after {within:?}: {left}")));
}
