//! Progress of a long command on standard error: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::cli::render::out::report;

/// The longest time between two lines, if there is no bar.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// How many lines a quick command prints.
const LINES: u64 = 10;

/// Progress towards a number that is roughly known.
pub struct CommandProgress {
    bar: ProgressBar,
    reported: Instant,
}

impl CommandProgress {
    /// Towards `of`. Shows nothing yet.
    pub fn towards(of: usize) -> Self {
        Self {
            bar: ProgressBar::new(of as u64),
            reported: Instant::now(),
        }
    }

    /// Counts one more as done.
    pub fn step(&mut self) {
        self.bar.inc(1);
        let done = self.bar.position();
        // The total may have grown meanwhile.
        let of = self.bar.length().unwrap_or_default().max(done);
        self.bar.set_length(of);
        let part = |done: u64| done * LINES / of;
        let due = part(done) > part(done - 1) || self.reported.elapsed() >= BETWEEN_LINES;
        if due && self.bar.is_hidden() {
            self.reported = Instant::now();
            report(&format!("{done} of {of} done"));
        }
    }

    /// Writes a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| report(line));
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Progress of a listing whose length is unknown.
pub struct ListingProgress {
    /// What is read, until it was reported.
    reads: Option<String>,
    found: usize,
    reported: Instant,
}

impl ListingProgress {
    /// `reads` is printed once there is more than one page.
    pub fn new(reads: Option<String>) -> Self {
        Self {
            reads,
            found: 0,
            reported: Instant::now(),
        }
    }

    /// A page with this many matches was read, and another one follows.
    pub fn page(&mut self, found: usize) {
        self.found += found;
        if let Some(reads) = self.reads.take() {
            report(&reads);
        }
        if self.reported.elapsed() >= BETWEEN_LINES {
            self.reported = Instant::now();
            report(&format!("{} found so far", self.found));
        }
    }
}
