//! One GET over plain HTTP, to this machine or its host, without a client library.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest answer to read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Gets `path` from `authority` (a host and its port). Returns the status and the body if they arrive
/// within `limit`.
///
/// # Errors
///
/// No connection, no answer in time, or an answer that is not HTTP.
pub async fn get(authority: &str, path: &str, limit: Duration) -> anyhow::Result<(u16, String)> {
    let answer = tokio::time::timeout(limit, ask(authority, path)).await;
    let answer = answer.with_context(|| format!("no answer from {authority} within {limit:?}"))?;
    answer.with_context(|| format!("no answer from {authority}"))
}

async fn ask(authority: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(authority).await?;
    // HTTP/1.0 has no chunks: the answer ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).await?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("the answer is not HTTP");
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.context("the answer is not HTTP")?;
    Ok((status, body.to_owned()))
}
