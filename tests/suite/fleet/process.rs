//! `aftercommit run` as a process that is killed, frozen and stopped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::cli::start::on_shop;
use crate::support::mail_server::MailServer;
use crate::support::shop::Shop;

/// A signal's name, as `kill` knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Kill,
    Freeze,
    Thaw,
    Stop,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Freeze => "STOP",
            Self::Thaw => "CONT",
            Self::Stop => "TERM",
        }
    }
}

/// A worker process. Killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// How long its log was when it started.
    log_before: u64,
}

/// How long running records may take to finish: half a minute, and more on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// `aftercommit run` on a shop's tables. `streams` is the streams' own endpoint, if they have one.
pub fn command(shop: &Shop, mails: &MailServer, streams: Option<&str>, name: &str) -> Command {
    command_to(shop, &mails.url(), streams, name)
}

/// The same, to the mail server at this URL.
pub fn command_to(shop: &Shop, mails: &str, streams: Option<&str>, name: &str) -> Command {
    let mut command = on_shop(shop);
    command
        .arg("run")
        .args(["--mail-from", "Shop <shop@example.com>"])
        .args(["--smtp-url", mails])
        .args(["--start", "trim-horizon", "--worker-id", name]);
    if let Some(url) = streams {
        command.args(["--streams-endpoint-url", url]);
    }
    command
}

impl Process {
    /// Starts it; what it logs is added to `<name>.log` in the folder.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        Self {
            child: command.stderr(log.unwrap()).spawn().unwrap(),
            log_before: length(&path),
            log: path,
        }
    }

    /// Waits until it has logged something: from then on it listens to signals.
    async fn listens(&self) {
        while length(&self.log) == self.log_before {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Signal) {
        let Some(id) = self.child.id() else {
            panic!("{signal:?}: the process has ended by itself");
        };
        let kill = Command::new("kill")
            .args(["-s", signal.name(), &id.to_string()])
            .status();
        assert!(kill.await.unwrap().success(), "{signal:?}");
    }

    /// Tells it to stop, and waits until it has ended as it should.
    pub async fn stop(&mut self) {
        timeout(PATIENCE, self.listens()).await.unwrap();
        self.signal(Signal::Stop).await;
        let status = timeout(PATIENCE, self.ended()).await.unwrap();
        assert!(status.success(), "asked to stop: {status}");
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}
