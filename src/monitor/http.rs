//! The status over HTTP: for probes, for Prometheus, and as a page for people. It is read-only.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;

use super::connections::Few;
use super::metrics::prometheus;
use super::process_report::Process;
use super::{FleetStatus, Status};

/// No content from elsewhere, no framing, no submitting.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page and its resources.
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
/// Anyone who reaches the address can read it, without encryption: names of tables, shards and hosts,
/// and error texts, but no orders. Use the loopback interface or a private network.
///
/// # Errors
///
/// The listener fails.
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
    router
        .layer(from_fn(asked_by_a_name_of_ours))
        .layer(map_response(strict))
        .with_state(status)
}

/// Refuses a request for a host name that anybody could register: a page with that name in an
/// operator's browser could otherwise read the status (DNS rebinding). Addresses, names without a dot,
/// and names that never exist in public DNS are allowed.
async fn asked_by_a_name_of_ours(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    if host.is_none_or(is_private) {
        return next.run(request).await;
    }
    let text = "use this machine's address, or a name that is not public\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Whether nobody can register the name in a `Host` header.
fn is_private(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    let reserved = [".localhost", ".local", ".internal", ".home.arpa", ".test"];
    !name.contains('.')
        || literal.parse::<IpAddr>().is_ok()
        || reserved.iter().any(|end| name.ends_with(end))
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

/// `status.json`: the fleet, and this process.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_anybody_may_register_is_not_answered() {
        for (host, private) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("[fd00::7]", true),
            ("localhost:9464", true),
            ("worker-7", true),
            ("worker.shop.svc.cluster.local:80", true),
            ("ip-10-0-0-7.eu-central-1.compute.internal", true),
            ("evil.example.com", false),
            ("evil.example.com.:9464", false),
            ("127.0.0.1.evil.com", false),
        ] {
            assert_eq!(is_private(host), private, "{host}");
        }
    }
}
