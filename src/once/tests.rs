#![allow(clippy::unwrap_used)]

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::sync::Notify;

use super::*;
use crate::core::claim::{Entry, Liveness, State};
use crate::core::group::EffectName;
use crate::stores::ledger::memory::MemoryLedger;

const RESEND: OnAmbiguous = OnAmbiguous::Resend;

/// A worker whose effect is a charge, not an email.
struct Cashier {
    once: Once<MemoryLedger>,
    charges: Arc<AtomicUsize>,
}

fn key() -> EffectKey {
    EffectKey::new(&EffectName::new("charge").unwrap(), "o1")
}

impl Cashier {
    fn new(ledger: &MemoryLedger, on_ambiguous: OnAmbiguous) -> Self {
        let settings = OnceSettings {
            on_ambiguous,
            longest_effect: Duration::from_secs(1),
            ..OnceSettings::default()
        };
        Self {
            once: Once::new(ledger.clone(), settings, fastrand::Rng::new()),
            charges: Arc::default(),
        }
    }

    async fn perform<F, E>(&self, attempt: u32, effect: F) -> Result<(), Failure>
    where
        F: Fn(EffectAttempt) -> E,
        E: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let context = Context::detached().of_worker("me", Liveness::Dead);
        let context = context.of_attempt(attempt);
        let item = ItemRef {
            table: "orders".to_owned(),
            key: "o1".to_owned(),
            recipient: None,
        };
        self.once.perform(&key(), &item, &context, effect).await
    }

    /// Charges, and then returns what `answer` says.
    async fn charge(
        &self,
        attempt: u32,
        answer: fn() -> Result<Outcome, Failure>,
    ) -> Result<(), Failure> {
        let effect = |attempt: EffectAttempt| {
            let charges = self.charges.clone();
            async move {
                attempt.point_of_no_return().await?;
                charges.fetch_add(1, Ordering::SeqCst);
                answer()
            }
        };
        self.perform(attempt, effect).await
    }
}

async fn row(ledger: &MemoryLedger) -> Option<Entry> {
    ledger.read(&key()).await.unwrap()
}

#[tokio::test]
async fn an_effect_takes_place_once_however_often_it_is_asked_for() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, RESEND);
    for attempt in [1, 2, 1] {
        let done = || Ok(Outcome::Done("receipt 1".to_owned()));
        cashier.charge(attempt, done).await.unwrap();
    }
    let row = row(&ledger).await.unwrap();
    assert_eq!(
        (row.state, row.reply.as_deref()),
        (State::Sent, Some("receipt 1"))
    );
    assert_eq!(cashier.charges.load(Ordering::SeqCst), 1);
    assert_eq!(cashier.once.tally().of(Counted::Accepted), 1);
}

#[tokio::test]
async fn an_error_is_a_doubt_after_the_point_of_no_return_and_none_before() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, OnAmbiguous::Park);
    let before = |_| async { Err(Failure::unavailable("no card")) };
    let failed = cashier.perform(1, before).await;
    assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
    assert_eq!(row(&ledger).await, None);

    let lost = || Err(Failure::unavailable("no answer"));
    cashier.charge(2, lost).await.unwrap();
    let row = row(&ledger).await.unwrap();
    assert_eq!(
        (row.state, row.reply.as_deref()),
        (State::Ambiguous, Some("no answer"))
    );
    assert_eq!(cashier.once.tally().of(Counted::Parked), 1);
}

#[tokio::test]
async fn a_doubt_is_resolved_by_the_policy_at_most_once() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, RESEND);
    let lost = || Ok(Outcome::Unknown("no answer".to_owned()));
    let first = cashier.charge(1, lost).await;
    assert!(matches!(first, Err(Failure::Retry(_))), "{first:?}");
    for attempt in 2..5 {
        cashier.charge(attempt, lost).await.unwrap();
    }
    assert_eq!(cashier.charges.load(Ordering::SeqCst), 2);
    assert_eq!(row(&ledger).await.unwrap().ambiguities, 2);
}

#[tokio::test]
async fn what_was_sent_in_doubt_is_repeated_byte_for_byte_after_a_deployment() {
    let ledger = MemoryLedger::new();
    let repeated: Arc<Mutex<Vec<Option<Vec<u8>>>>> = Arc::default();
    for (attempt, version) in [(1, "old"), (2, "new")] {
        let effect = |attempt: EffectAttempt| {
            let repeated = repeated.clone();
            async move {
                let payload = attempt.to_repeat().map(<[u8]>::to_vec);
                repeated.lock().unwrap().push(payload.clone());
                let payload = payload.unwrap_or_else(|| version.into());
                attempt.keeping(payload).point_of_no_return().await?;
                Ok(Outcome::Unknown("no answer".to_owned()))
            }
        };
        let worker = Cashier::new(&ledger, RESEND);
        // The second doubt waits for a person.
        assert_eq!(worker.perform(attempt, effect).await.is_ok(), attempt == 2);
    }
    assert_eq!(*repeated.lock().unwrap(), [None, Some(b"old".to_vec())]);
}

/// A caller that is gone by the time the effect reaches `notify`.
async fn abandoned<F, E>(cashier: &Cashier, notify: &Notify, effect: F)
where
    F: Fn(EffectAttempt) -> E,
    E: Future<Output = Result<Outcome, Failure>> + Send + 'static,
{
    tokio::select! {
        biased;
        () = notify.notified() => {}
        result = cashier.perform(1, effect) => panic!("{result:?}"),
    }
    assert_eq!(cashier.once.finish(Duration::from_secs(10)).await, 0);
}

#[tokio::test]
async fn an_effect_that_has_begun_is_seen_through_without_its_caller() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, RESEND);
    let begun = Arc::new(Notify::new());
    let effect = |attempt: EffectAttempt| {
        let begun = begun.clone();
        async move {
            attempt.point_of_no_return().await?;
            begun.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Outcome::Done("late".to_owned()))
        }
    };
    abandoned(&cashier, &begun, effect).await;
    let row = row(&ledger).await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Sent, 0));
}

#[tokio::test]
async fn an_effect_that_has_not_begun_ends_with_its_caller_and_the_ledger_says_so() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, RESEND);
    let claimed = Arc::new(Notify::new());
    let effect = |attempt: EffectAttempt| {
        let notify = claimed.clone();
        async move {
            let _claimed = attempt.claim().await;
            notify.notify_one();
            pending().await
        }
    };
    abandoned(&cashier, &claimed, effect).await;
    let row = row(&ledger).await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Retry, 0));
}

#[tokio::test]
async fn an_effect_that_panics_after_it_has_begun_is_in_doubt_and_its_caller_panics() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, RESEND);
    let panics = cashier.charge(1, || panic!("no change"));
    let panic = AssertUnwindSafe(panics).catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"no change"));
    assert_eq!(row(&ledger).await.unwrap().state, State::Ambiguous);
}

#[tokio::test]
async fn an_effect_that_never_claims_is_rejected() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, RESEND);
    let unclaimed = |_| async { Ok(Outcome::Done("receipt".to_owned())) };
    let result = cashier.perform(1, unclaimed).await;
    assert!(matches!(result, Err(Failure::Reject(_))), "{result:?}");
    assert_eq!(row(&ledger).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_gets_no_answer_in_time_is_in_doubt() {
    let ledger = MemoryLedger::new();
    let cashier = Cashier::new(&ledger, OnAmbiguous::Park);
    let silent = |attempt: EffectAttempt| async move {
        attempt.point_of_no_return().await?;
        pending().await
    };
    cashier.perform(1, silent).await.unwrap();
    let row = row(&ledger).await.unwrap();
    assert_eq!(
        (row.state, row.reply.as_deref()),
        (State::Ambiguous, Some("no answer within 1s"))
    );
}
