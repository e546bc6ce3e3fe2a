#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_dynamo::{AttributeValue, Item};

use super::*;
use crate::core::group::{EffectName, Group, GroupTable};
use crate::core::record::Event;
use crate::engine::dependency::{Dependency, Limits};
use crate::engine::settings::Settings;
use crate::stores::source::memory::{Commit, MemoryStream};

/// Counts its records.
#[derive(Default)]
struct Count(AtomicUsize);

impl RecordHandler for Count {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn record(of: &MemoryStream, id: &str) -> Record {
    let id = ("id".to_owned(), AttributeValue::S(id.to_owned()));
    let keys = Item::from(HashMap::from([id]));
    let change = Commit {
        event: Event::Insert,
        keys: keys.clone(),
        old_image: None,
        new_image: Some(keys),
        created: Clock::system().now(),
    };
    of.commit(change).0
}

/// With a handler that may act until this moment.
fn in_flight(handler: &Arc<Count>, until: Instant) -> InFlight<'static, Arc<Count>> {
    let work = Work {
        at: EffectTable::new(
            GroupTable::new(Group::default(), "orders"),
            EffectName::default(),
        ),
        handler: handler.clone(),
        context: Context::detached().until(until),
        at_expiry: Closing::LeaseLost,
        limit: Duration::from_mins(1),
        bury: None,
        ask: None,
        handling: Arc::default(),
        clock: Clock::system(),
    };
    let rng = || fastrand::Rng::with_seed(7);
    let asker = Dependency::new(&Limits::default(), rng()).asker();
    InFlight::new(Settings::default().rules(false, None), work, asker, rng())
}

#[tokio::test(start_paused = true)]
async fn no_record_begins_once_the_right_to_act_has_ended() {
    let (stream, handler) = (MemoryStream::new(1, 10), Arc::new(Count::default()));
    let second = Duration::from_secs(1);
    let mut in_flight = in_flight(&handler, Instant::now() + second);
    in_flight.push(Carried::new(record(&stream, "in time"), None));
    in_flight.start();
    assert_eq!(in_flight.running(), 1);
    in_flight.turn().await;
    // Nothing wakes it meanwhile, as if the whole process were suspended.
    in_flight.push(Carried::new(record(&stream, "too late"), None));
    tokio::time::advance(second).await;
    in_flight.start();
    assert_eq!(in_flight.running(), 0);
    assert_eq!(in_flight.pipeline.closed(), Some(Closing::LeaseLost));
    assert_eq!(handler.0.load(Ordering::Relaxed), 1);
}
