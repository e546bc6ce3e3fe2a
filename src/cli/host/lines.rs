//! Output that never blocks its writer. A reader that stalls, such as a log collector behind a full
//! pipe, would otherwise stop the whole worker, its heartbeats included.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing_subscriber::fmt::MakeWriter;

/// This many lines can wait for the reader. Further lines are dropped and counted.
const WAITING: usize = 8192;

/// All lines that this process dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines this process dropped.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The time that the process waits for the reader when it ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// A queue of lines and the thread that writes them. Clones share it.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// A mark in the queue: everything before it has been written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Lines for this output.
    pub fn to(output: impl Write + Send + 'static) -> Self {
        let (queue, lines) = sync_channel(WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&dropped);
        thread::spawn(move || write_all(&lines, output, &counted));
        Self { queue, dropped }
    }

    /// Queues a line. If the queue is full, the line is dropped and counted.
    pub fn send(&self, line: &[u8]) {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, or the time is up.
    pub fn flush(&self) {
        let end = Instant::now() + FAREWELL;
        let (written, done) = sync_channel(1);
        let mut flush = Message::Flush(written);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(flush) {
            if Instant::now() >= end {
                return;
            }
            flush = back;
            thread::sleep(Duration::from_millis(5));
        }
        // A reader that stalls even now gets no more.
        let _ = done.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// There is nowhere to report that a line could not be written.
fn write_all(lines: &Receiver<Message>, mut output: impl Write, dropped: &AtomicU64) {
    while let Ok(message) = lines.recv() {
        match message {
            Message::Line(line) => {
                let _ = output.write_all(&line).and_then(|()| output.flush());
            }
            Message::Flush(written) => {
                let _ = written.send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let now = humantime::format_rfc3339_micros(SystemTime::now());
            let _ = writeln!(
                output,
                r#"{{"timestamp":"{now}","level":"WARN","message":"lines were dropped because their reader stalled","dropped":{lost},"target":"aftercommit"}}"#
            );
        }
    }
}

/// One event, which becomes one line.
pub struct QueuedLine<'a> {
    of: &'a Lines,
    text: Vec<u8>,
}

impl Write for QueuedLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for QueuedLine<'_> {
    fn drop(&mut self) {
        self.of.send(&self.text);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = QueuedLine<'a>;

    fn make_writer(&'a self) -> QueuedLine<'a> {
        QueuedLine {
            of: self,
            text: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use std::sync::{Condvar, Mutex};

    /// Whether the reader reads, and what it has read.
    type Held = Mutex<(bool, Vec<u8>)>;

    /// A reader that stalls until it is released.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Held, Condvar)>);

    impl Pipe {
        fn go_on(&self) {
            self.0.0.lock().unwrap().0 = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.0.lock().unwrap();
            let mut state = self.0.1.wait_while(state, |(goes, _)| !*goes).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_blocks_nobody_and_hears_later_how_many_lines_are_missing() {
        let pipe = Pipe::default();
        let lines = Lines::to(pipe.clone());
        // If a line could block, this would never end.
        for number in 0..WAITING + 1000 {
            lines.send(format!("line {number}\n").as_bytes());
        }
        let lost = lines.dropped.load(Ordering::Relaxed);
        assert!((999..=1000).contains(&lost), "{lost}");
        assert!(dropped() >= lost, "{}", dropped());
        pipe.go_on();
        lines.flush();
        let text = pipe.text();
        assert!(text.starts_with("line 0\n"), "{text:.100}");
        assert!(text.contains(&format!("\"dropped\":{lost}")));
        assert!(text.contains(&format!("line {}\n", WAITING - 1)));
        lines.send(b"later\n");
        lines.flush();
        assert!(pipe.text().ends_with("later\n"));
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_stalls_forever() {
        let lines = Lines::to(Pipe::default());
        for _ in 0..WAITING * 2 {
            lines.send(b"line\n");
        }
        lines.flush();
    }
}
