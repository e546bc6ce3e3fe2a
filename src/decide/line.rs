//! Who goes next where not everybody may: first come, first served.

use std::collections::BTreeSet;

/// Those who wait in line, each under a number of its own.
#[derive(Debug, Clone, Default)]
pub struct Line {
    waiting: BTreeSet<u64>,
    given: u64,
}

impl Line {
    /// One more waits, behind all others. Answers its number.
    pub fn join(&mut self) -> u64 {
        self.given += 1;
        self.waiting.insert(self.given);
        self.given
    }

    /// One waits no longer.
    pub fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// How many wait before this number; before somebody who has just come, all.
    pub fn before(&self, number: Option<u64>) -> usize {
        match number {
            Some(number) => self.waiting.range(..number).count(),
            None => self.waiting.len(),
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_is_first_and_who_leaves_makes_room() {
        let mut line = Line::default();
        assert_eq!(line.before(None), 0);
        let [a, b, c] = [line.join(), line.join(), line.join()];
        assert_eq!([a, b, c].map(|one| line.before(Some(one))), [0, 1, 2]);
        line.leave(a);
        assert_eq!([b, c].map(|one| line.before(Some(one))), [0, 1]);
        assert_eq!(line.before(None), 2);
        line.leave(b);
        line.leave(c);
        assert!(line.is_empty());
        assert!(line.join() > c, "no number comes twice");
    }
}
