//! How fast mails leave: smtp-source, our sender without pipelining, our sender with it, in turn.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aftercommit::confirmation::smtp::{Delivery, Smtp, SmtpSettings};
use anyhow::{Context as _, bail, ensure};
use lettre::address::Envelope;

/// The size of a mail, in bytes.
const SIZE: usize = 4_500;

#[derive(clap::Args)]
pub struct Options {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Mails a round; a fifth of it on one connection.
    #[arg(long, default_value_t = 20_000)]
    mails: usize,
}

/// The ways to send, in the order of the table's columns.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    SmtpSource,
    Ours,
    OursPipelined,
}

const WAYS: [Way; 3] = [Way::SmtpSource, Way::Ours, Way::OursPipelined];

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let (source, sink) = (tool("smtp-source")?, tool("smtp-sink")?);
    let sink = Sink::start(&sink).await?;
    println!(
        "mails/s, {SIZE} bytes each, median of {} rounds\n",
        options.rounds
    );
    println!(
        "{:>11} {:>12} {:>12} {:>12}",
        "connections", "smtp-source", "ours", "pipelined"
    );
    let mut ratios = (0.0, 0.0);
    for connections in [1, 8, 32] {
        let mails = options.mails / if connections == 1 { 5 } else { 1 };
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..options.rounds {
            for (way, rates) in WAYS.iter().zip(&mut rates) {
                rates.push(match way {
                    Way::SmtpSource => theirs(&source, sink.port, connections, mails).await?,
                    way => ours(sink.port, connections, mails, *way).await?,
                });
            }
        }
        let [theirs, ours, pipelined] = rates.map(median);
        println!("{connections:>11} {theirs:>12.0} {ours:>12.0} {pipelined:>12.0}");
        if connections == 8 {
            ratios = (ours / theirs, pipelined / theirs);
        }
    }
    println!(
        "\n{{\"bench\":\"mail\",\"connections\":8,\"ratio_no_pipelining\":{:.2},\"ratio_pipelining\":{:.2}}}",
        ratios.0, ratios.1
    );
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A tool of Postfix, on the PATH or where Debian puts it.
fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.with_context(|| {
        format!(
            "{name} is missing; it is in Debian's package postfix, no daemon is needed: \
             apt-get download postfix && dpkg -x postfix_*.deb DIR, then set \
             PATH=DIR/usr/sbin:$PATH LD_LIBRARY_PATH=DIR/usr/lib/postfix"
        )
    })
}

/// A mail server that takes everything and keeps nothing.
struct Sink {
    process: Child,
    port: u16,
}

impl Sink {
    async fn start(tool: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(tool);
        // As root it wants to be somebody else.
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        command.arg(format!("127.0.0.1:{port}")).arg("1000");
        let process = command.stdout(Stdio::null()).spawn()?;
        let mut sink = Self { process, port };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
            {
                return Ok(sink);
            }
            if let Some(status) = sink.process.try_wait()? {
                bail!(
                    "{} ended at once ({status}): see its message above",
                    tool.display()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{} does not listen", tool.display())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

async fn theirs(tool: &Path, port: u16, connections: usize, mails: usize) -> anyhow::Result<f64> {
    let mut command = tokio::process::Command::new(tool);
    command.args([
        "-d",
        "-s",
        &connections.to_string(),
        "-m",
        &mails.to_string(),
    ]);
    command.args([
        "-l",
        &SIZE.to_string(),
        "-f",
        "shop@example.com",
        "-t",
        "ann@example.com",
    ]);
    command.arg(format!("127.0.0.1:{port}"));
    let start = Instant::now();
    let status = command.status().await?;
    ensure!(status.success(), "smtp-source failed: {status}");
    Ok(rate(mails, start))
}

async fn ours(port: u16, connections: usize, mails: usize, way: Way) -> anyhow::Result<f64> {
    let mut settings = SmtpSettings::from_url(&format!("smtp://127.0.0.1:{port}"), None)?;
    settings.max_connections = connections;
    settings.pipelining = way == Way::OursPipelined;
    let smtp = Smtp::new(settings)?;
    let envelope = Envelope::new(
        Some("shop@example.com".parse()?),
        vec!["ann@example.com".parse()?],
    )?;
    let message: Arc<[u8]> = message().into();
    let left = Arc::new(AtomicUsize::new(mails));
    let start = Instant::now();
    // Twice as many sends as connections, so that one waits for each.
    let senders: Vec<_> = (0..connections * 2)
        .map(|_| {
            let (smtp, envelope) = (smtp.clone(), envelope.clone());
            let (message, left) = (message.clone(), left.clone());
            tokio::spawn(async move { send(&smtp, &envelope, &message, &left).await })
        })
        .collect();
    for sender in senders {
        sender.await??;
    }
    let rate = rate(mails, start);
    smtp.close().await;
    Ok(rate)
}

async fn send(
    smtp: &Smtp,
    envelope: &Envelope,
    message: &[u8],
    left: &AtomicUsize,
) -> anyhow::Result<()> {
    let take = |left: usize| left.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let offer = smtp.offer(envelope).await?;
        match offer.deliver(message, &|_| true).await {
            Delivery::Accepted(_) => {}
            other => bail!("not accepted: {other:?}"),
        }
    }
    Ok(())
}

fn message() -> Vec<u8> {
    let mut message = b"From: <shop@example.com>\r\nSubject: benchmark\r\n\r\n".to_vec();
    while message.len() < SIZE {
        message.extend_from_slice(
            b"XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX\r\n",
        );
    }
    message
}

#[allow(clippy::cast_precision_loss)] // Counts far below 2^52.
fn rate(mails: usize, start: Instant) -> f64 {
    mails as f64 / start.elapsed().as_secs_f64()
}
