//! Doubts whose repeats the provider recognises.

use super::*;

/// The same under a provider that recognises repeats for so many seconds.
fn remembered(nonce: u64, seconds: u64) -> Ask {
    Ask {
        provider_remembers: Some(Duration::from_secs(seconds)),
        ..ask(nonce, OnAmbiguous::Park)
    }
}

#[test]
fn a_doubt_that_the_provider_remembers_is_repeated_as_often_as_needed_and_closed_by_an_answer() {
    let mut row = claimed_by(None, 1);
    for fence in 1..5 {
        row = then(&row, &lost(fence));
        let verdict = claim(Some(&row), &remembered(fence + 1, 1000), Liveness::Dead);
        let Verdict::Claim(next) = verdict else {
            panic!("not repeated: {verdict:?}");
        };
        assert_eq!(next.digest, row.digest);
        row = next;
    }
    assert_eq!((row.doubtful.len(), row.effects_in_doubt()), (4, 1));
    row = then(&row, &accepted(5));
    assert_eq!((row.state, row.effects_in_doubt()), (State::Sent, 0));
    assert!(row.closed_doubts(5) && !row.closed_doubts(4));
    // An answer that comes late, whatever it is, is about the same effect.
    for late in [lost(1), deferred(1), refused(1)] {
        assert_eq!(then(&row, &late), row, "{late:?}");
    }
    let twice = then(&row, &accepted(1));
    assert_eq!((twice.accepted.len(), twice.second_acceptances()), (2, 0));
}

#[test]
fn a_doubt_that_the_provider_may_have_forgotten_by_the_end_of_the_claim_follows_the_policy() {
    let row = then(&claimed_by(None, 1), &lost(1));
    // A claim lasts for 100 s.
    let verdict = claim(Some(&row), &remembered(2, 101), Liveness::Dead);
    assert!(matches!(verdict, Verdict::Claim(_)), "{verdict:?}");
    parked(&row, &remembered(2, 100));
}

#[test]
fn what_cannot_be_repeated_byte_for_byte_follows_the_policy_whatever_the_provider_remembers() {
    let row = then(&claimed_by(None, 1), &lost(1));
    let other = Ask {
        digest: Some("other".into()),
        ..remembered(2, 1000)
    };
    parked(&row, &other);
    let kept = Entry {
        kept: Some(Kept(vec![1])),
        ..row
    };
    let verdict = claim(Some(&kept), &other, Liveness::Dead);
    let Verdict::Claim(next) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((next.digest, next.kept), (kept.digest, kept.kept));
}
