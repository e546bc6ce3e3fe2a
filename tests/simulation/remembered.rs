//! A mail server that recognises a second mail by a header: every order is accepted once, whatever
//! breaks after the final dot. Virtual time.

use std::time::Duration;

use aftercommit::internal::claim::OnAmbiguous;
use tokio::time::sleep;

use crate::mail_server::{Act, Fault, Script, Step, Whose};
use crate::relay::{Fate, Shop, Staff};

const ORDERS: u32 = 300;

/// An hour in which connections break after the final dot, with the mail accepted or not, and workers
/// die. How the orders fare in the end, and how many mails the server recognised.
async fn bad_hour(policy: OnAmbiguous, recognises: Option<&'static str>) -> (Fate, usize) {
    let breaks = |of| Fault::always(Step::Dot, Act::Close).for_one_in(of, Whose::Connection);
    let script = Script {
        auth: "PLAIN",
        recognises,
        ..Script::default()
    };
    let script = script.fault(breaks(2).keeping()).fault(breaks(3));
    let staff = Staff {
        workers: 2,
        policy,
        seed: 11,
    };
    let mut shop = Shop::open(staff, script);
    for worker in [0, 1, 0] {
        shop.orders(ORDERS / 3, Duration::from_mins(20)).await;
        shop.crash(worker);
    }
    shop.server.heal();
    let mut fate = shop.fate().await;
    for _ in 0..48 {
        if fate.waiting == 0 && fate.in_doubt == 0 {
            break;
        }
        sleep(Duration::from_mins(10)).await;
        fate = shop.fate().await;
    }
    (fate, shop.server.recognised())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_recognises_repeats_gets_every_order_once_and_no_doubt_remains() {
    for policy in [OnAmbiguous::Resend, OnAmbiguous::Park] {
        let (fate, recognised) = bad_hour(policy, Some("Resend-Idempotency-Key")).await;
        let expected = Fate {
            orders: ORDERS as usize,
            mailed: ORDERS as usize,
            ever_in_doubt: fate.ever_in_doubt,
            ..Fate::default()
        };
        assert_eq!(fate, expected, "{policy:?}");
        assert!(
            fate.ever_in_doubt > 5 && recognised > 5,
            "{policy:?}: {recognised}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_header_the_same_hour_leaves_orders_mailed_twice_or_in_doubt() {
    let (fate, _) = bad_hour(OnAmbiguous::Resend, None).await;
    assert!(fate.twice > 0, "{fate:?}");
    let (fate, _) = bad_hour(OnAmbiguous::Park, None).await;
    assert!(fate.twice == 0 && fate.in_doubt > 0, "{fate:?}");
}
