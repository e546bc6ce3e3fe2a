//! An hour and more of a fleet whose relay goes through every fault, one after another. Virtual time.

use std::time::Duration;

use aftercommit::internal::claim::OnAmbiguous;

use crate::fault_cases::{Case, table};
use crate::mail_server::{Act, Fault, Script, Step};
use crate::relay::{Shop, Staff, customer, is_of_the_connection};

const WORKERS: u64 = 3;

/// So many orders one fault may put in doubt in one process.
const DOUBTS: usize = 5;

/// A fault of the table, as far as it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lasting {
    step: Step,
    act: Act,
    kept: bool,
    /// It meets one order of many.
    one: bool,
}

/// The faults of the table of those that strike once, but for what fares as another one does there: a
/// connection that breaks in another way than by a hang-up, a reply that is out of turn, and TLS and EHLO,
/// which fail as the greeting does.
fn faults(one: bool) -> Vec<Lasting> {
    let lasts = |case: &Case| match case.act {
        _ if matches!(case.step, Step::Tls | Step::StartTls | Step::Ehlo) => false,
        _ if case.step == Step::Dot && case.act == Act::Say("354 what") => true,
        Act::Close => true,
        Act::Silence => matches!(case.step, Step::Greeting | Step::Mail | Step::Dot),
        Act::Say(words) => !words.starts_with(['2', '3']),
        _ => false,
    };
    let of_a_mail = |case: &Case| !one || matches!(case.step, Step::Rcpt | Step::Data | Step::Dot);
    let table = table();
    let cases = table.iter().filter(|case| lasts(case) && of_a_mail(case));
    let faults = cases.map(|case| Lasting {
        step: case.step,
        act: case.act.clone(),
        kept: case.kept,
        one,
    });
    faults.collect()
}

/// What a fault is followed by. A server that broke off after the final dot is tried again within two
/// minutes.
fn rest(fault: &Lasting) -> Duration {
    match fault.step {
        Step::Dot => Duration::from_secs(150),
        _ => Duration::from_secs(20),
    }
}

/// Everything in turn, in an order of the seed's own: a fault meets all orders, or one of many.
async fn hour(seed: u64, policy: OnAmbiguous) {
    let script = Script {
        auth: "PLAIN",
        ..Script::default()
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut all: Vec<_> = faults(false).into_iter().chain(faults(true)).collect();
    // A mailbox that does not exist is nobody's fault but the order's.
    all.retain(|fault| fault.act != Act::Say("550 5.1.1 nobody"));
    // A refusal of one order of many is.
    all.retain(|fault| {
        !fault.one || !matches!(fault.act, Act::Say(words) if words.starts_with('5'))
    });
    rng.shuffle(&mut all);
    let staff = Staff {
        workers: WORKERS,
        policy,
        seed,
    };
    let mut shop = Shop::open(staff, script);
    shop.orders(40, Duration::from_mins(2)).await;
    for fault in all {
        let before = shop.fate().await.ever_in_doubt;
        if fault.step == Step::Connect {
            shop.server.go_away();
        } else {
            if is_of_the_connection(fault.step) {
                shop.server.go_away();
                shop.server.come_back_in_memory();
            }
            shop.server.add(strikes(&fault, shop.next()));
        }
        shop.orders(20, Duration::from_secs(40)).await;
        shop.server.heal();
        if fault.step == Step::Connect {
            shop.server.come_back_in_memory();
        }
        shop.orders(10, rest(&fault)).await;
        let doubts = shop.fate().await.ever_in_doubt - before;
        let most = DOUBTS * usize::try_from(WORKERS).unwrap();
        assert!(doubts <= most, "seed {seed}: {doubts} doubts by {fault:?}");
    }
    tokio::time::sleep(Duration::from_hours(2)).await;
    let fate = shop.fate().await;
    assert!(fate.letters.is_empty(), "seed {seed}: {fate:?}");
    let kept = fate.mailed + fate.in_doubt;
    assert!(kept >= fate.orders, "seed {seed}: {fate:?}");
    if policy == OnAmbiguous::Park {
        assert_eq!(fate.twice, 0, "seed {seed}: {fate:?}");
    }
}

fn strikes(fault: &Lasting, next: usize) -> Fault {
    let mut strikes = Fault::always(fault.step, fault.act.clone());
    if fault.kept {
        strikes = strikes.keeping();
    }
    if fault.one {
        strikes = strikes.for_recipient(&customer(next + 5));
    }
    strikes
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_goes_through_every_fault_loses_nothing_under_resend() {
    for seed in 0..2 {
        hour(seed, OnAmbiguous::Resend).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_goes_through_every_fault_loses_nothing_under_park() {
    for seed in 3..5 {
        hour(seed, OnAmbiguous::Park).await;
    }
}
