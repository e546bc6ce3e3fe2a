//! The lease table as DynamoDB stores it: damaged rows, many rows.

use aftercommit::{Group, GroupTable};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aftercommit::internal::shard::ShardId;
use aftercommit::record::SequenceNumber;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::leases::{
    Checkpoint, Consistency, GapResolution, GapRow, Hold, Incarnation, LeaseRow, LeaseStore as _,
    Report, Sighting, Take, Unfit, View,
};
use aftercommit::stores::tables::dynamodb::create_lease_table;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::stores::contract_leases::worker;
use crate::support::server::{Server, on_each_server};

on_each_server! {
    OnServer::on;
    a_damaged_row_is_reported_and_disturbs_no_other,
    a_damaged_lease_is_healed_and_its_epoch_never_falls,
    a_damaged_worker_row_counts_as_gone_to_its_worker,
    takes_that_meet_at_one_dead_worker_all_get_through,
    a_look_reads_every_page,
    groups_on_one_table_do_not_see_each_other,
    a_missing_table_is_an_error_that_names_it,
    an_ended_lease_keeps_its_children_and_has_no_owner,
    a_gap_that_is_resolved_says_by_whom_until_it_is_noticed_again,
}

/// A lease table on a server, and a group that nobody else uses.
pub struct OnServer {
    pub server: Server,
    pub table: String,
    pub place: GroupTable,
}

impl OnServer {
    /// Makes the table on a server.
    pub async fn on(server: Server) -> Self {
        let table = "leases-under-test".to_owned();
        create_lease_table(&server.client, &table).await.unwrap();
        Self {
            server,
            table,
            place: GroupTable::new(
                Group::default(),
                &format!("table-{:016x}", fastrand::u64(..)),
            ),
        }
    }

    pub fn leases(&self) -> DynamoDbLeases {
        DynamoDbLeases::new(self.server.client.clone(), &self.table, &self.place)
    }

    fn key(&self, row: &str) -> HashMap<String, AttributeValue> {
        HashMap::from([
            (
                "group_table".to_owned(),
                AttributeValue::S(self.place.to_string()),
            ),
            ("row".to_owned(), AttributeValue::S(row.to_owned())),
        ])
    }

    /// Sets one attribute of a row by hand, as an operator or another build might.
    pub async fn set(&self, row: &str, name: &str, value: AttributeValue) {
        let update = self.server.client.update_item().table_name(&self.table);
        update
            .set_key(Some(self.key(row)))
            .update_expression("SET #name = :value")
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .unwrap();
    }

    pub async fn raw(&self, row: &str) -> Option<HashMap<String, AttributeValue>> {
        let get = self.server.client.get_item().table_name(&self.table);
        let get = get.set_key(Some(self.key(row))).consistent_read(true);
        get.send().await.unwrap().item
    }

    pub async fn look(&self) -> View {
        self.leases().look(Consistency::Strong).await.unwrap()
    }
}

pub fn number(digits: &str) -> AttributeValue {
    AttributeValue::N(digits.to_owned())
}

pub fn shard(name: &str) -> ShardId {
    ShardId::new(name)
}

pub fn lease(name: &str) -> LeaseRow {
    LeaseRow::new(shard(name), None, 3)
}

pub fn free_take(name: &str) -> Take {
    Take {
        shard: shard(name),
        from: None,
        seen_epoch: 3,
        owner: Incarnation::new("one", 1),
        epoch: 4,
    }
}

async fn a_damaged_row_is_reported_and_disturbs_no_other(server: OnServer) {
    let store = server.leases();
    store.create(&[lease("a"), lease("b")]).await.unwrap();
    server
        .set("shard#b", "epoch", AttributeValue::Bool(true))
        .await;
    server.set("worker#x/1", "format", number("1")).await;
    server.set("stray", "format", number("1")).await;
    let view = server.look().await;
    assert_eq!(view.leases.keys().collect::<Vec<_>>(), [&shard("a")]);
    let rows: Vec<_> = view.unreadable.iter().map(|row| &*row.row).collect();
    assert_eq!(rows, ["shard#b", "stray", "worker#x/1"]);
    for row in &view.unreadable {
        assert!(matches!(row.why, Unfit::Malformed { .. }), "{row:?}");
    }
    let Unfit::Malformed { what } = &view.unreadable[0].why else {
        unreachable!();
    };
    assert!(what.starts_with("epoch: "), "{what}");
}

async fn a_damaged_lease_is_healed_and_its_epoch_never_falls(server: OnServer) {
    let store = server.leases();
    store.create(&[lease("a")]).await.unwrap();
    store.take(&free_take("a")).await.unwrap().unwrap();
    server.set("shard#a", "epoch", number("70")).await;
    server.set("shard#a", "checkpoint", number("5")).await;
    assert_eq!(server.look().await.unreadable.len(), 1);
    for _ in 0..2 {
        store.heal(&lease("a")).await.unwrap();
        let view = server.look().await;
        assert_eq!(view.unreadable, []);
        let healed = LeaseRow::new(shard("a"), None, 71);
        assert_eq!(view.leases[&shard("a")], healed);
    }
    // A row that is not there is not healed: the listing creates it.
    store.heal(&lease("b")).await.unwrap();
    assert!(!server.look().await.leases.contains_key(&shard("b")));
}

async fn a_damaged_worker_row_counts_as_gone_to_its_worker(server: OnServer) {
    let row = aftercommit::stores::leases::WorkerRow {
        incarnation: Incarnation::new("one", 1),
        beat: 2,
        draining: false,
        unable_to_list: false,
        lease_duration: std::time::Duration::from_secs(10),
        version: "0.1.0".to_owned(),
        reads: 1,
        zone: None,
        status_address: None,
        trouble: None,
        stuck: None,
        effects: vec![aftercommit::EffectName::default()],
        at: None,
    };
    let key = format!("worker#{}", row.incarnation);
    server.set(&key, "format", number("1")).await;
    assert_eq!(server.leases().heartbeat(&row).await.unwrap(), None);
}

/// Each takes the dead worker's row, and a service may refuse writes that collide there.
async fn takes_that_meet_at_one_dead_worker_all_get_through(server: OnServer) {
    let store = server.leases();
    let dead = worker("dead", 7);
    store.register(&dead).await.unwrap();
    let names: Vec<_> = (0..40).map(|n| format!("shard-{n:02}")).collect();
    let rows: Vec<_> = names.iter().map(|name| lease(name)).collect();
    store.create(&rows).await.unwrap();
    let takes = |from: Option<(Incarnation, Option<Sighting>)>, owner: &Incarnation, epoch| {
        let owner = owner.clone();
        let take = names.iter().map(move |name| Take {
            shard: shard(name),
            from: from.clone(),
            seen_epoch: epoch,
            owner: owner.clone(),
            epoch: epoch + 1,
        });
        take.collect::<Vec<_>>()
    };
    for take in takes(None, &dead.incarnation, 3) {
        store.take(&take).await.unwrap().unwrap();
    }
    let from = Some((dead.incarnation.clone(), Some(Sighting::Beat(dead.beat))));
    let takes = takes(from, &Incarnation::new("taker", 1), 4);
    let answers = futures_util::future::join_all(takes.iter().map(|take| store.take(take))).await;
    for lease in answers {
        assert_eq!(lease.unwrap().unwrap().epoch, 5);
    }
}

async fn a_look_reads_every_page(server: OnServer) {
    let store = server.leases();
    let rows = (0..300).map(|n| {
        let mut row = lease(&format!("shard-{n:03}"));
        // A page ends after 1 MB: these are five.
        row.parent = Some(ShardId::new("x".repeat(16 * 1024)));
        row
    });
    let rows: Vec<_> = rows.collect();
    store.create(&rows).await.unwrap();
    let view = server.look().await;
    let read: Vec<_> = view.leases.into_values().collect();
    assert!(
        read == rows,
        "{} of {} rows were read",
        read.len(),
        rows.len()
    );
}

async fn groups_on_one_table_do_not_see_each_other(server: OnServer) {
    let other = DynamoDbLeases::new(
        server.server.client.clone(),
        &server.table,
        &GroupTable::new(Group::new("twin").unwrap(), server.place.table()),
    );
    server.leases().create(&[lease("a")]).await.unwrap();
    assert_eq!(
        other.look(Consistency::Strong).await.unwrap(),
        View::default()
    );
    other.create(&[lease("a")]).await.unwrap();
    other.take(&free_take("a")).await.unwrap().unwrap();
    assert_eq!(server.look().await.leases[&shard("a")].owner, None);
}

async fn a_missing_table_is_an_error_that_names_it(server: OnServer) {
    let store = DynamoDbLeases::new(server.server.client.clone(), "no-such-table", &server.place);
    let error = store.look(Consistency::Eventual).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("no-such-table"), "{text}");
    assert!(text.contains("ResourceNotFound"), "{text}");
}

async fn an_ended_lease_keeps_its_children_and_has_no_owner(server: OnServer) {
    let store = server.leases();
    store.create(&[lease("a")]).await.unwrap();
    let taken = store.take(&free_take("a")).await.unwrap().unwrap();
    let hold = Hold {
        shard: shard("a"),
        owner: taken.owner.unwrap(),
        epoch: 4,
    };
    let child = LeaseRow::new(shard("b"), Some(shard("a")), 0);
    let ended = store.finish(&hold, &[child], &Report::default()).await;
    ended.unwrap().unwrap();
    let row = server.look().await.leases[&shard("a")].clone();
    let children = vec![shard("b")];
    assert_eq!(row.checkpoint, Checkpoint::End { children });
    assert_eq!((row.owner, row.epoch), (None, 5));
}

async fn a_gap_that_is_resolved_says_by_whom_until_it_is_noticed_again(server: OnServer) {
    let store = server.leases();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let gap = GapRow {
        shard: shard("a"),
        last_handled: None,
        last_handled_time: None,
        first_after: None,
        detected: at(1),
        resolved: None,
    };
    let resolution = GapResolution {
        by: "ada".to_owned(),
        at: at(2),
        note: "mailed by hand".to_owned(),
    };
    let resolved = store.resolve_gap(&gap, &resolution).await;
    assert_eq!(resolved.unwrap(), None, "nothing was lost");
    assert_eq!(server.look().await.gaps, []);

    store.record_gap(&gap, None).await.unwrap().unwrap();
    let resolved = store.resolve_gap(&gap, &resolution).await;
    resolved.unwrap().unwrap();
    let as_resolved = GapRow {
        resolved: Some(resolution.clone()),
        ..gap.clone()
    };
    assert_eq!(server.look().await.gaps, [as_resolved]);

    let grown = GapRow {
        first_after: Some(SequenceNumber::parse("30").unwrap()),
        ..gap.clone()
    };
    store.record_gap(&grown, None).await.unwrap().unwrap();
    assert_eq!(server.look().await.gaps, std::slice::from_ref(&grown));
    let late = store.resolve_gap(&gap, &resolution).await;
    assert_eq!(late.unwrap(), None, "its end has moved");
    assert_eq!(server.look().await.gaps, [grown]);
}
