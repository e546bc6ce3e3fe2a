//! How far a long command is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two lines where nobody watches.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

const WIDTH: usize = 30;

/// Progress towards a number that is about known. Tells it on standard error.
pub struct Progress {
    of: usize,
    done: usize,
    told: Instant,
    on_terminal: bool,
}

impl Progress {
    /// Towards `of`.
    pub fn towards(of: usize) -> Self {
        Self {
            of,
            done: 0,
            told: Instant::now(),
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.done += 1;
        // What came meanwhile is done too.
        self.of = self.of.max(self.done);
        let mut err = std::io::stderr().lock();
        if self.on_terminal {
            let full = self.done * WIDTH / self.of.max(1);
            let (full, rest) = ("#".repeat(full), ".".repeat(WIDTH - full));
            // A terminal that is gone needs no bar.
            let _ = write!(err, "\r[{full}{rest}] {}/{} ", self.done, self.of);
            let _ = err.flush();
        } else if self.told.elapsed() >= BETWEEN_LINES {
            self.told = Instant::now();
            let _ = writeln!(err, "{} of {} done", self.done, self.of);
        }
    }

    /// Clears the bar, so that a line can be written.
    pub fn clear(&self) {
        if self.on_terminal {
            eprint!("\r{}\r", " ".repeat(WIDTH + 30));
        }
    }
}
