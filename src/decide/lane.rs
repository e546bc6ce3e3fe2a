//! Which record may start now: one at a time per key, in order, and only so many at once.
//!
//! A key that waits for its next attempt holds no place, so a poison record delays nothing but the
//! later records of its own key.

use std::collections::{BTreeMap, VecDeque};

use crate::gate::left_out;

/// The records of one shard that wait, run, or wait for another attempt.
#[derive(Debug)]
pub struct Lanes<K, R> {
    by_key: BTreeMap<K, Lane<R>>,
    ready: VecDeque<K>,
    running: usize,
    /// Records of all keys, waiting and running.
    held: usize,
    limit: usize,
}

#[derive(Debug)]
struct Lane<R> {
    queue: VecDeque<R>,
    turn: Turn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ready,
    Running,
    Suspended,
}

impl<K: Ord + Clone, R> Lanes<K, R> {
    /// Lanes of which at most `limit` run at once.
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
        if let Some(lane) = self.by_key.get_mut(&key) {
            lane.queue.push_back(record);
        } else {
            let queue = VecDeque::from([record]);
            self.by_key.insert(
                key.clone(),
                Lane {
                    queue,
                    turn: Turn::Ready,
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
            // One that was started out of turn, or is gone, only left its name here.
            let is_ready = |lane: &Lane<R>| lane.turn == Turn::Ready;
            if self.by_key.get(&key).is_some_and(is_ready) {
                let lane = self.by_key.get_mut(&key)?;
                lane.turn = Turn::Running;
                self.running += 1;
                return lane.queue.front().map(|record| (key, record));
            }
        }
    }

    /// Starts the first record of this key, whether it is its turn or not. `false`: it runs
    /// already, or is not there.
    pub fn start_key(&mut self, key: &K) -> bool {
        let lane = self.by_key.get_mut(key);
        let Some(lane) = lane.filter(|lane| lane.turn != Turn::Running) else {
            return false;
        };
        lane.turn = Turn::Running;
        self.running += 1;
        true
    }

    /// A running key could not begin after all: it is the next to start.
    pub fn put_back(&mut self, key: &K) {
        let lane = self.by_key.get_mut(key);
        if let Some(lane) = lane.filter(|lane| lane.turn == Turn::Running) {
            lane.turn = Turn::Ready;
            self.running -= 1;
            self.ready.push_front(key.clone());
        }
    }

    /// The keys, in their order, whose first record does not run and is as `wanted` says.
    pub fn waiting(&self, wanted: impl Fn(&R) -> bool) -> impl Iterator<Item = K> {
        let waiting = self.by_key.iter().filter(move |(_, lane)| {
            lane.turn != Turn::Running && lane.queue.front().is_some_and(&wanted)
        });
        waiting.map(|(key, _)| key.clone())
    }

    /// The first record of a key.
    pub fn first(&mut self, key: &K) -> Option<&mut R> {
        self.by_key.get_mut(key)?.queue.front_mut()
    }

    /// The first record of a running key is settled: it leaves, the next of its key gets its turn.
    pub fn settle(&mut self, key: &K) -> Option<R> {
        let lane = self
            .by_key
            .get_mut(key)
            .filter(|lane| lane.turn == Turn::Running)?;
        self.running -= 1;
        let record = lane.queue.pop_front();
        self.held -= usize::from(record.is_some());
        if lane.queue.is_empty() {
            self.by_key.remove(key);
        } else {
            lane.turn = Turn::Ready;
            self.ready.push_back(key.clone());
        }
        record
    }

    /// The first record of a running key has to wait: it stays first, its place goes to others.
    pub fn suspend(&mut self, key: &K) {
        if let Some(lane) = self
            .by_key
            .get_mut(key)
            .filter(|lane| lane.turn == Turn::Running)
        {
            lane.turn = Turn::Suspended;
            if left_out!(TurnLost) {
                lane.queue.rotate_left(1);
            }
            self.running -= 1;
        }
    }

    /// A suspended key may start again.
    pub fn resume(&mut self, key: &K) {
        if let Some(lane) = self
            .by_key
            .get_mut(key)
            .filter(|lane| lane.turn == Turn::Suspended)
        {
            lane.turn = Turn::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// How many records wait or run.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none waits or runs.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Whether a key waits for nothing but its place.
    pub fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many records run now.
    pub fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_runs_one_record_at_a_time_in_order() {
        let mut lanes = Lanes::new(8);
        lanes.push("a", 1);
        lanes.push("a", 2);
        lanes.push("b", 3);
        assert_eq!(lanes.start(), Some(("a", &1)));
        assert_eq!(lanes.start(), Some(("b", &3)));
        assert_eq!(lanes.start(), None, "a's second record waits for its first");
        assert_eq!(lanes.settle(&"a"), Some(1));
        assert_eq!(lanes.start(), Some(("a", &2)));
        assert_eq!((lanes.len(), lanes.any_ready()), (2, false));
    }

    #[test]
    fn no_more_than_the_limit_run_and_a_waiting_key_holds_no_place() {
        let mut lanes = Lanes::new(1);
        lanes.push("a", 1);
        lanes.push("b", 2);
        assert_eq!(lanes.start(), Some(("a", &1)));
        assert_eq!(lanes.start(), None);
        lanes.suspend(&"a");
        assert_eq!(lanes.start(), Some(("b", &2)), "a waits, b goes on");
        lanes.resume(&"a");
        assert_eq!(lanes.settle(&"b"), Some(2));
        assert_eq!(lanes.start(), Some(("a", &1)), "the same record again");
        assert_eq!(lanes.running(), 1);
    }

    #[test]
    fn a_key_that_was_started_out_of_turn_is_not_started_again() {
        let mut lanes = Lanes::new(8);
        lanes.push("a", 1);
        lanes.push("a", 2);
        lanes.push("b", 3);
        assert!(lanes.start_key(&"a"));
        assert!(!lanes.start_key(&"a"));
        assert_eq!(lanes.waiting(|_| true).collect::<Vec<_>>(), ["b"]);
        assert_eq!(lanes.start(), Some(("b", &3)));
        assert_eq!(lanes.start(), None);
        lanes.put_back(&"b");
        assert_eq!(lanes.settle(&"a"), Some(1));
        assert_eq!(lanes.start(), Some(("b", &3)), "it is first again");
        assert_eq!(lanes.start(), Some(("a", &2)));
        assert_eq!(lanes.start(), None);
    }

    #[test]
    fn what_waits_is_told_by_key_whatever_came_first() {
        let mut lanes = Lanes::new(8);
        for (key, record) in [("c", 1), ("a", 2), ("d", 3), ("b", 4), ("a", 5)] {
            lanes.push(key, record);
        }
        assert_eq!(lanes.start(), Some(("c", &1)));
        lanes.suspend(&"c");
        assert!(lanes.start_key(&"d"), "it runs");
        let waiting: Vec<_> = lanes.waiting(|record| *record != 4).collect();
        assert_eq!(waiting, ["a", "c"], "each key once, by its first record");
    }
}
