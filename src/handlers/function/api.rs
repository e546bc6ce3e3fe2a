//! Lambda's runtime API for one process.
//!
//! Source: [the runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::engine::handler::{Crash, Failure};
use crate::handlers::event::{self, BatchItemFailures, FunctionResponse};
use crate::once::Outcome;

/// The longest response, as on Lambda, and some room for its error.
const LONGEST_RESPONSE: usize = (6 << 20) + (64 << 10);

/// How an invocation ended.
pub enum InvocationEnd {
    /// The process responded.
    Response(FunctionResponse),
    /// The process ended, or it let go of the record.
    Died(String),
}

impl InvocationEnd {
    /// What it means for the record. An attempt that the process did not survive counts as one.
    pub fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::Response(response) => response.outcome(),
            Self::Died(how) => Err(Failure::Retry(Crash::Died(how).into())),
        }
    }

    /// Which records of a batch the function wants again; the others are done. An error concerns all of
    /// them.
    pub fn of_batch(self) -> Result<BatchItemFailures, Failure> {
        match self {
            Self::Response(FunctionResponse::WantedAgain(failures)) => Ok(failures),
            end => end.outcome().map(|()| BatchItemFailures::Of(Vec::new())),
        }
    }

    /// What it means for an effect that takes place once.
    pub fn effect(self) -> Outcome {
        match self {
            Self::Response(response) => response.effect("the function responded"),
            Self::Died(how) => Outcome::Unknown(Crash::Died(how).to_string()),
        }
    }
}

/// A record for a process.
pub struct Task {
    pub event: Vec<u8>,
    /// In milliseconds since 1970.
    pub deadline: u128,
    pub client_context: String,
    pub trace: Option<String>,
    pub stream: String,
    pub outcome: oneshot::Sender<InvocationEnd>,
    /// Cancelled once nobody waits for the outcome.
    pub gone: CancellationToken,
}

/// The place of one process, and of those that follow it.
pub struct Slot {
    pub number: usize,
    waiting: mpsc::UnboundedSender<oneshot::Sender<Task>>,
    in_hand: Lock<Option<InHand>>,
    /// Whether the process has asked for work.
    asked: AtomicBool,
    /// Why the last process of any slot failed.
    trouble: Arc<Lock<Option<String>>>,
    /// The process is past the deadline of its record.
    pub overdue: Notify,
}

struct InHand {
    id: String,
    outcome: oneshot::Sender<InvocationEnd>,
}

impl Slot {
    pub fn new(
        number: usize,
        waiting: mpsc::UnboundedSender<oneshot::Sender<Task>>,
        trouble: Arc<Lock<Option<String>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            waiting,
            in_hand: Lock::default(),
            asked: AtomicBool::default(),
            trouble,
            overdue: Notify::new(),
        })
    }

    fn in_hand(&self) -> MutexGuard<'_, Option<InHand>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the invocation that the process had, because the process has ended. Returns whether it had asked
    /// for work.
    pub fn ended(&self, how: &str) -> bool {
        if let Some(held) = self.in_hand().take() {
            let _ = held.outcome.send(InvocationEnd::Died(how.to_owned()));
        }
        let asked = self.asked.swap(false, Ordering::SeqCst);
        if !asked {
            self.failed(how.to_owned());
        }
        asked
    }

    fn failed(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Ends the invocation with this id. `false` if it has ended or never existed.
    fn end(&self, id: &str, outcome: InvocationEnd) -> bool {
        let held = self.in_hand().take_if(|held| held.id == id);
        // The caller may have left in this moment.
        held.map(|held| held.outcome.send(outcome)).is_some()
    }

    /// Has the process killed if it still holds the invocation when nobody waits for it any more.
    async fn watch(self: Arc<Self>, id: String, gone: CancellationToken) {
        gone.cancelled().await;
        if self.in_hand().take_if(|held| held.id == id).is_some() {
            self.overdue.notify_one();
        }
    }
}

/// A free port that only this machine reaches.
pub async fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Serves one process, until it is dropped.
pub async fn serve(listener: TcpListener, slot: Arc<Slot>) -> io::Result<()> {
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route(
            "/2018-06-01/runtime/invocation/{id}/response",
            post(response),
        )
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .layer(DefaultBodyLimit::max(LONGEST_RESPONSE))
        .with_state(slot);
    axum::serve(listener, router).await
}

async fn next(State(slot): State<Arc<Slot>>) -> Response {
    slot.asked.store(true, Ordering::SeqCst);
    if let Some(left) = slot.in_hand().take() {
        let unanswered = "it asked for the next record without a response to this one";
        let _ = left
            .outcome
            .send(InvocationEnd::Died(unanswered.to_owned()));
    }
    let (process, task) = oneshot::channel();
    let stopped = || StatusCode::GONE.into_response();
    if slot.waiting.send(process).is_err() {
        return stopped();
    }
    let Ok(task) = task.await else {
        return stopped();
    };
    let id = request_id();
    *slot.in_hand() = Some(InHand {
        id: id.clone(),
        outcome: task.outcome,
    });
    tokio::spawn(slot.clone().watch(id.clone(), task.gone));
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", task.deadline.to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            function_arn(&task.stream),
        ),
        ("lambda-runtime-client-context", task.client_context),
    ];
    let trace = task.trace.map(|trace| ("lambda-runtime-trace-id", trace));
    (
        AppendHeaders(headers.into_iter().chain(trace).collect::<Vec<_>>()),
        task.event,
    )
        .into_response()
}

async fn response(State(slot): State<Arc<Slot>>, Path(id): Path<String>, body: Bytes) -> Response {
    taken(slot.end(&id, InvocationEnd::Response(FunctionResponse::of(&body))))
}

async fn error(State(slot): State<Arc<Slot>>, Path(id): Path<String>, body: Bytes) -> Response {
    let failed = FunctionResponse::Failed(event::failed(&reported(&body)));
    taken(slot.end(&id, InvocationEnd::Response(failed)))
}

async fn init_error(State(slot): State<Arc<Slot>>, body: Bytes) -> Response {
    let why = event::failed(&reported(&body)).to_string();
    warn!(process = slot.number, error = %why, "the handler's process cannot start");
    slot.failed(why);
    taken(true)
}

/// The reported error, or the text of a body that is not JSON.
fn reported(body: &[u8]) -> Value {
    let text = || json!({"errorMessage": String::from_utf8_lossy(body)});
    serde_json::from_slice(body).unwrap_or_else(|_| text())
}

fn taken(known: bool) -> Response {
    if known {
        return said(StatusCode::ACCEPTED, &json!({"status": "OK"}));
    }
    let error = json!({
        "errorType": "InvalidRequestID",
        "errorMessage": "the invocation has ended or does not exist",
    });
    said(StatusCode::BAD_REQUEST, &error)
}

fn said(status: StatusCode, body: &Value) -> Response {
    let json = [("content-type", "application/json")];
    (status, json, body.to_string()).into_response()
}

/// In the form of Lambda's: a UUID of version 4.
fn request_id() -> String {
    let random = fastrand::u128(..);
    let random = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{random:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// As if it were a function beside the table.
fn function_arn(stream: &str) -> String {
    let mut parts = stream.split(':').skip(3);
    let (region, account) = (parts.next(), parts.next());
    let region = region.unwrap_or("us-east-1");
    let account = account.unwrap_or("000000000000");
    format!("arn:aws:lambda:{region}:{account}:function:handler")
}

/// A `traceparent` that is valid, as Lambda writes it.
///
/// Source: [X-Ray's header](https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader).
pub fn trace_header(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let (time, unique) = trace.split_at_checked(8)?;
    let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    let sampled = u8::from(sampled);
    Some(format!(
        "Root=1-{time}-{unique};Parent={parent};Sampled={sampled}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_trace_is_named_as_lambda_names_it() {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let reported = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1";
        assert_eq!(trace_header(traceparent).unwrap(), reported);
    }

    #[test]
    fn a_request_id_is_a_uuid() {
        let id = request_id();
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
        assert_eq!(id.as_bytes()[14], b'4', "{id}");
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert_ne!(id, request_id());
    }

    #[test]
    fn the_function_is_in_the_tables_region_and_account() {
        let stream = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026";
        let arn = "arn:aws:lambda:eu-central-1:123456789012:function:handler";
        assert_eq!(function_arn(stream), arn);
    }
}
