//! What a handler over HTTP gets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aftercommit::handlers::http::{BodyFormat, HttpHandler};
use aftercommit::internal::shard::ShardId;
use aftercommit::record::{SequenceNumber, lambda_event};
use aftercommit::{Context, Record, RecordHandler as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_dynamo::AttributeValue;
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::answers::{handle, handler, settings};
use crate::support::handler_server::{HandlerServer, Posted, Reaction, answer};
use crate::support::orders::inserted;

const STREAM: &str =
    "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000";

fn done(_: &Posted) -> Reaction {
    answer(204, "", "")
}

fn order() -> Record {
    inserted("1042", "ada@example.com")
}

/// A context as the engine makes it.
fn context() -> Context {
    Context::detached().of_shard(STREAM, &ShardId::new("shardId-1"))
}

#[tokio::test]
async fn the_body_is_lambdas_event_with_one_record() {
    let server = HandlerServer::start(done).await;
    let order = order();
    let handler = handler(&server.url("/changes"));
    handler.handle(&order, &context()).await.unwrap();
    let posted = &server.seen()[0];
    assert_eq!(posted.line, "POST /changes HTTP/1.1");
    assert_eq!(posted.header("content-type"), Some("application/json"));
    let body = posted.body();
    assert_eq!(body["Records"][0]["eventSource"], "aws:dynamodb");
    assert_eq!(body["Records"][0]["awsRegion"], "eu-central-1");
    let read = lambda_event::read_all(&body).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].stream.as_deref(), Some(STREAM));
    assert_eq!(read[0].record.keys, order.keys);
    assert_eq!(read[0].record.new_image, order.new_image);
    assert_eq!(read[0].record.sequence_number, order.sequence_number);
}

#[tokio::test]
async fn a_body_may_be_plain_json() {
    let server = HandlerServer::start(done).await;
    let mut settings = settings(&server.url("/"));
    settings.format = BodyFormat::Json;
    let handler = HttpHandler::new(settings).unwrap();
    handler.handle(&order(), &context()).await.unwrap();
    let mut body = server.seen()[0].body();
    assert!(body["approximateCreationDateTime"].as_u64() > Some(1_700_000_000));
    body.as_object_mut()
        .unwrap()
        .remove("approximateCreationDateTime");
    let expected = json!({
        "eventID": "event-1042",
        "eventName": "INSERT",
        "eventSourceARN": STREAM,
        "sequenceNumber": "1",
        "keys": {"id": "1042"},
        "newImage": {"id": "1042", "email": "ada@example.com", "total": 1999, "currency": "EUR",
            "name": "Ann"},
        "oldImage": null,
        "byTimeToLive": false,
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn the_headers_say_which_change_this_is_and_which_attempt() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let server = HandlerServer::start(done).await;
    let handler = handler(&server.url("/"));
    let mut order = order();
    handler.handle(&order, &context()).await.unwrap();
    let image = order.new_image.as_mut().unwrap();
    let trace = AttributeValue::S(TRACE.to_owned());
    *image = {
        let mut map = image.inner().clone();
        map.insert("traceparent".to_owned(), trace);
        map.into()
    };
    let in_a_minute = tokio::time::Instant::now() + Duration::from_mins(1);
    let again = context().of_attempt(3).ending(in_a_minute);
    handler.handle(&order, &again).await.unwrap();
    let seen = server.seen();
    let of = |name| seen.iter().map(|one| one.header(name)).collect::<Vec<_>>();
    assert_eq!(of("aftercommit-sequence-number"), [Some("1"), Some("1")]);
    assert_eq!(of("aftercommit-attempt"), [Some("1"), Some("3")]);
    assert_eq!(of("traceparent"), [None, Some(TRACE)]);
    // There is no lease here.
    assert_eq!(of("aftercommit-epoch"), [None, None]);
    let deadline: u64 = of("aftercommit-deadline")[1].unwrap().parse().unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let left = Duration::from_millis(deadline).saturating_sub(now);
    assert!(
        Duration::from_secs(50) < left && left <= Duration::from_mins(1),
        "{left:?}"
    );
    let keys = of("idempotency-key");
    assert!(keys[0].unwrap().starts_with("placed#"));
    assert_eq!(
        keys[0], keys[1],
        "a change has one key however often it comes"
    );
}

#[tokio::test]
async fn each_change_has_a_key_of_its_own_unless_the_handler_is_given_ids() {
    let server = HandlerServer::start(done).await;
    let handler = handler(&server.url("/"));
    let mut later = order();
    later.sequence_number = SequenceNumber::parse("2").unwrap();
    for change in [order(), later.clone(), inserted("1043", "ada@example.com")] {
        handler.handle(&change, &context()).await.unwrap();
    }
    let keyed = handler.keyed_by(|record| Ok(format!("Größe {}", record.key().as_str())));
    for change in [order(), later] {
        keyed.handle(&change, &context()).await.unwrap();
    }
    let seen = server.seen();
    let keys: Vec<_> = seen
        .iter()
        .map(|one| one.header("idempotency-key").unwrap())
        .collect();
    assert!(
        keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2],
        "{keys:?}"
    );
    assert_eq!(keys[3], keys[4]);
    assert!(
        keys[3].starts_with("placed#Gr%C3%B6%C3%9Fe%20"),
        "{}",
        keys[3]
    );
}

#[tokio::test]
async fn a_request_is_signed_where_a_secret_is_set() {
    let server = HandlerServer::start(done).await;
    let secret = [7; 32];
    let mut settings = settings(&server.url("/"));
    let text = format!("whsec_{}", STANDARD.encode(secret));
    settings.secret = Some(text.parse().unwrap());
    handle(&HttpHandler::new(settings).unwrap()).await.unwrap();
    let posted = &server.seen()[0];
    let header = |name| posted.header(name).unwrap();
    assert_eq!(header("webhook-id"), header("idempotency-key"));
    let signed = [
        format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(),
        &posted.raw,
    ]
    .concat();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    ring::hmac::verify(&key, &signed, &signature).unwrap();
}

#[tokio::test]
async fn calls_share_a_connection() {
    let server = HandlerServer::start(done).await;
    let handler = handler(&server.url("/"));
    for _ in 0..5 {
        handle(&handler).await.unwrap();
    }
    let seen = server.seen();
    assert!(seen.iter().all(|one| one.connection == 0), "{seen:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_not_used_again() {
    let server = HandlerServer::start(|_| {
        let Reaction::Send(bytes) = answer(200, "", "") else {
            unreachable!()
        };
        Reaction::SendAndClose(bytes)
    })
    .await;
    let handler = handler(&server.url("/"));
    for _ in 0..20 {
        handle(&handler).await.unwrap();
        // Its end has arrived before the next call.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_handler_may_listen_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let server = HandlerServer::on_socket(&path, done);
    let url = format!("unix:{}:/changes", path.display());
    handle(&handler(&url)).await.unwrap();
    assert_eq!(server.seen()[0].line, "POST /changes HTTP/1.1");
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = HandlerServer::start(done).await;
    let behind = server.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(behind.clone().serve(stream, 0));
            }
        }
    });
    let url = format!("https://localhost:{port}/");
    let mut trusting = settings(&url);
    trusting.extra_roots = made.cert.pem().into_bytes();
    handle(&HttpHandler::new(trusting).unwrap()).await.unwrap();
    assert_eq!(server.seen().len(), 1);
    let mut other = settings(&url);
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    other.extra_roots = stranger.cert.pem().into_bytes();
    let refused = handle(&HttpHandler::new(other).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let mut wrong = settings(&url);
    wrong.extra_roots = b"no PEM".to_vec();
    assert!(HttpHandler::new(wrong).is_err());
}
