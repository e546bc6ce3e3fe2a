//! The workers' own pages at one address: whichever worker answers.
//!
//! Workers come and go, each at its own address, which is in its row.

use std::time::Duration;

use aftercommit::stores::leases::{Consistency, LeaseStore as _};
use anyhow::Context as _;
use axum::http::{HeaderName, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::worker::Site;

/// Longer than a worker takes that answers at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the first worker that answers says to `GET path`; `None`: none does.
pub async fn ask(site: &Site, path: &str) -> anyhow::Result<Option<Response<Vec<u8>>>> {
    let view = site.leases().look(Consistency::Eventual).await?;
    for row in view.workers.into_values() {
        let Some(address) = row.status_address else {
            continue;
        };
        // A worker that crashed leaves its row behind.
        if let Ok(Ok(response)) = timeout(PATIENCE, get(&address, path)).await {
            return Ok(Some(response));
        }
    }
    Ok(None)
}

async fn get(address: &str, path: &str) -> anyhow::Result<Response<Vec<u8>>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.context("half an answer")? + 4);
    let head = String::from_utf8(answer)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut response = Response::builder().status(status.context("no status")?);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        // Of this connection alone.
        if !["connection", "content-length", "transfer-encoding"].contains(&name) {
            response = response.header(HeaderName::try_from(name)?, value);
        }
    }
    Ok(response.body(body)?)
}
