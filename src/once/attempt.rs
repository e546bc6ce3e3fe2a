//! What an effect gets: the facts of the attempt, and the way to claim it.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::claims::LOOK_AGAIN;
use crate::engine::handler::{Context, Failure};

/// One attempt at an effect.
#[derive(Debug)]
pub struct EffectAttempt {
    date: SystemTime,
    to_repeat: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    claims: oneshot::Sender<Request>,
}

/// An effect's request for its claim.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) payload: Option<Vec<u8>>,
    pub(super) answer: oneshot::Sender<Claimed>,
}

impl EffectAttempt {
    pub(super) fn new(
        date: SystemTime,
        to_repeat: Option<Vec<u8>>,
    ) -> (Self, oneshot::Receiver<Request>) {
        let (claims, requests) = oneshot::channel();
        let attempt = Self {
            date,
            to_repeat,
            payload: None,
            claims,
        };
        (attempt, requests)
    }

    /// When the effect was first claimed, or this attempt began if it never was: the same time in
    /// every later attempt, in whole milliseconds.
    pub fn date(&self) -> SystemTime {
        self.date
    }

    /// The payload of an earlier attempt that is in doubt. It must be repeated byte for byte.
    pub fn to_repeat(&self) -> Option<&[u8]> {
        self.to_repeat.as_deref()
    }

    /// Keeps what the effect is about to send with the claim, if it is small enough, so that it can be
    /// repeated byte for byte after a deployment.
    #[must_use]
    pub fn keeping(self, payload: Vec<u8>) -> Self {
        Self {
            payload: Some(payload),
            ..self
        }
    }

    /// Claims the effect, and returns only if the claim succeeds. Otherwise the attempt ends here: its
    /// future is dropped.
    pub async fn claim(self) -> Claimed {
        let (answer, claimed) = oneshot::channel();
        let request = Request {
            payload: self.payload,
            answer,
        };
        let sent = self.claims.send(request).is_ok();
        match claimed.await {
            Ok(claimed) if sent => claimed,
            _ => std::future::pending().await,
        }
    }

    /// Claims the effect and begins it. From here on it is completed, whatever happens to its caller.
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`]: the effect must not begin any more.
    pub async fn point_of_no_return(self) -> Result<(), Failure> {
        if self.claim().await.begin() {
            return Ok(());
        }
        Err(Failure::Busy(LOOK_AGAIN))
    }
}

/// A claim that is in the ledger. An effect that needs further steps after its claim begins only with
/// the last of them.
#[derive(Debug)]
pub struct Claimed {
    context: Context,
    start_by: Instant,
    begun: EffectBegun,
}

impl Claimed {
    pub(super) fn new(context: &Context, start_by: Instant) -> (Self, EffectBegun) {
        let begun = EffectBegun::default();
        let claimed = Self {
            context: context.clone(),
            start_by,
            begun: begun.clone(),
        };
        (claimed, begun)
    }

    /// Whether the effect may still begin. A process that was frozen since its claim, for longer than
    /// other workers wait, must not perform it any more.
    pub fn may_begin(&self) -> bool {
        self.context.may_act() && Instant::now() <= self.start_by
    }

    /// Begins the effect: call this right before it can take place. From then on it is completed.
    /// `false`: it must not begin any more.
    pub fn begin(&self) -> bool {
        self.may_begin() && self.begun.begin()
    }
}

/// Whether the effect has begun, or was given up before it could. The first of the two is final.
#[derive(Debug, Clone, Default)]
pub(super) struct EffectBegun(Arc<OnceLock<bool>>);

impl EffectBegun {
    fn begin(&self) -> bool {
        *self.0.get_or_init(|| true)
    }

    /// Prevents the effect from beginning. `false` if it has begun.
    pub(super) fn give_up(&self) -> bool {
        !*self.0.get_or_init(|| false)
    }
}
