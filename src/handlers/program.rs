//! Programs in any language, and the effect of a call that takes place once.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::body::BodyFormat;
use super::call::ProgramCall;
use super::event::BatchItemFailures;
use super::function::FunctionHandler;
use super::http::HttpHandler;
use super::key::Keys;
use crate::core::group::EffectName;
use crate::core::record::Record;
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::once::{EffectAttempt, Once, OnceSettings, Outcome, Tally};
use crate::stores::ledger::{Ledger, item_ref};

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

    pub(super) fn keys(&self) -> &Keys {
        match self {
            Self::Http(http) => http.keys(),
            Self::Function(function) => function.keys(),
        }
    }

    /// What a call carries.
    pub(super) fn format(&self) -> BodyFormat {
        match self {
            Self::Http(http) => http.format(),
            Self::Function(_) => BodyFormat::Lambda,
        }
    }

    /// Which changes of this batch the program wants again. An error concerns all of them.
    pub(super) async fn post(&self, batch: ProgramCall) -> Result<BatchItemFailures, Failure> {
        match self {
            Self::Http(http) => http.post(batch).await,
            Self::Function(function) => function.post(batch).await,
        }
    }

    /// Claims the effect, and then makes the call: with the body of an earlier one that is in doubt, if
    /// there is one.
    async fn perform(
        self,
        mut call: ProgramCall,
        attempt: EffectAttempt,
    ) -> Result<Outcome, Failure> {
        if let Some(repeated) = attempt.to_repeat() {
            call.body = repeated.to_vec();
        }
        attempt
            .keeping(call.body.clone())
            .point_of_no_return()
            .await?;
        // A tenth of the attempt's time is left to record that there was no answer.
        let left = call
            .ends
            .map(|ends| ends.saturating_duration_since(Instant::now()));
        let limit = left.map_or(LONGEST, |left| left * 9 / 10);
        let effect = async {
            match self {
                Self::Http(http) => http.perform(call).await,
                Self::Function(function) => function.perform(call).await,
            }
        };
        let late = |_| Outcome::Unknown(format!("no answer within {limit:.1?}"));
        Ok(timeout(limit, effect).await.unwrap_or_else(late))
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
        if let Program::Http(http) = &self.program {
            http.accepts_calls()?;
        }
        let program = &self.program;
        let key = program.keys().of(record, context)?;
        let call = ProgramCall::of_one(program.keys(), program.format(), (record, context))?;
        let item = item_ref(context.stream(), &record.keys, None);
        let effect = |attempt| program.clone().perform(call.clone(), attempt);
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
