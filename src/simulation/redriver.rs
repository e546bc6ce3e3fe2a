//! An operator who redrives dead letters, and may be interrupted.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::effects::letters_of;
use super::letters::LinkedLetters;
use super::link::Link;
use super::worker::{Idle, Watched};
use super::world::World;
use crate::engine::dependency::{Dependency, Limits};
use crate::engine::handler::RecordHandler;
use crate::engine::redrive::{How, RedrivenKey, redrive};
use crate::stores::clock::Clock;
use crate::stores::dead_letter::DeadLetters;

/// So long one letter may take, and the wait for another process.
const PATIENCE: Duration = Duration::from_secs(10);

/// An operator with the command `dead-letters redrive`.
pub(super) struct Redriver<H> {
    world: Arc<World>,
    letters: LinkedLetters,
    handler: Arc<Watched<H>>,
    others: Arc<Vec<Watched<Idle>>>,
    running: Option<JoinHandle<()>>,
    runs: u64,
}

impl<H: RecordHandler> Redriver<H> {
    /// That of a world that has dead letters, as one worker more.
    pub fn of(world: &Arc<World>, handler: &dyn Fn() -> H, index: usize) -> Option<Self> {
        let table = world.letters.clone()?;
        let link = Link::new(world.clone(), index, Arc::default());
        Some(Self {
            world: world.clone(),
            letters: LinkedLetters::new(link, table),
            handler: Arc::new(Watched::new(world, index, 0, handler()).wanted()),
            others: {
                let others = 1..world.climate.effects;
                let other = |effect| Watched::new(world, index, effect, Idle).wanted();
                Arc::new(others.map(other).collect())
            },
            running: None,
            runs: 0,
        })
    }

    /// Redrives all that is parked now, unless that is under way.
    pub fn redrive(&mut self) {
        if self.running.as_ref().is_some_and(|run| !run.is_finished()) {
            return;
        }
        self.runs += 1;
        self.world.count("redrives by an operator");
        let (world, letters) = (self.world.clone(), self.letters.clone());
        let (handler, others) = (self.handler.clone(), self.others.clone());
        let name = format!("operator/{}", self.runs);
        let mut rng = world.with_rng(|rng, _| rng.fork());
        self.running = Some(tokio::spawn(async move {
            let clock = Clock::new(move || world.now());
            let how = How {
                parallel: 2,
                handler_timeout: PATIENCE,
                patience: PATIENCE,
                dependency: Dependency::new(&Limits::default(), rng.fork()),
                ..How::new("operator", &name, clock)
            };
            let keys = keys_of(&letters, 0).await;
            redrive(&letters, &*handler, keys, (&how, &mut rng), |_| {}).await;
            for (other, handler) in others.iter().enumerate() {
                let keys = keys_of(&letters, other + 1).await;
                redrive(&letters, handler, keys, (&how, &mut rng), |_| {}).await;
            }
        }));
    }

    /// Interrupts it: what it has claimed stays claimed until the claim ends.
    pub fn interrupt(&mut self) {
        if let Some(run) = self.running.take() {
            run.abort();
        }
    }
}

/// The parked keys of an effect; none while the table does not answer.
async fn keys_of(letters: &LinkedLetters, effect: usize) -> Vec<RedrivenKey> {
    let at = letters_of(effect);
    let parked = letters.parked(&at).await.unwrap_or_default();
    let keys = parked.keys.into_iter();
    let keys = keys.map(|parked| RedrivenKey {
        at: at.clone(),
        key: parked.key,
    });
    keys.collect()
}
