//! What a shard's row tells people beside its checkpoint.

use std::time::Duration;

use super::calls::Heard;
use super::stage::{Stage, eventually, pass, secs};

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_is_reported_once_until_it_is_finished() {
    let stage = Stage::new(1);
    let leases = Heard::new(&stage.leases);
    let _one = stage.worker_on("one", stage.stream.clone(), leases.clone());
    let only = stage.stream.open_shards()[0].clone();
    stage.commit("before", "finished");
    eventually(secs(20), "the first", || stage.hand.done().len() == 1).await;
    pass(secs(30)).await;
    let reported = || stage.row(&only).unwrap().report;
    assert_eq!(reported().oldest_waiting(), None);
    assert!(reported().per_minute <= 1 && reported().reported_at.is_some());

    stage.hand.shut();
    let committed = stage.now();
    stage.commit("stuck", "waits");
    let before = leases.count("checkpoint");
    let waits = || reported().oldest_waiting() == Some(committed);
    let after = eventually(secs(15), "that it waits", waits).await;
    assert!(after >= secs(9), "what waits for a moment is no news");
    pass(Duration::from_mins(10)).await;
    assert_eq!(leases.count("checkpoint"), before + 1, "nothing else came");

    stage.hand.open();
    eventually(secs(3), "that it is finished", || !waits()).await;
    assert_eq!(reported().oldest_waiting(), None);
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_a_busy_shard_is_reported_by_the_minute() {
    let stage = Stage::new(1);
    let _one = stage.worker("one");
    let only = stage.stream.open_shards()[0].clone();
    for n in 0..600 {
        stage.commit(&format!("item{n}"), "x");
        pass(Duration::from_millis(500)).await;
    }
    let reported = stage.row(&only).unwrap().report.per_minute;
    assert!((110..=130).contains(&reported), "{reported} and not 120");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_read_says_so_until_it_can() {
    let mut stage = Stage::new(1);
    // Once a record is held there is no room for another read.
    stage.settings.memory_budget = aftercommit::engine::Budget::LEAST;
    stage.hand.shut();
    let only = stage.stream.open_shards()[0].clone();
    stage.commit("stuck", "waits");
    let _one = stage.worker("one");
    let error = || stage.row(&only).and_then(|row| row.report.last_error);
    eventually(secs(20), "the record", || !stage.hand.begun().is_empty()).await;
    pass(secs(30)).await;
    assert_eq!(error(), None, "reading may take a moment");
    eventually(secs(90), "that nothing is read", || {
        error().is_some_and(|error| error.contains("the memory budget is full"))
    })
    .await;
    stage.hand.open();
    eventually(secs(30), "that it reads again", || error().is_none()).await;
}
