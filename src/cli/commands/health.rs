//! `aftercommit health`: whether the worker on this machine is alive, for a container's health check.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use crate::cli::args::http::HttpArgs;
use crate::cli::fault::Fault;
use crate::cli::host::web;
use crate::cli::render::out::print_all;

pub const EXAMPLES: &str = "\
Examples:
  # As the health check of a container that has AFTERCOMMIT_HTTP set
  [\"CMD\", \"/aftercommit\", \"health\"]

Exit codes: 0 alive and making progress, 1 not alive, or no answer within 4 seconds, 2 no address is set.
An outage of DynamoDB or of the mail server does not fail this check, because a restart would not help: see
/readyz. A worker that cannot start within a minute does fail it.";

/// A health check of ECS waits five seconds by default.
///
/// Source: [HealthCheck](https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html).
const LIMIT: Duration = Duration::from_secs(4);

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    http: HttpArgs,
}

/// Asks the worker whether it is alive.
pub async fn health(args: &HealthArgs) -> Result<(), Fault> {
    let address = args.http.address_here().ok_or_else(|| {
        Fault::wrong(
            "--http (or AFTERCOMMIT_HTTP) is missing: name the address at which the worker \
             serves its status",
        )
    })?;
    let (code, words) = web::get(&address.to_string(), "/healthz", LIMIT).await?;
    match code {
        200 | 503 => print_all(&words)?,
        _ => return Err(anyhow!("{address} is not an aftercommit worker (HTTP {code})").into()),
    }
    if code == 200 { Ok(()) } else { Err(Fault::No) }
}
