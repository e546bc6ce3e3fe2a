//! The consumer alone, before anything goes wrong.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use serde_dynamo::{AttributeValue, Item};

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl RecordHandler for Seen {
    async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
        self.0.lock().unwrap().push(record.event_id.clone());
        Ok(())
    }
}

fn commit(id: &str) -> Commit {
    let keys = Item::from(std::collections::HashMap::from([(
        "id".to_owned(),
        AttributeValue::S(id.to_owned()),
    )]));
    Commit {
        event: Event::Insert,
        keys: keys.clone(),
        old_image: None,
        new_image: Some(keys),
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
    }
}

#[tokio::test(start_paused = true)]
async fn it_reads_every_record_across_a_split_and_leaves_clean() {
    let stream = MemoryStream::new(2, 10);
    let leases = MemoryLeases::new();
    let seen = Seen::default();
    for i in 0..100 {
        stream.commit(commit(&format!("order-{i}")));
    }
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "arn"),
        stream.clone(),
        leases.clone(),
    )
    .handler(seen.clone())
    .settings(settings)
    .clock(Clock::new(|| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2000)
    }));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(consumer.run(async { stopped.await.unwrap_or_default() }));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(seen.0.lock().unwrap().len(), 100);
    let first = stream.open_shards()[0].clone();
    stream.end(&first, true);
    for i in 100..200 {
        stream.commit(commit(&format!("order-{i}")));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(seen.0.lock().unwrap().len(), 200);
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    let view = leases.snapshot();
    assert!(view.workers.is_empty());
    assert_eq!(view.leases.len(), 4);
    assert!(
        view.leases
            .values()
            .all(|row| row.owner.is_none() || row.ended())
    );
}
