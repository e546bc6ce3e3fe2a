//! A record that keeps failing when its shard ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters as _, Reason, Selection};
use aftercommit::{Consumer, Context, Failure, Record, RecordHandler};
use serde_dynamo::AttributeValue;

use super::stage::{Stage, eventually, place, secs};

/// How the records of the key `stuck` fail.
#[derive(Debug, Clone, Copy)]
enum Stuck {
    Overloads,
    IsBusy,
    Hangs,
}

#[derive(Clone)]
struct Hand {
    how: Stuck,
    healed: Arc<AtomicBool>,
    handled: Arc<Mutex<Vec<String>>>,
}

impl RecordHandler for Hand {
    async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
        let image = record.new_image.as_ref().unwrap();
        let text = |name| match image.get(name) {
            Some(AttributeValue::S(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        if text("id") == "stuck" && !self.healed.load(Ordering::Relaxed) {
            match self.how {
                Stuck::Overloads => return Err(Failure::overloaded("full")),
                Stuck::IsBusy => return Err(Failure::Busy(secs(10))),
                Stuck::Hangs => std::future::pending().await,
            }
        }
        self.handled.lock().unwrap().push(text("value"));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_keeps_failing_holds_no_other_item_when_its_shard_ends() {
    for how in [Stuck::Overloads, Stuck::IsBusy, Stuck::Hangs] {
        let mut stage = Stage::new(1);
        stage.settings.timing.handler_timeout = secs(10);
        let letters = MemoryDeadLetters::default();
        let hand = Hand {
            how,
            healed: Arc::default(),
            handled: Arc::default(),
        };
        let consumer = Consumer::new(place(), stage.stream.clone(), stage.leases.clone())
            .handler(hand.clone());
        let consumer = consumer.settings(stage.settings.clone());
        let consumer = consumer.clock(stage.clock()).dead_letters(letters.clone());
        let counters = consumer.counters();
        tokio::spawn(consumer.run(std::future::pending()));
        let handled = |count: usize| hand.handled.lock().unwrap().len() == count;

        stage.commit("stuck", "stuck first");
        let before = stage.commit_many("before", 20);
        eventually(secs(10), "the others of the shard", || {
            handled(before.len())
        })
        .await;
        stage.stream.end(&stage.stream.open_shards()[0], true);
        stage.commit("stuck", "stuck second");
        let after = stage.commit_many("after", 20);
        let all = before.len() + after.len();
        let limit = match how {
            Stuck::Overloads | Stuck::IsBusy => secs(3),
            // The attempt under way is not cut off.
            Stuck::Hangs => secs(13),
        };
        eventually(limit, "the children", || handled(all)).await;
        assert_eq!(counters.deferred.load(Ordering::Relaxed), 1, "{how:?}");
        let open = letters.list(&Selection::default(), None).await.unwrap();
        let mut reasons: Vec<_> = open.letters.iter().map(|l| l.reason).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, [Reason::Deferred, Reason::Followed], "{how:?}");

        hand.healed.store(true, Ordering::Relaxed);
        eventually(Duration::from_mins(3), "the stuck ones", || {
            handled(all + 2)
        })
        .await;
        let handled = hand.handled.lock().unwrap().split_off(all);
        assert_eq!(handled, ["stuck first", "stuck second"], "{how:?}");
    }
}
