//! DynamoDB's time, read from its answers.

use std::time::SystemTime;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};

use super::ServiceTime;

/// The header that only the service's own answers have. A proxy that answers instead has another clock.
///
/// Source: [the low-level API](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html).
const REQUEST_ID: &str = "x-amzn-requestid";

/// The client, and the service's time from the answers to its calls, including error answers.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the returned client replaces it"
)]
pub fn with_service_time(client: Client) -> (Client, ServiceTime) {
    let time = ServiceTime::default();
    (heard_by(&client, &time), time)
}

/// The client. Its answers set an existing clock.
pub fn heard_by(client: &Client, time: &ServiceTime) -> Client {
    let config = client.config().to_builder();
    Client::from_conf(config.interceptor(Dates(time.clone())).build())
}

/// Reads the dates of answers.
#[derive(Debug)]
pub(crate) struct Dates(pub ServiceTime);

impl Intercept for Dates {
    fn name(&self) -> &'static str {
        "Dates"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        let date = headers
            .get("date")
            .filter(|_| headers.get(REQUEST_ID).is_some());
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(date) = date.and_then(|date| SystemTime::try_from(date).ok()) {
            self.0.heard(date);
        }
        Ok(())
    }
}
