//! Handlers of users under simulation: a sound one passes, and what is wrong with others shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::simulation::{Scenario, SimulationOutcome, simulate_handler};
use aftercommit::stores::source::memory::Commit;
use aftercommit::{Context, Event, Failure, Record, RecordHandler};
use serde_dynamo::{AttributeValue, Item};

/// Within so many seeds a mistake must show.
const SEEDS: u64 = 20;

/// A database that outlives its workers: what was said to be done, and what was booked how often.
#[derive(Default)]
struct Books {
    done: BTreeSet<String>,
    booked: BTreeMap<String, u32>,
}

/// How a handler books an order.
#[derive(Clone, Copy)]
enum Habit {
    /// Once, however often it is called.
    Once,
    /// At each call.
    Always,
    /// Some time later, though it says at once that it is done.
    Later,
}

struct Bookkeeper {
    books: Arc<Mutex<Books>>,
    habit: Habit,
    /// What this process means to book; lost when it crashes.
    noted: Mutex<Vec<String>>,
}

impl RecordHandler for Bookkeeper {
    async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let order = record.event_id.clone();
        let books = &mut *self.books.lock().unwrap();
        books.done.insert(order.clone());
        match self.habit {
            Habit::Once => {
                books.booked.insert(order, 1);
            }
            Habit::Always => *books.booked.entry(order).or_default() += 1,
            Habit::Later => {
                let mut noted = self.noted.lock().unwrap();
                noted.push(order);
                if noted.len() >= 5 {
                    let orders = noted.drain(..).map(|order| (order, 1));
                    books.booked.extend(orders);
                }
            }
        }
        Ok(())
    }
}

fn order(rng: &mut fastrand::Rng, created: SystemTime) -> Commit {
    numbered(rng.u32(..20), created)
}

/// A new order of this number.
pub fn numbered(number: u32, created: SystemTime) -> Commit {
    let id = AttributeValue::S(format!("order-{number}"));
    let keys = Item::from(HashMap::from([("id".to_owned(), id)]));
    Commit {
        event: Event::Insert,
        keys: keys.clone(),
        old_image: None,
        new_image: Some(keys),
        created,
    }
}

impl Books {
    fn lacks_any(&self) -> bool {
        self.done
            .iter()
            .any(|order| !self.booked.contains_key(order))
    }
}

fn run(seed: u64, habit: Habit) -> (SimulationOutcome, Books) {
    let books = Arc::<Mutex<Books>>::default();
    let shared = books.clone();
    let scenario = Scenario {
        weather: Duration::from_secs(30),
        ..Scenario::seeded(seed)
    };
    let handler = move || Bookkeeper {
        books: shared.clone(),
        habit,
        noted: Mutex::default(),
    };
    let outcome = simulate_handler(&scenario, handler, order);
    let books = std::mem::take(&mut *books.lock().unwrap());
    (outcome, books)
}

#[test]
fn a_handler_that_may_be_called_twice_books_everything_once() {
    for seed in 0..SEEDS {
        let (outcome, books) = run(seed, Habit::Once);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(!books.lacks_any(), "seed {seed}");
        assert!(books.done.len() > 10, "seed {seed}: hardly anything to do");
    }
}

#[test]
fn a_handler_that_may_not_be_called_twice_is_found_out() {
    let doubled = |seed| run(seed, Habit::Always).1.booked.values().any(|n| *n > 1);
    assert!((0..SEEDS).any(doubled));
}

#[test]
fn a_handler_that_says_too_early_that_it_is_done_is_found_out() {
    assert!((0..SEEDS).any(|seed| run(seed, Habit::Later).1.lacks_any()));
}
