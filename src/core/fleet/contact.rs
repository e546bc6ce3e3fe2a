//! A worker's contact with the lease table: its heartbeats, its looks, and the trust that they give.

use std::time::Duration;

use super::events::{CallResult, Failed};
use super::heartbeat::Heartbeat;
use super::looks::{Begun, Looks};
use super::rules::{FleetRule, FleetRules};
use super::snapshot::Reach;
use super::validity::{Generation, LOOKS_LAST, Validity};

/// When to beat and to look, and the trust that results.
#[derive(Debug)]
pub(super) struct Contact {
    pub validity: Validity,
    /// The generation in which leases are mine. A different one means that trust has lapsed.
    generation: Generation,
    heartbeat: Heartbeat,
    pub looks: Looks,
}

impl Contact {
    pub fn new(rules: &FleetRules, now: Duration) -> Self {
        let validity = Validity::new(rules.left_out);
        Self {
            generation: validity.generation(),
            validity,
            heartbeat: Heartbeat::new(now),
            looks: Looks::new(now),
        }
    }

    /// Moves the time on. Returns whether trust has lapsed since the last call.
    pub fn has_lapsed(&mut self, now: Duration) -> bool {
        self.validity.pass(now);
        let generation = self.validity.generation();
        std::mem::replace(&mut self.generation, generation) != generation
    }

    /// The stretch of trust, if there is trust now.
    pub fn trusted(&self) -> Option<Generation> {
        self.validity.is_open().then_some(self.generation)
    }

    /// Whether the lease table knows this incarnation.
    pub fn is_registered(&self) -> bool {
        self.heartbeat.registered
    }

    /// When the next heartbeat or look is due. `None`: not before something else has happened.
    pub fn due(&self, now: Duration, rules: &FleetRules) -> Option<Duration> {
        let look = self.looks.due(rules).filter(|_| self.is_registered());
        let beat = self.heartbeat.due(self.looks.is_blind(now, rules));
        [beat, look].into_iter().flatten().min()
    }

    /// Makes the next heartbeat and the next look due now.
    pub fn hurry(&mut self, now: Duration) {
        self.heartbeat.due = now;
        self.looks.hurry(now);
    }

    /// Begins a heartbeat if one is due. Returns its number, and whether the row exists already.
    pub fn begin_beat(&mut self, now: Duration, rules: &FleetRules) -> Option<(u64, bool)> {
        let due = self.heartbeat.due(self.looks.is_blind(now, rules));
        let is_due = due.is_some_and(|due| due <= now);
        is_due.then(|| self.heartbeat.begin(now, rules.heartbeat_interval))
    }

    /// Begins a look if one is due. A look at the leases has this reach. The last look of a leaving
    /// worker is consistent, and so is every look without trust.
    pub fn begin_look(
        &mut self,
        is_last: bool,
        reach: Reach,
        rules: &FleetRules,
        now: Duration,
    ) -> Option<Begun> {
        let is_due = self.looks.due(rules).is_some_and(|due| due <= now);
        if !is_due || !self.is_registered() {
            return None;
        }
        let leases = self.looks.are_leases_due(now);
        let needed = is_last || self.looks.is_consistent_due(now) || !self.validity.is_open();
        let begun = Begun {
            at: now,
            reach: if leases { reach } else { Reach::Workers },
            consistent: leases && (needed || reach == Reach::All),
            generation: self.validity.beating(),
        };
        self.looks.begin(begun, rules);
        Some(begun)
    }

    /// A heartbeat was answered. Returns `false` if this incarnation's row is gone.
    pub fn beaten(
        &mut self,
        answer: CallResult<()>,
        now: Duration,
        rules: &FleetRules,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let Some(began) = self.heartbeat.end() else {
            return true;
        };
        match answer {
            Ok(Some(())) => {
                self.heartbeat.succeeded();
                let until = began + rules.trust;
                self.validity.beat(until);
                if rules.left_out == Some(FleetRule::NothingByName) {
                    self.validity.seen(until);
                }
                if !self.validity.is_open() {
                    self.looks.hurry(now);
                }
            }
            Ok(None) => return false,
            Err(Failed) => {
                let failures = self.heartbeat.failed();
                self.heartbeat.due = now + rules.wait(failures, rng);
            }
        }
        true
    }

    /// This incarnation is gone: the next one has neither trust nor a row.
    pub fn be_reborn(&mut self, now: Duration) {
        self.validity.revoke(now);
        self.heartbeat = Heartbeat::new(now);
    }

    /// A look failed: the next one follows soon.
    pub fn look_failed(
        &mut self,
        reach: Reach,
        now: Duration,
        rules: &FleetRules,
        rng: &mut fastrand::Rng,
    ) {
        let failures = self.looks.failed();
        self.looks.again_at(reach, now + rules.wait(failures, rng));
    }

    /// Whether a look shows what is mine: a heartbeat vouched for it when it began, and trust was not
    /// lost since.
    pub fn vouches(&self, begun: Begun, rules: &FleetRules) -> bool {
        let now = self.validity.beating();
        if rules.left_out == Some(FleetRule::FreshLook) {
            return now.is_some();
        }
        now.is_some() && begun.generation == now
    }

    /// A consistent look that vouches renews trust, from its beginning.
    pub fn renew(&mut self, begun: Begun, now: Duration, rules: &FleetRules) {
        self.looks.renew(begun, rules);
        let counts_from = if rules.left_out == Some(FleetRule::FreshLook) {
            now
        } else {
            begun.at
        };
        self.validity.seen(counts_from + rules.trust * LOOKS_LAST);
        self.validity.pass(now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::golden::rules;
    use super::*;

    #[test]
    fn a_look_counts_from_its_beginning_however_late_its_answer_comes() {
        let (rules, start) = (rules("one"), Duration::ZERO);
        let late = Duration::from_secs(5);
        let mut contact = Contact::new(&rules, start);
        contact.begin_beat(start, &rules).unwrap();
        let mut rng = fastrand::Rng::with_seed(0);
        assert!(contact.beaten(Ok(Some(())), start, &rules, &mut rng));
        let begun = contact
            .begin_look(false, Reach::All, &rules, start)
            .unwrap();
        contact.validity.beat(Duration::from_hours(1));
        assert!(contact.vouches(begun, &rules));
        contact.renew(begun, late, &rules);
        let until = contact.validity.until();
        assert_eq!(until, Some(start + rules.trust * LOOKS_LAST));
    }
}
