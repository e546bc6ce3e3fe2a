//! One bound for the memory of all shards of a process, shared fairly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What one read may bring, in bytes.
///
/// Source: [GetRecords](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const READ: usize = 1 << 20;

/// How many bytes of records a process may hold. Share one among the consumers of a process.
///
/// A shard reads on only while there is room for what it holds already and for one read more. So
/// one that does not get on keeps half of it at most, two a third each, and there is always room
/// for another.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    bytes: usize,
    free: Mutex<usize>,
    freed: Notify,
    /// Reads that wait for room.
    waiting: AtomicUsize,
}

impl Pool {
    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Budget {
    /// A budget of this many bytes, and at least the 1 MiB of one read.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.max(READ);
        Self(Arc::new(Pool {
            bytes,
            free: Mutex::new(bytes),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// How many bytes it has.
    pub fn limit(&self) -> usize {
        self.0.bytes
    }

    /// How many bytes are taken: by records that are held, and by reads under way, which take what
    /// a read may bring.
    pub fn taken(&self) -> usize {
        self.0.bytes - *self.0.free()
    }

    /// How many reads wait for room.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// For one shard, which holds nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            pool: self.0.clone(),
            held: Arc::default(),
        }
    }
}

/// What one shard holds of a budget.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pool: Arc<Pool>,
    held: Arc<Mutex<usize>>,
}

impl Share {
    /// Waits until there is room for one read.
    pub async fn room_for_a_read(&self) -> Room {
        if let Some(room) = self.try_room() {
            return room;
        }
        let _waits = Waits::begin(&self.pool.waiting);
        loop {
            let freed = self.pool.freed.notified();
            if let Some(room) = self.try_room() {
                return room;
            }
            freed.await;
        }
    }

    fn try_room(&self) -> Option<Room> {
        let mut free = self.pool.free();
        let mut held = self.held();
        if *free < *held + READ {
            return None;
        }
        *free -= READ;
        *held += READ;
        drop((free, held));
        Some(Room {
            share: self.clone(),
            bytes: READ,
        })
    }

    fn held(&self) -> MutexGuard<'_, usize> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one that waits, for as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room in memory; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    share: Share,
    bytes: usize,
}

impl Room {
    /// Takes out room for so many bytes, or what there is.
    pub fn take(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            share: self.share.clone(),
            bytes,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut free = self.share.pool.free();
            *free += self.bytes;
            *self.share.held() -= self.bytes;
            drop(free);
            self.share.pool.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    /// Reads as long as there is room, a quarter of a MiB each time; answers how many quarters.
    fn fill(share: &Share, rooms: &mut Vec<Room>) -> usize {
        while let Some(mut room) = share.try_room() {
            rooms.push(room.take(READ / 4));
        }
        *share.held() * 4 / READ
    }

    #[test]
    fn a_shard_that_does_not_get_on_leaves_room_for_the_others() {
        let budget = Budget::new(9 << 20);
        let shares = [(); 4].map(|()| budget.share());
        let mut rooms = Vec::new();
        let held = shares.each_ref().map(|share| fill(share, &mut rooms));
        assert_eq!(held, [17, 8, 4, 2]);
        let newcomer = budget.share();
        assert!(newcomer.try_room().is_some());
        rooms.clear();
        assert_eq!(*budget.0.free(), 9 << 20, "all of it came back");
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
