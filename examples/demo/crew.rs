//! The workers, and what befalls them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use aftercommit::stores::leases::{Consistency, Incarnation, LeaseStore as _};
use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::worker::{Site, work};

/// Between two looks at who owns the shards, when that is measured.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// All workers.
pub enum Crew {
    Inside(Inside),
    Processes(Processes),
}

impl Crew {
    /// One worker in this process.
    pub fn inside(site: Site) -> anyhow::Result<Self> {
        Inside::start(site).map(Self::Inside)
    }

    /// How many workers run, each in a process of its own.
    pub fn of_processes(site: Site, logs: &Path, count: usize) -> anyhow::Result<Self> {
        Processes::start(site, logs, count).map(Self::Processes)
    }

    /// Ends a worker wherever it stands, and starts another in its place. Returns how long it took
    /// until no shard stood in the ended one's name any more, where that is measured.
    pub async fn strike(&mut self) -> anyhow::Result<Option<Duration>> {
        match self {
            Self::Inside(worker) => worker.crash().map(|()| None),
            Self::Processes(workers) => workers.kill().await.map(Some),
        }
    }

    /// Lets all of them finish.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Inside(worker) => worker.stop().await,
            Self::Processes(workers) => workers.stop().await,
        }
    }
}

/// A worker in this process, on threads of its own.
pub struct Inside {
    site: Site,
    starts: usize,
    running: Option<(Runtime, JoinHandle<anyhow::Result<()>>)>,
    stop: CancellationToken,
}

impl Inside {
    fn start(site: Site) -> anyhow::Result<Self> {
        let mut inside = Self {
            site,
            starts: 0,
            running: None,
            stop: CancellationToken::new(),
        };
        inside.run()?;
        Ok(inside)
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let name = format!("worker-{}", self.starts);
        let stop = self.stop.clone().cancelled_owned();
        let task = runtime.spawn(work(self.site.clone(), name, stop));
        self.running = Some((runtime, task));
        Ok(())
    }

    /// Drops the worker at any point, as a crash does, and starts another.
    fn crash(&mut self) -> anyhow::Result<()> {
        if let Some((runtime, _)) = self.running.take() {
            runtime.shutdown_background();
        }
        self.run()
    }

    /// Lets it finish.
    async fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let Some((runtime, task)) = self.running.take() else {
            return Ok(());
        };
        let ended = task.await.context("the worker broke down");
        runtime.shutdown_background();
        ended?
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some((runtime, _)) = self.running.take() {
            runtime.shutdown_background();
        }
    }
}

/// Workers in processes of their own.
pub struct Processes {
    site: Site,
    logs: PathBuf,
    all: Vec<Child>,
}

impl Processes {
    fn start(site: Site, logs: &Path, count: usize) -> anyhow::Result<Self> {
        let mut processes = Self {
            site,
            logs: logs.to_owned(),
            all: Vec::new(),
        };
        for number in 0..count {
            let child = processes.spawn(number)?;
            processes.all.push(child);
        }
        Ok(processes)
    }

    /// This same program, started as a worker.
    fn spawn(&self, number: usize) -> anyhow::Result<Child> {
        let name = name(number);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.logs.join(format!("{name}.log")))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["worker", "--name", &name])
            .args(self.site.arguments())
            // It stops when this is closed, so that none outlives its parent.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C on the terminal is for the parent alone.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().context("a worker process")
    }

    /// Kills the worker that owns the most shards, and starts another in its place. Returns how
    /// long it took until none of its shards stood in its name any more.
    async fn kill(&mut self) -> anyhow::Result<Duration> {
        let (number, victim) = self.busiest().await?;
        let killed = Instant::now();
        self.all[number].kill().await?;
        self.all[number] = self.spawn(number)?;
        while self.owners().await?.contains(&victim) {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(killed.elapsed())
    }

    /// The worker that owns the most shards, once there is one.
    async fn busiest(&self) -> anyhow::Result<(usize, Incarnation)> {
        loop {
            let owners = self.owners().await?;
            let of = |owner: &Incarnation| owners.iter().filter(|other| *other == owner).count();
            let number = |owner: &Incarnation| {
                (0..self.all.len()).find(|number| name(*number) == owner.worker())
            };
            let busiest = owners.iter().max_by_key(|owner| of(owner));
            if let Some((number, owner)) = busiest.and_then(|one| Some((number(one)?, one))) {
                return Ok((number, owner.clone()));
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Who owns the shards: one entry a shard.
    async fn owners(&self) -> anyhow::Result<Vec<Incarnation>> {
        let view = self.site.leases().look(Consistency::Strong).await?;
        let rows = view.leases.into_values();
        Ok(rows.filter_map(|row| row.owner).collect())
    }

    /// Lets all of them finish.
    async fn stop(&mut self) -> anyhow::Result<()> {
        for child in &mut self.all {
            drop(child.stdin.take());
        }
        for child in &mut self.all {
            let status = child.wait().await?;
            anyhow::ensure!(status.success(), "a worker ended with {status}");
        }
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("worker-{}", number + 1)
}
