//! An ear on the wire between a client and its DynamoDB: what was asked, and refusals on demand.
//!
//! An emulator never lags, never throttles and never lets two transactions meet. So what a store
//! asks for is read from its requests, and what it does about a refusal is seen by refusing.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use serde_json::{Value, json};

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Such as `PutItem`.
    pub operation: String,
    pub body: Value,
}

/// How a call is refused: nothing is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The table is throttled.
    Throttled,
    /// Another transaction is in progress on a row.
    Conflict,
    /// The call does not get there: a proxy answers, by a clock of its own.
    ByAProxy,
}

impl Refusal {
    /// As the service says it of this call.
    fn answer(self, request: &Request) -> HttpResponse {
        let (kind, reason) = match self {
            Self::ByAProxy => return of_a_proxy(),
            Self::Throttled => (
                "ProvisionedThroughputExceededException",
                "ProvisionedThroughputExceeded",
            ),
            Self::Conflict => ("TransactionConflictException", "TransactionConflict"),
        };
        let body = if request.operation == "TransactWriteItems" {
            let parts = request.body["TransactItems"].as_array().unwrap().len();
            let mut reasons = vec![json!({ "Code": "None" }); parts];
            reasons[0] = json!({ "Code": reason, "Message": "try again" });
            let kind = "TransactionCanceledException";
            json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"),
                "message": "Transaction cancelled", "CancellationReasons": reasons })
        } else {
            json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"),
                "message": "try again" })
        };
        HttpResponse::new(400.try_into().unwrap(), body.to_string().into())
    }
}

fn of_a_proxy() -> HttpResponse {
    let mut answer = HttpResponse::new(403.try_into().unwrap(), "".into());
    let date = "Thu, 01 Jan 1970 00:00:00 GMT";
    answer.headers_mut().insert("date", date);
    answer
}

#[derive(Debug, Default)]
struct Heard {
    requests: Vec<Request>,
    /// Each request is refused when it comes for the first time, and none is kept.
    hinders: bool,
    /// Hashes of the refused calls.
    refused: BTreeSet<u64>,
    /// How the next calls of an operation are refused, and how many.
    next: Option<(&'static str, Refusal, usize)>,
    /// How far the server's clock is ahead.
    ahead: Duration,
}

/// A client's HTTP client that listens in.
#[derive(Debug, Clone)]
pub struct Wiretap {
    inner: SharedHttpClient,
    heard: Arc<Mutex<Heard>>,
}

impl Wiretap {
    /// Listens in on a client; the one that is returned repeats what is throttled at once.
    pub fn on(client: &Client) -> (Self, Client) {
        let wiretap = Self {
            inner: Builder::new().build_http(),
            heard: Arc::default(),
        };
        let config = client.config().to_builder();
        let config = config.http_client(SharedHttpClient::new(wiretap.clone()));
        let soon = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
        let config = config.retry_config(soon);
        (wiretap, Client::from_conf(config.build()))
    }

    /// What was asked since the last time.
    pub fn taken(&self) -> Vec<Request> {
        std::mem::take(&mut self.heard.lock().unwrap().requests)
    }

    /// Lets the server's clock be ahead by this.
    pub fn set_ahead(&self, by: Duration) {
        self.heard.lock().unwrap().ahead = by;
    }

    /// Refuses the next `times` calls of an operation.
    pub fn refuse(&self, operation: &'static str, refusal: Refusal, times: usize) {
        self.heard.lock().unwrap().next = Some((operation, refusal, times));
    }

    /// Refuses each read and write when it comes for the first time, one way or the other.
    pub fn hinder(&self) {
        self.heard.lock().unwrap().hinders = true;
    }
}

impl Heard {
    fn refusal(&mut self, request: &Request) -> Option<Refusal> {
        if let Some((operation, refusal, left)) = &mut self.next
            && request.operation == *operation
            && *left > 0
        {
            *left -= 1;
            return Some(*refusal);
        }
        if !self.hinders {
            return None;
        }
        let refusal = match request.operation.as_str() {
            "GetItem" | "BatchGetItem" | "Query" | "Scan" => Refusal::Throttled,
            "PutItem" | "UpdateItem" | "DeleteItem" | "TransactWriteItems" => {
                if self.refused.len().is_multiple_of(2) {
                    Refusal::Conflict
                } else {
                    Refusal::Throttled
                }
            }
            _ => return None,
        };
        self.refused.insert(request.hash()).then_some(refusal)
    }
}

impl Request {
    /// The same for each try of a request.
    fn hash(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        self.operation.hash(&mut hash);
        // The token is another one in each try.
        for (name, value) in self.body.as_object().unwrap() {
            if name != "ClientRequestToken" {
                (name, value).hash(&mut hash);
            }
        }
        hash.finish()
    }
}

impl HttpClient for Wiretap {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Ear {
            inner: self.inner.http_connector(settings, components),
            heard: self.heard.clone(),
        })
    }
}

#[derive(Debug)]
struct Ear {
    inner: SharedHttpConnector,
    heard: Arc<Mutex<Heard>>,
}

impl HttpConnector for Ear {
    fn call(&self, call: HttpRequest) -> HttpConnectorFuture {
        let target = call.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap().to_owned();
        let body = serde_json::from_slice(call.body().bytes().unwrap()).unwrap();
        let request = Request { operation, body };
        let mut heard = self.heard.lock().unwrap();
        let refused = heard.refusal(&request);
        let answer = refused.map(|refusal| refusal.answer(&request));
        if !heard.hinders {
            heard.requests.push(request);
        }
        if let Some(answer) = answer {
            return HttpConnectorFuture::ready(Ok(answer));
        }
        let (answer, ahead) = (self.inner.call(call), heard.ahead);
        HttpConnectorFuture::new(async move { Ok(dated(answer.await?, ahead)) })
    }
}

/// The answer of a server whose clock is ahead by this.
fn dated(mut answer: HttpResponse, ahead: Duration) -> HttpResponse {
    if ahead.is_zero() {
        return answer;
    }
    let date = answer.headers().get("date").unwrap();
    let date = DateTime::from_str(date, DateTimeFormat::HttpDate).unwrap();
    let date = DateTime::from(SystemTime::try_from(date).unwrap() + ahead);
    let date = date.fmt(DateTimeFormat::HttpDate).unwrap();
    answer.headers_mut().insert("date", date);
    answer
}
