//! What goes wrong in a simulation, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::operator;
use super::worker::Worker;
use super::world::World;
use crate::decide::shard::ShardId;
use crate::handler::RecordHandler;

/// A shard stays listed for longer than any packet is under way, as the service's 24 hours are.
const LATE: Duration = Duration::from_secs(25);

/// Things go wrong for so long.
pub(super) async fn storm<H: RecordHandler>(
    world: &Arc<World>,
    workers: &mut [Worker<H>],
    length: Duration,
) {
    let end = Instant::now() + length;
    let mut due: Vec<(Instant, Relief)> = Vec::new();
    let mut operator = Instant::now() + world.climate.peace;
    while Instant::now() < end && !world.is_violated() {
        let pause = world.with_rng(|rng, _| rng.u64(10..600));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let now = Instant::now();
        for (_, relief) in due.extract_if(.., |(at, _)| *at <= now) {
            relief.come(world, workers);
        }
        for _ in 0..world.with_rng(|rng, _| rng.u64(..4)) {
            world.commit();
        }
        if let Some((after, relief)) = strike(world, workers, &mut operator) {
            due.push((now + after, relief));
        }
        // A worker that was told to stop is started anew some time later.
        for worker in workers.iter_mut() {
            if !worker.is_running() && !due.iter().any(|(_, relief)| relief.is_start(worker)) {
                worker.start();
            }
        }
    }
}

/// Everybody runs, everything is visible.
pub(super) fn clear<H: RecordHandler>(world: &Arc<World>, workers: &mut [Worker<H>]) {
    for worker in workers.iter() {
        worker.thaw();
        worker.sees(true);
    }
    start_all(workers);
    for (shard, _, _) in world.stream.census() {
        world.stream.hide(&shard.id, false);
    }
}

/// Starts whoever does not run.
pub(super) fn start_all<H: RecordHandler>(workers: &mut [Worker<H>]) {
    let stopped = workers.iter_mut().filter(|worker| !worker.is_running());
    stopped.for_each(Worker::start);
}

/// What ends something that went wrong.
enum Relief {
    Start(usize),
    Thaw(usize),
    See(usize),
    Show(Vec<ShardId>),
}

impl Relief {
    fn is_start<H: RecordHandler>(&self, worker: &Worker<H>) -> bool {
        matches!(self, Self::Start(index) if *index == worker.index)
    }

    fn come<H: RecordHandler>(self, world: &World, workers: &mut [Worker<H>]) {
        match self {
            Self::Start(index) => workers[index].start(),
            Self::Thaw(index) => workers[index].thaw(),
            Self::See(index) => workers[index].sees(true),
            Self::Show(shards) => shards
                .iter()
                .for_each(|shard| world.stream.hide(shard, false)),
        }
    }
}

/// One thing goes wrong, or nothing; and what will end it, after how long.
fn strike<H: RecordHandler>(
    world: &Arc<World>,
    workers: &mut [Worker<H>],
    operator: &mut Instant,
) -> Option<(Duration, Relief)> {
    let (luck, who, millis) = world.with_rng(|rng, _| {
        (
            rng.u32(..1000),
            rng.usize(..workers.len()),
            rng.u64(100..25_000),
        )
    });
    let (worker, after) = (&mut workers[who], Duration::from_millis(millis));
    let up = worker.is_running() && !worker.is_frozen();
    match luck {
        0..=19 if up => {
            world.count("crashes");
            worker.crash();
            return Some((after, Relief::Start(who)));
        }
        luck if luck >= 1000 - world.climate.frost && up => {
            world.count("freezes");
            worker.freeze();
            return Some((after, Relief::Thaw(who)));
        }
        45..=59 if up => {
            world.count("stops");
            worker.stop();
        }
        130..=134 if up => {
            world.count("blind spells");
            worker.sees(false);
            // Long enough, now and then, for others to go on.
            return Some((after * 2, Relief::See(who)));
        }
        60..=79 => return split(world, after),
        80..=94 => trim(world),
        95..=99 => forget(world),
        100..=129 if *operator <= Instant::now() => {
            *operator = Instant::now() + world.climate.peace;
            operator::strike(world);
        }
        _ => {}
    }
    None
}

/// A shard splits or rolls over; sometimes its children stay invisible for a while.
fn split(world: &World, after: Duration) -> Option<(Duration, Relief)> {
    let open = world.stream.open_shards();
    let (shard, kind, hidden) =
        world.with_rng(|rng, _| (rng.choice(&open).cloned(), rng.u32(..3), rng.u32(..3) == 0));
    let in_two = kind == 0 && open.len() < 6;
    world.count(if in_two { "splits" } else { "rollovers" });
    let shard = shard?;
    let children = world.stream.end(&shard, in_two);
    world.shards_changed();
    world.tell(format_args!("{shard} ends, hidden children: {hidden}"));
    if !hidden {
        return None;
    }
    world.count("late children");
    for child in &children {
        world.stream.hide(child, true);
    }
    Some((after, Relief::Show(children)))
}

/// The stream drops what it has kept for long enough from one of its shards.
fn trim(world: &World) {
    let census = world.stream.census();
    let at = world.with_rng(|rng, _| rng.usize(..census.len()));
    let shard = &census[at].0.id;
    let dropped = world
        .stream
        .trim(shard, world.now() - world.climate.retention);
    if let Some(last) = dropped.last() {
        world.count("trims");
        world.tell(format_args!(
            "{shard} is trimmed up to {}",
            last.sequence_number
        ));
    }
    world.witness(|witness| witness.trimmed(&dropped));
}

/// The stream forgets its oldest shard, if that has ended and is old enough.
fn forget(world: &World) {
    let oldest = world
        .stream
        .census()
        .into_iter()
        .find(|(_, trimmed, all)| trimmed < all);
    if let Some((shard, _, _)) = oldest {
        let dropped = world
            .stream
            .forget(&shard.id, world.now() - world.climate.retention - LATE);
        if !dropped.is_empty() {
            world.count("forgotten shards");
            world.tell(format_args!("{} is forgotten", shard.id));
        }
        world.witness(|witness| witness.trimmed(&dropped));
    }
}
