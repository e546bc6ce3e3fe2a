//! A group has one identity: settings that would perform its effects under other keys are refused.

use aftercommit::engine::Identity;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::MemoryStream;
use aftercommit::{Effect, EffectName};

use super::stage::{Stage, eventually, pass, secs};

type Consumer = aftercommit::Consumer<MemoryStream, MemoryLeases>;

fn by(id: &str) -> Identity {
    Identity::default().with("id", id)
}

/// The identity of the group's only effect.
fn identity(stage: &Stage) -> Identity {
    let effects = stage.view().group.unwrap().effects;
    effects
        .get(&EffectName::default())
        .unwrap()
        .identity
        .clone()
}

fn consumer(stage: &Stage, name: &str, id: &str) -> Consumer {
    let effect = Effect::new(EffectName::default(), stage.hand.clone());
    let (stream, leases) = (stage.stream.clone(), stage.leases.clone());
    stage.consumer_with(name, stream, leases, effect.identity(by(id)))
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_identity_differs_leaves_without_reading_and_names_the_difference() {
    let stage = Stage::new(2);
    let one = tokio::spawn(consumer(&stage, "one", "SK").run(std::future::pending()));
    eventually(secs(10), "the group begins", || {
        stage.view().group.is_some()
    })
    .await;
    assert_eq!(identity(&stage), by("SK"));
    let refused = consumer(&stage, "two", "PK").run(std::future::pending());
    let refused = refused.await.unwrap_err().to_string();
    assert!(
        refused.contains("id is \"PK\" here and \"SK\" in the group"),
        "{refused}"
    );
    assert_eq!(stage.owned_by("two"), 0);
    let names = stage.commit_many("k", 10);
    eventually(secs(30), "the first worker reads on", || {
        stage.hand.sorted() == names
    })
    .await;
    one.abort();
}

#[tokio::test(start_paused = true)]
async fn a_new_identity_is_accepted_knowingly_and_workers_with_the_old_one_leave() {
    let stage = Stage::new(2);
    let one = tokio::spawn(consumer(&stage, "one", "SK").run(std::future::pending()));
    eventually(secs(10), "one reads", || stage.owned_by("one") == 2).await;
    let two = consumer(&stage, "two", "PK").accept_new_identity();
    let two = tokio::spawn(two.run(std::future::pending()));
    let refused = one.await.unwrap().unwrap_err().to_string();
    assert!(
        refused.contains("id is \"SK\" here and \"PK\" in the group"),
        "{refused}"
    );
    eventually(secs(10), "two reads", || stage.owned_by("two") == 2).await;
    assert_eq!(identity(&stage), by("PK"));
    two.abort();
}

#[tokio::test(start_paused = true)]
async fn two_workers_that_accept_do_not_replace_each_others_identity_in_turn() {
    let stage = Stage::new(1);
    let both = ["SK", "PK"].map(|id| {
        let consumer = consumer(&stage, id, id).accept_new_identity();
        tokio::spawn(consumer.run(std::future::pending()))
    });
    eventually(secs(60), "one has left", || {
        both.iter().any(tokio::task::JoinHandle::is_finished)
    })
    .await;
    pass(secs(60)).await;
    let left = both.iter().filter(|one| one.is_finished()).count();
    assert_eq!(left, 1);
}
