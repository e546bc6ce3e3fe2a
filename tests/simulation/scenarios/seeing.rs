//! What a worker does that cannot see the lease table, and what it looks at last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::calls::{Fate, Heard};
use super::stage::{Stage, eventually, pass, secs};

/// A table whose looks fail while `blind`.
fn seen_unless(stage: &Stage, blind: &Arc<AtomicBool>) -> Heard {
    Heard::failing_while(&stage.leases, blind, |call| call == "look")
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_worker_that_beats_but_cannot_look_move_to_others_until_it_can() {
    let stage = Stage::new(4);
    let lease_duration = stage.settings.timing.lease_duration;
    let blind = Arc::new(AtomicBool::new(false));
    let table = seen_unless(&stage, &blind);
    let _one = stage.worker_on("one", stage.stream.clone(), table);
    let _two = stage.worker("two");
    eventually(secs(20), "a fair share", || stage.owned_by("one") == 2).await;

    blind.store(true, Ordering::Relaxed);
    let names = stage.commit_many("meanwhile", 40);
    // Two lease durations without a look, and one without a heartbeat.
    let moved = lease_duration * 3 + secs(4);
    eventually(moved, "all of them", || stage.owned_by("two") == 4).await;
    eventually(secs(2), "their records", || {
        let done = stage.hand.sorted();
        names.iter().all(|name| done.contains(name))
    })
    .await;
    pass(secs(120)).await;
    assert_eq!(stage.owned_by("two"), 4, "nothing is given to the blind");

    blind.store(false, Ordering::Relaxed);
    eventually(secs(10), "a fair share", || stage.owned_by("one") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn trust_counts_from_the_beginning_of_a_look_however_late_its_answer() {
    let stage = Stage::new(1);
    let timing = stage.settings.timing.clone();
    let late = timing.call_timeout().saturating_sub(secs(1) / 4);
    let blind = Arc::new(AtomicBool::new(false));
    let last = Arc::new(Mutex::new(Instant::now()));
    let (is_blind, begun) = (blind.clone(), last.clone());
    let table = Heard::failing(&stage.leases, move |call, _| match call {
        "look" if is_blind.load(Ordering::Relaxed) => Fate::Fails,
        "look" => {
            *begun.lock().unwrap() = Instant::now();
            Fate::Late(late)
        }
        _ => Fate::Fine,
    });
    let one = stage.worker_on("one", stage.stream.clone(), table);
    eventually(secs(20), "the lease", || stage.owned_by("one") == 1).await;
    pass(secs(20)).await;
    let lapses = || one.counters.lapses.load(Ordering::Relaxed);
    assert_eq!(lapses(), 0, "late answers alone do not end trust");

    blind.store(true, Ordering::Relaxed);
    eventually(secs(40), "the lapse", || lapses() == 1).await;
    let after = last.lock().unwrap().elapsed();
    // It is noticed when the next look fails.
    let noticed = timing.lease_duration / 10 + secs(1) / 10;
    assert!(
        after <= timing.trust() * 3 + noticed,
        "{after:?} after the look"
    );
}

#[tokio::test(start_paused = true)]
async fn a_look_and_a_heartbeat_that_fail_are_repeated_ever_more_seldom() {
    let stage = Stage::new(1);
    let down = Arc::new(AtomicBool::new(false));
    let table = Heard::failing_while(&stage.leases, &down, |_| true);
    let one = stage.worker_on("one", stage.stream.clone(), table.clone());
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    let count = || (table.count("look"), table.count("heartbeat"));
    let before = count();
    down.store(true, Ordering::Relaxed);
    pass(secs(60)).await;
    let after = count();
    for (what, calls) in [
        ("looks", after.0 - before.0),
        ("heartbeats", after.1 - before.1),
    ] {
        // Soon enough for trust to survive a hiccup, and no flood.
        assert!((20..=180).contains(&calls), "{calls} {what} in a minute");
    }
    down.store(false, Ordering::Relaxed);
    eventually(secs(5), "that it is ready", || one.status.ready().is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_gives_back_what_it_took_without_knowing() {
    let stage = Stage::new(1);
    let only = stage.stream.open_shards()[0].clone();
    let table = Heard::failing(&stage.leases, |call, before| {
        if call == "take" && before == 0 {
            Fate::Unanswered
        } else {
            Fate::Fine
        }
    });
    let one = stage.worker_on("one", stage.stream.clone(), table.clone());
    eventually(secs(5), "a take", || table.count("take") == 1).await;
    assert_eq!(
        stage.owner(&only).as_deref(),
        Some("one"),
        "the take was applied"
    );
    one.leave().await;
    assert_eq!(
        stage.owner(&only),
        None,
        "so that the next worker takes it at once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_waits_for_no_look_that_is_not_answered() {
    let stage = Stage::new(1);
    let blind = Arc::new(AtomicBool::new(false));
    let one = stage.worker_on("one", stage.stream.clone(), seen_unless(&stage, &blind));
    let _two = stage.worker("two");
    eventually(secs(10), "a share", || {
        stage.owned_by("one") + stage.owned_by("two") == 1
    })
    .await;
    blind.store(true, Ordering::Relaxed);
    let patience = stage.settings.timing.call_timeout() + secs(1);
    let left = tokio::time::timeout(patience, one.leave()).await;
    assert!(left.is_ok(), "not gone after {patience:?}");
}
