//! How far a long command is: a bar on a terminal, plain lines elsewhere. On standard error.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

/// Between two lines at most, where nobody watches a bar.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Lines in all, where it goes quickly.
const LINES: u64 = 10;

/// Progress towards a number that is about known.
pub struct Progress {
    bar: ProgressBar,
    told: Instant,
}

impl Progress {
    /// Towards `of`. Shows nothing yet.
    pub fn towards(of: usize) -> Self {
        Self {
            bar: ProgressBar::new(of as u64),
            told: Instant::now(),
        }
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.bar.inc(1);
        let done = self.bar.position();
        // What came meanwhile is done too.
        let of = self.bar.length().unwrap_or_default().max(done);
        self.bar.set_length(of);
        let part = |done: u64| done * LINES / of;
        let due = part(done) > part(done - 1) || self.told.elapsed() >= BETWEEN_LINES;
        if due && self.bar.is_hidden() {
            self.told = Instant::now();
            eprintln!("{done} of {of} done");
        }
    }

    /// Writes a line without the bar in between.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
