//! Detects that an event source fell so far behind that the stream may have dropped unread records.
//!
//! A function sees only events: what the stream drops before the mapping reads it leaves no trace. But
//! a running function makes a dead letter of each record hours before the stream drops it
//! ([`rescue_before_trim`](crate::engine::Timing::rescue_before_trim)). So an event with a record that
//! is about to be dropped shows that the mapping was stopped for most of a day, and that earlier
//! records may be gone. A gap row records that. If it cannot be written, the event is refused and
//! delivered again: a loss is never recorded only in the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::core::record::Record;
use crate::core::shard::ShardId;
use crate::engine::settings::Timing;
use crate::stores::leases::GapRow;

/// The timeout for writing a gap row.
const CALL: Duration = Duration::from_secs(5);

type RecordGap = Box<dyn Fn(GapRow) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// The callback that records gaps.
pub(super) struct Gaps {
    write: RecordGap,
    /// The last gap that this process recorded: one per day and stream is enough.
    recorded: Mutex<Option<ShardId>>,
}

impl Gaps {
    pub fn new<F>(write: impl Fn(GapRow) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self {
            write: Box::new(move |gap| Box::pin(write(gap))),
            recorded: Mutex::default(),
        }
    }

    /// Records a gap. Returns whether this process had not recorded it yet.
    ///
    /// # Errors
    ///
    /// The gap may not be recorded.
    pub async fn record(&self, gap: GapRow) -> anyhow::Result<bool> {
        let shard = gap.shard.clone();
        let recorded = || self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded().as_ref() == Some(&shard) {
            return Ok(false);
        }
        timeout(CALL, (self.write)(gap)).await??;
        *recorded() = Some(shard);
        Ok(true)
    }
}

/// The possible gap before this record, the first of an event of this stream.
pub(super) fn before(
    first: &Record,
    stream: &str,
    now: SystemTime,
    timing: &Timing,
) -> Option<GapRow> {
    let age = now.duration_since(first.created).ok()?;
    let nearly = timing
        .retention
        .saturating_sub(timing.rescue_before_trim / 4);
    if age < nearly {
        return None;
    }
    let today = humantime::format_rfc3339_seconds(now).to_string();
    let day = today.split('T').next().unwrap_or_default();
    let label = stream.split_once("/stream/").map_or("", |(_, label)| label);
    let shard = ShardId::of_stream(label, &format!("lambda-{day}"));
    let mut gap = GapRow::unread(shard, None, now);
    gap.first_after = Some(first.sequence_number.clone());
    Some(gap)
}
