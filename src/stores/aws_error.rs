//! A failed call to AWS, in one line: which call on what, why, and what to do about it.
//!
//! The SDK's own errors say "dispatch failure" or "unhandled error", with the cause up to seven sources
//! deep. [`AwsError`] is made from any of them at the call, so that every log line and every command
//! says the same.

use std::any::type_name;
use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{BoxError, ProvideErrorMetadata, SdkError};

/// A failed call to an AWS service. [`fmt::Display`] shows everything: there is no source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsError {
    call: String,
    target: Option<String>,
    kind: Kind,
    code: Option<String>,
    reason: String,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// There are no credentials.
    NoCredentials,
    /// The profile or the environment is configured wrongly.
    BadProfile,
    /// The login of a profile has expired.
    LoggedOut,
    /// The credential provider failed.
    CredentialsAway,
    /// The service rejected the credentials.
    BadCredentials,
    /// The credentials do not allow this.
    Denied,
    /// The table, stream, queue or secret does not exist.
    NotFound,
    /// Too many calls.
    Throttled,
    /// There was no connection, or it broke.
    Unreachable,
    /// No answer came in time.
    NoAnswer,
    /// The service failed.
    Fault,
    /// The answer did not come from the service.
    Unreadable,
    /// Anything else: the request is wrong.
    Refused,
}

/// The endpoint of a call, and why the call failed. An HTTP client puts it into the SDK's error, where
/// [`AwsError`] finds it.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}")]
pub struct AtEndpoint {
    /// Scheme, host and port.
    pub endpoint: String,
    /// What happened.
    pub source: BoxError,
}

impl AwsError {
    /// How a call failed. Service and operation come from the error's type.
    pub fn new<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let code = error.code().map(str::to_owned);
        let kind = Kind::of(error);
        Self {
            call: call_of(type_name::<E>()),
            target: None,
            kind,
            reason: reason(error, kind),
            code,
        }
    }

    /// Adds what the call was about, such as `table orders`.
    #[must_use]
    pub fn on(self, target: impl Into<String>) -> Self {
        let target = Some(target.into());
        Self { target, ..self }
    }

    /// The kind of the failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The service's code, such as `AccessDeniedException`.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

impl Kind {
    /// Whether the same call may succeed later without any change.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::CredentialsAway
                | Self::Throttled
                | Self::Unreachable
                | Self::NoAnswer
                | Self::Fault
        )
    }

    fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                match error.code() {
                    Some(code) => Self::of_code(code, status),
                    None if status >= 500 => Self::Fault,
                    None => Self::Unreadable,
                }
            }
            SdkError::ResponseError(answer) if answer.raw().status().as_u16() >= 500 => Self::Fault,
            SdkError::ResponseError(_) => Self::Unreadable,
            SdkError::TimeoutError(_) => Self::NoAnswer,
            _ => match sources(error).find_map(|source| source.downcast_ref()) {
                Some(credentials) => Self::of_credentials(credentials),
                None if lacks_identity(error) => Self::NoCredentials,
                None => match error {
                    SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::NoAnswer,
                    SdkError::DispatchFailure(_) => Self::Unreachable,
                    _ => Self::Refused,
                },
            },
        }
    }

    fn of_code(code: &str, status: u16) -> Self {
        match code {
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired" => Self::BadCredentials,
            "AccessDeniedException"
            | "AccessDenied"
            | "NotAuthorized"
            | "AuthorizationError"
            | "AuthorizationErrorException"
            | "KMSAccessDeniedException" => Self::Denied,
            "ResourceNotFoundException"
            | "TableNotFoundException"
            | "QueueDoesNotExist"
            | "AWS.SimpleQueueService.NonExistentQueue"
            | "NotFound"
            | "NotFoundException" => Self::NotFound,
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "LimitExceededException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "ProvisionedThroughputExceededException" => Self::Throttled,
            _ if status == 429 => Self::Throttled,
            _ if status >= 500 => Self::Fault,
            _ => Self::Refused,
        }
    }

    fn of_credentials(error: &CredentialsError) -> Self {
        let logged_out = sources(error).any(|source| {
            let text = source.to_string().to_ascii_lowercase();
            text.contains("sso") || text.contains("login")
        });
        match error {
            _ if logged_out => Self::LoggedOut,
            CredentialsError::CredentialsNotLoaded(_) => Self::NoCredentials,
            CredentialsError::InvalidConfiguration(_) => Self::BadProfile,
            _ => Self::CredentialsAway,
        }
    }

    /// What to do about it, if the reason does not say so already.
    fn remedy(self) -> Option<&'static str> {
        match self {
            Self::NoCredentials => Some(
                "set AWS_PROFILE to a profile in ~/.aws/config, or AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or run where a role provides credentials",
            ),
            Self::BadProfile => Some("check the profile in ~/.aws/config"),
            Self::LoggedOut => {
                Some("log in with `aws sso login` or `aws login`, as the profile asks")
            }
            Self::CredentialsAway => {
                Some("check what provides the credentials: the role, the profile or its process")
            }
            Self::BadCredentials => {
                Some("check the access key, AWS_PROFILE, AWS_REGION and this machine's clock")
            }
            Self::Denied => Some("allow it in the policy of this role or user"),
            Self::NotFound => Some("check the name, AWS_REGION and the account"),
            Self::Unreachable | Self::NoAnswer => Some(
                "check the endpoint (AWS_REGION, AWS_ENDPOINT_URL) and the network path to it: \
                 VPC endpoint, proxy, firewall",
            ),
            Self::Unreadable => {
                Some("check AWS_ENDPOINT_URL and the proxy: something else answered")
            }
            Self::Throttled | Self::Fault | Self::Refused => None,
        }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.call)?;
        if let Some(target) = &self.target {
            write!(f, " on {target}")?;
        }
        write!(f, ": {}", self.reason)?;
        match self.kind.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl Error for AwsError {}

impl<E> From<SdkError<E, HttpResponse>> for AwsError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::new(&error)
    }
}

/// `DynamoDB GetItem`, from `aws_sdk_dynamodb::operation::get_item::GetItemError`.
fn call_of(error: &str) -> String {
    let service = match error.split("::").next() {
        Some("aws_sdk_dynamodb") => "DynamoDB ",
        Some("aws_sdk_dynamodbstreams") => "DynamoDB Streams ",
        Some("aws_sdk_sqs") => "SQS ",
        Some("aws_sdk_sns") => "SNS ",
        Some("aws_sdk_sesv2") => "SES ",
        Some("aws_sdk_secretsmanager") => "Secrets Manager ",
        _ => "AWS ",
    };
    let operation = error.rsplit("::").next().unwrap_or_default();
    let operation = operation.strip_suffix("Error").unwrap_or(operation);
    format!("{service}{operation}")
}

fn reason<E>(error: &SdkError<E, HttpResponse>, kind: Kind) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let SdkError::ServiceError(answer) = error {
        let status = answer.raw().status().as_u16();
        let code = error
            .code()
            .map_or_else(|| format!("HTTP status {status}"), str::to_owned);
        return match error.message() {
            Some(message) if !message.is_empty() => {
                format!("{code}: {}", one_line(message).trim_end_matches('.'))
            }
            _ => code,
        };
    }
    let why = one_line(&last(error).to_string());
    let at: Option<&AtEndpoint> = sources(error).find_map(|source| source.downcast_ref());
    let endpoint = at.map_or("the endpoint", |at| &*at.endpoint);
    match kind {
        Kind::NoCredentials => "there are no AWS credentials".to_owned(),
        Kind::BadProfile => format!(
            "the credentials are not configured right ({})",
            chain(error)
        ),
        Kind::LoggedOut => format!(
            "the login has expired, or there was none ({})",
            chain(error)
        ),
        Kind::CredentialsAway => format!("the AWS credential provider failed ({})", chain(error)),
        Kind::Unreachable => format!("{endpoint} cannot be reached: {why}"),
        Kind::NoAnswer => match why.rsplit_once("occurred after ") {
            Some((_, limit)) => format!("no answer from {endpoint} within {limit}"),
            None => format!("no answer from {endpoint}"),
        },
        Kind::Unreadable | Kind::Fault => format!("the answer cannot be read: {why}"),
        _ => why,
    }
}

/// Why a provider has no credentials: the causes below its own error, once each.
fn chain(error: &(dyn Error + 'static)) -> String {
    let provider = |source: &&(dyn Error + 'static)| source.is::<CredentialsError>();
    let mut causes: Vec<String> = Vec::new();
    for source in sources(error)
        .skip_while(|source| !provider(source))
        .skip(1)
    {
        let cause = one_line(&source.to_string());
        let says_nothing = cause.starts_with("an error occurred while");
        if !says_nothing && !causes.iter().any(|earlier| earlier.contains(&cause)) {
            causes.push(cause);
        }
    }
    causes.join(": ")
}

/// Without credentials some versions of the SDK stop before they ask any provider.
fn lacks_identity(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|source| source.to_string().contains("no identity"))
}

fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The first cause.
fn last<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    sources(error).last().unwrap_or(error)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
