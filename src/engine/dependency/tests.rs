//! Turns, with a dependency that works, fails or is overloaded.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;

fn end(turn: Turn, result: Result<(), Failure>) {
    let _ = end_of(turn, result, &mut Blame::default());
}

fn end_of(turn: Turn, result: Result<(), Failure>, blame: &mut Blame) -> Result<(), Failure> {
    turn.end(result, &Context::detached(), blame)
}

/// A success that did not call the dependency.
fn end_unasked(turn: Turn) {
    let context = Context::detached();
    context.did_not_ask();
    let _ = turn.end(Ok(()), &context, &mut Blame::default());
}

fn dependency(limits: &Limits) -> Dependency {
    Dependency::new(limits, fastrand::Rng::with_seed(7))
}

fn turn(of: &Dependency) -> Turn {
    match of.ask(Try::First) {
        Admission::Go(turn) => turn,
        held => panic!("{held:?}"),
    }
}

fn waits(of: &Dependency) -> Duration {
    match of.ask(Try::First) {
        Admission::Wait(wait) => wait,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn when_it_is_down_nobody_goes_but_one_probe_and_its_answer_lets_all_go() {
    let it = dependency(&Limits::default());
    let also_running = turn(&it);
    end(turn(&it), Err(Failure::unavailable("no route")));
    assert_eq!(it.down_for(), Some(Duration::ZERO));
    // Calls that ran before prove nothing.
    end(also_running, Ok(()));
    tokio::time::advance(waits(&it)).await;
    let probe = turn(&it);
    let held = waits(&it);
    drop(probe);
    let probe = turn(&it);
    end(probe, Ok(()));
    assert_eq!(it.down_for(), None);
    let _all = [turn(&it), turn(&it), turn(&it)];
    assert!(held > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_a_turn_that_is_refused_costs_nothing() {
    let it = dependency(&Limits {
        per_second: Some(10.0),
        ..Limits::default()
    });
    let (began, mut made) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(10) {
        match it.ask(Try::First) {
            Admission::Go(turn) => {
                end(turn, Ok(()));
                made += 1;
            }
            Admission::Wait(wait) => tokio::time::advance(wait.max(FULL / 20)).await,
            Admission::Later(wait) => panic!("{wait:?}"),
        }
    }
    assert!((98..=103).contains(&made), "{made}");
}

#[tokio::test(start_paused = true)]
async fn overload_halves_what_runs_at_a_time() {
    let it = dependency(&Limits {
        at_once: 8,
        ..Limits::default()
    });
    let turns: Vec<_> = (0..8).map(|_| turn(&it)).collect();
    assert_eq!(waits(&it), FULL);
    tokio::time::advance(FULL).await;
    for turn in turns {
        end(turn, Err(Failure::Overloaded(anyhow::anyhow!("421"))));
    }
    assert_eq!(it.at_once(), 4);
    assert_eq!(it.down_for(), None, "it answers");
}

#[tokio::test(start_paused = true)]
async fn retries_wait_for_their_budget_and_first_tries_do_not() {
    let it = dependency(&Limits::default());
    let failed = || Err(Failure::retry("no"));
    let (mut made, mut blame) = (0, Blame::default());
    let wait = loop {
        match it.ask(Try::Again) {
            Admission::Go(turn) => drop(end_of(turn, failed(), &mut blame)),
            Admission::Later(wait) => break wait,
            Admission::Wait(wait) => panic!("{wait:?}"),
        }
        made += 1;
    };
    assert_eq!(made, 10);
    end(turn(&it), Ok(()));
    tokio::time::advance(wait).await;
    assert!(matches!(it.ask(Try::Again), Admission::Go(_)));
}

#[tokio::test(start_paused = true)]
async fn asking_in_vain_neither_earns_nor_spends_retries() {
    let it = dependency(&Limits {
        at_once: 1,
        ..Limits::default()
    });
    let running = turn(&it);
    for _ in 0..100 {
        assert!(matches!(it.ask(Try::Again), Admission::Wait(_)));
    }
    drop(running);
    let (mut made, mut blame) = (0, Blame::default());
    while let Admission::Go(turn) = it.ask(Try::Again) {
        drop(end_of(turn, Err(Failure::retry("no")), &mut blame));
        made += 1;
    }
    assert_eq!(made, 10);
    let _running = turn(&it);
    for _ in 0..100 {
        assert!(matches!(it.ask(Try::First), Admission::Wait(_)));
    }
    assert!(matches!(it.ask(Try::Again), Admission::Later(_)));
}

#[tokio::test(start_paused = true)]
async fn records_that_are_bad_say_nothing_about_it() {
    let it = dependency(&Limits::default());
    end(turn(&it), Err(Failure::unavailable("no route")));
    tokio::time::advance(waits(&it)).await;
    end(turn(&it), Err(Failure::reject("no address")));
    assert!(it.down_for().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_alone_finds_it_down_is_to_blame_and_opens_no_circuit() {
    let it = dependency(&Limits::default());
    let mut blame = Blame::default();
    let found = end_of(turn(&it), Err(Failure::unavailable("hung up")), &mut blame);
    assert!(matches!(found, Err(Failure::Unavailable(_))));
    tokio::time::advance(waits(&it)).await;
    for _ in 0..10 {
        end(turn(&it), Ok(()));
    }
    let found = end_of(turn(&it), Err(Failure::unavailable("hung up")), &mut blame);
    let Err(Failure::Retry(error)) = found else {
        panic!("{found:?}");
    };
    assert!(format!("{error:#}").ends_with("blamed on this record: hung up"));
    assert_eq!(it.down_for(), None);
    // Another record that finds it down is believed. So is this one, if nobody is served.
    end(turn(&it), Err(Failure::unavailable("no route")));
    tokio::time::advance(waits(&it)).await;
    let found = end_of(turn(&it), Err(Failure::unavailable("no route")), &mut blame);
    assert!(matches!(found, Err(Failure::Unavailable(_))));
    assert!(it.down_for().is_some());
}

#[tokio::test(start_paused = true)]
async fn several_records_in_a_row_that_are_refused_or_put_off_are_its_fault() {
    for fail in [Failure::refused, Failure::retry] as [fn(&'static str) -> Failure; 2] {
        let it = dependency(&Limits::default());
        for _ in 0..4 {
            let failed = end_of(turn(&it), Err(fail("553 not yours")), &mut Blame::default());
            assert!(matches!(failed, Err(Failure::Retry(_))), "{failed:?}");
        }
        assert_eq!(it.down_for(), None);
        let failed = end_of(turn(&it), Err(fail("553 not yours")), &mut Blame::default());
        assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
        assert_eq!(it.down().unwrap().why, "553 not yours");
        // A probe that fails in the same way does not count as an attempt, either.
        tokio::time::advance(waits(&it)).await;
        let failed = end_of(turn(&it), Err(fail("553 not yours")), &mut Blame::default());
        assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_while_others_are_served_is_rejected_and_opens_no_circuit() {
    let it = dependency(&Limits::default());
    let refused = || Err(Failure::refused("550 no such mailbox"));
    let mut bad = [Blame::default(), Blame::default()];
    for _ in 1..Blame::STRIKES {
        for blame in &mut bad {
            let failed = end_of(turn(&it), refused(), blame);
            assert!(matches!(failed, Err(Failure::Retry(_))), "{failed:?}");
        }
        end(turn(&it), Ok(()));
    }
    for blame in &mut bad {
        let failed = end_of(turn(&it), refused(), blame);
        assert!(matches!(failed, Err(Failure::Reject(_))), "{failed:?}");
    }
    assert_eq!(it.down_for(), None);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_two_outages_reject_no_record_however_many_are_served_in_between() {
    let it = dependency(&Limits::default());
    let refused = || Err(Failure::refused("550 not your sender"));
    let mut unlucky = Blame::default();
    for _ in 0..10 {
        let failed = end_of(turn(&it), refused(), &mut unlucky);
        assert!(matches!(failed, Err(Failure::Retry(_))), "{failed:?}");
        while it.down().is_none() {
            end(turn(&it), refused());
        }
        tokio::time::advance(waits(&it)).await;
        let failed = end_of(turn(&it), refused(), &mut unlucky);
        assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
        tokio::time::advance(waits(&it)).await;
        for _ in 0..20 {
            end(turn(&it), Ok(()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_effects_in_doubt_in_a_row_shut_it_and_it_is_tried_minutes_later() {
    for result in [Ok, |()| Err(Failure::retry("hung up"))] as [fn(()) -> Result<(), Failure>; 2] {
        let it = dependency(&Limits::default());
        let doubt = |turn: Turn| {
            let context = Context::detached();
            context.is_in_doubt("hung up after the final dot");
            drop(turn.end(result(()), &context, &mut Blame::default()));
        };
        doubt(turn(&it));
        assert_eq!(it.down_for(), None);
        doubt(turn(&it));
        assert_eq!(it.down().unwrap().why, "hung up after the final dot");
        let wait = waits(&it);
        assert!(wait >= Duration::from_mins(1), "{wait:?}");
        tokio::time::advance(wait).await;
        end(turn(&it), Ok(()));
        assert_eq!(it.down_for(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_that_asked_nothing_neither_closes_the_circuit_nor_puts_a_record_to_blame() {
    let it = dependency(&Limits::default());
    let mut blame = Blame::default();
    let down = || Err(Failure::unavailable("no route"));
    let _ = end_of(turn(&it), down(), &mut blame);
    for _ in 0..5 {
        tokio::time::advance(waits(&it)).await;
        for _ in 0..20 {
            end_unasked(turn(&it));
        }
        assert!(it.down_for().is_some(), "nobody knows that it is back");
        let found = end_of(turn(&it), down(), &mut blame);
        assert!(matches!(found, Err(Failure::Unavailable(_))), "{found:?}");
    }
    tokio::time::advance(waits(&it)).await;
    end(turn(&it), Ok(()));
    assert_eq!(it.down_for(), None);
}

/// Asks for a turn when there is none.
fn in_line(of: &Dependency) -> Asker {
    let mut asker = of.asker();
    assert!(matches!(asker.ask(Try::First), Admission::Wait(_)));
    asker
}

#[tokio::test(start_paused = true)]
async fn an_end_wakes_only_the_next_however_many_wait() {
    use futures_util::FutureExt as _;
    let it = dependency(&Limits {
        at_once: 2,
        ..Limits::default()
    });
    let (one, _other) = (turn(&it), turn(&it));
    let mut all: Vec<_> = (0..500).map(|_| in_line(&it)).collect();
    let woken = |all: &mut [Asker]| -> Vec<usize> {
        let all = all.iter_mut().enumerate();
        let woken = all.filter_map(|(n, asker)| asker.freed().now_or_never().map(|()| n));
        woken.collect()
    };
    assert!(woken(&mut all).is_empty());
    end(one, Ok(()));
    assert_eq!(woken(&mut all), [0]);
    // It does something else: the next one goes in its place.
    all[0].leave();
    assert_eq!(woken(&mut all), [1]);
    assert!(matches!(all[2].ask(Try::First), Admission::Wait(_)));
    assert!(matches!(all[1].ask(Try::First), Admission::Go(_)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_turn_gets_it_and_one_that_is_kept_is_not_asked_for() {
    let it = dependency(&Limits {
        at_once: 1,
        ..Limits::default()
    });
    let first = turn(&it);
    let mut asker = it.asker();
    let (second, ()) = tokio::join!(asker.turn(Try::First), async {
        tokio::task::yield_now().await;
        end(first, Ok(()));
    });
    asker.keep(second);
    assert!(matches!(asker.ask(Try::First), Admission::Go(_)));
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_less_for_a_minute_and_serves_nobody_counts_as_down() {
    let it = dependency(&Limits::default());
    let overloaded = || Err(Failure::overloaded("421 too many connections"));
    let next = async || loop {
        match it.ask(Try::First) {
            Admission::Go(turn) => return turn,
            Admission::Wait(wait) | Admission::Later(wait) => tokio::time::sleep(wait).await,
        }
    };
    let began = Instant::now();
    while it.down().is_none() {
        end(next().await, overloaded());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_mins(10));
    }
    assert!(began.elapsed() >= OVERLOADED);
    assert_eq!(it.down().unwrap().why, "421 too many connections");
    // A probe finds it as before, until a call is served.
    end(next().await, overloaded());
    assert!(it.down().is_some());
    end(next().await, Ok(()));
    assert!(it.down().is_none());
    end(next().await, overloaded());
    assert!(it.down().is_none());
}
