//! A webhook: every new order is posted to a URL, each item in its order, however often the worker or
//! the receiver fails.

use std::process::ExitCode;

use aftercommit::cli::{App, Start};
use aftercommit::{Context, Event, Failure, Record, RecordHandler};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};

/// The flags of `run` that are this program's own.
#[derive(Debug, clap::Args)]
struct Flags {
    /// Where each new order is posted: http://HOST:PORT/PATH
    #[arg(long, value_name = "URL", env = "WEBHOOK_RECEIVER")]
    receiver: Uri,
}

#[derive(Deserialize, Serialize)]
struct Order {
    id: String,
    total: u64,
}

struct Webhook {
    receiver: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl RecordHandler for Webhook {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        if record.event != Event::Insert {
            context.did_not_ask(); // Not our change: it says nothing about the receiver.
            return Ok(());
        }
        let order: Order = record.new_image()?; // A bad order becomes a dead letter that names the field.
        let body = serde_json::to_vec(&order).map_err(Failure::reject)?;
        // A record may come more than once: by this key the receiver knows it again.
        let post = Request::post(&self.receiver)
            .header("content-type", "application/json")
            .header("idempotency-key", &order.id)
            .body(Full::from(body))
            .map_err(Failure::reject)?;
        let answer = self.client.request(post).await;
        match answer.map_err(Failure::unavailable)?.status().as_u16() {
            200..=299 => Ok(()),
            429 => Err(Failure::overloaded("answer 429")),
            status @ 400..=499 => Err(Failure::reject(format!("answer {status}"))),
            status => Err(Failure::unavailable(format!("answer {status}"))),
        }
    }
}

fn main() -> ExitCode {
    App::new("webhook")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Posts each new order to a URL")
        .start(|start: Start<Flags>| async move {
            Ok(Webhook {
                receiver: start.flags.receiver.clone(),
                client: Client::builder(TokioExecutor::new()).build_http(),
            })
        })
}
