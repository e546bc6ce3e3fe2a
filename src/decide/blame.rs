//! Whose fault it is when a call finds its dependency down: the dependency's, or that of the record
//! that the call was made for.
//!
//! A mail server that hangs up on one recipient looks, from that one call, like a server that is
//! down. What tells them apart is how the others fare. A record is to blame when the dependency has
//! served [`Blame::PROOF`] calls since the record first found it down, at least one of them since it
//! last did, and the gate is open: nobody else has found it down just now. A dependency that is down
//! serves nobody, so that an outage is not blamed on a record; a call that succeeds without asking it
//! counts for nothing. A call from before an outage is taken for being served: where the dependency comes
//! and goes, a record can lose an attempt so.

/// What a record has seen of its dependency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blame(Option<Seen>);

/// How many calls the dependency had served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// When the record first found it down.
    first: u64,
    /// When it last did.
    last: u64,
}

impl Blame {
    /// So many others are served before a record is blamed.
    pub const PROOF: u64 = 10;

    /// A call for the record found the dependency down, which has `served` so many calls of all
    /// records so far; `shut`: its gate is shut. Says whether the record is to blame.
    pub fn found_down(&mut self, served: u64, shut: bool) -> bool {
        let now = Seen {
            first: served,
            last: served,
        };
        let seen = self.0.get_or_insert(now);
        let proven = served.saturating_sub(seen.first) >= Self::PROOF && served > seen.last;
        seen.last = served;
        proven && !shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_to_blame_once_ten_others_were_served_and_one_more_each_time() {
        let mut blame = Blame::default();
        let found = [100, 101, 109, 110, 110, 111].map(|served| blame.found_down(served, false));
        assert_eq!(found, [false, false, false, true, false, true]);
    }

    #[test]
    fn an_outage_is_never_blamed_on_a_record() {
        let mut blame = Blame::default();
        for _ in 0..1000 {
            assert!(!blame.found_down(7, false));
        }
        // What others had in hand is served; the gate is shut, and the record tries it.
        for served in 8..1000 {
            assert!(!blame.found_down(served, true));
        }
    }
}
