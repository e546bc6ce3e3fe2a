//! An operator who redrives dead letters, and may be interrupted.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::letters::Letters;
use super::link::Link;
use super::worker::Watched;
use super::world::{World, place};
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
    letters: Letters,
    handler: Arc<Watched<H>>,
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
            letters: Letters::new(link, table),
            handler: Arc::new(Watched::new(world, index, handler())),
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
        let (world, letters, handler) = (
            self.world.clone(),
            self.letters.clone(),
            self.handler.clone(),
        );
        let name = format!("operator/{}", self.runs);
        let seed = world.with_rng(|rng, _| rng.u64(..));
        self.running = Some(tokio::spawn(async move {
            let Ok(parked) = letters.parked(&place()).await else {
                return;
            };
            let keys = parked.keys.into_iter();
            let keys = keys.map(|parked| RedrivenKey {
                at: place(),
                key: parked.key,
            });
            let clock = Clock::new(move || world.now());
            let mut rng = fastrand::Rng::with_seed(seed);
            let how = How {
                parallel: 2,
                handler_timeout: PATIENCE,
                patience: PATIENCE,
                dependency: Dependency::new(&Limits::default(), rng.fork()),
                ..How::new("operator", &name, clock)
            };
            redrive(
                &letters,
                &*handler,
                keys.collect(),
                (&how, &mut rng),
                |_| {},
            )
            .await;
        }));
    }

    /// Interrupts it: what it has claimed stays claimed until the claim ends.
    pub fn interrupt(&mut self) {
        if let Some(run) = self.running.take() {
            run.abort();
        }
    }
}
