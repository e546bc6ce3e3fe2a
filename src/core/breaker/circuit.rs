//! The circuit breaker of a dependency: open while it is down, tried now and then, closed again when it
//! is back.
//!
//! Times are durations since some start, given by the caller.

use std::time::Duration;

/// Between tries of a dependency that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probing {
    /// The longest wait before the first try.
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
    /// How a dependency that answered so is tried.
    fn after(self, answer: Answer) -> Self {
        match answer {
            Answer::Broken => Self {
                first: self.first.max(BROKEN.first),
                longest: self.longest.max(BROKEN.longest),
            },
            _ => self,
        }
    }
}

/// Between tries of a dependency that breaks off after it may have acted.
const BROKEN: Probing = Probing {
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

/// What the circuit answers to a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Pass {
    /// Go. This may be the one call that tries whether the dependency is back
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

/// How a call ended, as far as the dependency goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The dependency answered, with success or not.
    Up,
    /// It is down.
    Down,
    /// It broke off after it may have acted: each try costs a doubt, so that the next one comes
    /// minutes later.
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
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Duration,
    /// Probes that found it down.
    failed: u32,
    next: Duration,
    probe_running: bool,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(probing: Probing) -> Self {
        Self {
            probing,
            generation: 0,
            open: None,
        }
    }

    /// Since when it is open; `None`: it is closed.
    pub fn open_since(&self) -> Option<Duration> {
        self.open.map(|open| open.since)
    }

    /// Asks for a call.
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

    /// Reports how a call ended. Only what was asked since the circuit last moved can move it: a late
    /// success from before an outage does not close it, a late failure does not open it again.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used once")]
    pub fn end(&mut self, now: Duration, ticket: Ticket, answer: Answer, rng: &mut fastrand::Rng) {
        if ticket.generation != self.generation {
            return;
        }
        match (&mut self.open, answer) {
            (None, Answer::Down | Answer::Broken) => {
                self.generation += 1;
                self.open = Some(Open {
                    since: now,
                    failed: 0,
                    next: now + wait(self.probing.after(answer), 0, rng),
                    probe_running: false,
                });
            }
            (Some(open), Answer::Down | Answer::Broken) => {
                open.failed = open.failed.saturating_add(1);
                open.next = now + wait(self.probing.after(answer), open.failed, rng);
                open.probe_running = false;
            }
            (Some(_), Answer::Up) => {
                self.generation += 1;
                self.open = None;
            }
            // The next caller tries.
            (Some(open), Answer::Unknown) => open.probe_running = false,
            (None, Answer::Up | Answer::Unknown) => {}
        }
    }
}

/// Between half and all of `first * 2^failed`, at most `longest`: circuits that open together do not
/// probe together.
fn wait(probing: Probing, failed: u32, rng: &mut fastrand::Rng) -> Duration {
    let ceiling = probing.first.saturating_mul(1 << failed.min(31));
    ceiling.min(probing.longest).mul_f64(0.5 + rng.f64() / 2.0)
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

    /// Probes from `now` until `back`, and says when each probe came.
    fn probes(circuit: &mut Circuit, back: Duration, rng: &mut fastrand::Rng) -> Vec<Duration> {
        let mut now = circuit.open_since().unwrap();
        let mut all = Vec::new();
        while circuit.open_since().is_some() {
            match circuit.ask(now) {
                Pass::Wait(wait) => now += wait,
                Pass::Go(ticket) => {
                    all.push(now);
                    let up = if now < back { Answer::Down } else { Answer::Up };
                    circuit.end(now, ticket, up, rng);
                }
            }
        }
        all
    }

    #[test]
    fn a_shut_gate_is_probed_ever_more_rarely_and_opens_at_the_first_answer() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut circuit = Circuit::new(Probing::default());
        let call = ticket(&mut circuit, at(10));
        assert!(!call.is_probe());
        circuit.end(at(10), call, Answer::Down, &mut rng);
        let back = at(10) + Duration::from_hours(48);
        let probes = probes(&mut circuit, back, &mut rng);
        let gaps: Vec<_> = probes
            .windows(2)
            .map(|two| two[1].saturating_sub(two[0]))
            .collect();
        assert!(gaps.iter().all(|gap| *gap <= at(60)));
        assert!(gaps[10..].iter().all(|gap| *gap >= at(30)));
        assert!(gaps[0] < at(2) && probes[0] <= at(11));
        assert!(probes.last().unwrap().saturating_sub(back) <= at(60));
        assert!(!ticket(&mut circuit, back * 2).is_probe());
    }

    #[test]
    fn one_call_probes_at_a_time_and_a_lost_probe_lets_the_next_one_try() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut circuit = Circuit::new(Probing::default());
        let call = ticket(&mut circuit, at(1));
        circuit.end(at(1), call, Answer::Down, &mut rng);
        let probe = ticket(&mut circuit, at(9));
        assert!(probe.is_probe());
        assert_eq!(circuit.ask(at(9)), Pass::Wait(at(1)));
        circuit.end(at(9), probe, Answer::Unknown, &mut rng);
        let again = ticket(&mut circuit, at(9));
        circuit.end(at(9), again, Answer::Up, &mut rng);
        assert_eq!(circuit.open_since(), None);
    }

    #[test]
    fn calls_from_before_do_not_move_the_gate() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut circuit = Circuit::new(Probing::default());
        let [down, late_up, late_down] = std::array::from_fn(|_| ticket(&mut circuit, at(1)));
        circuit.end(at(1), down, Answer::Down, &mut rng);
        circuit.end(at(2), late_up, Answer::Up, &mut rng);
        assert_eq!(circuit.open_since(), Some(at(1)));
        let probe = ticket(&mut circuit, at(9));
        circuit.end(at(9), probe, Answer::Up, &mut rng);
        circuit.end(at(10), late_down, Answer::Down, &mut rng);
        assert_eq!(circuit.open_since(), None);
    }

    #[test]
    fn gates_that_shut_together_do_not_probe_together() {
        let down_at = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut circuit = Circuit::new(Probing::default());
            let call = ticket(&mut circuit, at(0));
            circuit.end(at(0), call, Answer::Down, &mut rng);
            probes(&mut circuit, at(600), &mut rng)
        };
        let mut all: Vec<_> = (0..20).flat_map(down_at).collect();
        all.sort_unstable();
        // From the third minute on, about 27 probes a minute: never many in one second.
        let late: Vec<_> = all.into_iter().filter(|probe| *probe > at(180)).collect();
        let most = late.iter().map(|from| {
            let second = *from..*from + at(1);
            late.iter().filter(|probe| second.contains(*probe)).count()
        });
        assert!(most.max().unwrap() <= 6);
    }
}
