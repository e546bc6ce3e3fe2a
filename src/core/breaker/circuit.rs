//! The circuit breaker of a dependency: open while the dependency is down, probed at intervals, and
//! closed when it is back.
//!
//! Times are durations since an arbitrary start, given by the caller.

use std::time::Duration;

/// The time between probes of a dependency that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probing {
    /// The longest wait before the first probe.
    pub first: Duration,
    /// The longest wait at all.
    pub longest: Duration,
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_mins(1),
        }
    }
}

impl Probing {
    /// A random time between half of this share of the outage so far and all of it, within the bounds.
    /// Circuits that open together do not probe together.
    fn wait(self, share: f64, down: Duration, rng: &mut fastrand::Rng) -> Duration {
        let ceiling = down.mul_f64(share).clamp(self.first, self.longest);
        ceiling.mul_f64(0.5 + rng.f64() / 2.0)
    }
}

/// A dependency that is down is probed again within this share of the time that it has been down.
const DOWN: f64 = 0.25;

/// A dependency that breaks off is probed again once it has been broken for twice as long.
const BROKEN: f64 = 1.0;

/// The time between probes of a dependency that breaks off after it may have acted.
const BROKEN_PROBING: Probing = Probing {
    first: Duration::from_mins(2),
    longest: Duration::from_hours(1),
};

/// A call that the circuit let through. Report to the circuit how it ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a probe that is not reported keeps the circuit open"]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

/// The circuit's answer to a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Pass {
    /// Make the call. It may be the probe that tries whether the dependency is back
    /// ([`Ticket::is_probe`]).
    Go(Ticket),
    /// Ask again after this long.
    Wait(Duration),
}

impl Ticket {
    /// Whether this call probes an open circuit.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// How a call ended, as far as the dependency is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// The dependency answered, with success or an error.
    Up,
    /// It is down.
    Down,
    /// It broke off after it may have acted. Each probe costs a doubt, so the next one follows minutes
    /// later.
    Broken,
    /// The call ended before that was known.
    Unknown,
}

/// The circuit breaker of one dependency.
#[derive(Debug, Clone)]
pub struct Circuit {
    probing: Probing,
    /// Raised each time the circuit opens or closes, so that calls from before do not count.
    generation: u64,
    open: Option<Open>,
    broken: Option<Broken>,
    /// How long it was open, without the present outage.
    was_open: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Duration,
    next: Duration,
    probe_running: bool,
}

/// A dependency that breaks off.
#[derive(Debug, Clone, Copy)]
struct Broken {
    since: Duration,
    /// When the circuit closed again.
    until: Option<Duration>,
}

impl Broken {
    /// Whether a break belongs to the previous trouble: the dependency was well for a shorter time than
    /// it had been broken.
    fn lasts(&self, now: Duration) -> bool {
        self.until
            .is_none_or(|until| now.saturating_sub(until) < until.saturating_sub(self.since))
    }
}

impl Circuit {
    /// A closed circuit.
    pub fn new(probing: Probing) -> Self {
        Self {
            probing,
            generation: 0,
            open: None,
            broken: None,
            was_open: Duration::ZERO,
        }
    }

    /// Since when it is open, or `None` if it is closed.
    pub fn open_since(&self) -> Option<Duration> {
        self.open.map(|open| open.since)
    }

    /// How long it has been open in total.
    pub fn open_for(&self, now: Duration) -> Duration {
        let open = self.open.map(|open| now.saturating_sub(open.since));
        self.was_open + open.unwrap_or_default()
    }

    /// Asks to make a call.
    pub fn ask(&mut self, now: Duration) -> Pass {
        let generation = self.generation;
        let Some(open) = &mut self.open else {
            let probe = false;
            return Pass::Go(Ticket { generation, probe });
        };
        if open.probe_running {
            return Pass::Wait(self.probing.first);
        }
        let wait = open.next.saturating_sub(now);
        if !wait.is_zero() {
            return Pass::Wait(wait);
        }
        open.probe_running = true;
        let probe = true;
        Pass::Go(Ticket { generation, probe })
    }

    /// Reports how a call ended. Only a call that was asked for since the circuit last changed can
    /// change it. A late success from before an outage does not close it, and a late failure does not
    /// open it again.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used once")]
    pub fn end(
        &mut self,
        now: Duration,
        ticket: Ticket,
        answer: Response,
        rng: &mut fastrand::Rng,
    ) {
        if ticket.generation != self.generation {
            return;
        }
        match (&mut self.open, answer) {
            (None, Response::Down | Response::Broken) => {
                self.generation += 1;
                self.open = Some(Open {
                    since: now,
                    next: now + self.wait(answer, now, now, rng),
                    probe_running: false,
                });
            }
            (Some(Open { since, .. }), Response::Down | Response::Broken) => {
                let since = *since;
                self.open = Some(Open {
                    since,
                    next: now + self.wait(answer, since, now, rng),
                    probe_running: false,
                });
            }
            (Some(_), Response::Up) => {
                self.generation += 1;
                self.was_open = self.open_for(now);
                self.open = None;
                if let Some(broken) = &mut self.broken {
                    broken.until.get_or_insert(now);
                }
            }
            // The next caller probes.
            (Some(open), Response::Unknown) => open.probe_running = false,
            (None, Response::Up | Response::Unknown) => {}
        }
    }

    /// How long to wait before the next probe, after this answer.
    fn wait(
        &mut self,
        answer: Response,
        since: Duration,
        now: Duration,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        if answer != Response::Broken {
            return self.probing.wait(DOWN, now.saturating_sub(since), rng);
        }
        let lasts = self.broken.filter(|broken| broken.lasts(now));
        let since = lasts.map_or(now, |broken| broken.since);
        self.broken = Some(Broken { since, until: None });
        BROKEN_PROBING.wait(BROKEN, now.saturating_sub(since), rng)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ticket(circuit: &mut Circuit, now: Duration) -> Ticket {
        match circuit.ask(now) {
            Pass::Go(ticket) => ticket,
            Pass::Wait(wait) => panic!("wait {wait:?}"),
        }
    }

    /// Probes from `now` until `back`, and returns when each probe was made.
    fn probes(circuit: &mut Circuit, back: Duration, rng: &mut fastrand::Rng) -> Vec<Duration> {
        let mut now = circuit.open_since().unwrap();
        let mut all = Vec::new();
        while circuit.open_since().is_some() {
            match circuit.ask(now) {
                Pass::Wait(wait) => now += wait,
                Pass::Go(ticket) => {
                    all.push(now);
                    let up = if now < back {
                        Response::Down
                    } else {
                        Response::Up
                    };
                    circuit.end(now, ticket, up, rng);
                }
            }
        }
        all
    }

    /// A circuit that has just opened.
    fn opened(answer: Response, rng: &mut fastrand::Rng) -> Circuit {
        let mut circuit = Circuit::new(Probing::default());
        let call = ticket(&mut circuit, at(10));
        assert!(!call.is_probe());
        circuit.end(at(10), call, answer, rng);
        circuit
    }

    #[test]
    fn an_end_of_an_outage_is_noticed_within_a_quarter_of_its_length_and_a_minute_at_most() {
        let mut rng = fastrand::Rng::with_seed(3);
        for seconds in [1, 5, 40, 180, 3_600, 48 * 3_600] {
            for _ in 0..20 {
                let mut circuit = opened(Response::Down, &mut rng);
                let back = at(10) + at(seconds);
                let probes = probes(&mut circuit, back, &mut rng);
                let late = probes.last().unwrap().saturating_sub(back);
                let most = (at(seconds) / 4).clamp(at(1), at(60));
                assert!(late <= most, "{late:?} after {seconds} s");
                assert!(!ticket(&mut circuit, back * 2).is_probe());
                // Twenty in the first minutes, then one or two a minute.
                assert!(probes.len() as u64 <= 40 + seconds / 30, "{}", probes.len());
            }
        }
    }

    #[test]
    fn what_breaks_off_again_soon_after_it_was_well_is_tried_ever_more_rarely() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut circuit = opened(Response::Broken, &mut rng);
        let mut now = at(10);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let Pass::Wait(wait) = circuit.ask(now) else {
                panic!("it does not wait");
            };
            waits.push(wait);
            now += wait;
            let probe = ticket(&mut circuit, now);
            circuit.end(now, probe, Response::Up, &mut rng);
            now += at(20);
            let call = ticket(&mut circuit, now);
            circuit.end(now, call, Response::Broken, &mut rng);
        }
        assert!((at(60)..at(120)).contains(&waits[0]), "{waits:?}");
        assert!(waits[9] >= Duration::from_mins(30), "{waits:?}");
        // It was well for longer than it was broken: that trouble is over.
        let (began, Pass::Wait(wait)) = (now, circuit.ask(now)) else {
            panic!("it does not wait");
        };
        now += wait;
        let probe = ticket(&mut circuit, now);
        circuit.end(now, probe, Response::Up, &mut rng);
        now += began + wait;
        let call = ticket(&mut circuit, now);
        circuit.end(now, call, Response::Broken, &mut rng);
        assert!(matches!(circuit.ask(now), Pass::Wait(wait) if wait < at(120)));
    }

    #[test]
    fn one_call_probes_at_a_time_and_a_lost_probe_lets_the_next_one_try() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut circuit = opened(Response::Down, &mut rng);
        let probe = ticket(&mut circuit, at(19));
        assert!(probe.is_probe());
        assert_eq!(circuit.ask(at(19)), Pass::Wait(at(1)));
        circuit.end(at(19), probe, Response::Unknown, &mut rng);
        let again = ticket(&mut circuit, at(19));
        circuit.end(at(19), again, Response::Up, &mut rng);
        assert_eq!(circuit.open_since(), None);
        assert_eq!(circuit.open_for(at(99)), at(9));
    }

    #[test]
    fn calls_from_before_do_not_move_the_circuit() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut circuit = Circuit::new(Probing::default());
        let [down, late_up, late_down] = std::array::from_fn(|_| ticket(&mut circuit, at(1)));
        circuit.end(at(1), down, Response::Down, &mut rng);
        circuit.end(at(2), late_up, Response::Up, &mut rng);
        assert_eq!(circuit.open_since(), Some(at(1)));
        let probe = ticket(&mut circuit, at(9));
        circuit.end(at(9), probe, Response::Up, &mut rng);
        circuit.end(at(10), late_down, Response::Down, &mut rng);
        assert_eq!(circuit.open_since(), None);
    }

    #[test]
    fn circuits_that_open_together_do_not_probe_together() {
        let down_at = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut circuit = opened(Response::Down, &mut rng);
            probes(&mut circuit, at(610), &mut rng)
        };
        let mut all: Vec<_> = (0..20).flat_map(down_at).collect();
        all.sort_unstable();
        // From the third minute, about 27 probes a minute, and never many in one second.
        let late: Vec<_> = all.into_iter().filter(|probe| *probe > at(180)).collect();
        let most = late.iter().map(|from| {
            let second = *from..*from + at(1);
            late.iter().filter(|probe| second.contains(*probe)).count()
        });
        assert!(most.max().unwrap() <= 6);
    }
}
