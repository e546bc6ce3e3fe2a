//! The processes of a function: started, started again, stopped.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::FunctionSettings;
use super::api::{Slot, serve};

/// A process that is asked to end has this long, as on Lambda.
const GRACE: Duration = Duration::from_secs(2);

/// The wait before a process is started again, doubled by each that ended before it asked for work.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait before a process is started again.
const LONGEST: Duration = Duration::from_secs(30);

/// A line of a process's output is cut after so many bytes.
const LONGEST_LINE: u64 = 8 << 10;

/// Keeps one process running until `stop`.
pub async fn run(
    slot: Arc<Slot>,
    settings: Arc<FunctionSettings>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let api = match listener.local_addr() {
        Ok(address) => address.to_string(),
        Err(error) => {
            warn!(%error, "cannot serve the runtime API to the handler's processes");
            return;
        }
    };
    let serving = serve(listener, slot.clone());
    tokio::select! {
        _ = serving => {}
        () = keep(&slot, &settings, (&api, &stop)) => {}
    }
}

async fn keep(slot: &Slot, settings: &FunctionSettings, (api, stop): (&str, &CancellationToken)) {
    let mut failures = 0;
    loop {
        // Whoever was overdue has ended.
        let _ = slot.overdue.notified().now_or_never();
        let how = match Group::start(settings, api, slot.number) {
            Ok(mut group) => match group.watch(slot, stop).await {
                Some(how) => how,
                None => return,
            },
            Err(error) => format!("cannot be started: {error}"),
        };
        let asked = slot.ended(&how);
        failures = if asked { 0 } else { failures + 1 };
        let wait = LONGEST.min(FIRST * 2_u32.saturating_pow(failures));
        warn!(
            process = slot.number,
            how, "the handler's process ended; another is started in {wait:?}"
        );
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// A process and all that it starts. Killed when dropped.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn start(settings: &FunctionSettings, api: &str, number: usize) -> io::Result<Self> {
        let mut child = command(settings, api)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(out) = child.stdout.take() {
            tokio::spawn(log(out, number));
        }
        if let Some(out) = child.stderr.take() {
            tokio::spawn(log(out, number));
        }
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw);
        Ok(Self { child, id })
    }

    /// How it ended, or `None` if it was asked to stop.
    async fn watch(&mut self, slot: &Slot, stop: &CancellationToken) -> Option<String> {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.signal(Signal::TERM);
                let _ = timeout(GRACE, self.child.wait()).await;
                None
            }
            () = slot.overdue.notified() => {
                self.signal(Signal::KILL);
                let _ = self.child.wait().await;
                Some("killed, because it was past the deadline of its record".to_owned())
            }
            ended = self.child.wait() => Some(in_words(ended)),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // All of its processes may have ended.
            let _ = kill_process_group(id, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn in_words(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// The command with the environment of a function. Variables of a function that the worker has are passed
/// on; the settings of the worker are not.
fn command(settings: &FunctionSettings, api: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &settings.command]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AFTERCOMMIT_") {
            command.env_remove(name);
        }
    }
    let folder = std::env::current_dir().unwrap_or_default();
    let folder = folder.to_string_lossy();
    let handler = settings.command.split_whitespace().next_back();
    for (name, value) in [
        ("_HANDLER", handler.unwrap_or_default()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_LAMBDA_FUNCTION_NAME", "handler"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/handler"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "$LATEST"),
        ("LAMBDA_TASK_ROOT", &folder),
    ] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    command.env("AWS_LAMBDA_RUNTIME_API", api);
    command
}

/// Logs what a process writes, a line at a time.
async fn log(out: impl AsyncRead + Unpin, process: usize) {
    let mut out = BufReader::new(out);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut out)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .await;
        if !read.is_ok_and(|bytes| bytes > 0) {
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if !line.is_empty() {
            info!(process, "{line}");
        }
    }
}
