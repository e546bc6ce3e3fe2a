//! Asking for turns, in line with other callers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Admission, Dependency, DependencyState, Try, Turn};
use crate::core::breaker::circuit;
use crate::core::breaker::throttle::{Load, Permit};
use crate::core::pipeline::Admit;

/// A caller that asks repeatedly, such as a shard. If the limit is reached, it keeps a place in the
/// line until it asks again, so that a shard does not get more turns by asking faster. A caller that
/// does something else must leave the line ([`Asker::leave`]); dropping it does so, too.
#[derive(Debug)]
pub struct Asker {
    of: Dependency,
    /// Its number in the line, if it waits there.
    place: Option<u64>,
    /// Its call was rejected before.
    turned_away: bool,
    woken: Arc<Notify>,
    /// A turn that it already has.
    kept: Option<Turn>,
    /// How many records wait for it.
    waiting: usize,
}

/// How soon a waiting caller asks again if nobody wakes it. This is a safeguard.
const IN_LINE: Duration = Duration::from_secs(1);

impl Asker {
    pub(super) fn new(of: Dependency) -> Self {
        Self {
            of,
            place: None,
            turned_away: false,
            woken: Arc::default(),
            kept: None,
            waiting: 0,
        }
    }

    /// Asks for a turn.
    pub fn ask(&mut self, which: Try) -> Admission {
        self.ask_once(which).unwrap_or(Admission::Wait(IN_LINE))
    }

    /// Waits for a turn.
    pub async fn turn(&mut self, which: Try) -> Turn {
        loop {
            match self.ask(which) {
                Admission::Go(turn) => return turn,
                Admission::Wait(wait) | Admission::Later(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.freed() => {}
                },
            }
        }
    }

    /// Sets how many records wait here, for people.
    pub fn waits_with(&mut self, records: usize) {
        let all = &self.of.0.waiting;
        let before = std::mem::replace(&mut self.waiting, records);
        all.fetch_add(records, Ordering::Relaxed);
        all.fetch_sub(before, Ordering::Relaxed);
    }

    /// Keeps a turn for the next time it asks.
    pub fn keep(&mut self, turn: Turn) {
        self.kept = Some(turn);
    }

    /// Asks for a turn; `None`: the limit is reached.
    pub(super) fn ask_once(&mut self, which: Try) -> Option<Admission> {
        if let Some(turn) = self.kept.take() {
            return Some(Admission::Go(turn));
        }
        let now = self.of.now();
        let mut state = self.of.state();
        let asked = state.ask(now, which, self.place, &mut self.turned_away);
        let waits = matches!(asked, Admitted::Full);
        match self.place {
            None if waits => {
                let place = state.line.join();
                // A new one: a wake-up from before it waited does not count.
                self.woken = Arc::default();
                state.waiting.insert(place, self.woken.clone());
                self.place = Some(place);
            }
            Some(place) if !waits => {
                state.leave_line(place);
                self.place = None;
            }
            _ => {}
        }
        drop(state);
        Some(match asked {
            Admitted::Go(held) => Admission::Go(Turn {
                of: self.of.clone(),
                held: Some(held),
            }),
            Admitted::Full => return None,
            Admitted::Wait(wait) => Admission::Wait(wait),
            Admitted::Later(wait) => Admission::Later(wait),
        })
    }

    /// Waits until it is its turn, forever if it is not in the line.
    pub async fn freed(&mut self) {
        match self.place {
            Some(_) => self.woken.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Gives up its place in the line.
    pub fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.of.state().leave_line(place);
        }
    }
}

impl Admit for Asker {
    type Permit = Turn;

    fn admit(&mut self, which: Try) -> Admission {
        self.ask(which)
    }

    fn is_down(&self) -> bool {
        self.of.state().circuit.open_since().is_some()
    }

    fn downtime(&self) -> Duration {
        self.of.state().circuit.open_for(self.of.now())
    }

    fn leave(&mut self) {
        Self::leave(self);
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.waits_with(0);
        self.leave();
    }
}

/// The answer to asking.
enum Admitted {
    Go((circuit::Ticket, Permit)),
    /// The limit is reached, or earlier callers will reach it.
    Full,
    Wait(Duration),
    Later(Duration),
}

impl DependencyState {
    /// Asks for a turn, for the caller with this number in the line. `turned_away` says whether this
    /// call was rejected before, and is updated.
    fn ask(
        &mut self,
        now: Duration,
        which: Try,
        place: Option<u64>,
        turned_away: &mut bool,
    ) -> Admitted {
        let ticket = match self.circuit.ask(now) {
            circuit::Pass::Go(ticket) => ticket,
            circuit::Pass::Wait(wait) => return Admitted::Wait(wait),
        };
        if !ticket.is_probe() {
            let again = std::mem::take(turned_away);
            if self.rejection.turns_away(now, again, &mut self.rng) {
                *turned_away = true;
                let spread = 0.1 + 0.4 * self.rng.f64();
                return Admitted::Wait(Duration::from_secs_f64(spread));
            }
            if which == Try::Again
                && let Err(wait) = self.retries.retry(now)
            {
                return Admitted::Later(wait);
            }
        }
        let retries = (!ticket.is_probe()).then_some(&mut self.retries);
        let rate = self.rate.as_mut();
        let is_next = self.line.is_turn_of(place, self.concurrency.free());
        let permit = is_next.then(|| self.concurrency.begin(now)).flatten();
        let asked = match permit {
            None => Admitted::Full,
            Some(permit) => match rate.map_or(Ok(()), |rate| rate.take(now)) {
                Ok(()) => {
                    if let (Some(retries), Try::First) = (retries, which) {
                        retries.first_try();
                    }
                    return Admitted::Go((ticket, permit));
                }
                Err(wait) => {
                    self.concurrency.end(now, permit, Load::Unknown);
                    Admitted::Wait(wait)
                }
            },
        };
        if let (Some(retries), Try::Again) = (retries, which) {
            retries.give_back();
        }
        let unknown = circuit::Response::Unknown;
        self.circuit.end(now, ticket, unknown, &mut self.rng);
        asked
    }
}
