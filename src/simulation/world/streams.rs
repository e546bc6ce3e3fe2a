//! The table's streams in a simulation: switched off and on at random times. The earlier stream stays
//! readable for a while after it was switched off; then it is gone.

use crate::core::millis::since_1970;
use std::sync::{MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use super::{LATE, World};

/// How many shards a new stream has at most.
const SHARDS: u64 = 3;

/// Which streams the table has.
#[derive(Debug)]
pub(in crate::simulation) struct StreamHistory {
    newest: String,
    is_on: bool,
    /// Those that were switched off, and when each is gone.
    ending: Vec<(String, Instant)>,
}

impl StreamHistory {
    /// A table whose first stream was just switched on.
    pub fn new(now: SystemTime) -> Self {
        Self {
            newest: label(now),
            is_on: true,
            ending: Vec::new(),
        }
    }

    /// The label of the newest stream.
    pub fn newest(&self) -> &str {
        &self.newest
    }

    fn end(&mut self, world: &World) {
        if std::mem::take(&mut self.is_on) {
            world.stream.switch_off();
            world.count("streams switched off");
            world.log(format_args!("stream {} is switched off", self.newest));
            let gone = Instant::now() + world.climate.retention + LATE;
            self.ending.push((self.newest.clone(), gone));
        }
    }

    /// Labels rise, also where two streams are switched on at once.
    fn begin(&mut self, world: &World) {
        let after = self.newest.parse().map_or(0, |newest: u64| newest + 1);
        let new = label(world.now());
        self.newest = new.max(numbered(after));
        self.is_on = true;
        let shards = world.with_rng(|rng, _| rng.u64(1..=SHARDS));
        world.stream.switch_on(&self.newest, world.now(), shards);
        world.count("streams switched on");
        world.log(format_args!("stream {} is switched on", self.newest));
        world.shards_changed();
    }
}

/// Milliseconds, so that labels sort by time.
fn label(time: SystemTime) -> String {
    let millis = since_1970(time).as_millis();
    numbered(u64::try_from(millis).unwrap_or(0))
}

fn numbered(millis: u64) -> String {
    format!("{millis:015}")
}

fn of(world: &World) -> MutexGuard<'_, StreamHistory> {
    world.streams.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream is switched off; what is committed until one is switched on produces no record.
pub(in crate::simulation) fn switch_off(world: &World) {
    of(world).end(world);
}

/// A stream is switched on, if none is.
pub(in crate::simulation) fn switch_on(world: &World) {
    let mut streams = of(world);
    if !streams.is_on {
        streams.begin(world);
    }
}

/// The stream is replaced so many times in a row.
pub(in crate::simulation) fn replace(world: &World, times: u32) {
    let mut streams = of(world);
    for _ in 0..times {
        streams.end(world);
        streams.begin(world);
    }
}

/// The streams that were switched off long ago are gone.
pub(in crate::simulation) fn forget(world: &World) {
    let now = Instant::now();
    let gone: Vec<_> = of(world)
        .ending
        .extract_if(.., |(_, at)| *at <= now)
        .collect();
    for (label, _) in gone {
        world.count("streams gone");
        world.log(format_args!("stream {label} is gone"));
        let dropped = world.stream.forget_stream(&label);
        world.witnesses(|witness| witness.trimmed(&dropped));
    }
}
