//! A search index: every change of an item goes to an index of OpenSearch or Elasticsearch, up to a
//! hundred in a call.
//!
//! The document carries the version of the record that it shows, and the index itself compares them, so
//! that a record that comes twice or late never puts an older state over a newer one.

use std::process::ExitCode;

use aftercommit::cli::{App, Start};
use aftercommit::engine::{BatchHandler, BatchLimits, BatchRecord, Batched};
use aftercommit::{Event, Failure};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// The flags of `run` that are this program's own.
#[derive(Debug, clap::Args)]
struct Flags {
    /// The index: http://HOST:PORT/INDEX
    #[arg(long, value_name = "URL", env = "SEARCH_INDEX")]
    index: String,
}

/// Runs in the index. A removed item keeps a document, or a late write would bring it back.
const NEWER: &str = "if (ctx._source.version != null && ctx._source.version.compareTo(params.version) >= 0) \
                     { ctx.op = 'none' } \
                     else { ctx._source = ['version': params.version, 'item': params.item] }";

struct SearchIndex {
    index: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl BatchHandler for SearchIndex {
    async fn handle(&self, batch: &[BatchRecord]) -> Vec<Result<(), Failure>> {
        let updates: Vec<_> = batch.iter().map(update).collect();
        let good = updates.iter().flatten().map(String::as_str);
        let answers = self.bulk(good.collect()).await;
        let mut statuses = answers.iter().flatten();
        let result = |update: Result<String, Failure>| {
            update?;
            match &answers {
                Ok(_) => meaning(statuses.next().copied().unwrap_or_default()),
                Err(error) => Err(Failure::unavailable(format!("{error:#}"))),
            }
        };
        updates.into_iter().map(result).collect()
    }
}

/// What the status of a change means.
fn meaning(status: u64) -> Result<(), Failure> {
    match status {
        200..=299 => Ok(()),
        409 => Err(Failure::retry("another write came in between")),
        429 => Err(Failure::overloaded("answer 429")),
        400..=499 => Err(Failure::reject(format!("answer {status}"))),
        _ => Err(Failure::unavailable(format!("answer {status}"))),
    }
}

/// The two lines of a change in a call.
fn update(
    BatchRecord {
        record, context, ..
    }: &BatchRecord,
) -> Result<String, Failure> {
    let item: Option<Value> = match record.event {
        Event::Remove => None,
        _ => record.new_image()?,
    };
    let action = json!({"update": {"_id": record.key().as_str()}});
    let parameters = json!({"version": context.version(record), "item": item});
    let script = json!({"source": NEWER, "params": parameters});
    let update = json!({"scripted_upsert": true, "upsert": {}, "script": script});
    Ok(format!("{action}\n{update}\n"))
}

impl SearchIndex {
    /// Sends these changes in a call, and returns the status of each.
    async fn bulk(&self, changes: String) -> anyhow::Result<Vec<u64>> {
        let post = Request::post(format!("{}/_bulk", self.index))
            .header("content-type", "application/x-ndjson")
            .body(Full::from(changes))?;
        let answer = self.client.request(post).await?;
        anyhow::ensure!(answer.status().is_success(), "answer {}", answer.status());
        let body = answer.into_body().collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&body)?;
        let items = answer["items"].as_array().into_iter().flatten();
        let status = |item: &Value| item["update"]["status"].as_u64().unwrap_or_default();
        Ok(items.map(status).collect())
    }
}

fn main() -> ExitCode {
    App::new("search-index")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps an index of OpenSearch as the table is")
        .start(|start: Start<Flags>| async move {
            let index = SearchIndex {
                index: start.flags.index.clone(),
                client: Client::builder(TokioExecutor::new()).build_http(),
            };
            Ok(Batched::new(index, BatchLimits::default()))
        })
}
