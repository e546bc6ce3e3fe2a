//! Whose fault it is when a call is not served: the dependency's, or that of the record that the call
//! was made for.
//!
//! One call does not tell. A mail server that hangs up on one recipient looks like a server that is
//! down, and one that refuses a sender it does not know looks like one that refuses a recipient. What
//! tells them apart is how the others fare:
//!
//! - Where several different records in a row are not served, and none in between is, **the dependency**
//!   or our own settings are to blame ([`Streak`]). One call that finds it down is enough.
//! - Where the dependency has served [`Blame::PROOF`] calls since it first failed the record, at least
//!   one of them since it last did, and its circuit is closed, **the record** is to blame.
//! - Until then it is **unknown**, and the record is tried again.
//!
//! A dependency that is down serves nobody, so that an outage is not blamed on a record; a call that
//! succeeds without asking it counts for nothing. A call from before an outage is taken for being served:
//! where the dependency comes and goes, a record can be blamed so.

/// How a call ended that the dependency did not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// It does not answer, or says that it serves nobody.
    Down,
    /// It broke off after it may have acted.
    InDoubt,
    /// It put the call off.
    Deferred,
    /// It refused the call for good.
    Refused,
}

impl Unserved {
    /// So many different records in a row that end so, and the dependency is to blame.
    fn in_a_row(self) -> u32 {
        match self {
            Self::Down => 1,
            // Each costs a doubt that a person may have to resolve.
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
    /// That is not known yet.
    Unknown,
}

/// How the calls of all records ended of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    /// Calls that were served, ever.
    served: u64,
    /// Different records whose calls were not served since.
    unserved: u32,
}

impl Streak {
    /// A call was served.
    pub fn served(&mut self) {
        self.served += 1;
        self.unserved = 0;
    }
}

/// What a record has seen of its dependency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blame(Option<Seen>);

/// How many calls the dependency had served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// When it first did not serve the record.
    first: u64,
    /// When it last did not.
    last: u64,
}

impl Blame {
    /// So many others are served before a record is blamed.
    pub const PROOF: u64 = 10;

    /// A call for the record was not served; `open`: the dependency's circuit is open.
    pub fn unserved(&mut self, how: Unserved, streak: &mut Streak, open: bool) -> Guilty {
        let served = streak.served;
        // Each record counts once in a streak, however often it is tried.
        if self.0.is_none_or(|seen| seen.last != served) {
            streak.unserved = streak.unserved.saturating_add(1);
        }
        let now = Seen {
            first: served,
            last: served,
        };
        let before = self.0.unwrap_or(now);
        self.0 = Some(Seen {
            last: served,
            ..before
        });
        let others_are = served.saturating_sub(before.first) >= Self::PROOF && served > before.last;
        if others_are && !open {
            Guilty::Record
        } else if open || streak.unserved >= how.in_a_row() {
            Guilty::Dependency
        } else {
            Guilty::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(served: u64) -> Streak {
        Streak {
            served,
            unserved: 0,
        }
    }

    #[test]
    fn a_record_is_to_blame_once_ten_others_were_served_and_one_more_each_time() {
        for how in [Unserved::Down, Unserved::Refused] {
            let mut blame = Blame::default();
            let found = [100, 101, 109, 110, 110, 111]
                .map(|served| blame.unserved(how, &mut after(served), false) == Guilty::Record);
            assert_eq!(found, [false, false, false, true, false, true], "{how:?}");
        }
    }

    #[test]
    fn an_outage_is_never_blamed_on_a_record() {
        let (mut blame, mut streak) = (Blame::default(), after(7));
        for _ in 0..1000 {
            let guilty = blame.unserved(Unserved::Down, &mut streak, false);
            assert_eq!(guilty, Guilty::Dependency);
        }
        // What others had in hand is served; the circuit is open, and the record tries it.
        for served in 8..1000 {
            let guilty = blame.unserved(Unserved::Down, &mut after(served), true);
            assert_eq!(guilty, Guilty::Dependency);
        }
    }

    #[test]
    fn several_different_records_in_a_row_that_are_not_served_are_the_dependencys_fault() {
        for (how, limit) in [
            (Unserved::Down, 1),
            (Unserved::InDoubt, 2),
            (Unserved::Deferred, 5),
            (Unserved::Refused, 5),
        ] {
            let mut streak = after(3);
            for record in 1..limit {
                let mut blame = Blame::default();
                // Tried three times, it counts once.
                for _ in 0..3 {
                    let guilty = blame.unserved(how, &mut streak, false);
                    assert_eq!(guilty, Guilty::Unknown, "{how:?}, record {record}");
                }
            }
            let guilty = Blame::default().unserved(how, &mut streak, false);
            assert_eq!(guilty, Guilty::Dependency, "{how:?}");
        }
    }

    #[test]
    fn one_that_is_served_in_between_begins_the_row_again() {
        let mut streak = Streak::default();
        for _ in 0..100 {
            for _ in 0..4 {
                let guilty = Blame::default().unserved(Unserved::Refused, &mut streak, false);
                assert_eq!(guilty, Guilty::Unknown);
            }
            streak.served();
        }
    }
}
