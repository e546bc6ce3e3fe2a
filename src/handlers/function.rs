//! An AWS Lambda function as a handler, without Lambda and without a container.
//!
//! The worker starts the function's processes and serves each of them the runtime API on a port of its own
//! on the loopback interface, so that any runtime client is a handler without a changed line: `awslambdaric`
//! (Python), `aws-lambda-ric` (Node), `lambda_runtime` (Rust), a `bootstrap` of Go. Each invocation is an
//! event with one record. Its client context holds what a handler over HTTP gets in headers:
//! `context.client_context.custom["idempotency-key"]` in Python.
//!
//! | What happens | Meaning |
//! |---|---|
//! | a response | done, unless it has a non-empty `batchItemFailures`: then [`Failure::Retry`] |
//! | an error | [`Failure::Retry`] |
//! | the process ends during an invocation | an attempt that counts as a panic does; the process is started again |
//! | no response within [`Timing::handler_timeout`](crate::engine::Timing::handler_timeout) | the process is killed and started again; an attempt that counts as an overrun |
//! | no process asks for work within ten seconds | [`Failure::Unavailable`] |
//!
//! A process is the leader of a process group, gets no `AFTERCOMMIT_` variable, and writes to the log. When the
//! handler is dropped, the group is killed; [`FunctionHandler::stop`] asks it to end first.
//!
//! Whoever can open a port on the loopback interface can ask for invocations. Extensions are not served.
//!
//! Source: [the runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::api::{InvocationEnd, Slot, Task};
use crate::core::group::EffectName;
use crate::core::millis::since_1970;
use crate::core::record::{Record, TRACEPARENT};
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::handlers::body::BodyFormat;
use crate::handlers::call::ProgramCall;
use crate::handlers::event::BatchItemFailures;
use crate::handlers::key::Keys;
use crate::once::Outcome;
use crate::stores::clock::Clock;

mod api;
mod process;

/// A process has this long to ask for work, as Lambda gives it for its initialisation.
const START: Duration = Duration::from_secs(10);

/// The longest time that Lambda gives an invocation, for callers that name none.
const LONGEST: Duration = Duration::from_mins(15);

/// How a function is run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionSettings {
    /// What starts a process of the function, for `/bin/sh`, such as `python -m awslambdaric app.handler`.
    pub command: String,
    /// How many processes run, each of which handles one record at a time.
    pub processes: NonZeroUsize,
}

impl FunctionSettings {
    /// One process.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            processes: NonZeroUsize::MIN,
        }
    }
}

/// Why processes are not there, and those that wait for work.
struct Pool {
    idle: Mutex<mpsc::UnboundedReceiver<oneshot::Sender<Task>>>,
    trouble: Arc<Lock<Option<String>>>,
    processes: NonZeroUsize,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop: DropGuard,
}

/// Hands each change to a process of a function. Clones share the processes.
///
/// Let a [`Dependency`](crate::Dependency) allow as many attempts at a time as there are processes: a record
/// that waits for a process spends its time.
#[derive(Clone)]
pub struct FunctionHandler {
    pool: Arc<Pool>,
    keys: Keys,
    clock: Clock,
}

impl FunctionHandler {
    /// Starts the processes.
    ///
    /// # Errors
    ///
    /// If there is no free port on the loopback interface.
    pub async fn start(settings: FunctionSettings) -> io::Result<Self> {
        let (waiting, idle) = mpsc::unbounded_channel();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let trouble = Arc::new(Lock::default());
        let processes = settings.processes;
        let settings = Arc::new(settings);
        for number in 1..=processes.get() {
            let slot = Slot::new(number, waiting.clone(), trouble.clone());
            let listener = api::listen().await?;
            let running = process::run(slot, settings.clone(), listener, stop.clone());
            tasks.spawn(running);
        }
        tasks.close();
        let pool = Pool {
            idle: Mutex::new(idle),
            trouble,
            processes,
            tasks,
            _stop: stop.clone().drop_guard(),
            stop,
        };
        Ok(Self {
            pool: Arc::new(pool),
            keys: Keys::default(),
            clock: Clock::system(),
        })
    }

    /// The same, for an effect of this name, the first part of each effect key. `confirmation` unless
    /// another is set.
    #[must_use]
    pub fn effect(mut self, effect: EffectName) -> Self {
        self.keys.effect = effect;
        self
    }

    /// The same, with effect keys of your own: `id` makes the part after the effect's name. By default
    /// each change has a key of its own; with the id of an order, all changes of an order have one.
    #[must_use]
    pub fn keyed_by(
        mut self,
        id: impl Fn(&Record) -> Result<String, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.keys.id_of = Some(Arc::new(id));
        self
    }

    /// How many processes there are.
    pub fn processes(&self) -> NonZeroUsize {
        self.pool.processes
    }

    /// Asks the processes to end, and kills those that have not within two seconds.
    pub async fn stop(&self) {
        self.pool.stop.cancel();
        self.pool.tasks.wait().await;
    }

    /// How effect keys are made.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Invokes the function. An error if no process got the record.
    async fn invoke(&self, call: ProgramCall) -> Result<InvocationEnd, Failure> {
        let left = call.ends.map_or(LONGEST, |ends| {
            ends.saturating_duration_since(Instant::now())
        });
        let (outcome, reported) = oneshot::channel();
        // Cancelled when this call ends, be it that it is dropped.
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let task = Task {
            deadline: since_1970(self.clock.now() + left).as_millis(),
            client_context: client_context(&call),
            trace: call.header(TRACEPARENT).and_then(api::trace_header),
            event: call.body,
            stream: call.stream,
            outcome,
            gone,
        };
        // Less than the attempt has: no record is to blame for a process that does not start.
        let patience = START.min(left / 2);
        match timeout(patience, self.hand_out(task)).await {
            Ok(handed_out) => handed_out?,
            Err(_) => return Err(self.no_process(patience)),
        }
        let hung_up = || InvocationEnd::Died("it hung up before it got the record".to_owned());
        Ok(reported.await.unwrap_or_else(|_| hung_up()))
    }

    /// How the effect ended that this call is.
    pub(super) async fn perform(&self, call: ProgramCall) -> Outcome {
        match self.invoke(call).await {
            Ok(end) => end.effect(),
            Err(failure) => Outcome::NotBegun(failure.to_string(), failure),
        }
    }

    /// Which changes of this batch the function wants again. An error concerns all of them.
    pub(super) async fn post(&self, batch: ProgramCall) -> Result<BatchItemFailures, Failure> {
        self.invoke(batch).await?.of_batch()
    }

    /// Gives the task to the next process that asks for one.
    async fn hand_out(&self, mut task: Task) -> Result<(), Failure> {
        let mut idle = self.pool.idle.lock().await;
        while let Some(process) = idle.recv().await {
            // One that has ended meanwhile hands it back.
            match process.send(task) {
                Ok(()) => return Ok(()),
                Err(back) => task = back,
            }
        }
        Err(Failure::unavailable(
            "the handler's processes have been stopped",
        ))
    }

    fn no_process(&self, patience: Duration) -> Failure {
        let trouble = self.pool.trouble.lock();
        let why = trouble.unwrap_or_else(PoisonError::into_inner).clone();
        let why = why.map(|why| format!("; the last one to fail: {why}"));
        Failure::unavailable(format!(
            "no process of the handler asked for work within {patience:?}{}",
            why.unwrap_or_default()
        ))
    }
}

impl RecordHandler for FunctionHandler {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let call = ProgramCall::of_one(&self.keys, BodyFormat::Lambda, (record, context))?;
        self.invoke(call).await?.outcome()
    }
}

/// What a handler over HTTP gets in headers.
fn client_context(call: &ProgramCall) -> String {
    let headers = call.headers.iter();
    let custom: Map<_, _> = headers
        .map(|(name, value)| ((*name).to_owned(), Value::from(&**value)))
        .collect();
    json!({"custom": custom}).to_string()
}

impl fmt::Debug for FunctionHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionHandler").finish_non_exhaustive()
    }
}
