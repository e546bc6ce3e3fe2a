//! What goes wrong in a simulation, and when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::operator;
use super::redriver::Redriver;
use super::trouble::Spell;
use super::worker::Worker;
use super::world::{LATE, World, streams};
use crate::core::shard::{Shard, ShardId};
use crate::engine::handler::RecordHandler;

/// Things go wrong for so long.
pub(super) async fn storm<H: RecordHandler>(
    world: &Arc<World>,
    workers: &mut [Worker<H>],
    mut redriver: Option<&mut Redriver<H>>,
    length: Duration,
) {
    let mut end = Instant::now() + length;
    let mut due: Vec<(Instant, Relief)> = Vec::new();
    let mut operator = Instant::now() + world.climate.peace;
    while Instant::now() < end && !world.is_violated() {
        let pause = world.with_rng(|rng, _| rng.u64(10..600));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let now = Instant::now();
        for (_, relief) in due.extract_if(.., |(at, _)| *at <= now) {
            relief.come(world, workers);
        }
        streams::forget(world);
        let nobody = due
            .iter()
            .any(|(_, relief)| matches!(relief, Relief::StartAll));
        // While nobody reads, less is committed: it costs time to catch up.
        let most = if nobody { 2 } else { 4 };
        for _ in 0..world.with_rng(|rng, _| rng.u64(..most)) {
            world.commit();
        }
        let short = workers.iter().filter(|worker| worker.lacks_memory());
        world.count_many("moments without memory", short.count() as u64);
        if let Some(redriver) = redriver.as_deref_mut() {
            tend(world, redriver);
        }
        let struck = strike(world, workers, &mut operator).or_else(|| fail(world));
        if let Some((after, relief)) = struck {
            let everybody = matches!(relief, Relief::StartAll);
            if everybody {
                end += after;
            }
            due.push((now + after, relief));
            if nobody || everybody {
                // Nobody comes back earlier.
                due.retain(|(_, relief)| !matches!(relief, Relief::Start(_)));
            }
        }
        // A worker that stopped restarts some time later.
        for worker in workers.iter_mut() {
            if !worker.is_running() && !due.iter().any(|(_, relief)| relief.is_start(worker)) {
                worker.start();
            }
        }
    }
}

/// Everybody runs, everything is visible.
pub(super) fn clear<H: RecordHandler>(world: &Arc<World>, workers: &mut [Worker<H>]) {
    for worker in workers.iter_mut() {
        worker.thaw();
        worker.sees(true);
        if world.climate.halts || world.climate.effects > 1 {
            // Only a start with other settings continues behind a gap, or performs all effects.
            worker.crash();
        }
    }
    start_all(workers);
    for (shard, _, _) in world.stream.census() {
        world.stream.hide(&shard.id, false);
    }
    streams::switch_on(world);
}

/// Now and then an operator redrives dead letters, or is interrupted at that.
fn tend<H: RecordHandler>(world: &World, redriver: &mut Redriver<H>) {
    match world.with_rng(|rng, _| rng.u32(..100)) {
        0..=3 => redriver.redrive(),
        4 => redriver.interrupt(),
        _ => {}
    }
}

/// The records of an item fail for a while, or what the handler depends on does.
fn fail(world: &World) -> Option<(Duration, Relief)> {
    if !world.climate.failing {
        return None;
    }
    let (luck, millis) = world.with_rng(|rng, _| (rng.u32(..1000), rng.u64(100..30_000)));
    let after = Duration::from_millis(millis);
    let outage = match luck {
        0..=14 => {
            let (item, how) = world.with_rng(|rng, _| world.trouble(|trouble| trouble.poison(rng)));
            world.count("items whose records fail");
            world.log(format_args!("item {item}: {how:?}"));
            return Some((after, Relief::Cure(item)));
        }
        15..=17 => Spell::Down,
        18..=20 => Spell::Overloaded,
        _ => return None,
    };
    world.count("outages of a dependency");
    world.log(format_args!("the dependency is {outage:?}"));
    world.trouble(|trouble| trouble.depend(Some(outage)));
    Some((after, Relief::Recover))
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
    SwitchOn,
    StartAll,
    Cure(u64),
    Recover,
}

impl Relief {
    fn is_start<H: RecordHandler>(&self, worker: &Worker<H>) -> bool {
        match self {
            Self::Start(index) => *index == worker.index,
            Self::StartAll => true,
            _ => false,
        }
    }

    fn come<H: RecordHandler>(self, world: &World, workers: &mut [Worker<H>]) {
        match self {
            Self::Start(index) => workers[index].start(),
            Self::Thaw(index) => workers[index].thaw(),
            Self::See(index) => workers[index].sees(true),
            Self::Show(shards) => shards
                .iter()
                .for_each(|shard| world.stream.hide(shard, false)),
            Self::SwitchOn => streams::switch_on(world),
            Self::StartAll => start_all(workers),
            Self::Cure(item) => world.trouble(|trouble| trouble.cure(item)),
            Self::Recover => world.trouble(|trouble| trouble.depend(None)),
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
    let after = Duration::from_millis(millis);
    let any_up = workers.iter().any(Worker::is_running);
    let worker = &mut workers[who];
    let up = worker.is_running() && !worker.is_frozen();
    let replaced = world.climate.replaced;
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
            // Long enough, now and then, for others to take over.
            return Some((after * 2, Relief::See(who)));
        }
        60..=79 => return split(world, after),
        luck if (200..200 + replaced).contains(&luck) => return replace(world, after),
        luck if (220..220 + replaced / 4).contains(&luck) && any_up => {
            return Some((leave_all(world, workers), Relief::StartAll));
        }
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

/// The stream is switched off and on, at once or some time later, sometimes twice in a row.
fn replace(world: &World, after: Duration) -> Option<(Duration, Relief)> {
    match world.with_rng(|rng, _| rng.u32(..4)) {
        0 => streams::replace(world, 1),
        1 => streams::replace(world, 2),
        _ => {
            streams::switch_off(world);
            return Some((after, Relief::SwitchOn));
        }
    }
    None
}

/// Everybody stops or crashes. Answers for how long nobody runs: sometimes so long that what is
/// switched off at first is gone in the end.
fn leave_all<H: RecordHandler>(world: &World, workers: &mut [Worker<H>]) -> Duration {
    world.count("times without any worker");
    for worker in workers.iter_mut().filter(|worker| worker.is_running()) {
        if worker.is_frozen() || world.with_rng(|rng, _| rng.bool()) {
            worker.crash();
        } else {
            worker.stop();
        }
    }
    let day = world.climate.retention + LATE;
    world.with_rng(|rng, _| (day * 3 / 2).mul_f64(rng.f64()))
}

/// A shard splits or rolls over; sometimes its children stay invisible for a while.
fn split(world: &World, after: Duration) -> Option<(Duration, Relief)> {
    let open = world.stream.open_shards();
    let (shard, kind, hidden) =
        world.with_rng(|rng, _| (rng.choice(&open).cloned(), rng.u32(..3), rng.u32(..3) == 0));
    let in_two = kind == 0 && open.len() < 6;
    let shard = shard?;
    world.count(if in_two { "splits" } else { "rollovers" });
    let children = world.stream.end(&shard, in_two);
    world.shards_changed();
    world.log(format_args!("{shard} ends, hidden children: {hidden}"));
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
        world.log(format_args!(
            "{shard} is trimmed up to {}",
            last.sequence_number
        ));
    }
    world.witnesses(|witness| witness.trimmed(&dropped));
}

/// The stream forgets its oldest shard, if that has ended and is old enough. The last shards of a
/// stream that was switched off go with the stream.
fn forget(world: &World) {
    let census = world.stream.census();
    let parents: BTreeSet<_> = census
        .iter()
        .filter_map(|(shard, ..)| shard.parent.clone())
        .collect();
    let held = |(shard, trimmed, all): &(Shard, usize, usize)| {
        trimmed < all && parents.contains(&shard.id)
    };
    let oldest = census.into_iter().find(held);
    if let Some((shard, _, _)) = oldest {
        let dropped = world
            .stream
            .forget(&shard.id, world.now() - world.climate.retention - LATE);
        if !dropped.is_empty() {
            world.count("forgotten shards");
            world.log(format_args!("{} is forgotten", shard.id));
        }
        world.witnesses(|witness| witness.trimmed(&dropped));
    }
}
