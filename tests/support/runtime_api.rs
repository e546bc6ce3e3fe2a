//! AWS Lambda's runtime API, as far as one function needs it: hands it invocations, takes its
//! answers.
//!
//! Source: [the runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as Lock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot};

/// The result of an invocation: the function's answer, or its error.
type Outcome = Result<Value, Value>;

struct Invocation {
    event: Value,
    time: Duration,
    outcome: oneshot::Sender<Outcome>,
}

struct Server {
    next: Mutex<mpsc::Receiver<Invocation>>,
    pending: Lock<BTreeMap<String, oneshot::Sender<Outcome>>>,
}

/// A running server.
pub struct RuntimeApi {
    address: SocketAddr,
    invocations: mpsc::Sender<Invocation>,
}

impl RuntimeApi {
    pub async fn start() -> Self {
        let (invocations, next) = mpsc::channel(1);
        let server = Arc::new(Server {
            next: Mutex::new(next),
            pending: Lock::default(),
        });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(hand_out))
            .route("/2018-06-01/runtime/invocation/{id}/{what}", post(take))
            .with_state(server);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            invocations,
        }
    }

    /// For `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Invokes the function, which has this much time from when it gets the event.
    pub async fn invoke(&self, event: Value, time: Duration) -> Outcome {
        let (outcome, reported) = oneshot::channel();
        let invocation = Invocation {
            event,
            time,
            outcome,
        };
        self.invocations.send(invocation).await.unwrap();
        reported.await.unwrap()
    }
}

async fn hand_out(State(server): State<Arc<Server>>) -> Response {
    let Some(invocation) = server.next.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let id = format!("{:016x}", fastrand::u64(..));
    let mut pending = server.pending.lock().unwrap();
    pending.insert(id.clone(), invocation.outcome);
    let ends = SystemTime::now() + invocation.time;
    let ends = ends.duration_since(SystemTime::UNIX_EPOCH);
    let arn = "arn:aws:lambda:eu-central-1:123456789012:function:confirm".to_owned();
    let headers = [
        // Clients read an event of another type as text.
        ("content-type", "application/json".to_owned()),
        ("lambda-runtime-aws-request-id", id),
        (
            "lambda-runtime-deadline-ms",
            ends.unwrap().as_millis().to_string(),
        ),
        ("lambda-runtime-invoked-function-arn", arn),
    ];
    (headers, invocation.event.to_string()).into_response()
}

async fn take(
    State(server): State<Arc<Server>>,
    Path((id, what)): Path<(String, String)>,
    body: Bytes,
) -> StatusCode {
    let reported = serde_json::from_slice(&body).unwrap();
    let outcome = if what == "response" {
        Ok(reported)
    } else {
        Err(reported)
    };
    let waits = server.pending.lock().unwrap().remove(&id);
    let Some(waits) = waits else {
        return StatusCode::NOT_FOUND;
    };
    // The caller may be gone.
    let _ = waits.send(outcome);
    StatusCode::ACCEPTED
}
