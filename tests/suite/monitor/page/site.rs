//! The page's own files and a document that a test sets.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// What a worker serves with it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:";

const FILES: [(&str, &str, &str); 5] = [
    (
        "",
        "text/html; charset=utf-8",
        include_str!("../../../../src/monitor/page.html"),
    ),
    (
        "page.css",
        "text/css; charset=utf-8",
        include_str!("../../../../src/monitor/page.css"),
    ),
    (
        "page.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../../src/monitor/page.js"),
    ),
    (
        "parts.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../../src/monitor/parts.js"),
    ),
    (
        "curves.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../../src/monitor/curves.js"),
    ),
];

/// A document; none: the answer is 503.
type Document = Arc<Mutex<Option<Value>>>;

/// A server with threads of its own; it ends when this is dropped.
pub struct Site {
    pub url: String,
    document: Document,
    _runtime: Runtime,
}

impl Site {
    pub fn start(document: Value) -> Self {
        let runtime = Runtime::new().unwrap();
        let document: Document = Arc::new(Mutex::new(Some(document)));
        let routes = Router::new()
            .route("/status.json", get(status))
            .route("/", get(|| file(Path(String::new()))))
            .route("/{name}", get(file))
            .with_state(Arc::clone(&document));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        runtime.spawn(axum::serve(listener, routes).into_future());
        Self {
            url,
            document,
            _runtime: runtime,
        }
    }

    /// The answer from now on.
    pub fn set(&self, document: Option<Value>) {
        *self.document.lock().unwrap() = document;
    }
}

async fn status(State(document): State<Document>) -> Response {
    match &*document.lock().unwrap() {
        Some(document) => {
            // When it was answered: right after its rows were read, unless it says otherwise.
            let date = document.get("answered").unwrap_or(&document["at"]);
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::DATE, date.as_str().unwrap()),
            ];
            (headers, document.to_string()).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn file(Path(name): Path<String>) -> Response {
    let Some((_, kind, text)) = FILES.into_iter().find(|file| file.0 == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, text).into_response()
}
