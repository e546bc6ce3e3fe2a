//! Several clients against a server whose capacity they do not know: how much gets through, how
//! soon overload stops, and whether they come back all at once. Virtual time, one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use aftercommit::internal::backoff::{Backoff, RetryBudget};
use aftercommit::internal::breaker::throttle::{Concurrency, Load, Permit, TokenBucket};

/// A pending record: its client, and how many times it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    client: usize,
    attempt: u32,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A call ends: which one, and whether it was served.
    Answer(Record, u64, bool),
    /// A record has waited long enough.
    Due(Record),
    /// A client looks whether it may start something.
    Look(usize),
}

struct Client {
    concurrency: Concurrency,
    budget: RetryBudget,
    bucket: Option<TokenBucket>,
    permits: BTreeMap<u64, Permit>,
    due: VecDeque<Record>,
}

/// The world: what it did in each tenth of a second.
struct World<F> {
    rng: fastrand::Rng,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, What)>>,
    count: u64,
    clients: Vec<Client>,
    running: usize,
    capacity: F,
    served: BTreeMap<u128, usize>,
    refused: BTreeMap<u128, usize>,
    retries: usize,
    first_tries: usize,
}

const SERVICE: Duration = Duration::from_millis(100);

impl<F: Fn(Duration) -> usize> World<F> {
    fn new(clients: usize, rate: Option<f64>, capacity: F) -> Self {
        let client = |_| Client {
            concurrency: Concurrency::new(8, 200),
            budget: RetryBudget::new(1.0),
            bucket: rate.map(|rate| TokenBucket::new(rate, 5.0)),
            permits: BTreeMap::new(),
            due: VecDeque::new(),
        };
        Self {
            rng: fastrand::Rng::with_seed(11),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            count: 0,
            clients: (0..clients).map(client).collect(),
            running: 0,
            capacity,
            served: BTreeMap::new(),
            refused: BTreeMap::new(),
            retries: 0,
            first_tries: 0,
        }
    }

    fn later(&mut self, wait: Duration, what: What) {
        self.count += 1;
        self.events
            .push(Reverse((self.now + wait, self.count, what)));
    }

    fn run(&mut self, until: Duration) {
        for client in 0..self.clients.len() {
            self.later(Duration::from_millis(7 * client as u64), What::Look(client));
        }
        while let Some(Reverse((now, _, what))) = self.events.pop() {
            if now > until {
                return;
            }
            self.now = now;
            match what {
                What::Look(client) => self.start_all(client),
                What::Due(record) => {
                    self.clients[record.client].due.push_back(record);
                    self.start_all(record.client);
                }
                What::Answer(record, call, served) => self.answer(record, call, served),
            }
        }
    }

    fn answer(&mut self, record: Record, call: u64, served: bool) {
        let tenth = self.now.as_millis() / 100;
        let (counts, load) = if served {
            self.running -= 1;
            (&mut self.served, Load::Served)
        } else {
            (&mut self.refused, Load::Overload)
        };
        *counts.entry(tenth).or_default() += 1;
        let client = &mut self.clients[record.client];
        let permit = client.permits.remove(&call).unwrap();
        client.concurrency.end(self.now, permit, load);
        if !served {
            let wait = Backoff::default().wait(record.attempt, &mut self.rng);
            let attempt = record.attempt + 1;
            self.later(wait, What::Due(Record { attempt, ..record }));
        }
        self.start_all(record.client);
    }

    /// There is always one more new record.
    fn start_all(&mut self, of: usize) {
        let (now, each) = (self.now, (self.capacity)(self.now));
        while let Some(permit) = self.clients[of].concurrency.begin(now) {
            let client = &mut self.clients[of];
            if let Some(Err(wait)) = client.bucket.as_mut().map(|bucket| bucket.take(now)) {
                client.concurrency.end(now, permit, Load::Unknown);
                self.later(wait, What::Look(of));
                return;
            }
            let call = self.count;
            client.permits.insert(call, permit);
            let record = match client.due.front() {
                Some(record) if client.budget.retry(now).is_ok() => {
                    let record = *record;
                    client.due.pop_front();
                    self.retries += 1;
                    record
                }
                _ => {
                    client.budget.first_try();
                    self.first_tries += 1;
                    Record {
                        client: of,
                        attempt: 1,
                    }
                }
            };
            let served = self.running < each;
            self.running += usize::from(served);
            let took = if served { SERVICE } else { SERVICE / 10 };
            let took = took.mul_f64(0.8 + 0.4 * self.rng.f64());
            self.later(took, What::Answer(record, call, served));
        }
    }

    /// What was counted between two seconds.
    fn between(counts: &BTreeMap<u128, usize>, from: u128, to: u128) -> usize {
        counts
            .range(from * 10..to * 10)
            .map(|(_, count)| count)
            .sum()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn goodput_stays_above_nine_tenths_of_a_capacity_that_no_client_knows() {
    for (clients, capacity) in [(1, 40), (4, 40), (4, 10), (3, 300)] {
        let mut world = World::new(clients, None, |_| capacity);
        world.run(seconds(120));
        let most = capacity * 10;
        for from in 10..110 {
            let served = World::<fn(Duration) -> usize>::between(&world.served, from, from + 10);
            assert!(
                served > most * 9,
                "{clients} {capacity}: {served} in 10 s from {from}"
            );
        }
        let refused: usize = world.refused.values().sum();
        let served: usize = world.served.values().sum();
        assert!(
            refused * 20 < served,
            "{clients} {capacity}: {refused} of {served}"
        );
    }
}

#[test]
fn overload_stops_within_seconds_when_the_capacity_falls() {
    let capacity = |now| if now < seconds(30) { 80 } else { 12 };
    let mut world = World::new(4, None, capacity);
    world.run(seconds(60));
    let refused: Vec<_> = (30..60)
        .map(|from| World::<fn(Duration) -> usize>::between(&world.refused, from, from + 1))
        .collect();
    // 120 a second can be served.
    assert!(refused[3..].iter().all(|count| *count <= 12), "{refused:?}");
    let served = World::<fn(Duration) -> usize>::between(&world.served, 33, 60);
    assert!(served > 27 * 108, "{served}");
}

#[test]
fn retries_never_exceed_a_tenth_of_the_first_tries_when_everything_is_refused() {
    let mut world = World::new(4, None, |now| if now < seconds(5) { 20 } else { 0 });
    world.run(seconds(60));
    // Beside the tenth: what was saved up, and one a second for each client.
    let allowed = world.first_tries / 10 + 4 * (10 + 60);
    assert!(
        world.retries <= allowed,
        "{} of {}",
        world.retries,
        world.first_tries
    );
}

#[test]
fn clients_that_were_refused_together_do_not_come_back_together() {
    // Nothing at all for a second: everybody is refused at once.
    let down = seconds(20)..seconds(21);
    let capacity = |now| if down.contains(&now) { 0 } else { 60 };
    let mut world = World::new(8, None, capacity);
    world.run(seconds(40));
    // Tries in each tenth of a second after it: 60 are served.
    let tries: Vec<_> = (210..400)
        .map(|tenth| {
            let count = |counts: &BTreeMap<u128, usize>| counts.get(&tenth).copied().unwrap_or(0);
            count(&world.served) + count(&world.refused)
        })
        .collect();
    assert!(tries.iter().all(|count| *count <= 90), "{tries:?}");
    let served = World::<fn(Duration) -> usize>::between(&world.served, 23, 40);
    assert!(served > 17 * 600 * 9 / 10, "{served}");
}

#[test]
fn a_rate_that_was_set_is_kept() {
    let mut world = World::new(1, Some(50.0), |_| 1000);
    world.run(seconds(60));
    for from in 5..50 {
        let served = World::<fn(Duration) -> usize>::between(&world.served, from, from + 10);
        assert!(
            (480..=520).contains(&served),
            "{served} in 10 s from {from}"
        );
    }
}
