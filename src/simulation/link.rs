//! The calls of a simulated worker: each may be slow, lost, refused, or applied without an answer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::oneshot;

use super::world::World;
use crate::stores::source::SourceError;

/// One worker's connection to the table and the stream.
#[derive(Clone)]
pub(super) struct Link {
    world: Arc<World>,
    worker: usize,
    /// While set, no look at the table gets there.
    blind: Arc<AtomicBool>,
    /// Whether any call was answered: an answer carries the service's time.
    answered: Arc<AtomicBool>,
}

/// What becomes of a call.
enum Fate {
    Answered,
    /// Applied, and then an error or nothing at all.
    ReplyLost,
    /// Never applied.
    RequestLost,
    /// Refused at once.
    Throttled,
}

impl Link {
    pub fn new(world: Arc<World>, worker: usize, blind: Arc<AtomicBool>) -> Self {
        Self {
            world,
            worker,
            blind,
            answered: Arc::default(),
        }
    }

    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Whether any call was answered.
    pub fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets `apply` happen at some time, or not, and its answer come back at some time, or not. A
    /// packet under way arrives even if its worker is frozen or crashes.
    pub async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        apply: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let climate = self.world.climate;
        let blind = what == "look" && self.blind.load(Ordering::Relaxed);
        let (fate, there, back) = self.world.with_rng(|rng, fair| {
            let luck = if fair { u32::MAX } else { rng.u32(..1000) };
            let fate = match luck.checked_div(climate.lost.div_ceil(4)) {
                _ if blind => Fate::RequestLost,
                Some(0 | 1) => Fate::ReplyLost,
                Some(2) => Fate::RequestLost,
                Some(3) => Fate::Throttled,
                _ => Fate::Answered,
            };
            (
                fate,
                delay(rng, fair, climate.slow),
                delay(rng, fair, climate.slow),
            )
        });
        let (answer, answered) = oneshot::channel();
        let (world, worker) = (self.world.clone(), self.worker);
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let result = match fate {
                Fate::Throttled => {
                    world.count("throttles");
                    Err(anyhow!("throttled"))
                }
                Fate::RequestLost => {
                    world.count("lost requests");
                    world.note(worker, what, "request lost");
                    Err(anyhow!("the connection broke"))
                }
                Fate::ReplyLost => {
                    world.count("lost replies");
                    apply.await;
                    world.note(worker, what, "applied, reply lost");
                    world.applied(what);
                    Err(anyhow!("the connection broke"))
                }
                Fate::Answered => {
                    let result = apply.await;
                    world.applied(what);
                    Ok(result)
                }
            };
            tokio::time::sleep(back).await;
            // The worker may have crashed meanwhile.
            let _ = answer.send(result);
        });
        let result = answered
            .await
            .unwrap_or_else(|_| Err(anyhow!("the connection broke")));
        self.answered.fetch_or(result.is_ok(), Ordering::Relaxed);
        result
    }

    pub async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        apply: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.call(what, apply).await?
    }

    pub async fn read_stream<T: Send + 'static>(
        &self,
        what: &'static str,
        apply: impl Future<Output = Result<T, SourceError>> + Send + 'static,
    ) -> Result<T, SourceError> {
        match self.call(what, apply).await {
            Ok(answer) => answer,
            Err(error) if error.to_string() == "throttled" => {
                Err(SourceError::Throttled("by the simulation".to_owned()))
            }
            Err(error) => Err(SourceError::Other(error)),
        }
    }
}

/// Mostly milliseconds, sometimes seconds, now and then longer than trust lasts.
pub(super) fn delay(rng: &mut fastrand::Rng, fair: bool, slow: u32) -> Duration {
    let luck = if fair { u32::MAX } else { rng.u32(..1000) };
    let millis = match luck {
        u32::MAX => rng.u64(1..10),
        _ if luck < slow / 4 => rng.u64(3_000..20_000),
        _ if luck < slow => rng.u64(300..3_000),
        _ => rng.u64(1..30),
    };
    Duration::from_millis(millis)
}
