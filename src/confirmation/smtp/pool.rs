//! Open connections: limited, reused, passed on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lettre::address::Envelope;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::connection::Connection;
use super::reply::Capabilities;
use super::settings::SmtpSettings;
use super::wire::Flight;

/// The connections to one server. The semaphore counts *open* connections: a connection keeps its
/// permit until its socket is closed.
pub(super) struct ConnectionPool {
    slots: Arc<Semaphore>,
    stock: Mutex<Stock>,
    max_age: Duration,
    max_mails: u32,
}

#[derive(Default)]
struct Stock {
    idle: Vec<Connection>,
    waiting: VecDeque<Waiter>,
}

/// A send that waits for a connection.
pub(super) struct Waiter {
    envelope: Envelope,
    hand: oneshot::Sender<Handed>,
}

impl Waiter {
    /// Gives the waiter the connection on which its envelope was sent, or returns it if the waiter is
    /// gone.
    pub(super) fn hand_over(self, connection: Connection) {
        // If the waiter is gone, nobody reads its replies: the connection is closed.
        let _ = self.hand.send(Handed::Riding(connection));
    }
}

enum Handed {
    /// Ready for the next command.
    Clean(Connection),
    /// The envelope's commands are sent, and its replies come next.
    Riding(Connection),
}

/// What a send gets.
pub(super) enum Got {
    /// A connection that is ready for the next command.
    Used(Connection),
    /// A connection on which the envelope was already sent.
    Riding(Connection),
    /// The right to open a connection.
    Slot(OwnedSemaphorePermit),
}

impl ConnectionPool {
    pub(super) fn new(settings: &SmtpSettings) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(settings.max_connections.max(1))),
            stock: Mutex::default(),
            max_age: settings.max_age,
            max_mails: settings.max_mails,
        }
    }

    /// A connection, or the right to open one; waits for either.
    pub(super) async fn get(&self, envelope: &Envelope) -> Got {
        loop {
            let handed = {
                let mut stock = self.stock();
                if let Some(connection) = stock.idle.pop() {
                    return Got::Used(connection);
                }
                if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                    return Got::Slot(slot);
                }
                let (hand, handed) = oneshot::channel();
                stock.waiting.push_back(Waiter {
                    envelope: envelope.clone(),
                    hand,
                });
                handed
            };
            tokio::select! {
                biased;
                handed = handed => match handed {
                    Ok(Handed::Clean(connection)) => return Got::Used(connection),
                    Ok(Handed::Riding(connection)) => return Got::Riding(connection),
                    // The connection on which its envelope was to be sent is gone, or too slow.
                    Err(_) => {}
                },
                slot = self.slots.clone().acquire_owned() => {
                    if let Ok(slot) = slot {
                        return Got::Slot(slot);
                    }
                }
            }
        }
    }

    /// The send that has waited longest, with its commands, if a connection to such a server can carry
    /// them.
    pub(super) fn rider(&self, server: &Capabilities) -> Option<(Waiter, Flight)> {
        let mut stock = self.stock();
        stock.waiting.retain(|waiter| !waiter.hand.is_closed());
        let flight = Flight::of(&stock.waiting.front()?.envelope, server).ok()?;
        stock.waiting.pop_front().map(|waiter| (waiter, flight))
    }

    /// Whether a connection can carry another mail.
    pub(super) fn is_fit(&self, connection: &Connection) -> bool {
        connection.mails < self.max_mails && connection.born.elapsed() < self.max_age
    }

    /// Takes back a connection that is ready for the next command.
    pub(super) fn put_back(&self, mut connection: Connection) {
        if !self.is_fit(&connection) {
            return;
        }
        let mut stock = self.stock();
        while let Some(waiter) = stock.waiting.pop_front() {
            match waiter.hand.send(Handed::Clean(connection)) {
                Ok(()) => return,
                Err(Handed::Clean(back) | Handed::Riding(back)) => connection = back,
            }
        }
        stock.idle.push(connection);
    }

    /// Closes the connections that have been idle at least since then: whatever killed one of them has
    /// probably killed all.
    pub(super) fn discard_rested(&self, since: Instant) {
        let mut stock = self.stock();
        stock.idle.retain(|connection| connection.used > since);
    }

    /// The idle connections, to be closed.
    pub(super) fn drain(&self) -> Vec<Connection> {
        std::mem::take(&mut self.stock().idle)
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
