#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::tests::{accepted, ask, at, deferred, lost, refused};
use super::*;

/// How many seconds a claim lasts.
const CLAIM: u64 = 100;

/// What the server did with one claim, and what its claimant learns about it.
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
    /// A worker wants to claim. The liveness is that of the row's claimant.
    Claim(Liveness),
    /// A claimant sends, if it still may.
    Begin(usize, Fate),
    /// A claimant's report reaches the row, perhaps late, perhaps twice.
    Report(usize),
    /// The mail is turned away.
    TurnAway,
    /// The mail is suppressed, until somebody claims again.
    Suppress,
    /// So many seconds pass.
    Wait(u64),
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
        1 => Just(Step::Suppress),
        1 => (0..400_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..24)
}

/// One claim, as the world outside the ledger sees it.
struct Actor {
    fence: u64,
    /// Its worker was considered dead: it starts nothing any more.
    barred: bool,
    fate: Option<Fate>,
    /// When its claim ends.
    deadline: u64,
}

struct World {
    row: Option<Entry>,
    actors: Vec<Actor>,
    policy: OnAmbiguous,
    now: u64,
    /// For how many seconds the server recognises a repeat.
    remembers: Option<u64>,
    /// When the server accepted the last mail that it did not recognise.
    known: Option<u64>,
    mails: usize,
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
                let (actor, now) = (self.actors.iter_mut().rev().nth(*who), self.now);
                let may_begin = |a: &&mut Actor| !a.barred && a.fate.is_none() && now <= a.deadline;
                if let Some(actor) = actor.filter(may_begin) {
                    actor.fate = Some(*fate);
                    self.deliver(*fate);
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
            Step::Suppress => {
                let happened = Happened::Suppressed {
                    reason: "cancelled".into(),
                };
                self.happen(&happened);
            }
            Step::Wait(seconds) => self.now += seconds,
        }
    }

    /// The server drops what it recognises, and says that it accepted it.
    fn deliver(&mut self, fate: Fate) {
        let accepted = matches!(fate, Fate::Accepted | Fate::AcceptedReplyLost);
        let (now, remembers) = (self.now, self.remembers);
        let knows = |at| remembers.is_some_and(|time| now < at + time);
        if accepted && !self.known.is_some_and(knows) {
            self.mails += 1;
            self.known = Some(now);
        }
    }

    fn happen(&mut self, happened: &Happened) {
        if let Ok(next) = transition(self.row.as_ref(), happened, at(self.now)) {
            self.write(next);
        }
    }

    fn claim(&mut self, liveness: Liveness) {
        let nonce = self.actors.len() as u64 + 1;
        let mut mine = ask(nonce, self.policy);
        (mine.now, mine.claimant.deadline) = (at(self.now), at(self.now + CLAIM));
        mine.provider_remembers = self.remembers.map(Duration::from_secs);
        loop {
            match claim(self.row.as_ref(), &mine, liveness) {
                Verdict::Claim(entry) => {
                    let fence = entry.fence;
                    self.write(entry);
                    return self.actors.push(Actor {
                        fence,
                        barred: false,
                        fate: None,
                        deadline: self.now + CLAIM,
                    });
                }
                Verdict::Doubt(entry) => {
                    self.actors.iter_mut().for_each(|actor| actor.barred = true);
                    self.write(entry);
                }
                Verdict::Mine(_) => panic!("nobody else has this nonce"),
                Verdict::Collision(_) => panic!("there is one item"),
                Verdict::Busy(_) | Verdict::Done(_) | Verdict::Parked => return,
            }
        }
    }
}

/// An actor that was stopped before it began knows that nothing was sent.
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
    fn mails_never_outnumber_the_recorded_doubts(
        steps in steps(),
        park: bool,
        remembers in proptest::option::of(300..1_000_u64),
    ) {
        let policy = if park { OnAmbiguous::Park } else { OnAmbiguous::Resend };
        let mut world = World {
            row: None,
            actors: Vec::new(),
            policy,
            now: 0,
            remembers,
            known: None,
            mails: 0,
        };
        for step in &steps {
            world.step(step);
            let Some(row) = &world.row else { continue };
            let doubts = if park { 0 } else { row.ambiguities as usize };
            prop_assert!(world.mails <= 1 + doubts, "{row:?}");
            prop_assert!(row.effects_in_doubt() <= 2 && world.mails <= 2);
            let known = row.second_acceptances() < world.mails.max(1);
            prop_assert!(remembers.is_some() || known, "{row:?}");
            prop_assert!(row.state != State::Sent || world.mails > 0);
            // A worker repeats it by itself only as long as it may.
            prop_assert!(remembers.is_some() || row.doubtful.len() <= 2);
        }
        // In the end everybody reports: an accepted mail is SENT or AMBIGUOUS.
        for who in 0..world.actors.len() {
            world.step(&Step::Report(who));
        }
        let known = world.actors.iter().all(|actor| report(actor).is_some());
        if let Some(row) = world.row.filter(|row| known && row.state != State::Sending)
            && world.mails > 0
        {
            prop_assert!(matches!(row.state, State::Sent | State::Ambiguous), "{row:?}");
        }
    }

    #[test]
    fn a_server_that_never_forgets_gets_an_effect_once_and_no_doubt_outlives_its_answer(
        steps in steps(),
        park: bool,
    ) {
        let policy = if park { OnAmbiguous::Park } else { OnAmbiguous::Resend };
        let mut world = World {
            row: None,
            actors: Vec::new(),
            policy,
            now: 0,
            remembers: Some(1_000_000),
            known: None,
            mails: 0,
        };
        for step in &steps {
            world.step(step);
            prop_assert!(world.mails <= 1);
            let Some(row) = &world.row else { continue };
            prop_assert_eq!(row.second_acceptances(), 0);
            prop_assert!(row.state != State::Sent || row.effects_in_doubt() == 0, "{:?}", row);
        }
    }
}
