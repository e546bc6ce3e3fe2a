//! Dead letters as DynamoDB stores them: what expires, what was changed by hand, what a newer build wrote.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use aftercommit::engine::redrive::{How, RedrivenKey, redrive};
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::dead_letter::{
    Claim, DeadLetters as _, Envelope, KEPT_AFTER, Letter, LetterOutcome, Reason, Selection,
};
use aftercommit::{Clock, Context, Failure, Record, RecordHandler};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::types::AttributeValue as Sdk;
use serde_dynamo::AttributeValue;

use crate::support::letters::{
    OnServer, at, close, deed, id, is_parked, letter, letter_of, place, record,
};
use crate::support::server::Server;

fn kind(row: &HashMap<String, Sdk>) -> &str {
    row["kind"].as_s().unwrap()
}

#[tokio::test]
async fn a_closed_letter_and_its_parts_expire_and_an_open_one_never() {
    let server = OnServer::on(Server::embedded()).await;
    let letters = server.letters();
    let mut huge = record("a", 1);
    let fill = AttributeValue::B(vec![7; 390_000]);
    huge.new_image = Some(HashMap::from([("fill".to_owned(), fill)]).into());
    let letter = letter_of(&place(), huge, Reason::Rejected);
    letters.park(&letter).await.unwrap();
    assert!(
        server
            .rows()
            .await
            .iter()
            .all(|row| !row.contains_key("expires"))
    );
    close(&letters, &letter).await.unwrap();
    let until = (at(10) + KEPT_AFTER)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let rows = server.rows().await;
    let mut kinds: Vec<_> = rows.iter().map(kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["letter", "part", "part"]);
    for row in &rows {
        assert_eq!(row["expires"], Sdk::N(until.as_secs().to_string()));
    }
    let again = Letter {
        envelope: Envelope {
            written: at(50),
            ..letter.envelope.clone()
        },
        ..letter
    };
    letters.park(&again).await.unwrap();
    assert!(
        server
            .rows()
            .await
            .iter()
            .all(|row| !row.contains_key("expires"))
    );
}

#[tokio::test]
async fn rows_that_an_operator_removed_are_repaired() {
    let server = OnServer::on(Server::embedded()).await;
    let letters = server.letters();
    let letter = letter(&place(), "a", 1);
    letters.park(&letter).await.unwrap();
    // The letter is gone: the key can be unparked.
    let rows = server.rows().await;
    server
        .delete(rows.iter().find(|row| kind(row) == "letter").unwrap())
        .await;
    assert!(is_parked(&letters, &letter).await);
    let unparked = letters
        .unpark_if_empty(&id(&letter).at, &id(&letter).key)
        .await;
    assert!(unparked.unwrap());
    assert!(!is_parked(&letters, &letter).await);
    // The mark is gone: writing the letter again parks the key again, closing it does without.
    letters.park(&letter).await.unwrap();
    let rows = server.rows().await;
    let mark = rows.iter().find(|row| kind(row) == "mark").unwrap();
    server.delete(mark).await;
    letters.park(&letter).await.unwrap();
    assert!(is_parked(&letters, &letter).await);
    server.delete(mark).await;
    assert_eq!(close(&letters, &letter).await, Some(()));
    assert!(!is_parked(&letters, &letter).await);
}

/// Changes one attribute of every row, as a newer build or a person in the console might.
async fn change_all(server: &OnServer, how: &str, name: &str, value: Option<Sdk>) {
    for row in server.rows().await {
        let update = server.server.client.update_item().table_name(&server.table);
        let key = ["item", "row"].map(|name| (name.to_owned(), row[name].clone()));
        let update = update.set_key(Some(key.into())).update_expression(how);
        let update = update.expression_attribute_names("#name", name);
        let value = value.clone().map(|value| (":value".to_owned(), value));
        let values = value.map(|value| HashMap::from([value]));
        let update = update.set_expression_attribute_values(values);
        update.send().await.unwrap();
    }
}

/// Writes two letters of another key and closes them: nothing there suffers.
async fn others_are_parked_and_free_again(letters: &DynamoDbDeadLetters, of: &Letter) {
    let at = &id(of).at;
    let other = letter(at, "other", 5);
    letters.park(&other).await.unwrap();
    let page = letters.parked_page(at, None, 10).await.unwrap();
    assert_eq!(page.keys.len(), 1, "{page:?}");
    assert_eq!(page.unreadable.len(), 1, "{page:?}");
    assert!(is_parked(letters, &other).await);
    close(letters, &other).await.unwrap();
    assert!(!is_parked(letters, &other).await);
}

#[tokio::test]
async fn rows_of_a_newer_build_cost_their_own_key_only() {
    let server = OnServer::on(Server::embedded()).await;
    let letters = server.letters();
    let first = letter(&place(), "a", 1);
    letters.park(&first).await.unwrap();
    let two = Sdk::N("2".to_owned());
    change_all(&server, "SET #name = :value", "format", Some(two)).await;
    let before = server.rows().await;
    for error in [
        letters.read(id(&first)).await.err(),
        letters
            .close(id(&first), &deed(LetterOutcome::Discarded))
            .await
            .err(),
        letters.next_of(&id(&first).at, &id(&first).key).await.err(),
    ] {
        let text = format!("{:#}", error.unwrap());
        assert!(text.contains("format 2"), "{text}");
    }
    // The newer build is processing the record: a repeat is not an error, and changes nothing.
    letters.park(&first).await.unwrap();
    assert_eq!(letters.follow(&first).await.unwrap(), Some(()));
    let shown = letters.list(&Selection::default(), None).await.unwrap();
    assert_eq!(shown.letters, []);
    assert!(shown.unreadable[0].contains("format 2"), "{shown:?}");
    assert_eq!(server.rows().await, before);

    // Its key stays parked, and later records follow, which the newer build counts.
    assert!(is_parked(&letters, &first).await);
    let follower = letter(&id(&first).at, "a", 2);
    assert_eq!(letters.follow(&follower).await.unwrap(), Some(()));
    letters.park(&letter(&id(&first).at, "a", 3)).await.unwrap();
    let rows = server.rows().await;
    let mark = rows.iter().find(|row| kind(row) == "mark").unwrap();
    assert_eq!(mark["letters"], Sdk::N("3".to_owned()));
    assert_eq!(mark["format"], Sdk::N("2".to_owned()));
    others_are_parked_and_free_again(&letters, &first).await;
}

#[tokio::test]
async fn damaged_rows_cost_their_own_key_only_and_are_written_again() {
    let server = OnServer::on(Server::embedded()).await;
    let letters = server.letters();
    let first = letter(&place(), "a", 1);
    letters.park(&first).await.unwrap();
    // A mark has both, a letter only the one.
    for name in ["keys", "since", "letters"] {
        change_all(&server, "REMOVE #name", name, None).await;
    }
    let follower = letter(&id(&first).at, "a", 2);
    assert_eq!(letters.follow(&follower).await.unwrap(), Some(()));
    others_are_parked_and_free_again(&letters, &first).await;
    // Its record comes again, and is whole again.
    letters.park(&first).await.unwrap();
    assert_eq!(letters.read(id(&first)).await.unwrap(), Some(first.clone()));

    // A person deletes the mark, as the error says. The next redrive counts the letters.
    let rows = server.rows().await;
    let mark = rows.iter().find(|row| kind(row) == "mark").unwrap();
    server.delete(mark).await;
    let claim = Claim {
        by: "ada".to_owned(),
        at: at(20),
        until: at(30),
    };
    let (place, key) = (&id(&first).at, &id(&first).key);
    let claimed = letters.claim(place, key, &claim).await.unwrap();
    assert_eq!(claimed, Some(()));
    let parked = letters.parked(place).await.unwrap();
    assert_eq!(parked.keys[0].letters, 2);
    assert_eq!(parked.unreadable, [] as [String; 0]);
}

/// Counts queries.
#[derive(Debug, Clone, Default)]
struct Queries(Arc<AtomicUsize>);

impl Intercept for Queries {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target");
        if target.is_some_and(|target| target.ends_with(".Query")) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

struct Willing;

impl RecordHandler for Willing {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_with_many_letters_is_redriven_with_a_few_queries_for_each() {
    const LETTERS: usize = 200;
    let server = OnServer::on(Server::embedded()).await;
    let queries = Queries::default();
    let config = server.server.client.config().to_builder();
    let config = config.interceptor(queries.clone()).build();
    let letters = DynamoDbDeadLetters::new(Client::from_conf(config), &server.table);
    let place = place();
    let all: Vec<_> = (1..=LETTERS as u64)
        .map(|n| letter(&place, "a", n))
        .collect();
    for letter in &all {
        letters.park(letter).await.unwrap();
    }
    queries.0.store(0, Ordering::Relaxed);
    let key = RedrivenKey {
        at: place.clone(),
        key: id(&all[0]).key.clone(),
    };
    let how = How::new("ada", "redrive/1", Clock::system());
    let mut rng = fastrand::Rng::new();
    let summary = redrive(&letters, &Willing, vec![key], (&how, &mut rng), |_| {}).await;
    assert_eq!((summary.redriven, summary.free), (LETTERS as u64, 1));
    let made = queries.0.load(Ordering::Relaxed);
    assert!(made <= 2 * LETTERS + 2, "{made} queries");
}
