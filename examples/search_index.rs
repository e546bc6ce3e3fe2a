//! A search index: every change of an item goes to an index of OpenSearch or Elasticsearch.
//!
//! The document carries the version of the record that it shows, and the index itself compares them, so
//! that a record that comes twice or late never puts an older state over a newer one.

use std::process::ExitCode;

use aftercommit::cli::{App, Start};
use aftercommit::{Context, Event, Failure, Record, RecordHandler};
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
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

impl RecordHandler for SearchIndex {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let item: Option<Value> = match record.event {
            Event::Remove => None,
            _ => record.new_image()?,
        };
        let version = context.version(record);
        let script = json!({"source": NEWER, "params": {"version": version, "item": item}});
        let update = json!({"scripted_upsert": true, "upsert": {}, "script": script});
        let key = record.key();
        let id = utf8_percent_encode(key.as_str(), NON_ALPHANUMERIC);
        let post = Request::post(format!("{}/_update/{id}", self.index))
            .header("content-type", "application/json")
            .body(Full::from(update.to_string()))
            .map_err(Failure::reject)?;
        let answer = self.client.request(post).await;
        match answer.map_err(Failure::unavailable)?.status().as_u16() {
            200..=299 => Ok(()),
            429 => Err(Failure::overloaded("answer 429")),
            409 => Err(Failure::retry("another write came in between")),
            status @ 400..=499 => Err(Failure::reject(format!("answer {status}"))),
            status => Err(Failure::unavailable(format!("answer {status}"))),
        }
    }
}

fn main() -> ExitCode {
    App::new("search-index")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps an index of OpenSearch as the table is")
        .start(|start: Start<Flags>| async move {
            Ok(SearchIndex {
                index: start.flags.index.clone(),
                client: Client::builder(TokioExecutor::new()).build_http(),
            })
        })
}
