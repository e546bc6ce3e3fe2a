//! Asking for turns, in line with others.

use std::time::Duration;

use tokio::sync::watch;

use super::{Admission, Dependency, FULL, State, Try, Turn};
use crate::decide::gate;
use crate::decide::throttle::{Load, Permit};

/// Somebody who asks again and again, such as a shard. Where the limit is reached it has a place in
/// line until it asks again, so that no shard keeps a place from others by asking faster. Whoever
/// goes on to something else must leave the line ([`Asker::leave`]), as dropping it does.
#[derive(Debug)]
pub struct Asker {
    of: Dependency,
    /// Its number in line, if it waits there.
    place: Option<u64>,
    /// Its call was turned away before.
    turned_away: bool,
    freed: watch::Receiver<()>,
}

impl Asker {
    pub(super) fn new(of: Dependency) -> Self {
        let freed = of.0.freed.subscribe();
        Self {
            of,
            place: None,
            turned_away: false,
            freed,
        }
    }

    /// Asks for a turn.
    pub fn ask(&mut self, which: Try) -> Admission {
        // What ends from now on is news.
        self.freed.mark_unchanged();
        let now = self.of.now();
        let mut state = self.of.state();
        let asked = state.ask(now, which, self.place, &mut self.turned_away);
        let waits = matches!(asked, Asked::Full);
        match self.place {
            None if waits => self.place = Some(state.line.join()),
            Some(place) if !waits => {
                state.line.leave(place);
                self.place = None;
            }
            _ => {}
        }
        drop(state);
        match asked {
            Asked::Go(held) => Admission::Go(Turn {
                of: self.of.clone(),
                held: Some(held),
            }),
            Asked::Full => Admission::Wait(FULL),
            Asked::Wait(wait) => Admission::Wait(wait),
            Asked::Later(wait) => Admission::Later(wait),
        }
    }

    /// Waits until a call has ended since it asked; for ever, if it does not wait in line.
    pub async fn freed(&mut self) {
        // The sender lives in the dependency, and so as long as this.
        if self.place.is_none() || self.freed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives up its place in line.
    pub fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.of.state().line.leave(place);
            self.of.0.freed.send_replace(());
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What asking came to.
enum Asked {
    Go((gate::Ticket, Permit)),
    /// The limit is reached, or is by those who came before.
    Full,
    Wait(Duration),
    Later(Duration),
}

impl State {
    /// Asks for a turn, for somebody with this number in line.
    /// `turned_away`: whether this call was before; kept up to date.
    fn ask(
        &mut self,
        now: Duration,
        which: Try,
        place: Option<u64>,
        turned_away: &mut bool,
    ) -> Asked {
        let ticket = match self.gate.ask(now) {
            gate::Pass::Go(ticket) => ticket,
            gate::Pass::Wait(wait) => return Asked::Wait(wait),
        };
        if !ticket.is_probe() {
            let again = std::mem::take(turned_away);
            if self.rejection.turns_away(now, again, &mut self.rng) {
                *turned_away = true;
                let spread = 0.1 + 0.4 * self.rng.f64();
                return Asked::Wait(Duration::from_secs_f64(spread));
            }
            if which == Try::Again
                && let Err(wait) = self.retries.retry(now)
            {
                return Asked::Later(wait);
            }
        }
        let retries = (!ticket.is_probe()).then_some(&mut self.retries);
        let rate = self.rate.as_mut();
        let is_next = self.line.before(place) < self.concurrency.free();
        let permit = is_next.then(|| self.concurrency.begin(now)).flatten();
        let asked = match permit {
            None => Asked::Full,
            Some(permit) => match rate.map_or(Ok(()), |rate| rate.take(now)) {
                Ok(()) => {
                    if let (Some(retries), Try::First) = (retries, which) {
                        retries.first_try();
                    }
                    return Asked::Go((ticket, permit));
                }
                Err(wait) => {
                    self.concurrency.end(now, permit, Load::Unknown);
                    Asked::Wait(wait)
                }
            },
        };
        if let (Some(retries), Try::Again) = (retries, which) {
            retries.give_back();
        }
        let unknown = gate::Answer::Unknown;
        self.gate.end(now, ticket, unknown, &mut self.rng);
        asked
    }
}
