//! The AWS clients: credentials, Region and endpoints come from the SDK, timeouts are set here.

use std::time::Duration;

use crate::Clock;
use crate::confirmation::Transport;
use crate::stores::aws_error::AwsError;
use crate::stores::clock::ServiceTime;
use crate::stores::clock::dynamodb::{heard_by, with_service_time};
use crate::stores::tables::region_of;
use anyhow::Context as _;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use zeroize::Zeroizing;

use crate::cli::fault::Fault;
use crate::cli::host::http;

/// The timeout of one attempt; the SDK has none here. A read of 1 MB over a slow line fits.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The timeout of a call with its retries. It is below the 10 s after which a worker counts as dead, so
/// that a call hardly outlives the trust in its result.
const CALL: Duration = Duration::from_secs(8);

/// Attempts of a call, including the first one.
const ATTEMPTS: u32 = 3;

/// The clients that the worker needs.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the ledger, the dead letters and the orders.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// For the lease table. Heartbeats and looks have connections of their own, so that they do not
    /// wait behind the process's other calls to DynamoDB.
    pub leases: aws_sdk_dynamodb::Client,
    /// The clock of DynamoDB, read from its answers.
    time: ServiceTime,
    /// For the stream.
    pub streams: aws_sdk_dynamodbstreams::Client,
    /// For other AWS services.
    #[cfg(feature = "sqs")]
    pub config: aws_config::SdkConfig,
}

impl Clients {
    /// DynamoDB's clock; this machine's until the first answer.
    pub fn clock(&self) -> Clock {
        self.time.or(Clock::system())
    }

    /// The same, but this machine's clock. AWS Lambda freezes a process between invocations, and its
    /// monotonic clock too, so that the time in an earlier answer is old by an unknown amount. Lambda
    /// keeps the wall clocks of its machines right.
    pub fn by_own_clock(self) -> Self {
        let time = ServiceTime::default();
        Self { time, ..self }
    }

    /// Fails if an ARN is in another Region than these clients.
    pub fn must_reach(&self, named: &str) -> Result<(), Fault> {
        let here = self.dynamodb.config().region().map(AsRef::as_ref);
        match (region_of(named), here) {
            (Some(there), Some(here)) if there != here => Err(Fault::wrong(format!(
                "{named} is in {there}, and AWS_REGION is {here}: set AWS_REGION={there}; the \
                 other tables must then be there too"
            ))),
            _ => Ok(()),
        }
    }
}

/// Builds the clients from the environment.
/// The SDK finds the endpoints (`AWS_ENDPOINT_URL` and its forms for each service). `streams_endpoint`
/// overrides the one for streams: inside a VPC they have another name than the tables.
///
/// Source: [PrivateLink](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/privatelink-streams.html).
pub async fn clients(streams_endpoint: Option<&str>) -> anyhow::Result<Clients> {
    let config = config().await?;
    let mut streams = aws_sdk_dynamodbstreams::config::Builder::from(&config);
    if let Some(url) = streams_endpoint {
        streams = streams.endpoint_url(url);
    }
    let (dynamodb, time) = with_service_time(aws_sdk_dynamodb::Client::new(&config));
    let own = aws_sdk_dynamodb::config::Builder::from(&config).http_client(http::client()?);
    let leases = aws_sdk_dynamodb::Client::from_conf(own.build());
    Ok(Clients {
        leases: heard_by(&leases, &time),
        dynamodb,
        time,
        streams: aws_sdk_dynamodbstreams::Client::from_conf(streams.build()),
        #[cfg(feature = "sqs")]
        config,
    })
}

/// Sends mail through the API of Amazon SES.
#[cfg(feature = "ses")]
pub async fn ses(configuration_set: Option<String>) -> Result<Transport, Fault> {
    let config = config().await.map_err(Fault::Setting)?;
    let ses = crate::confirmation::ses::Ses::new(aws_sdk_sesv2::Client::new(&config));
    Ok(ses.configuration_set(configuration_set).into())
}

/// This build does not include Amazon SES.
#[cfg(not(feature = "ses"))]
#[expect(clippy::unused_async, reason = "the other build awaits")]
pub async fn ses(_: Option<String>) -> Result<Transport, Fault> {
    Err(Fault::wrong(
        "--mail ses: this build does not include Amazon SES: install one with \
         cargo install --path . --features ses",
    ))
}

/// The text of a secret in AWS Secrets Manager.
#[cfg(feature = "secrets")]
pub async fn secret(id: &str) -> Result<Zeroizing<String>, Fault> {
    let config = config().await.map_err(Fault::Setting)?;
    let client = aws_sdk_secretsmanager::Client::new(&config);
    let answer = client.get_secret_value().secret_id(id).send().await;
    let at = |error| AwsError::new(&error).on(format!("--smtp-password-secret {id}"));
    let text = answer.map_err(at).map_err(Fault::setting)?.secret_string;
    text.map(Zeroizing::new).ok_or_else(|| {
        Fault::wrong(format!(
            "--smtp-password-secret {id} holds bytes: it must hold text"
        ))
    })
}

/// This build cannot read secrets.
#[cfg(not(feature = "secrets"))]
#[expect(clippy::unused_async, reason = "the other build awaits")]
pub async fn secret(_: &str) -> Result<Zeroizing<String>, Fault> {
    Err(Fault::wrong(
        "--smtp-password-secret: this build cannot read secrets: install one with \
         cargo install --path . --features secrets",
    ))
}

pub async fn config() -> anyhow::Result<SdkConfig> {
    let config = configured(http::client()?, ATTEMPT, CALL).load().await;
    config
        .region()
        .context("no AWS Region: set AWS_REGION, for example AWS_REGION=eu-central-1")?;
    Ok(config)
}

/// The configuration that all clients share.
fn configured(http: SharedHttpClient, attempt: Duration, call: Duration) -> ConfigLoader {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(attempt)
        .operation_timeout(call)
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
}

/// Fails if a table does not exist, before anything is read from the stream.
pub async fn must_exist(clients: &Clients, table: &str) -> Result<(), Fault> {
    let answer = clients.dynamodb.describe_table().table_name(table).send();
    match answer.await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceNotFoundException") => {
            Err(Fault::wrong(format!(
                "table {table} does not exist: create it with `aftercommit tables create`, or \
                 name another"
            )))
        }
        Err(error) => {
            let error = AwsError::new(&error).on(format!("table {table}"));
            Err(Fault::setting(error))
        }
    }
}

#[cfg(all(test, feature = "ses"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use std::net::SocketAddr;

    use crate::confirmation::mail::{Frozen, Letterhead, Mail};
    use crate::confirmation::order::Order;
    use crate::confirmation::ses::Ses;
    use crate::confirmation::smtp::Delivery;
    use crate::confirmation::template::Templates;
    use crate::stores::ledger::EffectKey;
    use aws_config::Region;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    /// The time that the client of the other services gives a call.
    const SHORT: Duration = Duration::from_millis(100);

    /// Sends mail as `run --mail ses` does, with shorter limits.
    async fn send(server: SocketAddr, limit: Duration) -> Delivery {
        let config = configured(http::client().unwrap(), SHORT, SHORT)
            .region(Region::from_static("us-east-1"))
            .test_credentials()
            .endpoint_url(format!("http://{server}"))
            .load()
            .await;
        let ses = Ses::new(aws_sdk_sesv2::Client::new(&config)).within(limit);
        let mail = mail();
        let offer = Transport::from(ses).offer(&mail).await.unwrap();
        offer.deliver(&mail, &|_| true).await
    }

    fn mail() -> Mail {
        let from = "Shop <shop@example.com>".parse().unwrap();
        let letterhead = Letterhead::new(Templates::built_in().unwrap(), from);
        let order = Order::sample("ann@example.com".parse().unwrap());
        let effect = "test".parse().unwrap();
        let (date, key) = (Clock::system().now(), EffectKey::new(&effect, "1"));
        letterhead.render(&order, &Frozen { date, key }).unwrap()
    }

    #[tokio::test]
    async fn a_mail_by_ses_may_take_longer_than_other_calls() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sending = tokio::spawn(send(server.local_addr().unwrap(), Duration::from_secs(30)));
        let (mut stream, _) = server.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        tokio::time::sleep(SHORT * 3).await;
        let body = r#"{"MessageId": "m1"}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let delivery = sending.await.unwrap();
        assert!(matches!(delivery, Delivery::Accepted(_)), "{delivery:?}");
    }

    #[tokio::test]
    async fn a_mail_for_which_there_never_was_a_connection_is_not_in_doubt() {
        // Nobody listens on this port.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let delivery = send(refusing, Duration::from_secs(30)).await;
        assert!(matches!(delivery, Delivery::NotSent { .. }), "{delivery:?}");
        // A full queue drops each further SYN, as a missing VPC endpoint does.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(silent)).await {
            queue.push(stream.unwrap());
        }
        let delivery = send(silent, SHORT * 4).await;
        assert!(matches!(delivery, Delivery::NotSent { .. }), "{delivery:?}");
    }
}
