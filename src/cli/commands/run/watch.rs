//! What `run` reports while it runs: over HTTP, and as metrics on standard output.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::monitor::emf::Emf;
#[cfg(feature = "lambda")]
use crate::monitor::metrics::Sample;
use crate::monitor::{Status, http};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval_at};
use tracing::{error, info, warn};

use crate::cli::args::http::HttpArgs;
use crate::cli::fault::Fault;
use crate::cli::host::lines::Lines;

/// The time between two lines of metrics. CloudWatch keeps one value per minute.
const MINUTE: Duration = Duration::from_mins(1);

/// What a running worker reports.
#[derive(Debug, Args)]
#[command(next_help_heading = "Watching")]
pub struct WatchArgs {
    #[command(flatten)]
    http: HttpArgs,
    /// Also write metrics to standard output, once a minute and on stop; on AWS Lambda after each event
    #[arg(long, value_enum, value_name = "FORMAT", env = "AFTERCOMMIT_METRICS")]
    metrics: Option<Format>,
}

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Amazon CloudWatch's embedded metric format: lines of JSON that CloudWatch extracts from the log
    Emf,
}

impl WatchArgs {
    /// Binds the address, before anything else starts.
    pub async fn listen(&self) -> Result<Listening, Fault> {
        let Some(address) = self.http.http else {
            return Ok(Listening(None));
        };
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("--http {address}"));
        let listener = listener.map_err(Fault::Setting)?;
        let address = listener.local_addr().context("--http")?;
        if !address.ip().is_loopback() {
            warn!(%address, "the status address is not loopback: anyone who can reach it can read it");
        }
        Ok(Listening(Some((listener, address))))
    }

    /// Whether metrics are written to standard output.
    #[cfg(feature = "lambda")]
    pub fn writes_emf(&self) -> bool {
        matches!(self.metrics, Some(Format::Emf))
    }

    /// Starts reporting.
    pub fn begin(&self, listening: Listening, status: &Status) -> Telling {
        let mut tasks = Vec::new();
        if let Some((listener, address)) = listening.0 {
            info!(%address, "serving the status");
            let served = http::serve(listener, status.clone());
            let task = tokio::spawn(async move {
                if let Err(error) = served.await {
                    error!(%error, "stopped serving the status");
                }
            });
            tasks.push(task.abort_handle());
        }
        let emf = self
            .metrics
            .map(|Format::Emf| Minutes::begin(status.clone()));
        Telling { tasks, emf }
    }
}

/// The bound address.
pub struct Listening(Option<(TcpListener, SocketAddr)>);

impl Listening {
    /// The address that other machines use.
    pub fn status_address(&self) -> Option<String> {
        let (_, address) = self.0.as_ref()?;
        if !address.ip().is_unspecified() {
            return Some(address.to_string());
        }
        let host = hostname::get().unwrap_or_default();
        Some(format!("{}:{}", host.to_string_lossy(), address.port()))
    }
}

/// Reports until it is stopped or dropped.
pub struct Telling {
    tasks: Vec<AbortHandle>,
    emf: Option<Minutes>,
}

impl Telling {
    /// Writes the last numbers.
    pub async fn end(mut self) {
        if let Some(lines) = self.emf.take() {
            lines.end().await;
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Writes metrics once a minute.
struct Minutes {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Minutes {
    fn begin(status: Status) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            // A reader that stalls does not stop the worker.
            let lines = Lines::to(std::io::stdout());
            let mut emf = Emf::default();
            let mut minutes = interval_at(Instant::now() + MINUTE, MINUTE);
            loop {
                let last = tokio::select! {
                    biased;
                    _ = &mut stopped => true,
                    _ = minutes.tick() => false,
                };
                for line in emf.lines(SystemTime::now(), &status.measure().await) {
                    lines.send(format!("{line}\n").as_bytes());
                }
                if last {
                    lines.flush();
                    return;
                }
            }
        });
        Self { stop, task }
    }

    async fn end(self) {
        // A table whose worker has ended has nothing more to report.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Writes a line for each table.
#[cfg(feature = "lambda")]
pub fn write(emf: &mut Emf, samples: &[Sample]) {
    for line in emf.lines(SystemTime::now(), samples) {
        if let Err(error) = crate::cli::render::out::print_all(&format!("{line}\n")) {
            warn!(error = format!("{error:#}"), "cannot write metrics");
        }
    }
}
