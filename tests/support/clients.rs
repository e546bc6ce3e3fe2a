//! SDK clients for a server at a URL, with credentials that no server checks.

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::Builder;

/// The address of LocalStack, from `localstack/test.sh`.
pub fn localstack_url() -> String {
    std::env::var("AFTERCOMMIT_LOCALSTACK_URL")
        .expect("AFTERCOMMIT_LOCALSTACK_URL is not set: run localstack/test.sh")
}

fn credentials() -> Credentials {
    Credentials::new("test", "test", None, None, "test")
}

/// A client for tables.
pub fn dynamodb(url: &str) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(credentials())
        .http_client(Builder::new().build_http())
        .endpoint_url(url)
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// A client for streams.
pub fn streams(url: &str) -> aws_sdk_dynamodbstreams::Client {
    let config = aws_sdk_dynamodbstreams::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(credentials())
        .http_client(Builder::new().build_http())
        .endpoint_url(url)
        .build();
    aws_sdk_dynamodbstreams::Client::from_conf(config)
}

/// A client for secrets.
#[cfg(feature = "secrets")]
pub fn secrets(url: &str) -> aws_sdk_secretsmanager::Client {
    let config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(credentials())
        .http_client(Builder::new().build_http())
        .endpoint_url(url)
        .build();
    aws_sdk_secretsmanager::Client::from_conf(config)
}
