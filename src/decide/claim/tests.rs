#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn ask(nonce: u64, policy: OnAmbiguous) -> Ask {
    Ask {
        claimant: Claimant {
            incarnation: format!("worker/{nonce}"),
            nonce,
            deadline: at(100),
        },
        digest: Some("d".into()),
        abandoned: Vec::new(),
        orphaned: Vec::new(),
        policy,
        now: at(0),
    }
}

fn claimed_by(current: Option<&Entry>, nonce: u64) -> Entry {
    match claim(current, &ask(nonce, OnAmbiguous::Resend), Liveness::Dead) {
        Verdict::Claim(entry) => entry,
        other => panic!("{other:?}"),
    }
}

fn accepted(fence: u64) -> Happened {
    Happened::Accepted {
        fence,
        reply: "250 ok".into(),
    }
}

fn deferred(fence: u64) -> Happened {
    Happened::NotAccepted {
        fence,
        reply: "450 later".into(),
    }
}

fn refused(fence: u64) -> Happened {
    Happened::Refused {
        fence,
        reply: "550 no".into(),
    }
}

fn lost(fence: u64) -> Happened {
    Happened::NoReply {
        fence,
        reply: "closed".into(),
    }
}

fn then(entry: &Entry, happened: &Happened) -> Entry {
    transition(Some(entry), happened, at(1)).unwrap()
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
    assert_eq!(
        claim(Some(&entry), &other, Liveness::Alive),
        Verdict::Doubt(Entry {
            changed: at(100),
            ..doubt
        })
    );
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
fn a_doubt_about_a_claim_of_mine_that_never_began_is_none() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    let mut mine = ask(2, OnAmbiguous::Park);
    assert_eq!(claim(Some(&doubt), &mine, Liveness::Dead), Verdict::Parked);
    mine.abandoned = vec![1];
    let Verdict::Claim(entry) = claim(Some(&doubt), &mine, Liveness::Dead) else {
        panic!("parked for nothing");
    };
    assert!(entry.doubtful.is_empty());
}

#[test]
fn a_claim_of_mine_that_was_begun_and_left_is_in_doubt_at_once() {
    let begun = claimed_by(None, 1);
    let mut mine = ask(2, OnAmbiguous::Resend);
    mine.orphaned = vec![1];
    assert!(matches!(
        claim(Some(&begun), &mine, Liveness::Alive),
        Verdict::Doubt(_)
    ));
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
    let verdict = claim(Some(&entry), &ask(2, OnAmbiguous::Park), Liveness::Dead);
    assert_eq!(verdict, Verdict::Parked);
}

#[test]
fn a_resend_that_is_not_the_same_mail_is_parked() {
    let entry = then(&claimed_by(None, 1), &lost(1));
    let mut other = ask(2, OnAmbiguous::Resend);
    other.digest = Some("another".into());
    assert_eq!(claim(Some(&entry), &other, Liveness::Dead), Verdict::Parked);
    let retry = then(&claimed_by(None, 1), &deferred(1));
    let Verdict::Claim(entry) = claim(Some(&retry), &other, Liveness::Dead) else {
        panic!("a mail that was certainly not accepted may change");
    };
    assert_eq!(entry.digest, other.digest);
}

#[test]
fn a_refused_resend_does_not_hide_the_doubt_about_the_first_mail() {
    for definite in [refused(2), deferred(2)] {
        let entry = then(&claimed_by(None, 1), &lost(1));
        let entry = then(&claimed_by(Some(&entry), 2), &definite);
        assert_eq!((entry.state, entry.ambiguities), (State::Ambiguous, 1));
        assert_eq!(then(&entry, &definite), entry, "the same report again");
        // The late word about the first one settles it.
        assert_eq!(then(&entry, &deferred(1)).state, State::Retry);
        assert_eq!(then(&entry, &accepted(1)).state, State::Sent);
    }
}

#[test]
fn a_late_reply_turns_doubt_into_knowledge() {
    let entry = then(&claimed_by(None, 1), &lost(1));
    assert_eq!(then(&entry, &accepted(1)).state, State::Sent);
    assert_eq!(then(&entry, &refused(1)).state, State::Failed);
    assert_eq!(then(&entry, &deferred(1)).state, State::Retry);
}

#[test]
fn a_late_acceptance_is_never_lost_and_stops_further_sends() {
    let doubt = then(&claimed_by(None, 1), &lost(1));
    let second = claimed_by(Some(&doubt), 2);
    // While the second claimant is at it, the acceptance stands on the row.
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

#[test]
fn an_operator_settles_doubt_and_may_give_a_failure_another_chance() {
    let word = |verdict| {
        Happened::Settled(Settlement {
            by: "ops".into(),
            at: at(5),
            reason: "asked the relay".into(),
            verdict,
        })
    };
    let doubt = then(&claimed_by(None, 1), &lost(1));
    assert_eq!(then(&doubt, &word(SettledAs::Sent)).state, State::Sent);
    let again = then(&doubt, &word(SettledAs::Resend));
    assert_eq!((again.state, again.settlements.len()), (State::Retry, 1));
    assert!(again.doubtful.is_empty());
    let failed = then(&claimed_by(None, 1), &refused(1));
    assert_eq!(then(&failed, &word(SettledAs::Resend)).state, State::Retry);
    let sent = then(&claimed_by(None, 1), &accepted(1));
    assert!(transition(Some(&sent), &word(SettledAs::Resend), at(6)).is_err());
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

/// What the server did with one claim, and what its claimant learns of it.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Accepted,
    AcceptedReplyLost,
    NotAcceptedReplyLost,
    Deferred,
    Refused,
}

#[derive(Debug, Clone)]
enum Step {
    /// Somebody wants to claim; the liveness is that of the claimant on the row.
    Claim(Liveness),
    /// A claimant sends, if it still may.
    Begin(usize, Fate),
    /// A claimant's report reaches the row, perhaps late, perhaps again.
    Report(usize),
    /// The mail is turned away or suppressed.
    TurnAway,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        Just(Fate::Accepted),
        Just(Fate::AcceptedReplyLost),
        Just(Fate::NotAcceptedReplyLost),
        Just(Fate::Deferred),
        Just(Fate::Refused),
    ];
    let liveness = prop_oneof![Just(Liveness::Alive), Just(Liveness::Dead)];
    let step = prop_oneof![
        3 => liveness.prop_map(Step::Claim),
        3 => (0..4_usize, fate).prop_map(|(who, fate)| Step::Begin(who, fate)),
        3 => (0..4_usize).prop_map(Step::Report),
        1 => Just(Step::TurnAway),
    ];
    proptest::collection::vec(step, 0..24)
}

/// One claim in the world outside the ledger.
struct Actor {
    fence: u64,
    /// It was held dead: it starts nothing any more.
    barred: bool,
    fate: Option<Fate>,
}

struct World {
    row: Option<Entry>,
    actors: Vec<Actor>,
    policy: OnAmbiguous,
}

impl World {
    fn write(&mut self, next: Entry) {
        if let Some(before) = &self.row {
            if *before == next {
                return;
            }
            assert_eq!(next.revision, before.revision + 1);
            assert!(next.fence >= before.fence);
            assert!(before.first_claimed.is_none() || next.first_claimed == before.first_claimed);
        }
        self.row = Some(next);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Claim(liveness) => self.claim(*liveness),
            Step::Begin(who, fate) => {
                let actor = self.actors.iter_mut().rev().nth(*who);
                if let Some(actor) = actor.filter(|a| !a.barred && a.fate.is_none()) {
                    actor.fate = Some(*fate);
                }
            }
            Step::Report(who) => {
                let actor = self.actors.iter().rev().nth(*who);
                if let Some(happened) = actor.and_then(report) {
                    self.happen(&happened);
                }
            }
            Step::TurnAway => {
                let happened = Happened::TurnedAway {
                    reply: "550".into(),
                };
                self.happen(&happened);
            }
        }
    }

    fn happen(&mut self, happened: &Happened) {
        if let Ok(next) = transition(self.row.as_ref(), happened, at(0)) {
            self.write(next);
        }
    }

    fn claim(&mut self, liveness: Liveness) {
        let nonce = self.actors.len() as u64 + 1;
        loop {
            match claim(self.row.as_ref(), &ask(nonce, self.policy), liveness) {
                Verdict::Claim(entry) => {
                    let fence = entry.fence;
                    self.write(entry);
                    return self.actors.push(Actor {
                        fence,
                        barred: false,
                        fate: None,
                    });
                }
                Verdict::Doubt(entry) => {
                    self.actors.iter_mut().for_each(|actor| actor.barred = true);
                    self.write(entry);
                }
                Verdict::Mine(_) => panic!("nobody else has this nonce"),
                Verdict::Busy(_) | Verdict::Done(_) | Verdict::Parked => return,
            }
        }
    }

    fn mails(&self) -> usize {
        let accepted =
            |a: &&Actor| matches!(a.fate, Some(Fate::Accepted | Fate::AcceptedReplyLost));
        self.actors.iter().filter(accepted).count()
    }
}

/// An actor that was barred before it began knows that nothing went out.
fn report(actor: &Actor) -> Option<Happened> {
    let fence = actor.fence;
    match actor.fate {
        None => actor.barred.then(|| deferred(fence)),
        Some(Fate::Accepted) => Some(accepted(fence)),
        Some(Fate::AcceptedReplyLost | Fate::NotAcceptedReplyLost) => Some(lost(fence)),
        Some(Fate::Deferred) => Some(deferred(fence)),
        Some(Fate::Refused) => Some(refused(fence)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mails_never_outnumber_the_recorded_doubts(steps in steps(), park: bool) {
        let policy = if park { OnAmbiguous::Park } else { OnAmbiguous::Resend };
        let mut world = World { row: None, actors: Vec::new(), policy };
        for step in &steps {
            world.step(step);
            let Some(row) = &world.row else { continue };
            let doubts = if park { 0 } else { row.ambiguities as usize };
            prop_assert!(world.mails() <= 1 + doubts);
            prop_assert!(row.doubtful.len() <= 2 && world.mails() <= 2);
            prop_assert!(row.state != State::Sent || world.mails() > 0);
        }
        // Everybody reports at last: what was accepted stands as SENT or AMBIGUOUS.
        for who in 0..world.actors.len() {
            world.step(&Step::Report(who));
        }
        let known = world.actors.iter().all(|actor| report(actor).is_some());
        if let Some(row) = world.row.filter(|row| known && row.state != State::Sending) {
            let mails = world.actors.iter().filter(|a| {
                matches!(a.fate, Some(Fate::Accepted | Fate::AcceptedReplyLost))
            });
            if mails.count() > 0 {
                prop_assert!(matches!(row.state, State::Sent | State::Ambiguous), "{row:?}");
            }
        }
    }
}
