//! Tests of proxies, dead connections and certificates.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::{Client, Config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n\
                      content-length: 2\r\n\r\n{}";

fn dynamodb(endpoint: &str, proxies: &ProxyConfig) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .http_client(client_with(TrustStore::default(), proxies));
    Client::from_conf(config.build())
}

/// Reads a request and returns its first line.
async fn asked(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"{}") {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0);
    }
    let text = String::from_utf8(text).unwrap();
    text.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_proxy_is_asked_for_what_is_elsewhere_and_never_for_what_is_here() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = format!("http://{}", here.local_addr().unwrap());
    let proxies = format!("http://{}", proxy.local_addr().unwrap());
    let proxies = ProxyConfig::all(proxies.as_str()).unwrap();
    for (endpoint, server, line) in [
        (
            "http://dynamodb.example.com:8000",
            &proxy,
            "POST http://dynamodb.example.com:8000/ HTTP/1.1",
        ),
        (local.as_str(), &here, "POST / HTTP/1.1"),
    ] {
        let client = dynamodb(endpoint, &proxies);
        let call = tokio::spawn(client.list_tables().send());
        let (mut stream, _) = server.accept().await.unwrap();
        assert_eq!(asked(&mut stream).await, line);
        stream.write_all(ANSWER.as_bytes()).await.unwrap();
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn after_a_call_without_an_answer_no_old_connection_is_used() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", server.local_addr().unwrap());
    let client = dynamodb(&endpoint, &ProxyConfig::disabled());
    // Two idle connections.
    let calls = [client.list_tables(), client.list_tables()].map(|call| tokio::spawn(call.send()));
    let mut silent = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = server.accept().await.unwrap();
        asked(&mut stream).await;
        silent.push(stream);
    }
    for stream in &mut silent {
        stream.write_all(ANSWER.as_bytes()).await.unwrap();
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // The network forgets both.
    let lost = tokio::time::timeout(SILENT * 3, client.list_tables().send());
    assert!(lost.await.is_err());
    let call = tokio::spawn(client.list_tables().send());
    let (mut fresh, _) = server.accept().await.unwrap();
    asked(&mut fresh).await;
    fresh.write_all(ANSWER.as_bytes()).await.unwrap();
    call.await.unwrap().unwrap();
}

/// As in a worker with `--concurrency 128`, when a NAT gateway forgets 135 connections at once.
#[tokio::test]
async fn a_heartbeat_gets_through_within_a_lease_after_135_connections_died() {
    const POOLED: usize = 135;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (all, dead) = (
        Arc::new(Barrier::new(POOLED)),
        Arc::new(AtomicBool::new(false)),
    );
    let forgets = dead.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (all, forgets) = (all.clone(), forgets.clone());
            let is_new = forgets.load(Ordering::SeqCst);
            tokio::spawn(async move {
                asked(&mut stream).await;
                if !is_new {
                    all.wait().await;
                }
                stream.write_all(ANSWER.as_bytes()).await.unwrap();
                // Later requests get no answer, and no reset either.
                while stream.read_buf(&mut Vec::with_capacity(1024)).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    });
    let client = dynamodb(&endpoint, &ProxyConfig::disabled());
    let calls = (0..POOLED).map(|_| tokio::spawn(client.list_tables().send()));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    dead.store(true, Ordering::SeqCst);
    let timing = crate::engine::Timing::default();
    // A lease has time for this many calls that time out.
    let calls = timing
        .lease_duration
        .div_duration_f64(timing.call_timeout());
    let mut beats = 0.0;
    loop {
        let beat = tokio::time::timeout(timing.call_timeout(), client.list_tables().send());
        if beat.await.is_ok_and(|answer| answer.is_ok()) {
            break;
        }
        beats += 1.0;
        assert!(beats < calls.floor());
    }
}

#[test]
fn a_certificate_bundle_holds_certificates() {
    for (pem, why) in [
        ("", "the file holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "the file holds an invalid certificate",
        ),
    ] {
        assert_eq!(checked(pem.as_bytes()).unwrap_err().to_string(), why);
    }
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    checked(own.cert.pem().as_bytes()).unwrap();
}

#[test]
fn this_machine_and_its_link_are_here() {
    for (uri, here) in [
        ("http://127.0.0.1:8000/", true),
        ("http://localhost:4566", true),
        ("http://[::1]:8000/?x", true),
        ("http://169.254.170.2/creds", true),
        ("http://[fd00:ec2::23]/v1/credentials", true),
        ("https://dynamodb.eu-central-1.amazonaws.com/", false),
        ("http://10.0.0.1", false),
    ] {
        assert_eq!(Endpoint::of(uri).is_here(), here, "{uri}");
    }
}
