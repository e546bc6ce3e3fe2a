//! The memory adapters with an ear on every call, and with failures on demand.

use aftercommit::Clock;
use aftercommit::stores::leases::GroupEffects;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::internal::shard::{Shard, ShardId};
use aftercommit::record::Position;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{
    Consistency, Epoch, Fence, GapRow, GroupRow, Hold, Incarnation, LeaseRow, LeaseStore, Reach,
    Report, StreamRow, Take, View, WorkerRow,
};
use aftercommit::stores::source::memory::MemoryStream;
use aftercommit::stores::source::{Batch, Description, ShardIterator, SourceError, StreamSource};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Fine,
    /// Not applied.
    Fails,
    /// Applied, and the answer lost.
    Unanswered,
    /// Applied, and the answer comes after this long.
    Late(Duration),
}

/// Decides by the call's name and how many of that name there were before.
type Decide = Arc<dyn Fn(&'static str, u64) -> Fate + Send + Sync>;

/// A lease table that counts its calls by name.
#[derive(Clone)]
pub struct Heard {
    inner: MemoryLeases,
    counts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    decide: Decide,
}

impl Heard {
    pub fn new(inner: &MemoryLeases) -> Self {
        Self::failing(inner, |_, _| Fate::Fine)
    }

    pub fn failing(
        inner: &MemoryLeases,
        decide: impl Fn(&'static str, u64) -> Fate + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: inner.clone(),
            counts: Arc::default(),
            decide: Arc::new(decide),
        }
    }

    /// One of whose calls those that `down` names fail while the switch is on.
    pub fn failing_while(
        inner: &MemoryLeases,
        switch: &Arc<AtomicBool>,
        down: impl Fn(&'static str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let switch = switch.clone();
        Self::failing(inner, move |call, _| {
            if down(call) && switch.load(Ordering::Relaxed) {
                Fate::Fails
            } else {
                Fate::Fine
            }
        })
    }

    pub fn count(&self, call: &str) -> u64 {
        self.counts.lock().unwrap().get(call).copied().unwrap_or(0)
    }

    /// All calls but the looks: each is one write (`create` counts its rows).
    pub fn writes(&self) -> u64 {
        let counts = self.counts.lock().unwrap();
        let writes = counts.iter().filter(|(call, _)| **call != "look");
        writes.map(|(_, count)| count).sum()
    }

    async fn call<T>(
        &self,
        name: &'static str,
        weight: usize,
        call: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let before = self.count(name);
        *self.counts.lock().unwrap().entry(name).or_default() += weight as u64;
        let fate = (self.decide)(name, before);
        if fate == Fate::Fails {
            anyhow::bail!("{name} fails, and is not applied");
        }
        let answer = call.await;
        if fate == Fate::Unanswered {
            anyhow::bail!("the answer to {name} is lost");
        }
        if let Fate::Late(by) = fate {
            tokio::time::sleep(by).await;
        }
        answer
    }
}

impl LeaseStore for Heard {
    fn reads(&self) -> u32 {
        self.inner.reads()
    }

    fn service_time(&self) -> Option<SystemTime> {
        self.inner.service_time()
    }

    async fn look_at(&self, reach: Reach, consistency: Consistency) -> anyhow::Result<View> {
        let look = self.inner.look_at(reach, consistency);
        self.call("look", 1, look).await
    }

    async fn archive(&self, shard: &ShardId) -> anyhow::Result<()> {
        self.call("archive", 1, self.inner.archive(shard)).await
    }

    async fn bootstrap(&self, row: GroupRow) -> anyhow::Result<GroupRow> {
        self.call("bootstrap", 1, self.inner.bootstrap(row)).await
    }

    async fn change_effects(
        &self,
        seen: &GroupEffects,
        new: &GroupEffects,
    ) -> anyhow::Result<Option<()>> {
        let change = self.inner.change_effects(seen, new);
        self.call("change_effects", 1, change).await
    }

    async fn note_stream(&self, row: &StreamRow) -> anyhow::Result<()> {
        self.call("note_stream", 1, self.inner.note_stream(row))
            .await
    }

    async fn register(&self, row: &WorkerRow) -> anyhow::Result<()> {
        self.call("register", 1, self.inner.register(row)).await
    }

    async fn heartbeat(&self, row: &WorkerRow) -> anyhow::Result<Option<()>> {
        self.call("heartbeat", 1, self.inner.heartbeat(row)).await
    }

    async fn remove_worker(&self, name: &Incarnation, at: Option<u64>) -> anyhow::Result<()> {
        self.call("remove_worker", 1, self.inner.remove_worker(name, at))
            .await
    }

    async fn create(&self, rows: &[LeaseRow]) -> anyhow::Result<()> {
        self.call("create", rows.len(), self.inner.create(rows))
            .await
    }

    async fn heal(&self, row: &LeaseRow) -> anyhow::Result<()> {
        self.call("heal", 1, self.inner.heal(row)).await
    }

    async fn take(&self, take: &Take) -> anyhow::Result<Option<LeaseRow>> {
        self.call("take", 1, self.inner.take(take)).await
    }

    async fn hand_over(
        &self,
        hold: &Hold,
        to: Option<&Incarnation>,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let call = self.inner.hand_over(hold, to, checkpoint, report);
        self.call("hand_over", 1, call).await
    }

    async fn checkpoint(
        &self,
        hold: &Hold,
        checkpoint: &Position,
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let call = self.inner.checkpoint(hold, checkpoint, report);
        self.call("checkpoint", 1, call).await
    }

    async fn finish(
        &self,
        hold: &Hold,
        children: &[LeaseRow],
        report: &Report,
    ) -> anyhow::Result<Option<()>> {
        let call = self.inner.finish(hold, children, report);
        self.call("finish", 1 + children.len(), call).await
    }

    async fn remove_ended(&self, shard: &ShardId) -> anyhow::Result<()> {
        self.call("remove_ended", 1, self.inner.remove_ended(shard))
            .await
    }

    async fn record_gap(&self, gap: &GapRow, hold: Option<&Hold>) -> anyhow::Result<Option<()>> {
        let call = self.inner.record_gap(gap, hold);
        self.call("record_gap", 1, call).await
    }

    fn fence(&self, hold: &Hold) -> Fence {
        self.inner.fence(hold)
    }
}

/// What was asked, and of which shard.
type Asked = (&'static str, Option<ShardId>);

/// A stream that notes which of its shards are asked for what, and fails some listings.
#[derive(Clone)]
pub struct Tapped {
    inner: MemoryStream,
    calls: Arc<Mutex<Vec<Asked>>>,
    listings_to_fail: Arc<AtomicUsize>,
    listing_takes: Duration,
    reads_fail: Option<fn() -> SourceError>,
    clock: Option<Clock>,
}

impl Tapped {
    pub fn new(inner: &MemoryStream) -> Self {
        Self::failing(inner, 0)
    }

    pub fn failing(inner: &MemoryStream, listings: usize) -> Self {
        Self {
            inner: inner.clone(),
            calls: Arc::default(),
            listings_to_fail: Arc::new(listings.into()),
            listing_takes: Duration::ZERO,
            reads_fail: None,
            clock: None,
        }
    }

    /// With the clock of its service.
    pub fn clock(self, clock: Clock) -> Self {
        Self {
            clock: Some(clock),
            ..self
        }
    }

    /// A stream that answers every read with this error.
    pub fn refusing(inner: &MemoryStream, error: fn() -> SourceError) -> Self {
        Self {
            reads_fail: Some(error),
            ..Self::new(inner)
        }
    }

    /// A stream of so many shards that listing them takes so long.
    pub fn large(inner: &MemoryStream, listing_takes: Duration) -> Self {
        Self {
            listing_takes,
            ..Self::new(inner)
        }
    }

    /// The next listings fail.
    pub fn fail_listings(&self, count: usize) {
        self.listings_to_fail.store(count, Ordering::Relaxed);
    }

    /// How often this was asked for, of this shard or of any.
    pub fn count(&self, call: &str, shard: Option<&ShardId>) -> usize {
        let calls = self.calls.lock().unwrap();
        let same = |(name, of): &&Asked| *name == call && (shard.is_none() || of.as_ref() == shard);
        calls.iter().filter(same).count()
    }

    fn note(&self, call: &'static str, shard: Option<&ShardId>) {
        self.calls.lock().unwrap().push((call, shard.cloned()));
    }
}

impl StreamSource for Tapped {
    fn service_time(&self) -> Option<SystemTime> {
        self.clock.as_ref().map(Clock::now)
    }

    async fn describe(&self, from: Option<&str>) -> Result<Description, SourceError> {
        self.note("describe", None);
        let left = |left: usize| left.checked_sub(1);
        let failing = &self.listings_to_fail;
        if failing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
            .is_ok()
        {
            return Err(SourceError::Throttled("too many listings".to_owned()));
        }
        let listing = self.inner.describe(from).await;
        tokio::time::sleep(self.listing_takes).await;
        listing
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        self.note("children", Some(parent));
        self.inner.children(parent).await
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &Position,
    ) -> Result<ShardIterator, SourceError> {
        self.note("iterator", Some(shard));
        self.inner.iterator(shard, position).await
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<Batch, SourceError> {
        self.note("read", None);
        if let Some(error) = self.reads_fail {
            return Err(error());
        }
        let batch = self.inner.read(iterator).await;
        if matches!(batch, Err(SourceError::Expired)) {
            self.note("expired", None);
        }
        batch
    }
}

/// The lease `shard` in the hands of `owner`, who holds it under `epoch`.
pub fn held(shard: &ShardId, owner: &Incarnation, epoch: Epoch) -> LeaseRow {
    LeaseRow {
        owner: Some(owner.clone()),
        ..LeaseRow::new(shard.clone(), None, epoch)
    }
}
