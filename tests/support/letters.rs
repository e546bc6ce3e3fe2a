//! Dead letters for tests, and a table of them on a server.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aftercommit::internal::shard::ShardId;
use aftercommit::record::SequenceNumber;
use aftercommit::record::StreamView;
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::dead_letter::{
    Attempts, DeadLetters, Deed, EffectTable, Envelope, Letter, LetterId, LetterOutcome, ParkedKey,
    Reason, Selection,
};
use aftercommit::stores::tables::dynamodb::create_dead_letter_table;
use aftercommit::{EffectName, Event, Group, GroupTable, Record};
use aws_sdk_dynamodb::types::AttributeValue as Sdk;
use serde_dynamo::AttributeValue;

use super::server::Server;

pub fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

/// An effect of a group on a table that no other test touches.
pub fn place() -> EffectTable {
    let arn = format!(
        "arn:aws:dynamodb:eu-central-1:1:table/t-{:016x}",
        fastrand::u64(..)
    );
    EffectTable::new(
        GroupTable::new(Group::default(), &arn),
        EffectName::default(),
    )
}

/// The parked keys of a group's effect of the default name.
pub async fn parked(letters: &impl DeadLetters, at: &GroupTable) -> Vec<ParkedKey> {
    let at = EffectTable::new(at.clone(), EffectName::default());
    letters.parked(&at).await.unwrap().keys
}

pub fn record(key: &str, number: u64) -> Record {
    let keys = HashMap::from([("id".to_owned(), AttributeValue::S(key.to_owned()))]);
    Record {
        event_id: format!("event-{number}"),
        event: Event::Insert,
        keys: keys.clone().into(),
        new_image: Some(keys.into()),
        old_image: None,
        sequence_number: SequenceNumber::parse(number.to_string()).unwrap(),
        created: at(1),
        view: StreamView::NewAndOldImages,
        size_bytes: 12,
        by_ttl: false,
    }
}

pub fn letter_of(place: &EffectTable, record: Record, reason: Reason) -> Letter {
    let mut attempts = Attempts::default();
    attempts.push(at(2), "the mail server said 550");
    let shard = ShardId::of_stream("2026-01-01T00:00:00.000", "shardId-1");
    Letter::new((place, &shard), record, reason, attempts, at(3))
}

pub fn letter(place: &EffectTable, key: &str, number: u64) -> Letter {
    letter_of(place, record(key, number), Reason::Rejected)
}

pub fn deed(what: LetterOutcome) -> Deed {
    Deed {
        at: at(10),
        by: "ada".to_owned(),
        what,
        why: Some("a test".to_owned()),
    }
}

pub fn id(letter: &Letter) -> &LetterId {
    &letter.envelope.id
}

pub async fn next(letters: &impl DeadLetters, of: &Letter) -> Option<Letter> {
    letters.next_of(&id(of).at, &id(of).key).await.unwrap()
}

pub async fn is_parked(letters: &impl DeadLetters, of: &Letter) -> bool {
    letters.is_parked(&id(of).at, &id(of).key).await.unwrap()
}

pub async fn close(letters: &impl DeadLetters, letter: &Letter) -> Option<()> {
    letters
        .close(id(letter), &deed(LetterOutcome::Redriven))
        .await
        .unwrap()
}

pub async fn listed(letters: &impl DeadLetters, which: &Selection) -> Vec<Envelope> {
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let page = letters.list(which, from.as_deref()).await.unwrap();
        all.extend(page.letters);
        from = page.next;
        if from.is_none() {
            all.sort_by(|a: &Envelope, b| a.id.cmp(&b.id));
            return all;
        }
    }
}

/// Dead letters on a server.
pub struct OnServer {
    pub server: Server,
    pub table: String,
}

impl OnServer {
    /// Makes the table on a server.
    pub async fn on(server: Server) -> Self {
        let table = "dead-letters-under-test".to_owned();
        create_dead_letter_table(&server.client, &table)
            .await
            .unwrap();
        Self { server, table }
    }

    pub fn letters(&self) -> DynamoDbDeadLetters {
        DynamoDbDeadLetters::new(self.server.client.clone(), &self.table)
    }

    pub async fn rows(&self) -> Vec<HashMap<String, Sdk>> {
        let scan = self.server.client.scan().table_name(&self.table);
        scan.into_paginator()
            .items()
            .send()
            .collect::<Result<_, _>>()
            .await
            .unwrap()
    }

    pub async fn delete(&self, row: &HashMap<String, Sdk>) {
        let delete = self.server.client.delete_item().table_name(&self.table);
        let key = ["item", "row"].map(|name| (name.to_owned(), row[name].clone()));
        delete.set_key(Some(key.into())).send().await.unwrap();
    }
}
