//! SIGTERM and SIGINT: the first one drains, the second one stops at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves at the first SIGTERM or SIGINT. A second signal ends the process at once, with exit code
/// 143 or 130 (128 and the signal's number, as shells do). Records in flight are then handled again, as
/// after a crash.
pub fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    Ok(async move {
        signals.next().await;
        tracing::info!(
            "stopping: records in flight are finished first; a second signal stops at once"
        );
        tokio::spawn(async move {
            let code = signals.next().await;
            std::process::exit(code);
        });
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Waits for the next signal, and returns its exit code.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}
