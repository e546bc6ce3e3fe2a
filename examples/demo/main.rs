//! Orders in, mails out, on this machine alone: `cargo run --example demo`.
//!
//! An embedded DynamoDB, a mail server, a shop that commits orders, and workers that confirm them
//! while they are crashed and killed; the mails and the workers can be looked at in a browser. Its
//! account is one line of JSON, and its exit code is 0 only if no order's mail is missing and every
//! second mail is one that the ledger calls ambiguous. On a terminal it stays until Ctrl-C, for
//! whoever wants to look; otherwise it ends by itself.

use std::fs::File;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aftercommit::stores::tables::dynamodb::{
    TableStream, create_dead_letter_table, create_lease_table, create_ledger_table,
    create_orders_table,
};
use aws_sdk_dynamodb::Client;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncReadExt as _;
use tracing_subscriber::EnvFilter;

use crate::crew::Crew;
use crate::support::clients;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{MailServer, Script};
use crate::support::streams_server::StreamsServer;
use crate::tally::{Tally, finished, rows};
use crate::worker::Site;

mod crew;
mod front;
mod relay;
mod shop;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tally;
mod worker;

/// How long to wait for another mail before the missing ones count as missing.
const PATIENCE: Duration = Duration::from_mins(1);

/// Orders in, mails out, on this machine alone
#[derive(Debug, Parser)]
#[command(name = "demo", args_conflicts_with_subcommands = true)]
struct Demo {
    #[command(subcommand)]
    role: Option<Role>,
    /// How many orders are placed
    #[arg(long, default_value = "200")]
    orders: usize,
    /// How many of them a second
    #[arg(long, default_value = "50", value_parser = rate)]
    rate: f64,
    /// How often the worker is aborted mid-work and restarted
    #[arg(long, default_value = "0", conflicts_with_all = ["workers", "kill"])]
    crash: usize,
    /// Number of workers, each in a separate process; two shards for each
    #[arg(long)]
    workers: Option<usize>,
    /// How often the worker that has the most shards is killed (SIGKILL) and another one started
    #[arg(long, default_value = "0")]
    kill: usize,
    /// How long a worker may be silent before others take its shards; 10 s in production
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    lease_duration: Duration,
    /// Print nothing but the last line, and then exit
    #[arg(long)]
    headless: bool,
    /// Run until standard input ends, for a program that looks at the page
    #[arg(long)]
    stay: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// What the demo starts: one worker, until its standard input ends
    #[command(hide = true)]
    Worker {
        /// Its name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        site: Site,
    },
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=1e6).contains(rate));
    rate.ok_or_else(|| "orders a second, such as 50".to_owned())
}

fn main() -> anyhow::Result<ExitCode> {
    let demo = Demo::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        if let Some(Role::Worker { name, site }) = demo.role {
            log(std::io::stderr);
            Box::pin(worker::work(site, name, end_of_input())).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let good = play(&demo).await?;
        Ok(if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

async fn end_of_input() {
    let mut nothing = [0; 1];
    while matches!(tokio::io::stdin().read(&mut nothing).await, Ok(1..)) {}
}

fn log<W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static>(writer: W) {
    let filter = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(
            filter.unwrap_or_else(|_| EnvFilter::new("warn,aftercommit=info,dynoxide=error")),
        )
        .with_writer(writer)
        .with_ansi(false)
        .init();
}

/// A fresh folder for the mails and the logs.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/demo");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(folder.join("inbox"))?;
    Ok(folder)
}

async fn create_tables(client: &Client) -> anyhow::Result<()> {
    create_lease_table(client, worker::LEASES).await?;
    create_ledger_table(client, worker::LEDGER).await?;
    create_dead_letter_table(client, worker::LETTERS).await?;
    create_orders_table(client, shop::ORDERS).await?;
    create_orders_table(client, shop::PAYMENTS).await?;
    Ok(())
}

fn crew(demo: &Demo, site: &Site, folder: &Path) -> anyhow::Result<Crew> {
    if demo.workers.is_some() || demo.kill > 0 {
        return Crew::of_processes(site.clone(), folder, demo.workers.unwrap_or(1));
    }
    log(Mutex::new(File::create(folder.join("worker.log"))?));
    Crew::inside(site.clone())
}

/// Plays the whole thing; whether it ended as it should.
async fn play(demo: &Demo) -> anyhow::Result<bool> {
    let folder = folder()?;
    let script = Script {
        keep_in: Some(folder.join("inbox")),
        ..Script::default()
    };
    let mails = Arc::new(MailServer::start(script).await);
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    create_tables(&client).await?;
    let arn = TableStream::resolve(&client, shop::ORDERS).await?.arn;
    // The embedded stream has one shard; a server in front of it deals it into several.
    let shards = demo.workers.map(|workers| u16::try_from(workers * 2));
    let several = shards
        .transpose()?
        .map(|shards| StreamsServer::start(&server, &arn, shards));
    let site = Site {
        tables: server.url().to_owned(),
        streams: several
            .as_ref()
            .map_or(server.url(), |one| one.url())
            .to_owned(),
        arn,
        smtp: mails.url(),
        lease_duration: demo.lease_duration,
    };
    let page = front::serve(Arc::clone(&mails), site.clone()).await?;
    let began = Instant::now();
    let bar = bar(demo, &folder, page)?;
    let mut crew = crew(demo, &site, &folder)?;
    let done = tokio::select! {
        done = act(demo, &site, &mails, &mut crew) => Some(done?),
        () = follow(&bar, &mails) => None,
    };
    bar.finish();
    let takeover = done.and_then(|done| done.takeover);
    let tally = Tally {
        seconds: rounded(began.elapsed()),
        takeover_seconds_max: takeover.map(rounded),
        ..Tally::new(demo.orders, &mails, &rows(&site.ledger()).await?)
    };
    let stays = !demo.headless && !demo.stay && std::io::stdout().is_terminal();
    if stays {
        eprintln!("\nThe workers keep running, so that you can look at them; Ctrl-C stops them.");
    }
    println!("{}", serde_json::to_string(&tally)?);
    if stays {
        tokio::signal::ctrl_c().await?;
    } else if demo.stay {
        end_of_input().await;
    }
    if done.is_some() {
        crew.stop().await?;
    }
    Ok(done.is_some() && tally.is_good())
}

/// Seconds, as people read them.
fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 100.0).round() / 100.0
}

/// It ended by itself.
#[derive(Clone, Copy)]
struct Done {
    takeover: Option<Duration>,
}

/// The shop trades and the workers work, crash and are killed, until nothing more can happen.
async fn act(
    demo: &Demo,
    site: &Site,
    mails: &MailServer,
    crew: &mut Crew,
) -> anyhow::Result<Done> {
    let trade = shop::trade(clients::dynamodb(&site.tables), demo.orders, demo.rate);
    let mut takeover = None;
    let strike = async {
        // Only one of the two is given.
        let count = demo.crash + demo.kill;
        for n in 1..=count {
            mails.wait_accepted(n * demo.orders / (count + 1)).await;
            takeover = takeover.max(crew.strike().await?);
        }
        Ok(())
    };
    tokio::try_join!(trade, strike)?;
    finish(demo, site).await?;
    Ok(Done { takeover })
}

/// Waits until nothing more is going to happen to any order.
async fn finish(demo: &Demo, site: &Site) -> anyhow::Result<()> {
    let ledger = site.ledger();
    loop {
        let began = Instant::now();
        if finished(demo.orders, &rows(&ledger).await?) {
            return Ok(());
        }
        // The workers need the server, too.
        tokio::time::sleep(began.elapsed() * 10).await;
    }
}

fn bar(demo: &Demo, folder: &Path, page: SocketAddr) -> anyhow::Result<ProgressBar> {
    if demo.headless {
        return Ok(ProgressBar::hidden());
    }
    eprintln!("page:   http://{page}/");
    eprintln!("inbox:  http://{page}/inbox");
    eprintln!("mails:  {}", folder.join("inbox").display());
    eprintln!("logs:   {}", folder.display());
    let style = "{elapsed_precise} {wide_bar} {pos}/{len} mails, {per_sec}";
    let bar = ProgressBar::new(demo.orders as u64);
    Ok(bar.with_style(ProgressStyle::with_template(style)?))
}

/// Shows how far it is; ends when nothing has come for too long.
async fn follow(bar: &ProgressBar, mails: &MailServer) {
    let mut last = (0, Instant::now());
    while last.1.elapsed() < PATIENCE {
        let count = mails.count();
        if count > last.0 {
            last = (count, Instant::now());
        }
        bar.set_position(count as u64);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
