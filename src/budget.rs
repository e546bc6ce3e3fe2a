//! How many bytes of records a process holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many bytes of records a process may hold. Share one among the consumers of a process.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Room>);

#[derive(Debug)]
struct Room {
    free: Arc<Semaphore>,
    bytes: usize,
    /// Reads that wait for room.
    waiting: AtomicUsize,
}

/// What one read may bring, in bytes.
///
/// Source: [GetRecords](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const READ: u32 = 1 << 20;

impl Budget {
    /// A budget of this many bytes, and at least the 1 MiB of one read.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.clamp(READ as usize, Semaphore::MAX_PERMITS);
        Self(Arc::new(Room {
            free: Arc::new(Semaphore::new(bytes)),
            bytes,
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
        self.0.bytes - self.0.free.available_permits().min(self.0.bytes)
    }

    /// How many reads wait for room.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Waits until one read fits; readers take turns. `None` never happens while it is in use.
    pub(crate) async fn room_for_a_read(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(room) = self.0.free.clone().try_acquire_many_owned(READ) {
            return Some(room);
        }
        let _waits = Waits::begin(&self.0.waiting);
        self.0.free.clone().acquire_many_owned(READ).await.ok()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn a_read_that_finds_no_room_waits_and_is_counted_until_it_gives_up() {
        let budget = Budget::new(0);
        let held = budget.room_for_a_read().now_or_never().unwrap();
        assert_eq!((budget.taken(), budget.limit()), (1 << 20, 1 << 20));
        {
            let mut waits = Box::pin(budget.room_for_a_read());
            assert!(waits.as_mut().now_or_never().is_none());
            assert_eq!(budget.waiting(), 1);
        }
        assert_eq!(budget.waiting(), 0);
        drop(held);
        assert_eq!(budget.taken(), 0);
    }
}
