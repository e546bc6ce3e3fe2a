//! How long a shard stands still when its worker goes.

use std::time::Duration;

use super::stage::{Stage, Worker, eventually, pass, secs};

/// At how many different moments between two heartbeats the worker goes.
const MOMENTS: u32 = 8;

/// Two workers on four shards; the answer is the one that is to go.
async fn fleet(stage: &Stage, moment: u32) -> (Worker, Worker) {
    let stays = stage.worker("stays");
    let goes = stage.worker("goes");
    eventually(secs(20), "a fair share", || stage.owned_by("goes") == 2).await;
    pass(secs(10) + secs(2) * moment / MOMENTS).await;
    (stays, goes)
}

/// From now until every record that is committed now is handled.
async fn until_all_is_read(stage: &Stage, limit: Duration) -> Duration {
    let before = stage.hand.done().len();
    let count = stage.commit_many("after", 40).len();
    eventually(limit, "a record of every shard", || {
        stage.hand.done().len() >= before + count
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_is_picked_up_in_under_two_seconds() {
    for moment in 0..MOMENTS {
        let stage = Stage::new(4);
        let (_stays, goes) = fleet(&stage, moment).await;
        let leaving = goes.begin_to_leave();
        until_all_is_read(&stage, Duration::from_millis(1_999)).await;
        leaving.await.unwrap().unwrap();
        assert_eq!(stage.owned_by("stays"), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_is_picked_up_within_a_lease_duration_and_two_seconds() {
    for moment in 0..MOMENTS {
        let stage = Stage::new(4);
        let lease_duration = stage.settings.timing.lease_duration;
        let (_stays, goes) = fleet(&stage, moment).await;
        goes.crash().await;
        let limit = lease_duration + secs(2);
        let taken = until_all_is_read(&stage, limit).await;
        assert_eq!(stage.owned_by("stays"), 4);
        // Nobody is robbed while it may still be acting.
        assert!(taken + secs(2) > stage.settings.timing.trust(), "{taken:?}");
    }
}
