//! Durations, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds; one more bucket counts longer durations. They range
/// from a handler that does nothing, over a mail server that takes its ten minutes, to the stream's
/// day.
pub const BOUNDS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3_600.0,
    86_400.0,
];

/// One more than there are bounds.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// Durations, counted in buckets. Adding one takes two additions, without a lock.
#[derive(Debug, Default)]
pub struct Histogram([Bucket; BUCKETS]);

#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    micros: AtomicU64,
}

/// The content of a bucket at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BucketCounts {
    /// How many durations fell into it.
    pub count: u64,
    /// Their sum, in seconds.
    pub seconds: f64,
}

/// The content of a [`Histogram`] at one moment, bucket by bucket.
pub type Buckets = [BucketCounts; BUCKETS];

impl Histogram {
    /// Adds a duration.
    pub fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = self.0.get(place.unwrap_or(BOUNDS.len())) {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            bucket.count.fetch_add(1, Ordering::Relaxed);
            bucket.micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Its present content.
    pub fn buckets(&self) -> Buckets {
        std::array::from_fn(|place| {
            let bucket = &self.0[place];
            BucketCounts {
                count: bucket.count.load(Ordering::Relaxed),
                seconds: Duration::from_micros(bucket.micros.load(Ordering::Relaxed)).as_secs_f64(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_it_fits() {
        let histogram = Histogram::default();
        for seconds in [0.0, 0.005, 0.006, 1e6] {
            histogram.add(Duration::from_secs_f64(seconds));
        }
        let counts = histogram.buckets().map(|held| held.count);
        assert_eq!((counts[0], counts[1], counts[BUCKETS - 1]), (2, 1, 1));
        assert!((histogram.buckets()[BUCKETS - 1].seconds - 1e6).abs() < 1.0);
    }
}
