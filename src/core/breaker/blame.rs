//! Who is to blame when a dependency does not serve a call: the dependency, or the record that the call
//! was made for.
//!
//! One call does not show it. A mail server that hangs up on one recipient looks like a server that is
//! down, and a server that refuses an unknown sender looks like one that refuses a recipient. What
//! happens to other records shows the difference:
//!
//! - If several different records in a row are not served, and none in between is, **the dependency**
//!   or our own settings are to blame ([`Streak`]). One call that finds the dependency down is enough.
//!   So are two effects in doubt within ten minutes, since each of them may need a person.
//! - A record gets a strike each time it is refused after others were served since its last failure.
//!   After [`Blame::STRIKES`] strikes **the record** is to blame. All strikes are void once the
//!   dependency is known to be at fault: its circuit breaker opens, or it serves a record that it
//!   refused before.
//! - Until then the cause is **unknown**, and the record is tried again.
//!
//! So an outage is not blamed on a record, however often it returns, and neither is a relay with one
//! sick node. A call that succeeds without asking the dependency does not count.

use std::time::Duration;

/// How a call that the dependency did not serve ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// The dependency does not answer, or says that it serves nobody.
    Down,
    /// It broke off after it may have acted.
    InDoubt,
    /// It deferred the call.
    Deferred,
    /// It refused the call for good.
    Refused,
}

impl Unserved {
    /// How many different records in a row must end like this before the dependency is to blame.
    fn in_a_row(self) -> u32 {
        match self {
            Self::Down => 1,
            // Each of them is a doubt that a person may have to resolve.
            Self::InDoubt => 2,
            Self::Deferred | Self::Refused => 5,
        }
    }
}

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guilty {
    /// The dependency, or the settings that it is called with.
    Dependency,
    /// The record.
    Record,
    /// Not known yet.
    Unknown,
}

/// Two records in doubt within this time are the dependency's fault, whatever was served in between.
const DOUBTS: Duration = Duration::from_mins(10);

/// How the recent calls of all records ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    /// Calls that were served, ever.
    served: u64,
    /// Different records whose calls were not served since then.
    unserved: u32,
    /// How many times the dependency was found to be at fault.
    faults: u64,
    /// When the effect of a record was last in doubt for the first time.
    doubt: Option<Duration>,
}

impl Streak {
    /// Records that a call was served, for a record with this history.
    pub fn served(&mut self, blame: Blame) {
        self.served += 1;
        self.unserved = 0;
        if blame.0.is_some_and(|seen| seen.refused) {
            self.is_at_fault();
        }
    }

    /// The dependency is at fault: earlier refusals say nothing about a record.
    pub fn is_at_fault(&mut self) {
        self.faults += 1;
    }
}

/// What a record has seen of its dependency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blame(Option<Seen>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// The number of served calls when it last failed.
    served: u64,
    /// How many times the dependency had been found to be at fault by then.
    faults: u64,
    /// Refusals that count: others were served in between, and the dependency was not at fault.
    strikes: u32,
    /// It was refused before.
    refused: bool,
    /// Its effect was in doubt before.
    doubted: bool,
}

impl Blame {
    /// The number of strikes after which a record is to blame.
    pub const STRIKES: u32 = 5;

    /// Records that a call for the record was not served. `open` means that the circuit breaker is
    /// open.
    pub fn unserved(
        &mut self,
        how: Unserved,
        streak: &mut Streak,
        open: bool,
        now: Duration,
    ) -> Guilty {
        let before = self.0;
        // Each record counts once in a streak, however often it is tried.
        let is_next = before.is_none_or(|seen| seen.served != streak.served);
        streak.unserved = streak.unserved.saturating_add(u32::from(is_next));
        let first_doubt = how == Unserved::InDoubt && !before.is_some_and(|seen| seen.doubted);
        let lately = |at: Duration| now.saturating_sub(at) < DOUBTS;
        let is_down = open
            || match how {
                // It failed before, and others were served since: its word alone does not count.
                Unserved::Down if is_next && before.is_some() => streak.unserved > 1,
                Unserved::InDoubt if first_doubt && streak.doubt.is_some_and(lately) => true,
                _ => streak.unserved >= how.in_a_row(),
            };
        if first_doubt {
            streak.doubt = Some(now);
        }
        let is_refused = how == Unserved::Refused;
        let held = before.filter(|seen| seen.faults == streak.faults);
        let strikes = held.map_or(0, |seen| seen.strikes);
        let strikes = strikes + u32::from(is_refused && is_next && !is_down);
        self.0 = Some(Seen {
            served: streak.served,
            faults: streak.faults,
            strikes,
            refused: is_refused || before.is_some_and(|seen| seen.refused),
            doubted: how == Unserved::InDoubt || before.is_some_and(|seen| seen.doubted),
        });
        match how {
            _ if is_down => Guilty::Dependency,
            Unserved::Down => Guilty::Record,
            Unserved::Refused if strikes >= Self::STRIKES => Guilty::Record,
            _ => Guilty::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn refused(blame: &mut Blame, streak: &mut Streak) -> Guilty {
        blame.unserved(Unserved::Refused, streak, false, NOW)
    }

    /// How many others are served that were never refused.
    fn serve(streak: &mut Streak, others: u32) {
        for _ in 0..others {
            streak.served(Blame::default());
        }
    }

    #[test]
    fn a_record_that_is_refused_time_and_again_while_others_are_served_is_to_blame() {
        let (mut blame, mut streak) = (Blame::default(), Streak::default());
        for _ in 1..Blame::STRIKES {
            assert_eq!(refused(&mut blame, &mut streak), Guilty::Unknown);
            // A retry with no other call served in between says nothing new.
            for _ in 0..10 {
                assert_eq!(refused(&mut blame, &mut streak), Guilty::Unknown);
            }
            serve(&mut streak, 1);
        }
        assert_eq!(refused(&mut blame, &mut streak), Guilty::Record);
    }

    #[test]
    fn refusals_of_two_outages_do_not_add_up_however_many_are_served_in_between() {
        let (mut blame, mut streak) = (Blame::default(), Streak::default());
        for _ in 0..10 {
            // It starts the streak that opens the breaker, and probes it.
            for _ in 0..4 {
                assert_eq!(refused(&mut blame, &mut streak), Guilty::Unknown);
                assert_eq!(
                    refused(&mut Blame::default(), &mut streak),
                    if streak.unserved < 5 {
                        Guilty::Unknown
                    } else {
                        Guilty::Dependency
                    }
                );
            }
            streak.is_at_fault();
            let probe = blame.unserved(Unserved::Refused, &mut streak, true, NOW);
            assert_eq!(probe, Guilty::Dependency);
            serve(&mut streak, 10);
        }
    }

    #[test]
    fn a_server_that_serves_what_it_refused_before_is_not_believed_about_others() {
        let (mut blame, mut streak) = (Blame::default(), Streak::default());
        for _ in 0..100 {
            let mut other = Blame::default();
            assert_eq!(refused(&mut blame, &mut streak), Guilty::Unknown);
            serve(&mut streak, 3);
            assert_eq!(refused(&mut other, &mut streak), Guilty::Unknown);
            streak.served(other);
        }
    }

    #[test]
    fn a_record_that_finds_it_down_while_others_are_served_is_not_believed_alone() {
        let (mut blame, mut streak) = (Blame::default(), Streak::default());
        let mut down = |streak: &mut Streak| blame.unserved(Unserved::Down, streak, false, NOW);
        assert_eq!(down(&mut streak), Guilty::Dependency);
        for _ in 0..100 {
            serve(&mut streak, 1);
            assert_eq!(down(&mut streak), Guilty::Record);
        }
        // Another record finds it down as well, or nobody is served any more.
        serve(&mut streak, 1);
        let other = Blame::default().unserved(Unserved::Down, &mut streak, false, NOW);
        assert_eq!(other, Guilty::Dependency);
        assert_eq!(down(&mut streak), Guilty::Dependency);
        serve(&mut streak, 1);
        assert_eq!(down(&mut streak), Guilty::Record);
        assert_eq!(down(&mut streak), Guilty::Dependency);
    }

    #[test]
    fn several_different_records_in_a_row_that_are_not_served_are_the_dependencys_fault() {
        for (how, limit) in [
            (Unserved::Down, 1),
            (Unserved::InDoubt, 2),
            (Unserved::Deferred, 5),
            (Unserved::Refused, 5),
        ] {
            let mut streak = Streak::default();
            let mut fails = |blame: &mut Blame| blame.unserved(how, &mut streak, false, NOW);
            for record in 1..limit {
                let mut blame = Blame::default();
                // Tried three times, it counts once.
                for _ in 0..3 {
                    assert_eq!(
                        fails(&mut blame),
                        Guilty::Unknown,
                        "{how:?}, record {record}"
                    );
                }
            }
            assert_eq!(fails(&mut Blame::default()), Guilty::Dependency, "{how:?}");
        }
    }

    #[test]
    fn one_that_is_served_in_between_begins_the_row_again() {
        let mut streak = Streak::default();
        for _ in 0..100 {
            for _ in 0..4 {
                assert_eq!(refused(&mut Blame::default(), &mut streak), Guilty::Unknown);
            }
            serve(&mut streak, 1);
        }
    }

    #[test]
    fn two_records_in_doubt_within_ten_minutes_are_its_fault_and_one_record_twice_is_not() {
        let mut streak = Streak::default();
        let mut poison = Blame::default();
        for (minute, fresh, guilty) in [
            (0, false, Guilty::Unknown),
            (2, false, Guilty::Unknown),
            (9, true, Guilty::Dependency),
            (20, true, Guilty::Unknown),
            (29, true, Guilty::Dependency),
        ] {
            serve(&mut streak, 100);
            let mut other = Blame::default();
            let blame = if fresh { &mut other } else { &mut poison };
            let now = Duration::from_mins(minute);
            let found = blame.unserved(Unserved::InDoubt, &mut streak, false, now);
            assert_eq!(found, guilty, "minute {minute}");
        }
    }

    /// Clients of a mail server. Those that are not served are tried again in random order.
    struct Clients {
        rng: fastrand::Rng,
        streak: Streak,
        open: bool,
        /// The records that were not served yet, with whether each is bad.
        waiting: Vec<(Blame, bool)>,
        opened: u32,
    }

    impl Clients {
        fn new(seed: u64) -> Self {
            Self {
                rng: fastrand::Rng::with_seed(seed),
                streak: Streak::default(),
                open: false,
                waiting: Vec::new(),
                opened: 0,
            }
        }

        /// Tries each waiting record once. Returns how many good records were found to be bad.
        fn round(&mut self, well: bool) -> usize {
            let mut wrong = 0;
            self.rng.shuffle(&mut self.waiting);
            for (mut blame, bad) in std::mem::take(&mut self.waiting) {
                if well && !bad {
                    self.streak.served(blame);
                    if std::mem::take(&mut self.open) {
                        self.streak.is_at_fault();
                    }
                    continue;
                }
                let how = Unserved::Refused;
                match blame.unserved(how, &mut self.streak, self.open, NOW) {
                    Guilty::Dependency if !self.open => {
                        self.open = true;
                        self.opened += 1;
                        self.streak.is_at_fault();
                    }
                    Guilty::Record => {
                        wrong += usize::from(!bad);
                        continue;
                    }
                    Guilty::Dependency | Guilty::Unknown => {}
                }
                self.waiting.push((blame, bad));
            }
            wrong
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_no_good_record_is_blamed(
            seed: u64,
            spells in prop::collection::vec((2_usize..9, 1_usize..4, 1_usize..9), 1..30),
        ) {
            let mut all = Clients::new(seed);
            for (arrive, rounds, served) in spells {
                all.waiting.extend((0..arrive).map(|_| (Blame::default(), false)));
                for _ in 0..rounds {
                    prop_assert_eq!(all.round(false), 0);
                }
                // The server is well. It serves some of the waiting records and some new ones.
                let later = all.waiting.split_off(served.min(all.waiting.len()));
                all.waiting.extend((0..10).map(|_| (Blame::default(), false)));
                prop_assert_eq!(all.round(true), 0);
                all.waiting.extend(later);
            }
        }

        #[test]
        fn every_bad_record_among_good_ones_is_blamed_and_opens_nothing(
            seed: u64,
            bad in 1_usize..4,
        ) {
            let mut all = Clients::new(seed);
            all.waiting.extend((0..bad).map(|_| (Blame::default(), true)));
            for _ in 0..10 * Blame::STRIKES {
                all.waiting.extend((0..6).map(|_| (Blame::default(), false)));
                prop_assert_eq!(all.round(true), 0);
            }
            prop_assert_eq!((all.waiting.len(), all.opened), (0, 0));
        }
    }
}
