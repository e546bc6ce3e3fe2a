//! What the demo shows in a browser: the inbox of the mails that it caught, and the workers' page.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use mail_parser::MessageParser;
use minijinja::{Environment, Value, context};
use tokio::net::TcpListener;

use crate::relay;
use crate::support::mail_server::{Mail, MailServer};
use crate::worker::Site;

/// Whatever a mail holds, nothing of it runs and nothing is fetched.
const OWN: &str = "default-src 'none'; style-src 'self'; frame-src 'self'";
const SANDBOX: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:";

struct Front {
    mails: Arc<MailServer>,
    site: Site,
    pages: Environment<'static>,
}

/// Serves until the program ends. Returns the address.
pub async fn serve(mails: Arc<MailServer>, site: Site) -> anyhow::Result<SocketAddr> {
    let mut pages = Environment::new();
    pages.add_template("inbox.html", include_str!("inbox.html"))?;
    pages.add_template("mail.html", include_str!("mail.html"))?;
    let routes = Router::new()
        .route("/inbox", get(inbox))
        .route("/inbox/{number}", get(mail))
        .route("/inbox/{number}/html", get(html))
        .route("/inbox/style.css", get(style))
        .fallback(get(of_a_worker))
        .with_state(Arc::new(Front { mails, site, pages }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, routes).into_future());
    Ok(address)
}

impl Front {
    /// A page by its template, in which all values are escaped.
    fn page(&self, name: &str, values: Value) -> Response {
        let page = self.pages.get_template(name);
        match page.and_then(|page| page.render(values)) {
            Ok(page) => with_policy(OWN, Html(page)),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }

    /// Mail number `number`, counted from 1 as it came.
    fn mail(&self, number: usize) -> Option<Mail> {
        let mut all = self.mails.accepted();
        (1..=all.len())
            .contains(&number)
            .then(|| all.swap_remove(number - 1))
    }
}

fn with_policy(policy: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let policy = HeaderValue::from_static(policy);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// A mail in the list.
fn line((index, mail): (usize, &Mail)) -> Value {
    let parsed = MessageParser::new().parse_headers(&mail.bytes);
    let parsed = parsed.unwrap_or_default();
    let time = parsed
        .date()
        .map(|date| date.to_rfc3339().replace('T', " ").replace('Z', " UTC"));
    context! {
        number => index + 1,
        subject => parsed.subject().unwrap_or("(no subject)"),
        to => mail.to.join(", "),
        time => time.unwrap_or_default(),
    }
}

async fn inbox(State(front): State<Arc<Front>>) -> Response {
    let mails = front.mails.accepted();
    // The newest first.
    let lines: Vec<Value> = mails.iter().enumerate().map(line).rev().collect();
    front.page("inbox.html", context! { lines })
}

async fn mail(State(front): State<Arc<Front>>, Path(number): Path<usize>) -> Response {
    let Some(mail) = front.mail(number) else {
        return missing();
    };
    let parsed = MessageParser::new().parse(&mail.bytes).unwrap_or_default();
    let headers = parsed.headers_raw();
    let headers = headers.map(|(name, value)| Value::from((name, value.trim())));
    let headers: Vec<Value> = headers.collect();
    let text = parsed.body_text(0).unwrap_or_default();
    let values = context! {
        line => line((number - 1, &mail)),
        headers => headers,
        text => text,
        has_html => !parsed.html_body.is_empty(),
        last => front.mails.count(),
    };
    front.page("mail.html", values)
}

async fn html(State(front): State<Arc<Front>>, Path(number): Path<usize>) -> Response {
    let Some(mail) = front.mail(number) else {
        return missing();
    };
    let parsed = MessageParser::new().parse(&mail.bytes).unwrap_or_default();
    let html = parsed.body_html(0).unwrap_or_default().into_owned();
    with_policy(SANDBOX, Html(html))
}

async fn style() -> Response {
    let css = concat!(
        include_str!("../../src/monitor/page.css"),
        include_str!("inbox.css")
    );
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], css).into_response()
}

/// Anything that is not the inbox's.
async fn of_a_worker(State(front): State<Arc<Front>>, uri: Uri) -> Response {
    match relay::ask(&front.site, uri.path()).await {
        Ok(Some(response)) => response.map(Body::from),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "no worker answers").into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

fn missing() -> Response {
    let reported = "This mail does not exist (yet): see /inbox";
    (StatusCode::NOT_FOUND, reported).into_response()
}
