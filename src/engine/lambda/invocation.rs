//! One invocation: feeds its batch to a pipeline, and answers with the first record that has not
//! ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::event::{Records, Unread};
use super::{ANSWER, Function, MARGIN};
use crate::core::claim::Liveness;
use crate::core::pipeline::{Change, Closing, Rules};
use crate::core::record::SequenceNumber;
use crate::core::shard::ShardId;
use crate::engine::FEW_PARKED;
use crate::engine::handler::{Context, RecordHandler, span_of};
use crate::engine::progress::Counters;
use crate::engine::run_pipeline::{Carried, InFlight, Work, ask, into_letters};
use crate::stores::retry::persist;

/// Stands for the shard, which the event does not name.
const SHARD: &str = "lambda";

/// The timeout of a call to the dead-letter table, which is then repeated.
const CALL: Duration = Duration::from_secs(3);

/// A record, and when it was committed, if known.
type FirstUnfinished = (SequenceNumber, Option<SystemTime>);

pub(super) struct Invocation<'a, H> {
    function: &'a Function<H>,
    stream: Arc<str>,
    /// When the process may be killed.
    ends: Instant,
    in_flight: InFlight<'a, &'a H>,
    cancel: CancellationToken,
    /// The records that passed the filters, and how many of them have ended.
    wanted: usize,
    ended: usize,
    rng: fastrand::Rng,
}

impl<'a, H: RecordHandler> Invocation<'a, H> {
    pub fn new(
        function: &'a Function<H>,
        stream: Arc<str>,
        ends: Instant,
        mut rng: fastrand::Rng,
    ) -> Self {
        let cancel = CancellationToken::new();
        let context = Context::detached()
            .of_worker(&function.incarnation, Liveness::Unknown)
            .of_shard(&stream, &shard(&stream))
            .until(before(ends, MARGIN))
            .ending(ends)
            .cancelled_by(&cancel);
        let letters = function.letters.clone();
        let counters = function.counters.clone();
        let work = Work {
            at: function.letters_of(),
            handler: &function.handler,
            context,
            at_expiry: Closing::OutOfTime,
            limit: function.settings.timing.handler_timeout,
            ask: letters
                .clone()
                .map(|letters| ask(letters, function.letters_of(), CALL)),
            // There is no lease: an invocation has its batch to itself.
            bury: letters.map(|letters| into_letters(letters, None, counters, CALL)),
            handling: function.handling.clone(),
            clock: function.clock.clone(),
        };
        let rules = function.settings.rules(function.letters.is_some(), None);
        let rules = Rules {
            comes_again: true,
            concurrency: rules.concurrency.max(function.handler.needs_at_a_time()),
            ..rules
        };
        let asker = function.dependency.asker();
        Self {
            in_flight: InFlight::new(rules, work, asker, rng.fork()),
            function,
            stream,
            ends,
            cancel,
            wanted: 0,
            ended: 0,
            rng,
        }
    }

    /// Queues the records that pass the filters. Returns the record that cannot be read and has no
    /// number to report.
    pub fn take_in(&mut self, records: Records) -> Option<Unread> {
        for record in records.read {
            let (filters, home) = (&self.function.filters, self.function.home.as_ref());
            if filters.want(&record, &self.stream, home) {
                self.wanted += 1;
                self.in_flight.push(Carried::new(record, None));
                continue;
            }
            Counters::add(&self.function.counters.filtered);
            let _of_trace = span_of(&record).entered();
            let (stream, sequence) = (&self.stream, &record.sequence_number);
            debug!(%stream, %sequence, why = "filtered", "finished");
            let pipeline = &mut self.in_flight.pipeline;
            pipeline.skip(record.sequence_number.clone(), record.created);
        }
        let unread = records.unread?;
        let (error, number) = (&unread.error, unread.number.clone());
        error!(stream = %self.stream, %error, sequence = number.as_ref().map(SequenceNumber::as_str),
            "a record cannot be read: its shard waits until a newer build can read it");
        let Some(number) = number else {
            return Some(unread);
        };
        self.in_flight.pipeline.block(number, unread.created);
        None
    }

    /// Works until everything has ended, or nothing more can. Returns the first record that has not
    /// ended.
    pub async fn work(mut self) -> Option<FirstUnfinished> {
        self.learn_parked().await;
        let answer = before(self.ends, ANSWER);
        let margin = before(self.ends, MARGIN);
        loop {
            self.in_flight.start();
            if self.in_flight.pipeline.closed() == Some(Closing::OutOfTime) {
                self.cancel.cancel();
            }
            if self.in_flight.running() == 0 {
                match self.in_flight.wakes() {
                    None => break,
                    Some(_) if self.function.dependency.down_for().is_some() => {
                        self.in_flight.pipeline.close(Closing::DependencyDown);
                        continue;
                    }
                    // There would be no time left then.
                    Some(at) if at >= margin => {
                        self.in_flight.pipeline.close(Closing::OutOfTime);
                        continue;
                    }
                    Some(_) => {}
                }
            }
            let open = self.in_flight.pipeline.closed().is_none();
            tokio::select! {
                biased;
                () = sleep_until(answer) => break,
                () = sleep_until(margin), if open => {
                    self.in_flight.pipeline.close(Closing::OutOfTime);
                }
                happened = self.in_flight.turn() => {
                    if let Some(happened) = happened {
                        self.in_flight.report(&happened, &self.function.counters);
                        self.ended += usize::from(matches!(happened.0, Change::Ended(..)));
                    }
                }
            }
        }
        self.say_what_comes_again();
        self.in_flight.pipeline.first_unfinished().cloned()
    }

    /// Which keys have dead letters. From then on only this batch parks its keys: Lambda delivers
    /// records of one item in one batch at a time.
    async fn learn_parked(&mut self) {
        let Some(letters) = self.function.letters.clone().filter(|_| self.wanted > 0) else {
            return;
        };
        let of = self.function.letters_of();
        let look = || letters.parked_page(&of, None, FEW_PARKED);
        let learnt = persist(CALL, self.rng.fork(), "looking for parked keys", look);
        match timeout_at(before(self.ends, MARGIN), learnt).await {
            Ok(parked) => self.in_flight.know(parked),
            Err(_) => self.in_flight.pipeline.close(Closing::OutOfTime),
        }
    }

    fn say_what_comes_again(&self) {
        let pipeline = &self.in_flight.pipeline;
        let Some((first, _)) = pipeline.first_unfinished() else {
            return;
        };
        let down = self.function.dependency.down();
        let why = match pipeline.closed() {
            Some(Closing::DependencyDown) => "the handler's dependency is down",
            Some(_) => "the time is over",
            None => "a record failed",
        };
        warn!(
            stream = %self.stream,
            error = down.map(|down| format!("{} is down: {}", down.what, down.why)),
            from = %first,
            finished = self.ended,
            given_up = self.in_flight.running(),
            unfinished = self.wanted - self.ended,
            "{why}: unfinished records are delivered again"
        );
    }
}

/// The shard, as far as the event names it: its stream.
fn shard(stream: &str) -> ShardId {
    match stream.split_once("/stream/") {
        Some((_, label)) => ShardId::of_stream(label, SHARD),
        None => ShardId::new(SHARD),
    }
}

fn before(ends: Instant, margin: Duration) -> Instant {
    ends.checked_sub(margin).unwrap_or_else(Instant::now)
}
