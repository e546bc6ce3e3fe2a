//! Copies of dead letters for a queue or a topic, for other tools.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use aws_config::{Region, SdkConfig};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::on_failure::message;
use super::{
    Attempt, Claim, Coming, DeadLetters, Deed, Envelope, Fence, Letter, LetterId, LetterPage,
    ParkedPage, Reason, Selection, Written,
};
use crate::core::group::{EffectTable, GroupTable};
use crate::core::record::ItemKey;
use crate::stores::aws_error::AwsError;
use crate::stores::retry::COPY;

/// Where copies go.
#[derive(Debug, Clone)]
enum To {
    Queue {
        client: aws_sdk_sqs::Client,
        url: String,
    },
    Topic {
        client: aws_sdk_sns::Client,
        arn: String,
    },
}

/// A queue (SQS) or a topic (SNS) that gets a copy of every dead letter.
#[derive(Clone)]
pub struct Destination {
    to: To,
    /// Whether it keeps an order (`.fifo`).
    ordered: bool,
    arn: String,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destination").field(&self.arn).finish()
    }
}

/// What a destination that keeps an order needs: what to keep in order, and what is a duplicate.
struct Ordered {
    group: String,
    same: String,
}

impl Destination {
    /// The destination with this ARN, in its own Region. The URL of a queue is looked up, so a missing
    /// queue is reported now; a missing topic is reported by the first letter.
    ///
    /// # Errors
    ///
    /// The ARN is not that of a queue or topic, or the queue cannot be looked up.
    pub async fn open(config: &SdkConfig, arn: &str) -> anyhow::Result<Self> {
        let parts: Vec<_> = arn.splitn(6, ':').collect();
        let &["arn", _, service, region, account, name] = &*parts else {
            bail!("{arn} is not the ARN of a queue or a topic");
        };
        let region = Region::new(region.to_owned());
        let to = match service {
            "sqs" => {
                let own = aws_sdk_sqs::config::Builder::from(config).region(region);
                let client = aws_sdk_sqs::Client::from_conf(own.build());
                let look_up = client.get_queue_url().queue_name(name);
                let found = look_up.queue_owner_aws_account_id(account).send().await;
                let found =
                    found.map_err(|error| AwsError::new(&error).on(format!("queue {arn}")))?;
                let url = found.queue_url.context("the queue has no URL")?;
                To::Queue { client, url }
            }
            "sns" => {
                let own = aws_sdk_sns::config::Builder::from(config).region(region);
                let client = aws_sdk_sns::Client::from_conf(own.build());
                let arn = arn.to_owned();
                To::Topic { client, arn }
            }
            _ => bail!("{arn} is not the ARN of a queue or a topic"),
        };
        Ok(Self {
            to,
            ordered: arn.rsplit('.').next() == Some("fifo"),
            arn: arn.to_owned(),
        })
    }

    /// Sends a copy. An `Err` means that it is unknown whether it arrived.
    async fn send(&self, letter: &Letter) -> anyhow::Result<()> {
        let body = message(letter)?;
        let order = self.ordered.then(|| Ordered {
            group: hash(&[
                &letter.envelope.id.at.to_string(),
                letter.envelope.id.key.as_str(),
            ]),
            same: hash(&[&body]),
        });
        let (group, same) = order.map(|one| (one.group, one.same)).unzip();
        match &self.to {
            To::Queue { client, url } => {
                let call = client.send_message().queue_url(url).message_body(body);
                let call = call.set_message_group_id(group);
                let sent = call.set_message_deduplication_id(same).send().await;
                sent.map_err(|error| AwsError::new(&error).on(&*self.arn))?;
            }
            To::Topic { client, arn } => {
                let call = client.publish().topic_arn(arn).message(body);
                let call = call.set_message_group_id(group);
                let sent = call.set_message_deduplication_id(same).send().await;
                sent.map_err(|error| AwsError::new(&error).on(&*self.arn))?;
            }
        }
        Ok(())
    }
}

/// 43 letters, digits, `-` and `_`, which both services accept as a name.
fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// A store of dead letters whose letters are copied to a destination.
///
/// The copy is sent after the letter was written, and retried while sending fails, so a copy can arrive
/// more than once. A destination that is down holds nothing back for longer than [`Copied::PATIENCE`]:
/// after that each copy is tried once, until one arrives again. A copy that is not sent is logged as an
/// error and counted; its letter is in the table anyway. A record is not finished until its copy is
/// sent or given up, so that after a crash in between the copy is sent again.
#[derive(Debug, Clone)]
pub struct Copied<D> {
    letters: D,
    to: Destination,
    patience: Duration,
    /// Since when nothing has arrived.
    failing_since: Arc<Mutex<Option<Instant>>>,
}

impl<D: DeadLetters> Copied<D> {
    /// How long to wait for a destination that is down.
    pub const PATIENCE: Duration = Duration::from_mins(1);

    /// These letters, with copies to that destination.
    pub fn new(letters: D, to: Destination) -> Self {
        Self {
            letters,
            to,
            patience: Self::PATIENCE,
            failing_since: Arc::default(),
        }
    }

    /// The same, but it waits only this long for a destination that is down.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Records how an attempt ended. Returns for how long nothing has arrived.
    fn tried(&self, arrived: bool) -> Duration {
        let since = self.failing_since.lock();
        let mut since = since.unwrap_or_else(PoisonError::into_inner);
        if arrived {
            *since = None;
            return Duration::ZERO;
        }
        since.get_or_insert_with(Instant::now).elapsed()
    }
}

#[async_trait]
impl<D: DeadLetters> DeadLetters for Copied<D> {
    async fn write(
        &self,
        letter: &Letter,
        coming: Coming,
        fence: Option<&Fence>,
    ) -> anyhow::Result<Written> {
        self.letters.write(letter, coming, fence).await
    }

    async fn copy(&self, letter: &Letter) -> anyhow::Result<()> {
        let mut rng = fastrand::Rng::new();
        let lasts = |_: &anyhow::Error| self.tried(false) < self.patience;
        let sent = COPY.call(&mut rng, lasts, || self.to.send(letter)).await;
        if sent.is_ok() {
            self.tried(true);
        }
        sent
    }

    async fn parked_page(
        &self,
        at: &EffectTable,
        from: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<ParkedPage> {
        self.letters.parked_page(at, from, limit).await
    }

    async fn is_parked(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        self.letters.is_parked(at, key).await
    }

    async fn next_of(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<Option<Letter>> {
        self.letters.next_of(at, key).await
    }

    async fn next_after(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        self.letters.next_after(id).await
    }

    async fn read(&self, id: &LetterId) -> anyhow::Result<Option<Letter>> {
        self.letters.read(id).await
    }

    async fn close(&self, id: &LetterId, deed: &Deed) -> anyhow::Result<Option<()>> {
        self.letters.close(id, deed).await
    }

    async fn note(&self, id: &LetterId, attempt: &Attempt) -> anyhow::Result<Option<()>> {
        self.letters.note(id, attempt).await
    }

    async fn claim(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
    ) -> anyhow::Result<Option<()>> {
        self.letters.claim(at, key, claim).await
    }

    async fn release(
        &self,
        at: &EffectTable,
        key: &ItemKey,
        claim: &Claim,
        because: Option<Reason>,
    ) -> anyhow::Result<()> {
        self.letters.release(at, key, claim, because).await
    }

    async fn unpark_if_empty(&self, at: &EffectTable, key: &ItemKey) -> anyhow::Result<bool> {
        self.letters.unpark_if_empty(at, key).await
    }

    async fn of_key(&self, at: &GroupTable, key: &ItemKey) -> anyhow::Result<Vec<Envelope>> {
        self.letters.of_key(at, key).await
    }

    async fn list(&self, which: &Selection, from: Option<&str>) -> anyhow::Result<LetterPage> {
        self.letters.list(which, from).await
    }
}
