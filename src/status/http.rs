//! The status over HTTP: for probes, for Prometheus, and a page for people. It can only be read.

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;

use super::connections::Few;
use super::metrics::prometheus;
use super::process::Process;
use super::{FleetStatus, Status};

/// Nothing comes from elsewhere, nothing may be framed, nothing can be sent away.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page and what belongs to it.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page.html")),
    ("/page.css", CSS, include_str!("page.css")),
    ("/page.js", SCRIPT, include_str!("page.js")),
    ("/parts.js", SCRIPT, include_str!("parts.js")),
    ("/curves.js", SCRIPT, include_str!("curves.js")),
];

/// Serves the status, and watches the process ([`Status::watch`]), until it is dropped.
///
/// | | |
/// |---|---|
/// | `/healthz` | 200, or 503 with what is stuck ([`super::health`]) |
/// | `/readyz` | 200, or 503 with why not |
/// | `/metrics` | the text format of Prometheus |
/// | `/status.json` | the whole fleet, and this process |
/// | `/` | the same as a page |
///
/// Whoever reaches the address reads it, and there is no encryption: it tells names of tables, shards
/// and hosts, and error texts, but no order. Keep it on the loopback interface or in a network of
/// your own.
///
/// # Errors
///
/// If the listener breaks down.
pub async fn serve(listener: TcpListener, status: Status) -> std::io::Result<()> {
    let served = axum::serve(Few::new(listener), router(status.clone()));
    tokio::select! {
        biased;
        ended = served.into_future() => ended,
        () = status.watch() => Ok(()),
    }
}

fn router(status: Status) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(of_metrics))
        .route("/status.json", get(of_status));
    for (path, kind, text) in FILES {
        router = router.route(path, get(|| async { ([(CONTENT_TYPE, *kind)], *text) }));
    }
    router.layer(map_response(strict)).with_state(status)
}

/// The headers of every answer.
async fn strict(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `status.json`: the fleet, and the process that answers.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    fleet: FleetStatus,
    process: Process,
}

/// One line.
fn verdict<E: std::fmt::Display>(verdict: Result<(), E>) -> Response {
    match verdict {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn healthz(State(status): State<Status>) -> Response {
    verdict(status.alive())
}

async fn readyz(State(status): State<Status>) -> Response {
    verdict(status.ready())
}

async fn of_metrics(State(status): State<Status>) -> Response {
    match prometheus::text(status.measure().await) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn of_status(State(status): State<Status>) -> Response {
    let document = Document {
        fleet: status.fleet().await,
        process: status.process(),
    };
    match serde_json::to_string(&document) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
