//! The API of Amazon SES, as far as one call goes: keeps what it is sent, and answers by script.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the server does with one call.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Takes the mail.
    Take,
    /// Answers with this status, error type and message.
    Say(u16, &'static str, &'static str),
    /// Answers 200 with this.
    Body(&'static str),
    /// Says what is no HTTP.
    Garbage,
    /// Hangs up.
    Close,
    /// Hangs up with a reset.
    Reset,
    /// Never answers.
    Silence,
}

/// A running server; it stops when this is dropped.
pub struct SesServer {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<serde_json::Value>>>,
    _stop: DropGuard,
}

impl SesServer {
    /// Starts on a free loopback port. Calls beyond the script are taken.
    pub async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<VecDeque<Act>>> = Arc::new(Mutex::new(script.into_iter().collect()));
        let stop = CancellationToken::new();
        let seen = calls.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, script.clone(), seen.clone()));
            }
        }));
        Self {
            address,
            calls,
            _stop: stop.drop_guard(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bodies of all calls.
    pub fn calls(&self) -> Vec<serde_json::Value> {
        self.calls.lock().unwrap().clone()
    }

    /// The messages of all calls.
    pub fn mails(&self) -> Vec<Vec<u8>> {
        let raw = |call: serde_json::Value| {
            let data = call["Content"]["Raw"]["Data"].as_str().unwrap();
            BASE64_STANDARD.decode(data).unwrap()
        };
        self.calls().into_iter().map(raw).collect()
    }
}

async fn connection(
    stream: TcpStream,
    script: Arc<Mutex<VecDeque<Act>>>,
    calls: Arc<Mutex<Vec<serde_json::Value>>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(call) = request(&mut stream).await {
        calls.lock().unwrap().push(call);
        let act = script.lock().unwrap().pop_front().unwrap_or(Act::Take);
        let answer = match act {
            Act::Take => http(200, "", r#"{"MessageId":"0100018f-1"}"#),
            Act::Body(body) => http(200, "", body),
            Act::Say(status, kind, message) => {
                let body = serde_json::json!({ "message": message }).to_string();
                http(status, &format!("x-amzn-errortype: {kind}\r\n"), &body)
            }
            Act::Garbage => "what?\r\n\r\n".to_owned(),
            Act::Close => return,
            Act::Reset => {
                let socket = socket2::SockRef::from(stream.get_ref());
                socket.set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Act::Silence => std::future::pending().await,
        };
        let written = stream.get_mut().write_all(answer.as_bytes()).await;
        if written.is_err() || matches!(act, Act::Garbage) {
            return;
        }
    }
}

async fn request(stream: &mut BufReader<TcpStream>) -> Option<serde_json::Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    serde_json::from_slice(&body).ok()
}

fn http(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}
