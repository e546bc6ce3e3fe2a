//! The second transport: the API of Amazon SES, version 2.
//!
//! One call contains envelope and message, so the claim comes right before the call. Outcomes have the
//! codes of the SMTP interface of SES: 250, 554 for a mail that SES will never accept, 454 if the rate
//! or the account does not allow it now.
//!
//! Two things differ from SMTP. SES sets its own `Message-ID` and `Date` in every mail ([header
//! fields](https://docs.aws.amazon.com/ses/latest/dg/header-fields.html)), so the recipient cannot
//! recognise a mail that is sent again. And the call has no idempotency token
//! ([SendEmail](https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html)): the SDK
//! must not repeat it, and does not. Each mail carries the effect as a tag, which SES repeats in its
//! [events](https://docs.aws.amazon.com/ses/latest/dg/event-publishing-send-email.html): search them
//! for a mail that is in doubt.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_sesv2::config::retry::RetryConfig;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use aws_sdk_sesv2::config::{Config, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sesv2::error::{BoxError, ProvideErrorMetadata as _, SdkError};
use aws_sdk_sesv2::operation::send_email::builders::SendEmailFluentBuilder;
use aws_sdk_sesv2::operation::send_email::{SendEmailError, SendEmailOutput};
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Destination, EmailContent, MessageTag, RawMessage};
use lettre::Address;
use lettre::address::Envelope;

use super::mail::{Mail, message_id_local};
use super::smtp::{Cause, Delivery, Refusal, Reply, SendStage, ascii_domain};
use crate::stores::ledger::EffectKey;

/// The timeout of the whole call. A shorter one causes duplicates.
const LIMIT: Duration = Duration::from_mins(1);
/// The timeout of the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest name or value of a tag
/// ([MessageTag](https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_MessageTag.html)).
const TAG_BYTES: usize = 256;

/// Amazon SES, in one account and Region.
#[derive(Debug, Clone)]
pub struct Ses {
    client: Client,
    configuration_set: Option<String>,
    limit: Duration,
}

impl Ses {
    /// Sends through `client`. The client's settings for retries and timeouts are ignored: a mail is
    /// one call of at most a minute.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            configuration_set: None,
            limit: LIMIT,
        }
    }

    /// Uses this configuration set, which says where events about mails go.
    #[must_use]
    pub fn configuration_set(self, name: Option<String>) -> Self {
        let configuration_set = name;
        Self {
            configuration_set,
            ..self
        }
    }

    /// The longest time for a call. After it, it is unknown whether the mail was accepted.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Only ASCII local parts can be mailed.
    pub(super) fn offer(&self, envelope: &Envelope) -> Result<Self, Refusal> {
        let from = envelope.from().map(|from| (from, SendStage::Mail));
        let to = envelope.to().iter().map(|to| (to, SendStage::Rcpt));
        for (address, stage) in from.into_iter().chain(to) {
            spelled(address, stage)?;
        }
        Ok(self.clone())
    }

    pub(super) async fn deliver(
        &self,
        mail: &Mail,
        may_pass: &(dyn Fn(SendStage) -> bool + Sync),
    ) -> Delivery {
        let stage = SendStage::Call;
        let call = match self.call(mail) {
            Ok(call) => call,
            Err(why) => return Delivery::NotSent { stage, why },
        };
        if !may_pass(SendStage::Data) || !may_pass(SendStage::AfterDot) {
            let why = Cause::NotAllowed;
            return Delivery::NotSent { stage, why };
        }
        let left = Left::default();
        // The SDK merges these with the client's: a limit that is not set here would come from the
        // client.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT.min(self.limit / 2))
            .read_timeout(self.limit)
            .operation_attempt_timeout(self.limit)
            .operation_timeout(self.limit)
            .build();
        let own = Config::builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        let call = call.customize().config_override(own);
        match call.interceptor(left.clone()).send().await {
            Ok(answer) => accepted(&answer),
            Err(error) => self.failed(&error, left.is_set()),
        }
    }

    fn call(&self, mail: &Mail) -> Result<SendEmailFluentBuilder, Cause> {
        let unfit = |_| Cause::Unsuitable("the mail does not fit the API of Amazon SES");
        let spell = |address, stage| spelled(address, stage).map_err(|refusal| refusal.cause);
        let from = mail
            .envelope
            .from()
            .map(|from| spell(from, SendStage::Mail));
        let to = mail
            .envelope
            .to()
            .iter()
            .map(|to| spell(to, SendStage::Rcpt));
        let to = to.collect::<Result<_, _>>()?;
        let raw = RawMessage::builder().data(Blob::new(mail.bytes.clone()));
        let content = EmailContent::builder().raw(raw.build().map_err(unfit)?);
        let (kind, value) = tag(&mail.key);
        let tag = MessageTag::builder().name(kind).value(value);
        Ok(self
            .client
            .send_email()
            .set_from_email_address(from.transpose()?)
            .destination(Destination::builder().set_to_addresses(Some(to)).build())
            .content(content.build())
            .email_tags(tag.build().map_err(unfit)?)
            .set_configuration_set_name(self.configuration_set.clone()))
    }

    fn failed(&self, error: &SdkError<SendEmailError>, left: bool) -> Delivery {
        let stage = SendStage::Call;
        let why = match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                match refusal(status, answer.err()) {
                    Ok(delivery) => return delivery,
                    Err(why) => why,
                }
            }
            SdkError::TimeoutError(_) => Cause::Timeout(self.limit),
            SdkError::ResponseError(_) => Cause::Protocol("its answer cannot be read".to_owned()),
            _ => Cause::Io(std::io::Error::other(innermost(error))),
        };
        let answered = matches!(
            error,
            SdkError::ResponseError(_) | SdkError::ServiceError(_)
        );
        if !answered && (!left || never_connected(error)) {
            return Delivery::NotSent { stage, why };
        }
        Delivery::NoReply { stage, why }
    }
}

/// The tag that names the effect: its kind and its id. If a tag cannot hold the id, it has the local
/// part of the `Message-ID`.
fn tag(key: &EffectKey) -> (String, String) {
    let fits = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        (1..=TAG_BYTES).contains(&text.len()) && text.bytes().all(plain)
    };
    match key.as_str().split_once('#') {
        Some((kind, id)) if fits(kind) && fits(id) => (kind.to_owned(), id.to_owned()),
        Some((kind, _)) if fits(kind) => (kind.to_owned(), message_id_local(key)),
        _ => ("effect".to_owned(), message_id_local(key)),
    }
}

/// SES accepts only domains and local parts in ASCII
/// ([SendEmail](https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html)).
fn spelled(address: &Address, stage: SendStage) -> Result<String, Refusal> {
    if !address.user().is_ascii() {
        let what = "Amazon SES takes no address with letters beyond ASCII before the @";
        return Err(Refusal::at(stage)(Cause::Unsuitable(what)));
    }
    Ok(ascii_domain(address, stage)?.to_string())
}

fn accepted(answer: &SendEmailOutput) -> Delivery {
    match answer.message_id() {
        Some(id) => Delivery::Accepted(Reply::new(250, id)),
        None => Delivery::NoReply {
            stage: SendStage::Call,
            why: Cause::Protocol("it answered without a message id".to_owned()),
        },
    }
}

/// What a definite refusal means. A failure on the server's side is not definite: the mail may have
/// been accepted before it.
///
/// Source: [SendEmail, errors](https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html#API_SendEmail_Errors).
fn refusal(status: u16, error: &SendEmailError) -> Result<Delivery, Cause> {
    let code = error.code().unwrap_or("no code");
    let words = format!("{code} {}", error.message().unwrap_or_default());
    let throttled = matches!(
        code,
        "ThrottlingException" | "Throttling" | "TooManyRequestsException"
    );
    match error {
        SendEmailError::MessageRejected(_) | SendEmailError::BadRequestException(_) => {
            Ok(Delivery::Refused(Reply::new(554, &words)))
        }
        SendEmailError::LimitExceededException(_) => {
            Ok(Delivery::Deferred(Reply::new(454, &words)))
        }
        _ if throttled => Ok(Delivery::Deferred(Reply::new(454, &words))),
        // The cause is the account or its settings, not this mail.
        _ if (400..500).contains(&status) => Ok(Delivery::NotSent {
            stage: SendStage::Call,
            why: Cause::Reply(Reply::new(454, &words)),
        }),
        _ => Err(Cause::Protocol(format!("status {status}, {words}"))),
    }
}

/// Whether there was never a connection, so that nothing can have been sent over it.
fn never_connected(error: &SdkError<SendEmailError>) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let client = error.downcast_ref::<hyper_util::client::legacy::Error>();
        if client.is_some_and(hyper_util::client::legacy::Error::is_connect) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The innermost reason, which is the first cause.
fn innermost(error: &SdkError<SendEmailError>) -> String {
    let mut last: &(dyn Error + 'static) = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Whether the request had started: credentials found, signed, passed to the network.
#[derive(Debug, Clone, Default)]
struct Left(Arc<AtomicBool>);

impl Left {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Intercept for Left {
    fn name(&self) -> &'static str {
        "Left"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.store(true, Ordering::SeqCst);
        Ok(())
    }
}
