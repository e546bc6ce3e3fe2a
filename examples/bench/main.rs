//! Benchmarks as commands: each compares with something that is known to be fast, in turn on the
//! same machine, and prints one JSON line last.
//!
//! `cargo run --release --example bench -- mail`

mod mail;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Our sender and Postfix's smtp-source, both against smtp-sink.
    Mail(mail::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Mail(options) => mail::run(&options).await,
    }
}
