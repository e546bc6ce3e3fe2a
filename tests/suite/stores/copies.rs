//! Copies of dead letters, by the real SDK against a server that keeps what it is sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use aftercommit::record::lambda_event;
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::sqs::{Copied, Destination};
use aftercommit::stores::dead_letter::{DeadLetters as _, Letter, Reason};
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_dynamo::AttributeValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cli::start::complaint;
use crate::cli::tables::{against, create};
use crate::support::embedded::Embedded;
use crate::support::letters::{letter, letter_of, parked, place, record};

pub const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:letters";
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:letters";

type Call = (String, BTreeMap<String, String>);

#[derive(Default)]
struct Heard {
    calls: Vec<Call>,
    tries: usize,
    failing: usize,
}

pub struct Services {
    heard: Arc<Mutex<Heard>>,
    config: SdkConfig,
}

fn read(headers: &HeaderMap, body: &str) -> Call {
    if let Some(target) = headers.get("x-amz-target") {
        let operation = target.to_str().unwrap().rsplit('.').next().unwrap();
        let fields: BTreeMap<String, String> = serde_json::from_str(body).unwrap();
        return (operation.to_owned(), fields);
    }
    let fields = url::form_urlencoded::parse(body.as_bytes()).into_owned();
    let mut fields: BTreeMap<String, String> = fields.collect();
    (fields.remove("Action").unwrap(), fields)
}

async fn answer(
    State(heard): State<Arc<Mutex<Heard>>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    // Each call is signed for the Region of the destination.
    let signed = headers["authorization"].to_str().unwrap();
    assert!(signed.contains("/eu-west-1/"), "{signed}");
    let (operation, fields) = read(&headers, &body);
    let mut heard = heard.lock().unwrap();
    heard.tries += 1;
    if operation != "GetQueueUrl" && heard.failing > 0 {
        heard.failing -= 1;
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    let gone = fields.get("QueueName").is_some_and(|name| name == "gone");
    heard.calls.push((operation.clone(), fields));
    let answer = match &*operation {
        "GetQueueUrl" if gone => {
            let error = json!({"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no"});
            return (StatusCode::BAD_REQUEST, error.to_string());
        }
        "GetQueueUrl" => json!({"QueueUrl": "http://queue/letters"}).to_string(),
        "SendMessage" => json!({"MessageId": "m"}).to_string(),
        _ => "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
              <MessageId>m</MessageId></PublishResult></PublishResponse>"
            .to_owned(),
    };
    (StatusCode::OK, answer)
}

impl Services {
    pub async fn start() -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let routes = Router::new().fallback(post(answer));
        let routes = routes.with_state(Arc::clone(&heard));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, routes).into_future());
        let credentials = Credentials::new("test", "test", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::disabled())
            .endpoint_url(url)
            .build();
        Self { heard, config }
    }

    pub async fn copied(&self, arn: &str) -> (MemoryDeadLetters, Copied<MemoryDeadLetters>) {
        let letters = MemoryDeadLetters::default();
        let to = Destination::open(&self.config, arn).await.unwrap();
        (letters.clone(), Copied::new(letters, to))
    }

    /// How many calls there were, answered or not.
    fn tries(&self) -> usize {
        self.heard.lock().unwrap().tries
    }

    /// The calls so far, without look-ups.
    pub fn sent(&self) -> Vec<Call> {
        let heard = self.heard.lock().unwrap();
        let sent = heard.calls.iter().filter(|(name, _)| name != "GetQueueUrl");
        sent.cloned().collect()
    }
}

fn sent_by_order(letter: &Letter) -> String {
    letter.envelope.id.sequence_number.to_string()
}

#[tokio::test]
async fn a_queue_gets_each_letter_with_its_record_in_lambdas_shape() {
    let services = Services::start().await;
    let (letters, copied) = services.copied(QUEUE).await;
    let place = place();
    let (first, second) = (letter(&place, "a", 7), letter(&place, "a", 8));
    assert_eq!(copied.follow(&second).await.unwrap(), None);
    copied.park(&first).await.unwrap();
    copied.copy(&first).await.unwrap();
    copied.follow(&second).await.unwrap().unwrap();
    copied.copy(&second).await.unwrap();
    let sent = services.sent();
    assert_eq!(sent.len(), 2);
    let (operation, fields) = &sent[0];
    assert_eq!(operation, "SendMessage");
    assert_eq!(fields["QueueUrl"], "http://queue/letters");
    assert!(!fields.contains_key("MessageGroupId"));
    let body: Value = serde_json::from_str(&fields["MessageBody"]).unwrap();
    let batch = &body["DDBStreamBatchInfo"];
    assert_eq!(batch["streamArn"], *first.envelope.id.stream());
    assert_eq!(
        (&batch["batchSize"], &batch["shardId"]),
        (&json!(1), &json!("shardId-1"))
    );
    assert_eq!(batch["startSequenceNumber"], sent_by_order(&first));
    assert_eq!(
        batch["approximateArrivalOfFirstRecord"],
        "2023-11-14T22:13:21Z"
    );
    assert_eq!(body["version"], "1.0");
    assert_eq!(body["timestamp"], "2023-11-14T22:13:23.000Z");
    assert_eq!(body["requestContext"]["condition"], "rejected");
    assert_eq!(body["requestContext"]["approximateInvokeCount"], 1);
    assert_eq!(body["aftercommit"]["key"], "id=a");
    assert_eq!(body["aftercommit"]["error"], "the mail server said 550");
    let payload: Value = serde_json::from_str(body["payload"].as_str().unwrap()).unwrap();
    let received = lambda_event::read_all(&payload).unwrap();
    assert_eq!(received[0].record, first.record);
    assert_eq!(
        letters.read(&second.envelope.id).await.unwrap(),
        Some(second)
    );
}

#[tokio::test]
async fn a_topic_gets_it_too_and_an_ordered_destination_gets_the_order() {
    let services = Services::start().await;
    let place = place();
    for (arn, ordered) in [(TOPIC.to_owned(), false), (format!("{TOPIC}.fifo"), true)] {
        let (_, copied) = services.copied(&arn).await;
        copied.copy(&letter(&place, "a", 7)).await.unwrap();
        let (operation, fields) = services.sent().pop().unwrap();
        assert_eq!((&*operation, &*fields["TopicArn"]), ("Publish", &*arn));
        assert!(fields["Message"].contains("DDBStreamBatchInfo"));
        assert_eq!(fields.contains_key("MessageGroupId"), ordered);
    }
    let (_, copied) = services.copied(&format!("{QUEUE}.fifo")).await;
    for (key, number) in [("a", 8), ("a", 9), ("b", 10), ("b", 10)] {
        copied.copy(&letter(&place, key, number)).await.unwrap();
    }
    let sent = services.sent();
    let field = |name: &str| {
        sent[1..]
            .iter()
            .map(|(_, fields)| fields[name].clone())
            .collect()
    };
    let (groups, same): (Vec<_>, Vec<_>) =
        (field("MessageGroupId"), field("MessageDeduplicationId"));
    assert!(groups[0] == groups[1] && groups[1] == groups[2] && groups[2] != groups[3]);
    assert!(same[1] != same[2] && same[3] == same[4]);
}

/// How long a destination that is down is waited for here.
const PATIENCE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_copy_is_repeated_until_it_arrives() {
    let services = Services::start().await;
    let (_, copied) = services.copied(QUEUE).await;
    services.heard.lock().unwrap().failing = 2;
    copied.copy(&letter(&place(), "a", 7)).await.unwrap();
    assert_eq!(services.sent().len(), 1);
}

#[tokio::test]
async fn a_destination_that_is_away_is_waited_for_once_and_not_for_each_copy() {
    let services = Services::start().await;
    let (_, copied) = services.copied(QUEUE).await;
    let copied = copied.patience(PATIENCE);
    services.heard.lock().unwrap().failing = usize::MAX;
    let letter = letter(&place(), "a", 7);
    let began = Instant::now();
    let error = copied.copy(&letter).await.unwrap_err();
    assert!(format!("{error:#}").contains(QUEUE), "{error:#}");
    assert!(began.elapsed() >= PATIENCE);
    let before = services.tries();
    for _ in 0..5 {
        copied.copy(&letter).await.unwrap_err();
    }
    assert_eq!(services.tries() - before, 5);
    // Once it is back, it is waited for again.
    services.heard.lock().unwrap().failing = 0;
    copied.copy(&letter).await.unwrap();
    services.heard.lock().unwrap().failing = 1;
    copied.copy(&letter).await.unwrap();
    assert_eq!(services.sent().len(), 2);
}

/// Rejects orders whose key begins with `bad`.
struct Picky(mpsc::UnboundedSender<String>);

impl RecordHandler for Picky {
    async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
        let key = record.key().as_str().to_owned();
        if key.contains("bad") {
            return Err(Failure::reject("a bad order"));
        }
        self.0.send(key).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_queue_that_is_gone_stops_no_shard_and_is_reported_and_counted() {
    const BAD: u64 = 16;
    let services = Services::start().await;
    let (letters, copied) = services.copied(QUEUE).await;
    services.heard.lock().unwrap().failing = usize::MAX;
    let stream = MemoryStream::new(1, 10);
    let (done, mut handled) = mpsc::unbounded_channel();
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    let at = GroupTable::new(Group::default(), "stream");
    let consumer = Consumer::new(at.clone(), stream.clone(), MemoryLeases::new());
    let consumer = consumer
        .handler(Picky(done))
        .settings(settings)
        .dead_letters(copied.patience(PATIENCE));
    let counters = consumer.progress().counters().clone();
    let working = tokio::spawn(consumer.run(std::future::pending()));
    let commit = |key: String| {
        let keys = HashMap::from([("id".to_owned(), AttributeValue::S(key))]);
        stream.commit(Commit {
            event: Event::Insert,
            keys: keys.clone().into(),
            old_image: None,
            new_image: Some(keys.into()),
            created: SystemTime::now(),
        });
    };
    (0..BAD).for_each(|n| commit(format!("bad {n}")));
    commit("good".to_owned());
    let good = timeout(Duration::from_secs(20), handled.recv()).await;
    assert!(good.unwrap().unwrap().contains("good"));
    while counters.uncopied.load(Ordering::Relaxed) < BAD {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    working.abort();
    assert_eq!(parked(&letters, &at).await.len(), 16);
    assert_eq!(services.sent(), []);
}

#[tokio::test]
async fn a_letter_that_does_not_fit_is_sent_without_its_record() {
    let services = Services::start().await;
    let (_, copied) = services.copied(QUEUE).await;
    let place = place();
    let with = |text: String| {
        let mut record = record("a", 7);
        let image = [("text".to_owned(), AttributeValue::S(text))];
        record.new_image = Some(
            image
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>()
                .into(),
        );
        letter_of(&place, record, Reason::Exhausted)
    };
    // Each of these letters takes three bytes, and JSON in JSON a few more.
    for (text, fits) in [("€".repeat(80_000), true), ("€".repeat(90_000), false)] {
        copied.copy(&with(text)).await.unwrap();
        let body = services
            .sent()
            .pop()
            .unwrap()
            .1
            .remove("MessageBody")
            .unwrap();
        assert!(body.len() <= 256 << 10);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["payload"].is_string(), fits);
        let left_out = body["aftercommit"]["payloadLeftOut"].as_str();
        assert_eq!(
            left_out.is_some_and(|reported| reported.contains("dead-letters show")),
            !fits
        );
        assert_eq!(
            body["requestContext"]["condition"],
            "RetryAttemptsExhausted"
        );
    }
    // What a queue would refuse comes escaped, and means the same.
    let odd = "\u{0}\u{1f}\u{fffe}\u{ffff}\u{fffd}\u{10ffff}".to_owned();
    let letter = with(odd);
    copied.copy(&letter).await.unwrap();
    let body = services
        .sent()
        .pop()
        .unwrap()
        .1
        .remove("MessageBody")
        .unwrap();
    let refused =
        |c: char| c.is_ascii_control() && c != '\u{7f}' || ('\u{fffe}'..='\u{ffff}').contains(&c);
    assert!(!body.contains(refused));
    let body: Value = serde_json::from_str(&body).unwrap();
    let payload = serde_json::from_str(body["payload"].as_str().unwrap()).unwrap();
    assert_eq!(
        lambda_event::read_all(&payload).unwrap()[0].record,
        letter.record
    );
}

#[tokio::test]
async fn a_destination_that_cannot_be_is_refused() {
    let services = Services::start().await;
    for (arn, reported) in [
        ("letters", "is not the ARN of a queue or a topic"),
        (
            "arn:aws:s3:eu-west-1:1:bucket",
            "is not the ARN of a queue or a topic",
        ),
        (
            "arn:aws:sqs:eu-west-1:1:gone",
            "queue arn:aws:sqs:eu-west-1:1:gone",
        ),
    ] {
        let error = Destination::open(&services.config, arn).await.unwrap_err();
        assert!(format!("{error:#}").contains(reported), "{error:#}");
    }
}

#[tokio::test]
async fn the_command_refuses_a_destination_that_cannot_be() {
    let server = Embedded::start();
    create(&server).await;
    let mut command = against(&server);
    command
        .args([
            "run",
            "--table",
            "orders",
            "--mail-from",
            "shop@example.com",
        ])
        .args(["--smtp-url", "smtp://localhost:1025"])
        .args(["--dead-letter-copy", "letters"]);
    let reported = complaint(&command.output().await.unwrap());
    assert!(
        reported.contains("--dead-letter-copy: letters is not the ARN"),
        "{reported}"
    );
}
