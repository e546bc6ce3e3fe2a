//! A handler that blocks its thread: the worker reports it, so that it can be restarted.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use aftercommit::monitor::{Status, Watch, http};
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Clock, Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::cli::start::text;
use crate::monitor::health::health;
use crate::support::http::get;

const LIMIT: Duration = Duration::from_mins(4);

/// Blocks its thread until it is released.
struct Blocks(Mutex<Receiver<()>>);

impl RecordHandler for Blocks {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        self.0.lock().unwrap().recv().unwrap();
        Ok(())
    }
}

fn settings() -> Settings {
    let lease_duration = Duration::from_millis(500);
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    settings.timing.lease_duration = lease_duration;
    settings.timing.heartbeat_interval = lease_duration / 5;
    settings.timing.look_interval = lease_duration / 10;
    settings.timing.handover_timeout = lease_duration;
    settings
}

fn commit_one(stream: &MemoryStream) {
    let id = serde_dynamo::to_item(serde_json::json!({ "id": "1" }));
    let item: serde_dynamo::Item = id.unwrap();
    stream.commit(Commit {
        event: Event::Insert,
        keys: item.clone(),
        old_image: None,
        new_image: Some(item),
        created: SystemTime::now(),
    });
}

/// Not from inside: while a handler blocks a thread of the runtime, its timers may not run, either.
#[test]
fn a_handler_that_blocks_its_thread_makes_a_worker_unhealthy_until_it_lets_go() {
    let stream = MemoryStream::new(1, 10);
    let (go_on, reported) = channel();
    let handler = Blocks(Mutex::new(reported));
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "arn"),
        stream.clone(),
        MemoryLeases::new(),
    )
    .handler(handler);
    let consumer = consumer.settings(settings());
    let status = Status::new(Clock::system(), [Watch::of(&consumer)]);
    commit_one(&stream);
    let (working, serving) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let listener = serving.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let at = listener.local_addr().unwrap().to_string();
    serving.spawn(http::serve(listener, status.clone()));
    working.spawn(consumer.run(std::future::pending()));
    let until = |alive: bool| {
        let began = Instant::now();
        while status.alive().is_ok() != alive {
            assert!(began.elapsed() < LIMIT, "{:?}", status.alive());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(false);
    let probed = serving.block_on(get(&at, "/healthz"));
    assert_eq!(probed.code, 503, "{}", probed.body);
    let checked = serving.block_on(health(&at));
    assert_eq!(checked.status.code(), Some(1));
    for reported in [&*probed.body, &text(&checked.stdout)] {
        assert!(
            reported.contains("#arn has made no progress for "),
            "{reported}"
        );
    }
    // Its lease may be lost meanwhile, so the record may be delivered again.
    (0..100).for_each(|_| go_on.send(()).unwrap());
    until(true);
    assert_eq!(serving.block_on(get(&at, "/healthz")).code, 200);
    assert_eq!(serving.block_on(health(&at)).status.code(), Some(0));
    working.shutdown_background();
}
