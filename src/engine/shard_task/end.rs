//! The end of a shard: its children, and the gaps that trimming leaves.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::{Ahead, ShardTask, Stopped, gap_row, next_order, until};
use crate::core::fleet::rules::FleetRule;
use crate::core::record::SequenceNumber;
use crate::core::shard::{Shard, ShardId};
use crate::engine::Engine;
use crate::engine::progress::Counters;
use crate::engine::settings::OnGap;
use crate::stores::leases::{GapRow, Hold, LeaseRow, LeaseStore, Report};
use crate::stores::retry::{UNTIL_ANSWERED, persist};
use crate::stores::source::{SourceError, StreamSource};

/// What a halted shard's row says.
pub(crate) const HALTED: &str = "halted at a gap, as --on-gap says; `aftercommit gaps list` shows it, and a \
    worker with --on-gap continue resumes behind it";

/// How often an empty answer about children is doubted. After that the full listing decides.
const EMPTY_ANSWERS: u32 = 6;

impl<S: StreamSource, L: LeaseStore> ShardTask<S, L> {
    /// Everything in the shard is finished: records that, together with its children's leases.
    pub(super) async fn finish(&mut self) -> Stopped {
        let (engine, hold) = (self.engine.clone(), self.assignment.hold.clone());
        let (report, rng) = (self.report.clone(), self.rng.fork());
        match self.guarded(end_shard(engine, hold, report, rng)).await {
            Ok(ended) | Err(ended) => ended,
        }
    }

    /// Records were trimmed before they could be read: records the gap, then reads on from the horizon.
    pub(super) async fn gap(&mut self) -> Option<Stopped> {
        let detected = self.engine.clock.now();
        let gap = gap_row(&self.assignment.hold, self.last_read.as_ref(), detected);
        error!(shard = %gap.shard, last_handled = ?gap.last_handled,
            "records were trimmed before they could be read: a gap");
        Counters::add(&self.engine.progress.counters.gaps);
        let ended = self.write_gap(gap.clone()).await;
        self.open_gap = Some(gap);
        if self.engine.settings.on_gap == OnGap::Halt {
            self.ahead = Ahead::Gap;
            self.report.last_error = Some(HALTED.to_owned());
        }
        ended
    }

    /// Everything before the gap is finished: writes the last checkpoint, and no more.
    pub(super) async fn halt(&mut self) -> Stopped {
        let (engine, rng) = (self.engine.clone(), self.rng.fork());
        let (hold, report) = (self.assignment.hold.clone(), self.present_report());
        let position = self.effects.reached().least;
        let (at, reported) = (position.clone(), report.clone());
        let write = async move {
            let write = || engine.leases.checkpoint(&hold, &at, &reported);
            let limit = engine.settings.timing.call_timeout();
            persist(limit, rng, "the last checkpoint before a gap", write).await
        };
        match self.guarded(write).await {
            Ok(Some(())) => Stopped::Halted(position, report),
            Ok(None) => Stopped::Refused,
            Err(ended) => ended,
        }
    }

    /// The first record after a gap shows where the gap ends.
    pub(super) async fn close_gap(&mut self, first_after: &SequenceNumber) -> Option<Stopped> {
        let mut gap = self.open_gap.take()?;
        gap.first_after = Some(first_after.clone());
        self.write_gap(gap).await
    }

    async fn write_gap(&mut self, gap: GapRow) -> Option<Stopped> {
        let (engine, rng) = (self.engine.clone(), self.rng.fork());
        let hold = self.assignment.hold.clone();
        let write = async move {
            let write = || engine.leases.record_gap(&gap, Some(&hold));
            let limit = engine.settings.timing.call_timeout();
            persist(limit, rng, "recording a gap", write).await
        };
        match self.guarded(write).await {
            Ok(Some(())) => None,
            Ok(None) => Some(Stopped::Refused),
            Err(ended) => Some(ended),
        }
    }

    /// The stream says that the shard does not exist. If the listing agrees, its unread records are
    /// lost, and its children are read.
    pub(super) async fn gone(&mut self) -> Option<Stopped> {
        let (source, shard) = (self.engine.source.clone(), self.shard().clone());
        let listing = async move { source.describe(shard.label()).await };
        let listing = match self.guarded(listing).await {
            Ok(listing) => listing,
            Err(ended) => return Some(ended),
        };
        match listing {
            Ok(listing) if listing.shards.iter().any(|shard| shard.id == *self.shard()) => None,
            // The listing agrees, or the whole stream is gone.
            Ok(_) | Err(SourceError::Gone) => {
                self.ahead = Ahead::End;
                self.gap().await
            }
            Err(error) => {
                warn!(shard = %self.shard(), error = %error, "the shard is gone, and the stream cannot be listed");
                self.report.last_error = Some(error.to_string());
                None
            }
        }
    }

    /// Waits for `work` while running records continue, unless the task has to stop before.
    pub(super) async fn guarded<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::pin!(work);
        // Nothing starts meanwhile.
        self.effects.leave_line();
        loop {
            self.tell_turn();
            if let Some(ended) = self.stopped() {
                return Err(ended);
            }
            let (expiry, patience) = (self.expiry(), self.patience());
            tokio::select! {
                biased;
                order = next_order(&mut self.assignment.orders), if !self.abandoned() => self.stop(order),
                () = until(expiry) => self.check_tenure(),
                () = until(patience) => {}
                happened = self.effects.ended() => self.happened(happened),
                done = &mut work, if self.stopping.is_none() => return Ok(done),
            }
        }
    }
}

async fn end_shard<S: StreamSource, L: LeaseStore>(
    engine: Arc<Engine<S, L>>,
    hold: Hold,
    report: Report,
    mut rng: fastrand::Rng,
) -> Stopped {
    let children = find_children(&engine, &hold.shard, &mut rng).await;
    let ids: Vec<_> = children.iter().map(|child| child.id.as_str()).collect();
    info!(shard = %hold.shard, children = ?ids, "the shard ended");
    // Ending the parent raises its epoch once more; its children begin above that.
    let of_child = hold.epoch + 2;
    let rows: Vec<_> = children
        .into_iter()
        .map(|child| LeaseRow {
            // The worker that ends a shard reads its children at once.
            owner: Some(hold.owner.clone()),
            ..LeaseRow::new(child.id, child.parent, of_child).since(report.complete_until())
        })
        .collect();
    let write = || engine.leases.finish(&hold, &rows, &report);
    let limit = engine.settings.timing.call_timeout();
    match persist(limit, rng, "ending a shard", write).await {
        Some(()) => Stopped::Finished,
        None => Stopped::Refused,
    }
}

/// The shortest pause between two searches for children, which become visible late.
const SHORTEST: Duration = Duration::from_millis(100);

/// Asks for the children of a shard until the answer is reliable.
///
/// A child becomes visible some time after its parent was closed, so an empty answer is doubted for a
/// while before the full listing decides. An error other than throttling also lets the full listing
/// decide: a stream that has dropped the parent will always refuse the question.
async fn find_children<S: StreamSource, L>(
    engine: &Engine<S, L>,
    parent: &ShardId,
    rng: &mut fastrand::Rng,
) -> Vec<Shard> {
    let source = &engine.source;
    let (mut empty, mut refused) = (0, false);
    for attempt in 1.. {
        let answer = if refused || empty >= EMPTY_ANSWERS {
            match source.describe(parent.label()).await {
                // A stream that is gone lists nothing.
                Err(SourceError::Gone) => Ok(Vec::new()),
                listing => listing.map(|listing| listing.shards),
            }
        } else {
            source.children(parent).await
        };
        match answer {
            Ok(shards) if engine.simulated.leaves_out(FleetRule::ListingRepairs) => return shards,
            Ok(mut shards) => {
                shards.retain(|shard| shard.parent.as_ref() == Some(parent));
                if !shards.is_empty() || empty >= EMPTY_ANSWERS {
                    return shards;
                }
                empty += 1;
            }
            Err(error @ SourceError::Throttled(_)) => {
                warn!(shard = %parent, error = %error, "looking for children is throttled");
            }
            Err(error) => {
                warn!(shard = %parent, error = %error, "looking for children failed");
                refused = true;
            }
        }
        tokio::time::sleep(UNTIL_ANSWERED.pause(attempt, rng).max(SHORTEST)).await;
    }
    Vec::new()
}
