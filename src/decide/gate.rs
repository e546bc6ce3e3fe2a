//! The gate in front of a dependency: shut while it is down, tried now and then, open again when it
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

/// A call that the gate let through. Tell the gate how it ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a probe that is not reported keeps the gate shut"]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

/// What the gate says to a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Pass {
    /// Go. This may be the one call that tries whether the dependency is back
    /// ([`Ticket::is_probe`]).
    Go(Ticket),
    /// Ask again after this long.
    Wait(Duration),
}

impl Ticket {
    /// Whether this call tries a shut gate.
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

/// The gate of one dependency.
#[derive(Debug, Clone)]
pub struct Gate {
    probing: Probing,
    /// Raised each time the gate opens or shuts, so that calls from before do not count.
    generation: u64,
    shut: Option<Shut>,
}

#[derive(Debug, Clone, Copy)]
struct Shut {
    since: Duration,
    /// Probes that found it down.
    failed: u32,
    next: Duration,
    probe_running: bool,
}

impl Gate {
    /// An open gate.
    pub fn new(probing: Probing) -> Self {
        Self {
            probing,
            generation: 0,
            shut: None,
        }
    }

    /// Since when it is shut; `None`: it is open.
    pub fn shut_since(&self) -> Option<Duration> {
        self.shut.map(|shut| shut.since)
    }

    /// Asks for a call.
    pub fn ask(&mut self, now: Duration) -> Pass {
        let generation = self.generation;
        let Some(shut) = &mut self.shut else {
            let probe = false;
            return Pass::Go(Ticket { generation, probe });
        };
        if shut.probe_running {
            return Pass::Wait(self.probing.first);
        }
        let wait = shut.next.saturating_sub(now);
        if !wait.is_zero() {
            return Pass::Wait(wait);
        }
        shut.probe_running = true;
        let probe = true;
        Pass::Go(Ticket { generation, probe })
    }

    /// Tells how a call ended. Only what was asked since the gate last moved can move it: a late
    /// success from before an outage does not open it, a late failure does not shut it again.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used once")]
    pub fn end(&mut self, now: Duration, ticket: Ticket, answer: Answer, rng: &mut fastrand::Rng) {
        if ticket.generation != self.generation {
            return;
        }
        match (&mut self.shut, answer) {
            (None, Answer::Down | Answer::Broken) => {
                self.generation += 1;
                self.shut = Some(Shut {
                    since: now,
                    failed: 0,
                    next: now + wait(self.probing.after(answer), 0, rng),
                    probe_running: false,
                });
            }
            (Some(shut), Answer::Down | Answer::Broken) => {
                shut.failed = shut.failed.saturating_add(1);
                shut.next = now + wait(self.probing.after(answer), shut.failed, rng);
                shut.probe_running = false;
            }
            (Some(_), Answer::Up) => {
                self.generation += 1;
                self.shut = None;
            }
            // The next caller tries.
            (Some(shut), Answer::Unknown) => shut.probe_running = false,
            (None, Answer::Up | Answer::Unknown) => {}
        }
    }
}

/// Between half and all of `first * 2^failed`, at most `longest`: gates that shut together do not
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

    fn ticket(gate: &mut Gate, now: Duration) -> Ticket {
        match gate.ask(now) {
            Pass::Go(ticket) => ticket,
            Pass::Wait(wait) => panic!("wait {wait:?}"),
        }
    }

    /// Probes from `now` until `back`, and says when each probe came.
    fn probes(gate: &mut Gate, back: Duration, rng: &mut fastrand::Rng) -> Vec<Duration> {
        let mut now = gate.shut_since().unwrap();
        let mut all = Vec::new();
        while gate.shut_since().is_some() {
            match gate.ask(now) {
                Pass::Wait(wait) => now += wait,
                Pass::Go(ticket) => {
                    all.push(now);
                    let up = if now < back { Answer::Down } else { Answer::Up };
                    gate.end(now, ticket, up, rng);
                }
            }
        }
        all
    }

    #[test]
    fn a_shut_gate_is_probed_ever_more_rarely_and_opens_at_the_first_answer() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut gate = Gate::new(Probing::default());
        let call = ticket(&mut gate, at(10));
        assert!(!call.is_probe());
        gate.end(at(10), call, Answer::Down, &mut rng);
        let back = at(10) + Duration::from_hours(48);
        let probes = probes(&mut gate, back, &mut rng);
        let gaps: Vec<_> = probes
            .windows(2)
            .map(|two| two[1].saturating_sub(two[0]))
            .collect();
        assert!(gaps.iter().all(|gap| *gap <= at(60)));
        assert!(gaps[10..].iter().all(|gap| *gap >= at(30)));
        assert!(gaps[0] < at(2) && probes[0] <= at(11));
        assert!(probes.last().unwrap().saturating_sub(back) <= at(60));
        assert!(!ticket(&mut gate, back * 2).is_probe());
    }

    #[test]
    fn one_call_probes_at_a_time_and_a_lost_probe_lets_the_next_one_try() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut gate = Gate::new(Probing::default());
        let call = ticket(&mut gate, at(1));
        gate.end(at(1), call, Answer::Down, &mut rng);
        let probe = ticket(&mut gate, at(9));
        assert!(probe.is_probe());
        assert_eq!(gate.ask(at(9)), Pass::Wait(at(1)));
        gate.end(at(9), probe, Answer::Unknown, &mut rng);
        let again = ticket(&mut gate, at(9));
        gate.end(at(9), again, Answer::Up, &mut rng);
        assert_eq!(gate.shut_since(), None);
    }

    #[test]
    fn calls_from_before_do_not_move_the_gate() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut gate = Gate::new(Probing::default());
        let [down, late_up, late_down] = std::array::from_fn(|_| ticket(&mut gate, at(1)));
        gate.end(at(1), down, Answer::Down, &mut rng);
        gate.end(at(2), late_up, Answer::Up, &mut rng);
        assert_eq!(gate.shut_since(), Some(at(1)));
        let probe = ticket(&mut gate, at(9));
        gate.end(at(9), probe, Answer::Up, &mut rng);
        gate.end(at(10), late_down, Answer::Down, &mut rng);
        assert_eq!(gate.shut_since(), None);
    }

    #[test]
    fn gates_that_shut_together_do_not_probe_together() {
        let down_at = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut gate = Gate::new(Probing::default());
            let call = ticket(&mut gate, at(0));
            gate.end(at(0), call, Answer::Down, &mut rng);
            probes(&mut gate, at(600), &mut rng)
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
