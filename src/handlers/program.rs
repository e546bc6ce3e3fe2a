//! Programs in any language, and the effect of a call that takes place once.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::function::{FunctionCall, FunctionHandler};
use super::http::{HttpCall, HttpHandler};
use crate::core::group::EffectName;
use crate::core::record::Record;
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::once::{EffectAttempt, Once, OnceSettings, Outcome, Tally};
use crate::stores::ledger::{EffectKey, Ledger, item_ref};

/// How long an answer is awaited if the attempt has no end of its own.
const LONGEST: Duration = Duration::from_mins(1);

/// A program in any language. Clones share its connections and processes.
#[derive(Clone)]
#[non_exhaustive]
pub enum Program {
    /// It is called over HTTP.
    Http(Box<HttpHandler>),
    /// It is an AWS Lambda function, whose processes were started here.
    Function(FunctionHandler),
}

impl Program {
    /// The same, for an effect of this name.
    #[must_use]
    pub fn effect(self, effect: EffectName) -> Self {
        match self {
            Self::Http(http) => Self::Http(Box::new(http.effect(effect))),
            Self::Function(function) => Self::Function(function.effect(effect)),
        }
    }

    /// The same, with an effect key for each id.
    #[must_use]
    pub fn keyed_by(
        self,
        id: impl Fn(&Record) -> Result<String, Failure> + Send + Sync + 'static,
    ) -> Self {
        match self {
            Self::Http(http) => Self::Http(Box::new(http.keyed_by(id))),
            Self::Function(function) => Self::Function(function.keyed_by(id)),
        }
    }

    /// The same, called once for each effect key. `rng` makes the nonces of claims: seed it differently
    /// in every process.
    pub fn once<L: Ledger>(
        self,
        ledger: L,
        settings: OnceSettings,
        rng: fastrand::Rng,
    ) -> OnceProgram<L> {
        let program = match self {
            Self::Http(http) => Self::Http(Box::new(http.connecting_each_time())),
            function @ Self::Function(_) => function,
        };
        OnceProgram {
            once: Once::new(ledger, settings, rng),
            program,
        }
    }

    /// Ends what was started here.
    pub async fn close(&self) {
        match self {
            Self::Http(_) => {}
            Self::Function(function) => function.stop().await,
        }
    }

    fn key(&self, record: &Record, context: &Context) -> Result<EffectKey, Failure> {
        match self {
            Self::Http(http) => http.effect_key(record, context),
            Self::Function(function) => function.effect_key(record, context),
        }
    }

    fn call(&self, record: &Record, context: &Context) -> Result<ProgramCall, Failure> {
        Ok(match self {
            Self::Http(http) => ProgramCall::Http(http.clone(), http.call(record, context)?),
            Self::Function(function) => {
                ProgramCall::Function(function.clone(), function.call(record, context)?)
            }
        })
    }
}

impl RecordHandler for Program {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Http(http) => http.handle(record, context).await,
            Self::Function(function) => function.handle(record, context).await,
        }
    }
}

/// A call that is still to be made.
#[derive(Clone)]
enum ProgramCall {
    Http(Box<HttpHandler>, HttpCall),
    Function(FunctionHandler, FunctionCall),
}

impl ProgramCall {
    /// Claims the effect, and then makes the call: with the body of an earlier one that is in doubt, if
    /// there is one.
    async fn perform(mut self, attempt: EffectAttempt) -> Result<Outcome, Failure> {
        let repeated = attempt.to_repeat().map(<[u8]>::to_vec);
        let (body, ends) = match &mut self {
            Self::Http(_, call) => {
                call.body = repeated.unwrap_or_else(|| std::mem::take(&mut call.body));
                (call.body.clone(), call.ends)
            }
            Self::Function(_, call) => {
                if let Some(event) = repeated.and_then(|event| String::from_utf8(event).ok()) {
                    call.event = event;
                }
                (call.event.clone().into_bytes(), call.ends)
            }
        };
        attempt.keeping(body).point_of_no_return().await?;
        let effect = async {
            match self {
                Self::Http(http, call) => http.perform(call).await,
                Self::Function(function, call) => function.perform(call).await,
            }
        };
        // A tenth of the attempt's time is left to record that there was no answer.
        let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        let limit = left.map_or(LONGEST, |left| left * 9 / 10);
        let late = |_| Outcome::Unknown(format!("no answer within {limit:.1?}"));
        Ok(timeout(limit, effect).await.unwrap_or_else(late))
    }
}

/// A program that is called once for each effect key ([`crate::once`]): the key is claimed in the ledger
/// before the call, and the answer is recorded after it.
///
/// What an answer over HTTP says about the effect:
///
/// | Answer | The effect | In the ledger |
/// |---|---|---|
/// | 2xx | took place | `SENT`, with a receipt: the header `Aftercommit-Receipt`, or else the member `receipt` of a JSON body, or else the status; one line of 300 characters, without addresses |
/// | 2xx with a non-empty `batchItemFailures` | did not take place, and is tried again | `RETRY` |
/// | 400, 410, 422 | was refused | `FAILED`, with the body as the reason; the record is rejected |
/// | other 4xx; 301, 307, 308; 503 with `Retry-After` | did not take place, and is tried again | `RETRY` |
/// | no connection | did not take place, and is tried again | `RETRY` |
/// | a connection that breaks after that, no answer in time | may have taken place | `AMBIGUOUS` |
/// | any other 5xx and 3xx; 2xx with `errorMessage` or `errorType` | may have taken place | `AMBIGUOUS` |
pub struct OnceProgram<L> {
    once: Once<L>,
    program: Program,
}

impl<L: Ledger> OnceProgram<L> {
    /// How many effects had which outcome so far, in this process.
    pub fn tally(&self) -> &Tally {
        self.once.tally()
    }

    /// Waits, at most this long, for answers that are not recorded yet. Returns how many are left. Call
    /// it before the process ends: those become AMBIGUOUS.
    pub async fn finish(&self, limit: Duration) -> usize {
        self.once.finish(limit).await
    }

    /// The ledger of the effects.
    pub fn ledger(&self) -> &L {
        self.once.ledger()
    }
}

impl<L: Ledger> RecordHandler for OnceProgram<L> {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let key = self.program.key(record, context)?;
        let call = self.program.call(record, context)?;
        let item = item_ref(context.stream(), &record.keys, None);
        let effect = |attempt| call.clone().perform(attempt);
        self.once.perform(&key, &item, context, effect).await
    }
}

impl<L> fmt::Debug for OnceProgram<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceProgram")
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}
