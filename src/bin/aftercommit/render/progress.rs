//! How far a long command is: a bar on a terminal, plain lines elsewhere. On standard error.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::render::out::report;

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
            report(&format!("{done} of {of} done"));
        }
    }

    /// Writes a line without the bar in between.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| report(line));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// How far a listing is, whose length nobody knows.
pub struct Listing {
    /// What is read, and whether it was told.
    reads: Option<String>,
    found: usize,
    told: Instant,
}

impl Listing {
    /// `reads` is told once there is more than one page of it.
    pub fn new(reads: Option<String>) -> Self {
        Self {
            reads,
            found: 0,
            told: Instant::now(),
        }
    }

    /// A page is read in which so many were found, and another one follows.
    pub fn page(&mut self, found: usize) {
        self.found += found;
        if let Some(reads) = self.reads.take() {
            report(&reads);
        }
        if self.told.elapsed() >= BETWEEN_LINES {
            self.told = Instant::now();
            report(&format!("{} found so far", self.found));
        }
    }
}
