//! A shop whose mail server has bad spells of minutes or hours: faults of every kind, which meet everybody,
//! one node of several, or some recipients, while workers die. Virtual time; each seed is a world of its
//! own.
//!
//! `AFTERCOMMIT_REPLAY=SEED` runs one seed alone, `AFTERCOMMIT_SEEDS=NUMBER` that many.

use std::time::Duration;

use aftercommit::internal::claim::OnAmbiguous;
use tokio::time::{Instant, sleep};

use crate::fault_cases::table;
use crate::mail_server::{Act, Fault, Script, Step, Whose};
use crate::relay::{Shop, Staff, is_of_the_connection};

/// How many seeds a run of the tests takes.
const SEEDS: u64 = 60;

/// So many orders a process may leave in doubt when its server breaks, or when it dies.
const DOUBTS: u32 = 5;

const MINUTE: Duration = Duration::from_mins(1);

/// Whom a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    Everybody,
    /// One in so many connections, or recipients.
    Some(Whose, usize),
}

/// A time for which the server is unwell.
#[derive(Debug, Clone)]
struct Spell {
    step: Step,
    act: Act,
    keeps: bool,
    whom: Whom,
    lasts: Duration,
    /// Between two orders.
    pause: Duration,
    /// A worker dies in it.
    crash: bool,
}

impl Spell {
    fn drawn(rng: &mut fastrand::Rng) -> Self {
        let lasting = |act: &Act| match act {
            Act::Close | Act::Silence => true,
            Act::Say(words) => words.starts_with(['4', '5']),
            _ => false,
        };
        let mut faults = table();
        faults.retain(|case| {
            lasting(&case.act)
                && !matches!(case.step, Step::Tls | Step::StartTls)
                // A mailbox that does not exist is nobody's fault but the order's.
                && case.act != Act::Say("550 5.1.1 nobody")
        });
        let case = &faults[rng.usize(..faults.len())];
        let is_of_a_mail = case.step >= Step::Rcpt && case.step < Step::Noop;
        let of = rng.usize(2..6);
        let whom = match rng.u8(..4) {
            0 if case.step != Step::Connect => Whom::Some(Whose::Connection, of),
            // A 5xx to one recipient and not to others is that recipient's.
            1 if is_of_a_mail && !matches!(case.act, Act::Say(words) if words.starts_with('5')) => {
                Whom::Some(Whose::Recipient, of)
            }
            _ => Whom::Everybody,
        };
        let minutes = match rng.u8(..4) {
            0 | 1 => rng.u64(1..10),
            2 => rng.u64(10..60),
            // Some recipients are put off for less than an order is tried.
            _ => rng.u64(60..300),
        };
        let pause = match minutes {
            ..10 => rng.u64(1..20),
            10..60 => rng.u64(5..60),
            _ => rng.u64(30..300),
        };
        Self {
            step: case.step,
            act: case.act.clone(),
            keeps: case.kept,
            whom,
            lasts: MINUTE * u32::try_from(minutes).unwrap(),
            pause: Duration::from_secs(pause),
            crash: rng.u8(..4) == 0,
        }
    }

    fn begin(&self, shop: &Shop) {
        if self.step == Step::Connect {
            return shop.server.go_away();
        }
        // Whoever is connected would not meet it.
        if is_of_the_connection(self.step) {
            shop.server.go_away();
            shop.server.come_back_in_memory();
        }
        let mut fault = Fault::always(self.step, self.act.clone());
        if self.keeps {
            fault = fault.keeping();
        }
        if let Whom::Some(whose, of) = self.whom {
            fault = fault.for_one_in(of, whose);
        }
        shop.server.add(fault);
    }

    fn end(&self, shop: &Shop) {
        shop.server.heal();
        if self.step == Step::Connect {
            shop.server.come_back_in_memory();
        }
    }

    /// How many orders a process may leave in doubt: those that are out when the server breaks, one with
    /// each try, and a second one where most are served.
    fn most_doubts(&self) -> u32 {
        let minutes = self.lasts.as_secs() / 60;
        let tries = minutes.ilog2() + u32::try_from(minutes / 60).unwrap() + 1;
        let each = if self.whom == Whom::Everybody { 1 } else { 2 };
        DOUBTS + tries * each
    }
}

/// What a seed decides.
struct Plan {
    staff: Staff,
    spells: Vec<Spell>,
    rng: fastrand::Rng,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let policies = [OnAmbiguous::Resend, OnAmbiguous::Park];
        let policy = policies[usize::from(rng.bool())];
        let staff = Staff {
            workers: rng.u64(1..4),
            policy,
            seed,
        };
        let spells = (0..rng.usize(1..5)).map(|_| Spell::drawn(&mut rng));
        let spells = spells.collect();
        Self { staff, spells, rng }
    }

    /// What promise is broken.
    async fn run(mut self) -> Result<(), String> {
        let script = Script {
            auth: "PLAIN",
            ..Script::default()
        };
        let mut shop = Shop::open(self.staff, script);
        for spell in &self.spells {
            shop.orders(20, MINUTE * self.rng.u32(1..10)).await;
            let before = shop.fate().await.ever_in_doubt;
            spell.begin(&shop);
            let (end, mut crash) = (Instant::now() + spell.lasts, spell.crash);
            while Instant::now() < end {
                shop.order();
                sleep(spell.pause).await;
                if crash && self.rng.u8(..20) == 0 {
                    crash = false;
                    shop.crash(
                        self.rng
                            .usize(..usize::try_from(self.staff.workers).unwrap()),
                    );
                }
            }
            spell.end(&shop);
            // What is in doubt by then is in doubt because of this.
            shop.orders(10, MINUTE * 10).await;
            let doubts = shop.fate().await.ever_in_doubt - before;
            let each = spell.most_doubts() + if spell.crash { DOUBTS } else { 0 };
            let most = u64::from(each) * self.staff.workers;
            if doubts as u64 > most {
                return Err(format!("{doubts} doubts, {most} at most, by {spell:?}"));
            }
        }
        let well = Instant::now();
        while shop.fate().await.waiting > 0 {
            if well.elapsed() > Duration::from_hours(3) {
                return Err(format!("orders still wait: {:?}", shop.fate().await));
            }
            shop.orders(5, MINUTE * 10).await;
        }
        let fate = shop.fate().await;
        if !fate.letters.is_empty() {
            return Err(format!(
                "the server's recovery would have mailed these: {fate:?}"
            ));
        }
        if fate.mailed + fate.in_doubt < fate.orders {
            return Err(format!("orders are lost: {fate:?}"));
        }
        if self.staff.policy == OnAmbiguous::Park && fate.twice > 0 {
            return Err(format!("orders are mailed twice: {fate:?}"));
        }
        Ok(())
    }
}

/// What promise a seed breaks.
fn broken(seed: u64) -> Option<String> {
    let plan = Plan::new(seed);
    let reported = format!("seed {seed}: {:?} {:#?}", plan.staff, plan.spells);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let found = runtime.block_on(plan.run()).err();
    found.map(|what| format!("{reported}\n{what}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The first of so many seeds that break a promise.
fn first_broken(seeds: std::ops::Range<u64>) -> Option<String> {
    let half = |odd: u64| {
        let seeds = seeds.clone().filter(move |seed| seed % 2 == odd);
        seeds.into_iter().find_map(broken)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        half(0).or_else(|| other.join().unwrap())
    })
}

#[test]
fn no_bad_spell_of_the_mail_server_costs_an_order_its_mail() {
    let seeds = match number("AFTERCOMMIT_REPLAY") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AFTERCOMMIT_SEEDS").unwrap_or(SEEDS),
    };
    if let Some(what) = first_broken(seeds) {
        panic!("{what}");
    }
}
