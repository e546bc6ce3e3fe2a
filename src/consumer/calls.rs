//! The calls that a fleet member has in flight, and their answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::Instant;

use super::within;
use crate::decide::shard::ShardId;
use crate::engine::Engine;
use crate::gate::left_out;
use crate::group::Identity;
use crate::leases::{
    Consistency, GapRow, GroupRow, Hold, Incarnation, LeaseRow, LeaseStore, Report, StreamRow,
    Take, View, WorkerRow,
};
use crate::record::Position;
use crate::source::{Description, SourceError, StreamSource};
use crate::trust::Generation;

/// A call in flight.
pub(super) type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What came of a call.
pub(super) enum Answer {
    Beat {
        began: Instant,
        incarnation: Incarnation,
        result: anyhow::Result<Option<()>>,
    },
    Looked(Looked),
    Bootstrapped {
        asked: GroupRow,
        result: anyhow::Result<GroupRow>,
    },
    IdentityChanged(anyhow::Result<Option<()>>),
    Took {
        take: Take,
        generation: Generation,
        result: anyhow::Result<Option<LeaseRow>>,
    },
    HandedOver {
        shard: ShardId,
        to: Option<Incarnation>,
        result: anyhow::Result<Option<()>>,
    },
    Listed {
        began: Instant,
        result: Result<Description, SourceError>,
    },
    /// Rows were created, healed or removed, and so many gaps written down.
    Tidied(anyhow::Result<u64>),
}

/// A look at the table.
pub(super) struct Looked {
    pub began: Instant,
    /// The generation in which it began, if a heartbeat vouched for it then.
    pub generation: Option<Generation>,
    pub consistency: Consistency,
    pub result: anyhow::Result<View>,
}

/// A listing that takes so many of the intervals between two of them is given up: the stream does not
/// answer.
const LISTING_PATIENCE: u32 = 10;

/// How many rows are created within the time of one call.
const ROWS_AT_ONCE: usize = 100;

/// How often a hand-over whose answer is lost is repeated before the next look has to tell.
const HAND_OVER_TRIES: u32 = 5;

impl<S: StreamSource, L: LeaseStore, H: Send + Sync + 'static> Engine<S, L, H> {
    /// Writes the heartbeat; the first one of an incarnation registers it.
    pub(super) fn beat(self: &Arc<Self>, row: WorkerRow, first: bool) -> Call {
        let (engine, began) = (self.clone(), Instant::now());
        Box::pin(async move {
            let limit = engine.settings.timing.call_timeout();
            let result = if first {
                within(limit, engine.leases.register(&row)).await.map(Some)
            } else {
                within(limit, engine.leases.heartbeat(&row)).await
            };
            Answer::Beat {
                began,
                incarnation: row.incarnation,
                result,
            }
        })
    }

    pub(super) fn look(
        self: &Arc<Self>,
        consistency: Consistency,
        generation: Option<Generation>,
    ) -> Call {
        let (engine, began) = (self.clone(), Instant::now());
        Box::pin(async move {
            let patience = if left_out!(EarlyReread) { 100 } else { 1 };
            let limit = engine.settings.timing.call_timeout() * patience;
            let result = within(limit, engine.leases.look(consistency)).await;
            Answer::Looked(Looked {
                began,
                generation,
                consistency,
                result,
            })
        })
    }

    pub(super) fn bootstrap(self: &Arc<Self>, asked: GroupRow) -> Call {
        let engine = self.clone();
        Box::pin(async move {
            let limit = engine.settings.timing.call_timeout();
            let result = within(limit, engine.leases.bootstrap(asked.clone())).await;
            Answer::Bootstrapped { asked, result }
        })
    }

    pub(super) fn change_identity(self: &Arc<Self>, seen: Identity, new: Identity) -> Call {
        let engine = self.clone();
        Box::pin(async move {
            let limit = engine.settings.timing.call_timeout();
            let change = engine.leases.change_identity(&seen, &new);
            Answer::IdentityChanged(within(limit, change).await)
        })
    }

    pub(super) fn take(self: &Arc<Self>, take: Take, generation: Generation) -> Call {
        let engine = self.clone();
        Box::pin(async move {
            let limit = engine.settings.timing.call_timeout();
            let result = within(limit, engine.leases.take(&take)).await;
            Answer::Took {
                take,
                generation,
                result,
            }
        })
    }

    pub(super) fn hand_over(
        self: &Arc<Self>,
        hold: Hold,
        to: Option<Incarnation>,
        position: Position,
        report: Report,
    ) -> Call {
        let engine = self.clone();
        Box::pin(async move {
            let limit = engine.settings.timing.call_timeout();
            let mut result = Ok(None);
            for _ in 0..HAND_OVER_TRIES {
                let call = engine
                    .leases
                    .hand_over(&hold, to.as_ref(), &position, &report);
                result = within(limit, call).await;
                if result.is_ok() {
                    break;
                }
                tokio::time::sleep(engine.settings.timing.idle_min).await;
            }
            Answer::HandedOver {
                shard: hold.shard,
                to,
                result,
            }
        })
    }

    /// Lists the streams and their shards, from this stream on.
    pub(super) fn list(self: &Arc<Self>, from: Option<String>) -> Call {
        let (engine, began) = (self.clone(), Instant::now());
        Box::pin(async move {
            let limit = engine.settings.timing.listing_interval * LISTING_PATIENCE;
            let listing = tokio::time::timeout(limit, engine.source.describe(from.as_deref()));
            let late = |_| Err(SourceError::Other(anyhow!("no listing within {limit:?}")));
            let result = listing.await.unwrap_or_else(late);
            Answer::Listed { began, result }
        })
    }

    /// Creates, heals and removes rows, whichever there are.
    pub(super) fn tidy(self: &Arc<Self>, tidying: Tidying) -> Call {
        let engine = self.clone();
        Box::pin(async move {
            let limit = engine.settings.timing.call_timeout();
            Answer::Tidied(tidying.apply(&engine.leases, limit).await)
        })
    }
}

/// Rows to create, to heal and to remove.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    /// Written before anything is created: shards that were lost before they could be leased.
    pub gaps: Vec<GapRow>,
    pub create: Vec<LeaseRow>,
    pub heal: Vec<LeaseRow>,
    pub ended: Vec<ShardId>,
    /// Written last: what is known of the streams.
    pub streams: Vec<StreamRow>,
    /// With the beat at which they still have to stand, where they can be read at all.
    pub dead: Vec<(Incarnation, Option<u64>)>,
}

impl Tidying {
    pub fn is_empty(&self) -> bool {
        self.create.is_empty()
            && self.heal.is_empty()
            && self.ended.is_empty()
            && self.dead.is_empty()
            && self.streams.is_empty()
    }

    /// Each call for at most `limit`. What is not done is found by the next listing.
    async fn apply<L: LeaseStore>(self, leases: &L, limit: Duration) -> anyhow::Result<u64> {
        for gap in &self.gaps {
            within(limit, leases.record_gap(gap, None)).await?;
        }
        for rows in self.create.chunks(ROWS_AT_ONCE) {
            within(limit, leases.create(rows)).await?;
        }
        for row in &self.heal {
            within(limit, leases.heal(row)).await?;
        }
        for shard in &self.ended {
            within(limit, leases.remove_ended(shard)).await?;
        }
        for (name, beat) in &self.dead {
            within(limit, leases.remove_worker(name, *beat)).await?;
        }
        for stream in &self.streams {
            within(limit, leases.note_stream(stream)).await?;
        }
        Ok(self.gaps.len() as u64)
    }
}
