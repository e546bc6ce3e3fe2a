//! A handler in any language: each change is the body of a POST.
//!
//! The body is the event that AWS Lambda hands to a function ([`BodyFormat`]), so that a function runs
//! unchanged behind the runtime emulator of its container. The headers:
//!
//! | Header | Value |
//! |---|---|
//! | `Idempotency-Key` | the effect key, the same however often the change is delivered |
//! | `Aftercommit-Sequence-Number` | the change's place in its shard |
//! | `Aftercommit-Attempt` | the number of this attempt, from 1 |
//! | `Aftercommit-Deadline` | when the worker stops waiting for the answer, in milliseconds since 1970 |
//! | `Aftercommit-Epoch` | the epoch of the lease, where there is a lease |
//! | `traceparent` | the item's attribute of that name, where it is valid |
//! | `webhook-id`, `webhook-timestamp`, `webhook-signature` | the signature, where a secret is set |
//!
//! What the answer means:
//!
//! | Answer | Meaning |
//! |---|---|
//! | 2xx | done, unless the body is JSON with a non-empty `batchItemFailures`, or with an `errorMessage` or `errorType`, as a function that failed answers: then [`Failure::Retry`] |
//! | 400, 410, 422 | [`Failure::Reject`], with the body as the reason |
//! | 409, 425 | [`Failure::Busy`]: again after `Retry-After` (in seconds, at most a minute) |
//! | 429 | [`Failure::Overloaded`]; no call is made before `Retry-After` (in seconds, at most a minute) |
//! | 502, 503, 504, no connection, or one that breaks | [`Failure::Unavailable`] |
//! | anything else, redirects too | [`Failure::Retry`] |
//!
//! In a batch ([`Batched`](crate::engine::Batched) over a [`Program`](super::Program)) each change has these
//! headers in a member `aftercommit` of its record, and `batchItemFailures` names those that are to come
//! again. With Lambda's event, those behind the first of them come again as well.
//!
//! The emulator says 400 without a body when it is busy, which is [`Failure::Busy`], and 200 when the
//! function ran out of time, which is [`Failure::Retry`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use self::answer::HandlerAnswer;
use self::wire::Connector;
use crate::core::group::EffectName;
use crate::core::millis::since_1970;
use crate::core::record::Record;
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::handlers::call::ProgramCall;
use crate::handlers::event::BatchItemFailures;
use crate::handlers::key::Keys;
use crate::once::Outcome;
use crate::stores::clock::Clock;

mod answer;
mod sign;
mod url;
mod wire;

pub use self::sign::{InvalidSecret, WebhookSecret};
pub use self::url::{HandlerUrl, InvalidUrl};
pub use self::wire::NoTrust;
pub use super::body::BodyFormat;

/// The longest answer that is read whole, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// A connection that was idle for longer is not used again: servers close theirs after 2 s (gunicorn),
/// 5 s (Node, uvicorn) or more, and a request that meets such an end would count as an outage.
const IDLE: Duration = Duration::from_secs(1);

/// The longest wait that an answer may ask for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How a handler is called.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpSettings {
    /// Where it is.
    pub url: HandlerUrl,
    /// What the body of a request is.
    pub format: BodyFormat,
    /// Signs each request, where it is set.
    pub secret: Option<WebhookSecret>,
    /// Certificates (PEM) to trust besides the platform's.
    pub extra_roots: Vec<u8>,
}

impl HttpSettings {
    /// Lambda's event, unsigned.
    pub fn new(url: HandlerUrl) -> Self {
        Self {
            url,
            format: BodyFormat::default(),
            secret: None,
            extra_roots: Vec::new(),
        }
    }
}

/// Posts each change to a URL. Clones share their connections.
///
/// Connecting may take ten seconds; how long an answer may take is
/// [`Timing::handler_timeout`](crate::engine::Timing::handler_timeout). A program that serves few calls
/// at a time is spared by [`Limits::at_once`](crate::engine::Limits::at_once).
#[derive(Clone)]
pub struct HttpHandler {
    settings: Arc<HttpSettings>,
    keys: Keys,
    connector: Connector,
    client: Client<Connector, Full<Bytes>>,
    quiet: Arc<Quiet>,
    clock: Clock,
}

impl HttpHandler {
    /// Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the certificates that an `https` URL needs cannot be read.
    pub fn new(settings: HttpSettings) -> Result<Self, NoTrust> {
        let connector = Connector::new(&settings.url, &settings.extra_roots)?;
        let client = client(connector.clone(), usize::MAX);
        Ok(Self {
            settings: Arc::new(settings),
            keys: Keys::default(),
            connector,
            client,
            quiet: Arc::default(),
            clock: Clock::system(),
        })
    }

    /// The same, for an effect of this name, the first part of each effect key. `confirmation` unless
    /// another is set.
    #[must_use]
    pub fn effect(mut self, effect: EffectName) -> Self {
        self.keys.effect = effect;
        self
    }

    /// The same, with effect keys of your own: `id` makes the part after the effect's name. By default
    /// each change has a key of its own; with the id of an order, all changes of an order have one.
    #[must_use]
    pub fn keyed_by(
        mut self,
        id: impl Fn(&Record) -> Result<String, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.keys.id_of = Some(Arc::new(id));
        self
    }

    /// Where the changes go.
    pub fn url(&self) -> &HandlerUrl {
        &self.settings.url
    }

    /// How effect keys are made.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What the body of a request is.
    pub(super) fn format(&self) -> BodyFormat {
        self.settings.format
    }

    /// The same, with a connection for each call: one that the handler closes while it is idle would
    /// leave it unknown whether the next call arrived.
    pub(super) fn connecting_each_time(mut self) -> Self {
        self.client = client(self.connector.clone(), 0);
        self
    }

    /// An error if the handler wants no call now.
    pub(super) fn accepts_calls(&self) -> Result<(), Failure> {
        self.quiet.over()
    }

    fn request(&self, call: ProgramCall) -> Result<Request<Full<Bytes>>, Failure> {
        let now = self.clock.now();
        let mut headers = Headers::default();
        headers.put(CONTENT_TYPE, "application/json");
        headers.put(
            USER_AGENT,
            concat!("aftercommit/", env!("CARGO_PKG_VERSION")),
        );
        for (name, value) in &call.headers {
            headers.put(*name, value);
        }
        if let Some(ends) = call.ends {
            let at = now + ends.saturating_duration_since(Instant::now());
            headers.put(
                "aftercommit-deadline",
                since_1970(at).as_millis().to_string(),
            );
        }
        if let Some(secret) = &self.settings.secret {
            let seconds = since_1970(now).as_secs();
            let key = call.key();
            headers.put("webhook-id", key);
            headers.put("webhook-timestamp", seconds.to_string());
            headers.put("webhook-signature", secret.sign(key, seconds, &call.body));
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.settings.url.uri().clone());
        let mut request = request
            .body(Full::new(Bytes::from(call.body)))
            .map_err(Failure::reject)?;
        *request.headers_mut() = headers.0;
        Ok(request)
    }

    async fn ask(&self, call: ProgramCall) -> Result<HandlerAnswer, Unanswered> {
        let request = self.request(call).map_err(Unanswered::NotSent)?;
        let url = &self.settings.url;
        let response = self.client.request(request).await;
        let (head, body) = response
            .map_err(|error| Unanswered::of(url, &error))?
            .into_parts();
        let (body, whole) = read(body).await.map_err(|error| {
            Unanswered::Lost(format!(
                "{url} broke off in the middle of its answer: {error}"
            ))
        })?;
        let answer = HandlerAnswer {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers),
            receipt: text_of(&head.headers, "aftercommit-receipt"),
            function_failed: head.headers.contains_key("x-amz-function-error"),
            body,
            whole,
        };
        if let (429, Some(wait)) = (answer.status, answer.retry_after) {
            self.quiet.keep(wait);
        }
        Ok(answer)
    }

    /// How the effect ended that this call is.
    pub(super) async fn perform(&self, call: ProgramCall) -> Outcome {
        match self.ask(call).await {
            Ok(answer) => answer.effect(self.settings.url.is_emulator()),
            Err(Unanswered::Lost(why)) => Outcome::Unknown(why),
            Err(Unanswered::NotSent(failure)) => Outcome::NotBegun(failure.to_string(), failure),
        }
    }

    /// Which changes of this batch the handler wants again. An error concerns all of them.
    pub(super) async fn post(&self, batch: ProgramCall) -> Result<BatchItemFailures, Failure> {
        self.accepts_calls()?;
        self.ask(batch)
            .await?
            .of_batch(self.settings.url.is_emulator())
    }
}

impl RecordHandler for HttpHandler {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        self.accepts_calls()?;
        let call = ProgramCall::of_one(&self.keys, self.format(), (record, context))?;
        self.ask(call)
            .await?
            .outcome(self.settings.url.is_emulator())
    }
}

/// Why a call has no answer.
enum Unanswered {
    /// The request was not sent.
    NotSent(Failure),
    /// The request may have been sent.
    Lost(String),
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotSent(failure) => failure,
            Unanswered::Lost(why) => Self::unavailable(why),
        }
    }
}

impl fmt::Debug for HttpHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHandler")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A client that keeps so many idle connections at most.
fn client(connector: Connector, idle: usize) -> Client<Connector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle)
        .build(connector)
}

/// The time in which no call is made, because the handler asked for it.
#[derive(Debug, Default)]
struct Quiet(Mutex<Option<Instant>>);

impl Quiet {
    /// Refuses a call that comes too early. Waiting here would use up the attempt's time.
    fn over(&self) -> Result<(), Failure> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| Instant::now() < until) {
            return Err(Failure::overloaded(
                "not called, because the handler has asked for fewer calls and its Retry-After is not over",
            ));
        }
        Ok(())
    }

    fn keep(&self, wait: Duration) {
        let until = Some(Instant::now() + wait);
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = (*now).max(until);
    }
}

/// The headers of a request. A value that a header cannot hold is left out; none of these is such.
#[derive(Default)]
struct Headers(HeaderMap);

impl Headers {
    fn put<N>(&mut self, name: N, value: impl AsRef<str>)
    where
        HeaderName: TryFrom<N>,
    {
        let value = HeaderValue::from_str(value.as_ref());
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value) {
            self.0.insert(name, value);
        }
    }
}

/// The wait that an answer asks for, in seconds. A date is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.as_bytes();
    Some(String::from_utf8_lossy(value).into_owned())
}

impl Unanswered {
    /// With all causes.
    fn of(url: &HandlerUrl, error: &Error) -> Self {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(one) = cause {
            causes.push(one.to_string());
            cause = one.source();
        }
        let causes = causes.join(": ");
        if error.is_connect() {
            let why = format!("cannot connect to {url}: {causes}");
            return Self::NotSent(Failure::unavailable(why));
        }
        Self::Lost(format!("no answer from {url}: {causes}"))
    }
}

/// Reads the body. `false` if it is longer than the part that is read.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            all.extend_from_slice(data);
        }
        if all.len() > LONGEST_ANSWER {
            return Ok((all, false));
        }
    }
    Ok((all, true))
}
