//! A memory limit for all shards of a process, shared fairly.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The memory of one read, in bytes: 1,000 small records take about 2.4 MiB once decoded, and so does
/// the 1 MiB that a read can return, as JSON and as records together (`bench -- memory`).
///
/// Source: [GetRecords](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const READ: usize = 5 << 19;

/// A limit on the memory of a process's records, in bytes. It counts their size in memory
/// ([`Record::memory`](crate::Record::memory)), not their size in the stream. Share one budget among
/// the consumers of a process.
///
/// A shard reads only while there is room for what it holds plus one more read. So a shard that makes
/// no progress keeps at most half of the budget, two such shards a third each, and there is always room
/// for another. When room becomes free, the waiting read whose shard holds least gets it.
///
/// A read reserves 2.5 MiB, and returns what its records do not take. If they take more, the budget is
/// overdrawn, and nothing is read until it is not.
#[derive(Debug, Clone)]
pub struct Budget(Arc<BudgetPool>);

#[derive(Debug)]
struct BudgetPool {
    bytes: usize,
    state: Mutex<BudgetState>,
}

#[derive(Debug)]
struct BudgetState {
    taken: usize,
    /// Waiting reads, ordered by what their shard holds, then first come, first served.
    waiting: BTreeMap<WaitingPlace, Arc<WaitingRead>>,
    /// The number of the next waiting read.
    next: u64,
}

type WaitingPlace = (usize, u64);

/// A read that waits for room, and is notified when it gets some.
#[derive(Debug)]
struct WaitingRead {
    own: Arc<Own>,
    granted: AtomicBool,
    woken: Notify,
}

/// What one shard holds. Both fields change only under the lock of the pool's state.
#[derive(Debug, Default)]
struct Own {
    held: AtomicUsize,
    /// The number of its waiting read.
    waits: Mutex<Option<u64>>,
}

impl Own {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn waits(&self) -> MutexGuard<'_, Option<u64>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetPool {
    fn state(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a read of a shard that holds this much, if there is any.
    fn take_for_a_read(&self, state: &mut BudgetState, own: &Own) -> bool {
        let needed = state.taken.saturating_add(own.held()).saturating_add(READ);
        let fits = needed <= self.bytes;
        if fits {
            Self::take(state, own, READ);
        }
        fits
    }

    fn take(state: &mut BudgetState, own: &Own, bytes: usize) {
        state.taken += bytes;
        own.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Frees room of a shard, and gives it to the waiting reads for which it is enough.
    fn free(&self, own: &Own, bytes: usize) {
        let mut state = self.state();
        let before = own.held.fetch_sub(bytes, Ordering::Relaxed);
        state.taken -= bytes;
        if let Some(number) = *own.waits()
            && let Some(waiter) = state.waiting.remove(&(before, number))
        {
            state.waiting.insert((own.held(), number), waiter);
        }
        while let Some((place, waiter)) = state.waiting.first_key_value() {
            let (place, waiter) = (*place, waiter.clone());
            if !self.take_for_a_read(&mut state, &waiter.own) {
                return;
            }
            state.waiting.remove(&place);
            *waiter.own.waits() = None;
            waiter.granted.store(true, Ordering::Relaxed);
            waiter.woken.notify_one();
        }
    }
}

impl Budget {
    /// The smallest budget, in bytes: 2.5 MiB, which one read may take.
    pub const LEAST: usize = READ;

    /// A budget of this many bytes, and at least [`Budget::LEAST`].
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(BudgetPool {
            bytes: bytes.max(READ),
            state: Mutex::new(BudgetState {
                taken: 0,
                waiting: BTreeMap::new(),
                next: 0,
            }),
        }))
    }

    /// Its size in bytes.
    pub fn limit(&self) -> usize {
        self.0.bytes
    }

    /// How many bytes are taken: by records, and by reads in progress, which take what a read can
    /// return.
    pub fn taken(&self) -> usize {
        self.0.state().taken
    }

    /// How many reads wait for room.
    pub fn waiting(&self) -> usize {
        self.0.state().waiting.len()
    }

    /// The share of one shard, which holds nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            pool: self.0.clone(),
            own: Arc::default(),
        }
    }
}

/// What one shard holds of a budget. It makes one read at a time.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pool: Arc<BudgetPool>,
    own: Arc<Own>,
}

impl Share {
    /// Whether its read waits for room.
    pub fn is_waiting(&self) -> bool {
        self.own.waits().is_some()
    }

    /// Waits until there is room for one read.
    pub async fn room_for_a_read(&self) -> Room {
        let waits = match self.room_or_wait() {
            Ok(room) => return room,
            Err(waits) => waits,
        };
        waits.waiter.woken.notified().await;
        waits.waiter.granted.store(false, Ordering::Relaxed);
        self.room(READ)
    }

    fn room_or_wait(&self) -> Result<Room, Waits<'_>> {
        let mut state = self.pool.state();
        if self.pool.take_for_a_read(&mut state, &self.own) {
            return Ok(self.room(READ));
        }
        let number = state.next;
        state.next += 1;
        let waiter = Arc::new(WaitingRead {
            own: self.own.clone(),
            granted: AtomicBool::new(false),
            woken: Notify::new(),
        });
        *self.own.waits() = Some(number);
        let place = (self.own.held(), number);
        state.waiting.insert(place, waiter.clone());
        Err(Waits {
            pool: &self.pool,
            number,
            waiter,
        })
    }

    /// Room that was taken from the pool.
    fn room(&self, bytes: usize) -> Room {
        Room {
            share: self.clone(),
            bytes,
        }
    }
}

/// A waiting read. Dropping it ends the wait.
struct Waits<'a> {
    pool: &'a BudgetPool,
    number: u64,
    waiter: Arc<WaitingRead>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let own = &self.waiter.own;
        let mut state = self.pool.state();
        let waits = own.waits().take_if(|number| *number == self.number);
        if waits.is_some() {
            state.waiting.remove(&(own.held(), self.number));
        }
        drop(state);
        if self.waiter.granted.load(Ordering::Relaxed) {
            // The read gave up after it got room.
            self.pool.free(own, READ);
        }
    }
}

/// Room in memory. Dropping it frees the room.
#[derive(Debug)]
pub(crate) struct Room {
    share: Share,
    bytes: usize,
}

impl Room {
    /// Splits off room for this many bytes. If there is less, the budget is overdrawn.
    pub fn take(&mut self, bytes: usize) -> Self {
        let missing = bytes.saturating_sub(self.bytes);
        if missing > 0 {
            let mut state = self.share.pool.state();
            BudgetPool::take(&mut state, &self.share.own, missing);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.share.room(bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.share.pool.free(&self.share.own, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use super::*;
    use futures_util::FutureExt as _;

    /// Reads while there is room, a quarter of a MiB each time. Returns the number of quarters.
    fn fill(share: &Share, rooms: &mut Vec<Room>) -> usize {
        while let Ok(mut room) = share.room_or_wait() {
            rooms.push(room.take(READ / 4));
        }
        share.own.held() * 4 / READ
    }

    #[test]
    fn a_shard_that_does_not_get_on_leaves_room_for_the_others() {
        let budget = Budget::new(9 * READ);
        let shares = [(); 4].map(|()| budget.share());
        let mut rooms = Vec::new();
        let held = shares.each_ref().map(|share| fill(share, &mut rooms));
        assert_eq!(held, [17, 8, 4, 2]);
        let newcomer = budget.share();
        assert!(newcomer.room_or_wait().is_ok());
        rooms.clear();
        assert_eq!(budget.taken(), 0, "all of it came back");
    }

    #[test]
    fn a_read_that_finds_no_room_waits_and_is_counted_until_it_gives_up() {
        let budget = Budget::new(0);
        let share = budget.share();
        let held = share.room_for_a_read().now_or_never();
        assert_eq!((budget.taken(), budget.limit()), (READ, READ));
        {
            let mut waits = Box::pin(share.room_for_a_read());
            assert!(waits.as_mut().now_or_never().is_none());
            assert_eq!(budget.waiting(), 1);
        }
        assert_eq!(budget.waiting(), 0);
        drop(held);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn the_read_whose_shard_holds_least_gets_the_room_and_nobody_else_is_woken() {
        let budget = Budget::new(4 * READ);
        let [large, small] = [(); 2].map(|()| budget.share());
        let mut filled = large.room_or_wait().ok().expect("room");
        let of_large = filled.take(READ);
        drop(filled);
        let others = [(); 2].map(|()| budget.share());
        let of_others = others.each_ref().map(|one| one.room_or_wait().ok());
        let mut large_waits = Box::pin(large.room_for_a_read());
        assert!(large_waits.as_mut().now_or_never().is_none());
        let last_share = budget.share();
        let last = last_share.room_or_wait().ok();
        let mut small_waits = Box::pin(small.room_for_a_read());
        assert!(small_waits.as_mut().now_or_never().is_none());
        drop(last);
        assert!(large_waits.as_mut().now_or_never().is_none());
        let got = small_waits.as_mut().now_or_never();
        assert!(got.is_some());
        // The records of the large shard end: it holds nothing now, and its read gets its turn.
        drop(of_large);
        assert!(large_waits.as_mut().now_or_never().is_some());
        drop((got, of_others));
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn records_that_take_more_than_a_read_overdraw_the_budget_until_they_are_gone() {
        let budget = Budget::new(2 * READ);
        let (one, other) = (budget.share(), budget.share());
        let mut room = one.room_or_wait().ok().expect("room");
        let records = room.take(5 * READ);
        drop(room);
        assert_eq!(budget.taken(), 5 * READ);
        let mut waits = Box::pin(other.room_for_a_read());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(records);
        assert!(waits.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_once_it_is_free() {
        let budget = Budget::new(0);
        let (one, other) = (budget.share(), budget.share());
        let room = one.room_for_a_read().await;
        let waits = tokio::spawn(async move { other.room_for_a_read().await.bytes });
        tokio::task::yield_now().await;
        drop(room);
        assert_eq!(waits.await.ok(), Some(READ));
    }
}
