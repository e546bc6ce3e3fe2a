//! Which record can start now: one at a time per key, in order, and a limited number at once.
//!
//! A key that waits for its next attempt takes up no place, so a poison record delays only the later
//! records of its own key.

use std::collections::{BTreeMap, VecDeque};

/// The records of one shard that wait, run, or wait for another attempt.
#[derive(Debug)]
pub struct Queues<K, R> {
    by_key: BTreeMap<K, Queue<R>>,
    ready: VecDeque<K>,
    running: usize,
    /// Records of all keys, waiting and running.
    held: usize,
    limit: usize,
}

#[derive(Debug)]
struct Queue<R> {
    records: VecDeque<R>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Ready,
    Running,
    Suspended,
}

impl<K: Ord + Clone, R> Queues<K, R> {
    /// Queues of which at most `limit` run at once.
    pub fn new(limit: usize) -> Self {
        Self {
            by_key: BTreeMap::new(),
            ready: VecDeque::new(),
            running: 0,
            held: 0,
            limit: limit.max(1),
        }
    }

    /// Queues a record behind the others of its key.
    pub fn push(&mut self, key: K, record: R) {
        self.held += 1;
        if let Some(queue) = self.by_key.get_mut(&key) {
            queue.records.push_back(record);
        } else {
            let records = VecDeque::from([record]);
            self.by_key.insert(
                key.clone(),
                Queue {
                    records,
                    stage: Stage::Ready,
                },
            );
            self.ready.push_back(key);
        }
    }

    /// The next key whose first record may start; it then counts as running.
    pub fn start(&mut self) -> Option<(K, &R)> {
        if self.running >= self.limit {
            return None;
        }
        loop {
            let key = self.ready.pop_front()?;
            // A key that was started out of turn, or that has no records left, may still be listed.
            let is_ready = |queue: &Queue<R>| queue.stage == Stage::Ready;
            if self.by_key.get(&key).is_some_and(is_ready) {
                let queue = self.by_key.get_mut(&key)?;
                queue.stage = Stage::Running;
                self.running += 1;
                return queue.records.front().map(|record| (key, record));
            }
        }
    }

    /// Starts the first record of this key, even if it is not its turn. `false`: it is running already,
    /// or does not exist.
    pub fn start_key(&mut self, key: &K) -> bool {
        let queue = self.by_key.get_mut(key);
        let Some(queue) = queue.filter(|queue| queue.stage != Stage::Running) else {
            return false;
        };
        queue.stage = Stage::Running;
        self.running += 1;
        true
    }

    /// Undoes a start: the key is the next to start.
    pub fn put_back(&mut self, key: &K) {
        let queue = self.by_key.get_mut(key);
        if let Some(queue) = queue.filter(|queue| queue.stage == Stage::Running) {
            queue.stage = Stage::Ready;
            self.running -= 1;
            self.ready.push_front(key.clone());
        }
    }

    /// The keys, in their order, whose first record is not running and fulfils `wanted`.
    pub fn waiting(&mut self, mut wanted: impl FnMut(&mut R) -> bool) -> VecDeque<K> {
        let waiting = self.by_key.iter_mut().filter_map(|(key, queue)| {
            let first = queue.records.front_mut();
            let waits = queue.stage != Stage::Running && first.is_some_and(&mut wanted);
            waits.then(|| key.clone())
        });
        waiting.collect()
    }

    /// The keys whose first record is not running, each with something of that record, and how many
    /// records it has.
    pub fn waiting_by<T>(&self, of: impl Fn(&R) -> T) -> Vec<(K, T, usize)> {
        let waiting = self.by_key.iter().filter_map(|(key, queue)| {
            let first = queue.records.front()?;
            let waits = queue.stage != Stage::Running;
            waits.then(|| (key.clone(), of(first), queue.records.len()))
        });
        waiting.collect()
    }

    /// The first record of a key.
    pub fn first(&mut self, key: &K) -> Option<&mut R> {
        self.by_key.get_mut(key)?.records.front_mut()
    }

    /// The first record of a running key has ended. It is removed, and the key's next record gets its
    /// turn.
    pub fn finish(&mut self, key: &K) -> Option<R> {
        let queue = self
            .by_key
            .get_mut(key)
            .filter(|queue| queue.stage == Stage::Running)?;
        self.running -= 1;
        let record = queue.records.pop_front();
        self.held -= usize::from(record.is_some());
        if queue.records.is_empty() {
            self.by_key.remove(key);
        } else {
            queue.stage = Stage::Ready;
            self.ready.push_back(key.clone());
        }
        record
    }

    /// The first record of a running key has to wait. It stays first, but gives up its place.
    pub fn suspend(&mut self, key: &K) {
        if let Some(queue) = self
            .by_key
            .get_mut(key)
            .filter(|queue| queue.stage == Stage::Running)
        {
            queue.stage = Stage::Suspended;
            self.running -= 1;
        }
    }

    /// Moves the first record of a key behind the others, which breaks their order.
    pub fn lose_turn(&mut self, key: &K) {
        if let Some(queue) = self.by_key.get_mut(key) {
            queue.records.rotate_left(1);
        }
    }

    /// A suspended key can start again.
    pub fn resume(&mut self, key: &K) {
        if let Some(queue) = self
            .by_key
            .get_mut(key)
            .filter(|queue| queue.stage == Stage::Suspended)
        {
            queue.stage = Stage::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// How many records wait or run.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether a key is waiting only for a place.
    pub fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many records are running.
    pub fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_runs_one_record_at_a_time_in_order() {
        let mut queues = Queues::new(8);
        queues.push("a", 1);
        queues.push("a", 2);
        queues.push("b", 3);
        assert_eq!(queues.start(), Some(("a", &1)));
        assert_eq!(queues.start(), Some(("b", &3)));
        assert_eq!(
            queues.start(),
            None,
            "a's second record waits for its first"
        );
        assert_eq!(queues.finish(&"a"), Some(1));
        assert_eq!(queues.start(), Some(("a", &2)));
        assert_eq!((queues.len(), queues.any_ready()), (2, false));
    }

    #[test]
    fn no_more_than_the_limit_run_and_a_waiting_key_holds_no_place() {
        let mut queues = Queues::new(1);
        queues.push("a", 1);
        queues.push("b", 2);
        assert_eq!(queues.start(), Some(("a", &1)));
        assert_eq!(queues.start(), None);
        queues.suspend(&"a");
        assert_eq!(queues.start(), Some(("b", &2)), "a waits, b continues");
        queues.resume(&"a");
        assert_eq!(queues.finish(&"b"), Some(2));
        assert_eq!(queues.start(), Some(("a", &1)), "the same record again");
        assert_eq!(queues.running(), 1);
    }

    #[test]
    fn a_key_that_was_started_out_of_turn_is_not_started_again() {
        let mut queues = Queues::new(8);
        queues.push("a", 1);
        queues.push("a", 2);
        queues.push("b", 3);
        assert!(queues.start_key(&"a"));
        assert!(!queues.start_key(&"a"));
        assert_eq!(queues.waiting(|_| true), ["b"]);
        assert_eq!(queues.start(), Some(("b", &3)));
        assert_eq!(queues.start(), None);
        queues.put_back(&"b");
        assert_eq!(queues.finish(&"a"), Some(1));
        assert_eq!(queues.start(), Some(("b", &3)), "it is first again");
        assert_eq!(queues.start(), Some(("a", &2)));
        assert_eq!(queues.start(), None);
    }

    #[test]
    fn waiting_records_are_reported_by_key_in_any_order() {
        let mut queues = Queues::new(8);
        for (key, record) in [("c", 1), ("a", 2), ("d", 3), ("b", 4), ("a", 5)] {
            queues.push(key, record);
        }
        assert_eq!(queues.start(), Some(("c", &1)));
        queues.suspend(&"c");
        assert!(queues.start_key(&"d"), "it runs");
        let waiting = queues.waiting(|record| *record != 4);
        assert_eq!(waiting, ["a", "c"], "each key once, by its first record");
    }
}
