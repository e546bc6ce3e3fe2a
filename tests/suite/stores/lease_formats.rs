//! Rows of the lease table that a newer or an older build wrote.

use aftercommit::EffectName;
use aftercommit::engine::Identity;
use aftercommit::record::Position;
use aftercommit::stores::leases::GroupEffects;
use aftercommit::stores::leases::{
    Consistency, Hold, Incarnation, LeaseRow, LeaseStore as _, Report, Sighting, Take, Unfit,
};
use aws_sdk_dynamodb::types::AttributeValue;

use crate::stores::contract_leases::worker;
use crate::stores::leases::{OnServer, free_take, lease, number, shard};
use crate::support::server::on_each_server;

on_each_server! {
    OnServer::on;
    rows_of_a_newer_build_are_reported_and_left_alone,
    rows_of_an_older_build_are_read_and_taken_on,
    a_newer_row_is_not_handed_to_a_worker_that_could_not_read_it,
    a_bootstrap_meets_a_newer_group_row_with_a_clear_error_and_heals_a_damaged_one,
    a_worker_row_whose_format_is_damaged_can_be_removed_and_its_shards_taken,
}

async fn rows_of_a_newer_build_are_reported_and_left_alone(server: OnServer) {
    let store = server.leases();
    store.create(&[lease("a"), lease("b")]).await.unwrap();
    store.take(&free_take("b")).await.unwrap().unwrap();
    for row in ["shard#a", "shard#b", "shard#new-kind"] {
        server.set(row, "format", number("2")).await;
    }
    let before = (server.raw("shard#a").await, server.raw("shard#b").await);
    let view = server.look().await;
    assert!(view.leases.is_empty());
    assert_eq!(view.unreadable.len(), 3);
    for row in &view.unreadable {
        assert_eq!(row.why, Unfit::Newer { format: 2 });
    }
    let hold = Hold {
        shard: shard("b"),
        owner: Incarnation::new("one", 1),
        epoch: 4,
    };
    let report = Report::default();
    let from_dead = Take {
        from: Some((hold.owner.clone(), Some(Sighting::Missing))),
        seen_epoch: 4,
        epoch: 5,
        owner: Incarnation::new("two", 1),
        ..free_take("b")
    };
    assert_eq!(store.take(&free_take("a")).await.unwrap(), None);
    assert_eq!(store.take(&from_dead).await.unwrap(), None);
    let horizon = Position::Horizon;
    assert_eq!(
        store.checkpoint(&hold, &horizon, &report).await.unwrap(),
        None
    );
    let given = store.hand_over(&hold, None, &horizon, &report).await;
    assert_eq!(given.unwrap(), None);
    assert_eq!(store.finish(&hold, &[], &report).await.unwrap(), None);
    store.create(&[lease("a")]).await.unwrap();
    store.heal(&lease("a")).await.unwrap();
    store.remove_ended(&shard("a")).await.unwrap();
    let after = (server.raw("shard#a").await, server.raw("shard#b").await);
    assert_eq!(after, before);
}

async fn rows_of_an_older_build_are_read_and_taken_on(server: OnServer) {
    let store = server.leases();
    store.create(&[lease("a")]).await.unwrap();
    server.set("shard#a", "format", number("0")).await;
    let view = server.look().await;
    assert_eq!(view.unreadable, []);
    let older = LeaseRow {
        format: 0,
        ..lease("a")
    };
    assert_eq!(view.leases[&shard("a")], older);
    let taken = store.take(&free_take("a")).await.unwrap().unwrap();
    assert_eq!(taken.owner, Some(free_take("a").owner));
}

async fn a_newer_row_is_not_handed_to_a_worker_that_could_not_read_it(server: OnServer) {
    let newer = server.leases().of_build(2);
    for name in ["a", "b", "c"] {
        newer.create(&[lease(name)]).await.unwrap();
        newer.take(&free_take(name)).await.unwrap().unwrap();
    }
    let mut taker = aftercommit::stores::leases::WorkerRow {
        incarnation: Incarnation::new("two", 1),
        beat: 1,
        draining: false,
        unable_to_list: false,
        lease_duration: std::time::Duration::from_secs(10),
        version: "0.1.0".to_owned(),
        reads: 1,
        zone: None,
        status_address: None,
        trouble: None,
        stuck: None,
        effects: vec![EffectName::default()],
        at: None,
    };
    let give = async |name: &str, taker: &Incarnation| {
        let hold = Hold {
            shard: shard(name),
            owner: Incarnation::new("one", 1),
            epoch: 4,
        };
        let (horizon, report) = (Position::Horizon, Report::default());
        let given = newer.hand_over(&hold, Some(taker), &horizon, &report);
        given.await.unwrap().unwrap();
    };
    server.leases().register(&taker).await.unwrap();
    // The newer worker has not looked since the older one came.
    give("a", &taker.incarnation).await;
    let view = newer.look(Consistency::Strong).await.unwrap();
    assert_eq!(view.leases[&shard("a")].owner, None);
    assert_eq!(view.leases[&shard("a")].format, 2);
    // Now it has.
    give("b", &taker.incarnation).await;
    let view = server.look().await;
    assert_eq!(
        view.leases[&shard("b")].owner,
        Some(taker.incarnation.clone())
    );
    taker.incarnation = Incarnation::new("three", 1);
    taker.reads = 2;
    let newest = server.leases().of_build(2);
    newest.register(&taker).await.unwrap();
    let older = Incarnation::new("two", 1);
    server.leases().remove_worker(&older, None).await.unwrap();
    newer.look(Consistency::Strong).await.unwrap();
    give("c", &taker.incarnation).await;
    let view = newest.look(Consistency::Strong).await.unwrap();
    assert_eq!(view.leases[&shard("c")].owner, Some(taker.incarnation));
    assert_eq!(view.leases[&shard("c")].format, 2);
}

async fn a_bootstrap_meets_a_newer_group_row_with_a_clear_error_and_heals_a_damaged_one(
    server: OnServer,
) {
    let row = aftercommit::stores::leases::GroupRow {
        initial: aftercommit::stores::leases::InitialPosition::Latest,
        bootstrapped: std::time::SystemTime::UNIX_EPOCH,
        effects: GroupEffects::of([(EffectName::default(), Identity::default())]),
    };
    server.set("group", "format", number("9")).await;
    let error = server.leases().bootstrap(row.clone()).await.unwrap_err();
    assert!(error.to_string().contains("format 9"), "{error}");
    server.set("group", "format", number("1")).await;
    assert_eq!(server.leases().bootstrap(row.clone()).await.unwrap(), row);
    assert_eq!(server.look().await.group, Some(row));
}

async fn a_worker_row_whose_format_is_damaged_can_be_removed_and_its_shards_taken(
    server: OnServer,
) {
    let store = server.leases();
    let dead = worker("dead", 7);
    store.register(&dead).await.unwrap();
    let key = format!("worker#{}", dead.incarnation);
    let text = AttributeValue::S("one".to_owned());
    server.set(&key, "format", text).await;
    store.remove_worker(&dead.incarnation, None).await.unwrap();
    assert_eq!(server.raw(&key).await, None);
    // One of a newer build is not ours to remove.
    store.register(&dead).await.unwrap();
    server.set(&key, "format", number("9")).await;
    store.remove_worker(&dead.incarnation, None).await.unwrap();
    assert!(server.raw(&key).await.is_some());
}
