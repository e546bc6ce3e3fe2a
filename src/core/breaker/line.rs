//! A waiting line for a limited number of places: first come, first served.

use std::collections::BTreeSet;

/// The waiting callers, each with its own number.
#[derive(Debug, Clone, Default)]
pub struct Line {
    waiting: BTreeSet<u64>,
    given: u64,
}

impl Line {
    /// Adds a caller at the end. Returns its number.
    pub fn join(&mut self) -> u64 {
        self.given += 1;
        self.waiting.insert(self.given);
        self.given
    }

    /// Removes a caller.
    pub fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Whether this number has its turn if so many places are free. `None` stands for a caller that has
    /// just come; it has its turn if everybody in the line has. Takes time in proportion to `free`, not
    /// to the length of the line.
    pub fn is_turn_of(&self, number: Option<u64>, free: usize) -> bool {
        match number {
            Some(number) => self.first(free).any(|first| first == number),
            None => self.waiting.len() < free,
        }
    }

    /// The numbers that have their turn if so many places are free.
    pub fn first(&self, free: usize) -> impl Iterator<Item = u64> {
        self.waiting.iter().copied().take(free)
    }

    /// Whether the line is empty.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_come_is_first_and_leaving_makes_room() {
        let mut line = Line::default();
        assert!(line.is_turn_of(None, 1) && !line.is_turn_of(None, 0));
        let [a, b, c] = [line.join(), line.join(), line.join()];
        let turns = |line: &Line, free| [a, b, c].map(|one| line.is_turn_of(Some(one), free));
        assert_eq!(turns(&line, 2), [true, true, false]);
        assert!(!line.is_turn_of(None, 3), "those who wait come first");
        assert!(line.is_turn_of(None, 4));
        line.leave(a);
        assert_eq!(turns(&line, 1), [false, true, false]);
        line.leave(b);
        line.leave(c);
        assert!(line.is_empty());
        assert!(line.join() > c, "no number comes twice");
    }
}
