//! One batch, within one invocation.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::event::{Records, Unread};
use super::{ANSWER, Function, MARGIN};
use crate::dead_letter::{Attempts, Known, Letter, Reason};
use crate::decide::blame::Blame;
use crate::decide::claim::Liveness;
use crate::decide::frontier::{Frontier, Ticket};
use crate::decide::lane::Lanes;
use crate::decide::shard::ShardId;
use crate::decide::waits::Waits;
use crate::dependency::{Admission, Try, Turn};
use crate::engine::{Burial, Buried, FEW_PARKED, persist};
use crate::handler::{Context, Failure, RecordHandler, attempt};
use crate::progress::Counters;
use crate::record::{ItemKey, Record, SequenceNumber};

mod settle;

/// Stands for the shard that the event does not tell.
const SHARD: &str = "lambda";

/// The shard, as far as the event tells it: its stream.
fn shard(stream: &str) -> ShardId {
    match stream.split_once("/stream/") {
        Some((_, label)) => ShardId::of_stream(label, SHARD),
        None => ShardId::new(SHARD),
    }
}

/// A call to the table of dead letters is given up after this long, and made anew.
const CALL: Duration = Duration::from_secs(3);

/// A record that waits for its turn.
struct Queued {
    record: Arc<Record>,
    ticket: Ticket,
    attempts: Attempts,
    blame: Blame,
    /// Since its first attempt of this invocation failed.
    failing_since: Option<Instant>,
}

/// Work on the first record of a key has ended.
struct Done {
    key: ItemKey,
    outcome: Outcome,
}

enum Outcome {
    Handled(Result<(), Failure>, Blame),
    /// It is a dead letter now, or it is found that it cannot be one.
    Buried(Buried),
    /// Whether the key is parked.
    Asked(bool),
}

/// What becomes of a record whose turn it is.
enum Next {
    Handle(Turn),
    Bury(Reason),
    /// Whether its key is parked has to be asked.
    Ask,
    /// Nobody may call the handler until then.
    Hold(Instant),
    /// Others may call the handler.
    Later(Instant),
    /// It comes again.
    Leave,
    /// What the handler depends on is down: nothing more is begun.
    Down,
}

/// Why nothing more is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Time,
    Down,
}

pub(super) struct Batch<'a, H> {
    function: &'a Function<H>,
    stream: Arc<str>,
    /// When the process may be ended.
    ends: Instant,
    lanes: Lanes<ItemKey, Queued>,
    /// Each record, and when it was committed.
    frontier: Frontier<(SequenceNumber, Option<SystemTime>)>,
    running: FuturesUnordered<BoxFuture<'a, Done>>,
    /// Keys with dead letters.
    parked: Known,
    held_until: Option<Instant>,
    waiting: Waits<Instant, ItemKey>,
    over: Option<Over>,
    /// Records that the filters let through, and how many of them are settled.
    wanted: usize,
    settled: usize,
    cancel: CancellationToken,
    rng: fastrand::Rng,
}

impl<'a, H: RecordHandler> Batch<'a, H> {
    pub fn new(
        function: &'a Function<H>,
        stream: Arc<str>,
        ends: Instant,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            lanes: Lanes::new(function.settings.concurrency),
            frontier: Frontier::default(),
            running: FuturesUnordered::new(),
            parked: Known::none(),
            held_until: None,
            waiting: Waits::default(),
            over: None,
            wanted: 0,
            settled: 0,
            cancel: CancellationToken::new(),
            function,
            stream,
            ends,
            rng,
        }
    }

    /// Queues what the filters let through. Returns the record that cannot be read and has no
    /// number to report.
    pub fn take_in_all(&mut self, records: Records) -> Option<Unread> {
        for record in records.read {
            let place = (record.sequence_number.clone(), Some(record.created));
            let ticket = self.frontier.begin(place);
            let (filters, home) = (&self.function.filters, self.function.home.as_ref());
            if !filters.want(&record, &self.stream, home) {
                Counters::add(&self.function.counters.filtered);
                self.frontier.settle(ticket);
                let _of_trace = record.span().entered();
                let (stream, sequence) = (&self.stream, &record.sequence_number);
                debug!(%stream, %sequence, why = "filtered", "settled");
                continue;
            }
            self.wanted += 1;
            let queued = Queued {
                record: Arc::new(record),
                ticket,
                attempts: Attempts::default(),
                blame: Blame::default(),
                failing_since: None,
            };
            self.lanes.push(queued.record.key(), queued);
        }
        let unread = records.unread?;
        let (error, number) = (&unread.error, unread.number.clone());
        error!(stream = %self.stream, %error, sequence = number.as_ref().map(SequenceNumber::as_str),
            "a record cannot be read: it holds its shard until it can be");
        let Some(number) = number else {
            return Some(unread);
        };
        self.frontier.begin((number, unread.created));
        None
    }

    /// Works until everything is settled, or nothing more can be. Returns the number of the first
    /// record that is not, and when it was committed, if that can be told.
    pub async fn work(mut self) -> Option<(SequenceNumber, Option<SystemTime>)> {
        self.learn_parked().await;
        let answer = self.before(ANSWER);
        loop {
            self.start();
            let wakes = self.waiting.next().into_iter();
            let next = wakes.chain(self.held_until).min();
            if self.running.is_empty() {
                match next {
                    None => break,
                    // It would be woken for nothing.
                    Some(at) if at >= self.before(MARGIN) => {
                        self.end(Over::Time);
                        continue;
                    }
                    Some(_) => {}
                }
            }
            tokio::select! {
                biased;
                () = sleep_until(answer) => break,
                () = sleep_until(self.before(MARGIN)), if self.over.is_none() => self.end(Over::Time),
                Some(done) = self.running.next() => self.take_in(done),
                () = sleep_until(next.unwrap_or(answer)), if next.is_some() => self.wake(Instant::now()),
            }
        }
        self.tell();
        self.frontier.first().cloned()
    }

    fn before(&self, margin: Duration) -> Instant {
        self.ends.checked_sub(margin).unwrap_or_else(Instant::now)
    }

    /// Which keys have dead letters. Later than that, only this batch parks keys of it: Lambda
    /// hands over records of one item in one batch at a time.
    async fn learn_parked(&mut self) {
        let Some(letters) = self.function.letters.clone().filter(|_| self.wanted > 0) else {
            return;
        };
        let look = || letters.parked_page(&self.function.at, None, FEW_PARKED);
        let learnt = persist(CALL, self.rng.fork(), "looking for parked keys", look);
        match timeout_at(self.before(MARGIN), learnt).await {
            Ok(parked) => self.parked = Known::from_first(parked),
            Err(_) => self.end(Over::Time),
        }
    }

    /// Nothing more is begun. What waits gets a last look.
    fn end(&mut self, why: Over) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(why);
        self.held_until = None;
        if why == Over::Time {
            self.cancel.cancel();
        }
        while let Some(until) = self.waiting.next() {
            self.wake(until);
        }
    }

    /// Starts what may start.
    fn start(&mut self) {
        loop {
            if Instant::now() >= self.before(MARGIN) {
                self.end(Over::Time);
            }
            if self.held_until.is_some_and(|until| until > Instant::now()) {
                return;
            }
            self.held_until = None;
            let Some((key, queued)) = self.lanes.start() else {
                return;
            };
            let (record, attempts) = (queued.record.clone(), queued.attempts.clone());
            let blame = queued.blame;
            match self.next(&key, &record, attempts.made()) {
                Next::Handle(turn) => self.handle(key, (record, blame), attempts.made(), turn),
                Next::Bury(reason) => self.bury(key, &record, attempts, reason),
                Next::Ask => self.ask(key),
                Next::Hold(until) => {
                    self.lanes.put_back(&key);
                    self.held_until = Some(until);
                }
                Next::Later(until) => {
                    self.lanes.suspend(&key);
                    self.wait(key, until);
                }
                Next::Leave => self.lanes.suspend(&key),
                Next::Down => {
                    self.lanes.put_back(&key);
                    self.end(Over::Down);
                }
            }
        }
    }

    fn next(&self, key: &ItemKey, record: &Record, made: u32) -> Next {
        match self.parked.is_parked(key) {
            Some(true) => return Next::Bury(Reason::Followed),
            None if self.over.is_none() => return Next::Ask,
            Some(false) | None => {}
        }
        if self.over.is_some() {
            return self.at_the_end(record, made);
        }
        let which = match made {
            0 => Try::First,
            _ => Try::Again,
        };
        let dependency = &self.function.dependency;
        match dependency.ask(which) {
            Admission::Go(turn) => Next::Handle(turn),
            // While a probe runs, its answer is waited for.
            Admission::Wait(_) if dependency.down_for().is_some() && self.running.is_empty() => {
                Next::Down
            }
            Admission::Wait(wait) => Next::Hold(Instant::now() + wait),
            Admission::Later(wait) => Next::Later(Instant::now() + wait),
        }
    }

    /// Nothing more is begun: a record that waits comes again, if it may wait.
    fn at_the_end(&self, record: &Record, made: u32) -> Next {
        let settings = &self.function.settings;
        if self.function.letters.is_none() {
            return Next::Leave;
        }
        let age = self.function.clock.now().duration_since(record.created);
        let age = age.unwrap_or_default();
        if made > 0 && age >= settings.attempts.age {
            return Next::Bury(Reason::TooOld);
        }
        match settings.timing.rescue_age() {
            Some(late) if age >= late => Next::Bury(Reason::Rescued),
            _ => Next::Leave,
        }
    }

    fn handle(&mut self, key: ItemKey, what: (Arc<Record>, Blame), made: u32, turn: Turn) {
        let (record, mut blame) = what;
        let function = self.function;
        let context = Context::detached()
            .of_worker(&function.incarnation, Liveness::Unknown)
            .of_shard(&self.stream, &shard(&self.stream))
            .of_attempt(made + 1)
            .until(self.before(MARGIN))
            .ending(self.ends)
            .cancelled_by(&self.cancel);
        let limit = function.settings.timing.handler_timeout;
        self.running.push(Box::pin(async move {
            let began = Instant::now();
            let result = attempt(&function.handler, &record, &context, limit).await;
            function.handling.add(began.elapsed());
            let outcome = Outcome::Handled(turn.end(result, &context, &mut blame), blame);
            Done { key, outcome }
        }));
    }

    /// Writes a letter for the first record of a running key, until it is written.
    fn bury(&mut self, key: ItemKey, record: &Record, attempts: Attempts, reason: Reason) {
        let Some(letters) = self.function.letters.clone() else {
            return self.lanes.suspend(&key);
        };
        let origin = (&self.function.at, &shard(&self.stream));
        let now = self.function.clock.now();
        let letter = Letter::new(origin, record.clone(), reason, attempts, now);
        let (counters, rng) = (&self.function.counters, self.rng.fork());
        self.running.push(Box::pin(async move {
            let burial = Burial {
                letters: &*letters,
                // There is no lease: an invocation has its batch to itself.
                fence: None,
                counters,
                limit: CALL,
            };
            let outcome = Outcome::Buried(burial.of(&letter, rng).await);
            Done { key, outcome }
        }));
    }

    /// Asks whether a running key is parked, until that is answered.
    fn ask(&mut self, key: ItemKey) {
        let Some(letters) = self.function.letters.clone() else {
            return self.lanes.suspend(&key);
        };
        let (at, rng) = (&self.function.at, self.rng.fork());
        self.running.push(Box::pin(async move {
            let ask = || letters.is_parked(at, &key);
            let parked = persist(CALL, rng, "asking whether a key is parked", ask).await;
            let outcome = Outcome::Asked(parked);
            Done { key, outcome }
        }));
    }
}
