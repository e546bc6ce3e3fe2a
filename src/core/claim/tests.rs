#![allow(clippy::unwrap_used, clippy::expect_used)]

mod items;
mod remembered;

use super::*;

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

pub(super) fn ask(nonce: u64, policy: OnAmbiguous) -> Ask {
    let claimant = Claimant {
        incarnation: format!("worker/{nonce}"),
        nonce,
        deadline: at(100),
    };
    Ask {
        digest: Some("d".into()),
        comes_again: true,
        ..Ask::new(claimant, policy, at(0))
    }
}

fn claimed_by(current: Option<&Entry>, nonce: u64) -> Entry {
    match claim(current, &ask(nonce, OnAmbiguous::Resend), Liveness::Dead) {
        Verdict::Claim(entry) => entry,
        other => panic!("{other:?}"),
    }
}

pub(super) fn accepted(fence: u64) -> Happened {
    Happened::Accepted {
        fence,
        reply: "250 ok".into(),
    }
}

pub(super) fn deferred(fence: u64) -> Happened {
    Happened::NotAccepted {
        fence,
        reply: "450 later".into(),
    }
}

pub(super) fn refused(fence: u64) -> Happened {
    Happened::Refused {
        fence,
        reply: "550 no".into(),
    }
}

pub(super) fn lost(fence: u64) -> Happened {
    Happened::NoReply {
        fence,
        reply: "closed".into(),
    }
}

fn then(entry: &Entry, happened: &Happened) -> Entry {
    transition(Some(entry), happened, at(1)).unwrap()
}

/// The row that stays behind when an effect in doubt is not performed again: it promises no repeat.
fn parked(row: &Entry, ask: &Ask) -> Entry {
    assert_eq!(row.attention(), Some(Attention::Resending));
    let Verdict::Doubt(left) = claim(Some(row), ask, Liveness::Dead) else {
        panic!("the row still promises a repeat");
    };
    assert_eq!(left.attention(), Some(Attention::Ambiguous));
    assert_eq!(claim(Some(&left), ask, Liveness::Dead), Verdict::Parked);
    left
}

#[test]
fn a_live_claim_is_busy_until_its_deadline_and_a_dead_one_is_in_doubt() {
    let entry = claimed_by(None, 1);
    let mut other = ask(2, OnAmbiguous::Resend);
    for liveness in [Liveness::Alive, Liveness::Unknown] {
        let verdict = claim(Some(&entry), &other, liveness);
        assert_eq!(verdict, Verdict::Busy(Duration::from_secs(100)));
    }
    let Verdict::Doubt(doubt) = claim(Some(&entry), &other, Liveness::Dead) else {
        panic!("a dead claimant was not noticed");
    };
    assert_eq!((doubt.state, doubt.ambiguities), (State::Ambiguous, 1));
    other.now = at(100);
    let Verdict::Doubt(late) = claim(Some(&entry), &other, Liveness::Alive) else {
        panic!("a claim past its deadline was not noticed");
    };
    assert_eq!((late.state, late.changed), (State::Ambiguous, at(100)));
}

#[test]
fn a_claim_that_was_applied_late_is_taken_back_by_its_own_claimant_only() {
    let late = claimed_by(None, 1);
    let mut mine = ask(2, OnAmbiguous::Resend);
    mine.abandoned = vec![7, 1];
    let Verdict::Claim(entry) = claim(Some(&late), &mine, Liveness::Alive) else {
        panic!("not taken back");
    };
    assert_eq!((entry.fence, entry.ambiguities), (2, 0));
    let theirs = ask(3, OnAmbiguous::Resend);
    assert!(matches!(
        claim(Some(&late), &theirs, Liveness::Alive),
        Verdict::Busy(_)
    ));
}

#[test]
fn a_claim_of_mine_that_never_began_is_not_in_doubt() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    let mut mine = ask(2, OnAmbiguous::Park);
    let doubt = parked(&doubt, &mine);
    mine.abandoned = vec![1];
    let Verdict::Claim(entry) = claim(Some(&doubt), &mine, Liveness::Dead) else {
        panic!("parked for nothing");
    };
    assert!(entry.doubtful.is_empty());
}

#[test]
fn a_doubt_that_turns_out_not_to_be_a_mail_stays_in_sight() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    let known = then(&doubt, &deferred(1));
    assert_eq!((known.state, known.doubtful.len()), (State::Ambiguous, 0));
    assert_eq!(known.reply.as_deref(), Some("450 later"));
    assert_eq!(then(&known, &deferred(1)), known, "reported twice");
    // The worker that still has the record sends it at once, under either policy.
    let verdict = claim(Some(&known), &ask(2, OnAmbiguous::Park), Liveness::Dead);
    assert!(matches!(verdict, Verdict::Claim(_)), "{verdict:?}");
    assert_eq!(then(&doubt, &refused(1)).state, State::Failed);
}

#[test]
fn resend_sends_once_more_and_then_parks() {
    let entry = then(&claimed_by(None, 1), &lost(1));
    let entry = claimed_by(Some(&entry), 2);
    let entry = then(&entry, &lost(2));
    assert_eq!((entry.state, entry.ambiguities), (State::Ambiguous, 2));
    let verdict = claim(Some(&entry), &ask(3, OnAmbiguous::Resend), Liveness::Dead);
    assert_eq!(verdict, Verdict::Parked);
}

#[test]
fn park_never_sends_twice() {
    let entry = then(&claimed_by(None, 1), &lost(1));
    parked(&entry, &ask(2, OnAmbiguous::Park));
}

#[test]
fn a_doubtful_mail_is_repeated_as_it_was_kept_and_else_rewritten_as_the_history_shows() {
    let changed = |kept| Ask {
        digest: Some("another".into()),
        kept,
        ..ask(2, OnAmbiguous::Resend)
    };
    let resent =
        |doubt: &Entry| match claim(Some(doubt), &changed(Some(Kept(vec![2]))), Liveness::Dead) {
            Verdict::Claim(entry) => entry,
            verdict => panic!("the doubtful mail was not sent again: {verdict:?}"),
        };
    let rewritten = |entry: &Entry| {
        let mut steps = entry.history.steps().iter();
        steps.any(|step| step.kind == StepKind::Rewritten)
    };
    let first = Ask {
        kept: Some(Kept(vec![1])),
        ..ask(1, OnAmbiguous::Resend)
    };
    let Verdict::Claim(kept) = claim(None, &first, Liveness::Dead) else {
        panic!("a new effect can be claimed");
    };
    let again = resent(&then(&kept, &lost(1)));
    assert_eq!(
        (again.digest.as_deref(), again.kept.clone()),
        (Some("d"), Some(Kept(vec![1])))
    );
    assert!(!rewritten(&again));
    assert_eq!(
        then(&again, &accepted(2)).kept,
        None,
        "kept only while it may be needed"
    );
    // A mail that was too large to keep.
    let again = resent(&then(&claimed_by(None, 1), &lost(1)));
    assert_eq!(again.digest.as_deref(), Some("another"));
    assert!(rewritten(&again));
    // A mail that was certainly not accepted may change.
    let again = resent(&then(&kept, &deferred(1)));
    assert_eq!(again.digest.as_deref(), Some("another"));
    assert!(!rewritten(&again));
}

#[test]
fn the_history_records_every_claim_doubt_and_decision() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    let second = then(&claimed_by(Some(&doubt), 2), &deferred(2));
    let word = Resolution {
        by: "ops".into(),
        at: at(5),
        note: "not in mail.log".into(),
        decision: Decision::Send,
    };
    let released = then(&second, &Happened::Resolved(word));
    let sent = then(&claimed_by(Some(&released), 3), &accepted(3));
    let reported = |step: &Step| (step.kind, step.fence, step.text.clone());
    let reported: Vec<_> = sent.history.steps().iter().map(reported).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        reported,
        [
            (StepKind::Claimed, Some(1), None),
            (StepKind::Doubted, Some(1), text("closed")),
            (StepKind::Claimed, Some(2), None),
            (StepKind::Deferred, Some(2), text("450 later")),
            (StepKind::Resolved, None, text("RETRY: not in mail.log")),
            (StepKind::Claimed, Some(3), None),
            (StepKind::Accepted, Some(3), text("250 ok")),
        ]
    );
}

#[test]
fn a_refused_resend_does_not_hide_the_doubt_about_the_first_mail() {
    for definite in [refused(2), deferred(2)] {
        let entry = then(&claimed_by(None, 1), &lost(1));
        let entry = then(&claimed_by(Some(&entry), 2), &definite);
        assert_eq!((entry.state, entry.ambiguities), (State::Ambiguous, 1));
        assert_eq!(then(&entry, &definite), entry, "the same report again");
        // The late reply to the first one ends the doubt.
        let known = then(&entry, &deferred(1));
        assert_eq!((known.state, known.doubtful.len()), (State::Ambiguous, 0));
        assert_eq!(then(&entry, &accepted(1)).state, State::Sent);
    }
}

#[test]
fn a_late_reply_turns_doubt_into_knowledge() {
    let entry = then(&claimed_by(None, 1), &lost(1));
    assert_eq!(then(&entry, &accepted(1)).state, State::Sent);
    assert_eq!(then(&entry, &refused(1)).state, State::Failed);
}

#[test]
fn a_late_acceptance_is_never_lost_and_stops_further_sends() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    let second = claimed_by(Some(&doubt), 2);
    // The row keeps the acceptance while the second claimant is working.
    let known = then(&second, &accepted(1));
    assert_eq!(
        (known.state, known.second_acceptances()),
        (State::Sending, 0)
    );
    assert_eq!(then(&known, &accepted(1)), known, "the same report again");
    for ended in [deferred(2), refused(2), lost(2)] {
        assert_eq!(then(&known, &ended).state, State::Sent, "{ended:?}");
    }
    let both = then(&known, &accepted(2));
    assert_eq!((both.state, both.second_acceptances()), (State::Sent, 1));
}

#[test]
fn only_what_is_not_in_doubt_can_be_suppressed_or_turned_away() {
    for happened in [
        Happened::Suppressed {
            reason: "cancelled".into(),
        },
        Happened::TurnedAway {
            reply: "550 no".into(),
        },
    ] {
        let fresh = transition(None, &happened, at(0)).unwrap();
        assert_eq!(fresh.revision, 1);
        let sending = claimed_by(None, 1);
        assert!(transition(Some(&sending), &happened, at(1)).is_err());
        assert!(transition(Some(&then(&sending, &lost(1))), &happened, at(1)).is_err());
        assert!(transition(Some(&then(&sending, &accepted(1))), &happened, at(1)).is_err());
        assert!(transition(Some(&then(&sending, &deferred(1))), &happened, at(1)).is_ok());
    }
}

fn word(decision: Decision) -> Happened {
    Happened::Resolved(Resolution {
        by: "ops".into(),
        at: at(5),
        note: "asked the relay".into(),
        decision,
    })
}

#[test]
fn an_operator_resolves_a_doubt_and_may_give_a_failure_another_chance() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    assert_eq!(then(&doubt, &word(Decision::Sent)).state, State::Sent);
    let again = then(&doubt, &word(Decision::Send));
    assert_eq!((again.state, again.released), (State::Retry, true));
    assert!(again.doubtful.is_empty());
    let failed = then(&claimed_by(None, 1), &refused(1));
    assert_eq!(then(&failed, &word(Decision::Send)).state, State::Retry);
    let sent = then(&claimed_by(None, 1), &accepted(1));
    for decision in [Decision::Send, Decision::Sent, Decision::Skip] {
        assert!(transition(Some(&sent), &word(decision), at(6)).is_err());
    }
    assert!(transition(None, &word(Decision::Sent), at(6)).is_err());
}

#[test]
fn a_doubt_waits_for_a_person_unless_a_worker_sends_it_once_more() {
    let claimed = |current: Option<&Entry>, nonce, policy, comes_again| {
        let ask = Ask {
            comes_again,
            ..ask(nonce, policy)
        };
        match claim(current, &ask, Liveness::Dead) {
            Verdict::Claim(entry) => entry,
            other => panic!("{other:?}"),
        }
    };
    let doubt = |policy, comes_again| then(&claimed(None, 1, policy, comes_again), &lost(1));
    let (resend, park) = (OnAmbiguous::Resend, OnAmbiguous::Park);
    let first = doubt(resend, true);
    assert_eq!(first.attention(), Some(Attention::Resending));
    assert_eq!(doubt(park, true).attention(), Some(Attention::Ambiguous));
    assert_eq!(doubt(resend, false).attention(), Some(Attention::Ambiguous));
    let second = claimed(Some(&first), 2, resend, true);
    assert_eq!(second.attention(), None, "somebody is at it");
    let second = then(&second, &lost(2));
    assert_eq!(second.attention(), Some(Attention::Ambiguous));
}

#[test]
fn a_released_effect_needs_attention_until_it_is_sent_or_given_up() {
    let unknown = transition(None, &word(Decision::Send), at(5)).unwrap();
    let suppressed = Happened::Suppressed {
        reason: "status is PENDING".into(),
    };
    let suppressed = transition(None, &suppressed, at(0)).unwrap();
    let doubt = then(&claimed_by(None, 1), &lost(1));
    for before in [None, Some(&suppressed), Some(&doubt)] {
        let released = transition(before, &word(Decision::Send), at(5)).unwrap();
        assert_eq!(released.attention(), Some(Attention::Released));
        let fence = released.fence + 1;
        let claimed = claimed_by(Some(&released), 7);
        assert_eq!(
            claimed.attention(),
            Some(Attention::Released),
            "its sender may die"
        );
        let deferred = then(&claimed, &deferred(fence));
        assert_eq!(deferred.attention(), Some(Attention::Released));
        let again = claimed_by(Some(&deferred), 8);
        assert_eq!(then(&again, &accepted(fence + 1)).attention(), None);
        assert_eq!(then(&again, &refused(fence + 1)).attention(), None);
        let given_up = then(&deferred, &word(Decision::Skip));
        assert_eq!(
            (given_up.state, given_up.attention()),
            (State::Suppressed, None)
        );
    }
    let found = then(&unknown, &word(Decision::Sent));
    assert_eq!(found.state, State::Sent);
    assert_eq!(
        then(&unknown, &word(Decision::Send)),
        unknown,
        "the same again"
    );
}

#[test]
fn a_doubt_that_an_operator_gives_up_is_never_sent_unless_it_is_released() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    let given_up = then(&doubt, &word(Decision::Skip));
    let verdict = claim(
        Some(&given_up),
        &ask(2, OnAmbiguous::Resend),
        Liveness::Dead,
    );
    assert_eq!(verdict, Verdict::Done(State::Suppressed));
    assert_eq!(then(&given_up, &accepted(1)).state, State::Sent);
    let released = then(&given_up, &word(Decision::Send));
    assert_eq!((released.state, released.doubtful.len()), (State::Retry, 0));
}

#[test]
fn a_report_under_a_fence_that_was_never_given_is_illegal() {
    let entry = claimed_by(None, 1);
    for happened in [accepted(0), accepted(2), deferred(2), refused(2), lost(2)] {
        assert!(
            transition(Some(&entry), &happened, at(1)).is_err(),
            "{happened:?}"
        );
        assert!(transition(None, &happened, at(1)).is_err(), "{happened:?}");
    }
}
