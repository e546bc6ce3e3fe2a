#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

fn orders(ambiguous: u64) -> Needed {
    Needed {
        ambiguous,
        ..Needed::default()
    }
}

/// Counts its queries, and answers with the count after this delay.
fn slow(takes: Duration) -> (Arc<AtomicU64>, OrdersInNeed) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let attention = OrdersInNeed::by(move || {
        let nth = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            tokio::time::sleep(takes).await;
            Ok(orders(nth))
        }
    });
    (asked, attention)
}

#[tokio::test(start_paused = true)]
async fn who_looks_waits_a_second_and_the_next_look_has_the_answer_even_if_the_first_has_gone() {
    let (asked, attention) = slow(Duration::from_secs(3));
    let began = Instant::now();
    let reported = attention.orders().await;
    assert_eq!(began.elapsed(), PATIENCE);
    let why = reported.unwrap_err();
    assert_eq!(why, "orders that need attention are not counted yet");
    let given_up = timeout(Duration::from_millis(100), attention.orders());
    given_up.await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(attention.orders().await, Ok(orders(1)));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_good_for_twenty_times_as_long_as_it_took() {
    let (asked, attention) = slow(Duration::from_millis(900));
    for (after, nth) in [(0, 1), (17, 1), (2, 2)] {
        tokio::time::sleep(Duration::from_secs(after)).await;
        assert_eq!(attention.orders().await, Ok(orders(nth)));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_is_shown_for_five_minutes_while_no_other_comes_and_then_why_not() {
    let hangs = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let does = hangs.clone();
    let attention = OrdersInNeed::by(move || {
        let hangs = does.load(Ordering::Relaxed);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(orders(7))
        }
    });
    assert_eq!(attention.orders().await, Ok(orders(7)));
    hangs.store(true, Ordering::Relaxed);
    for _ in 0..28 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        let began = Instant::now();
        assert_eq!(attention.orders().await, Ok(orders(7)));
        assert!(began.elapsed() <= PATIENCE);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let why = attention.orders().await.unwrap_err();
    assert!(
        why.contains("cannot be counted (no answer within 5 s)"),
        "{why}"
    );
}
