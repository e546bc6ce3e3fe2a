//! A mail server in this process: keeps what it accepts, and fails by script.
//!
//! Requests are read by `smtp-proto`. Every fault is said by [`Fault`]: at which step, what, and
//! how often.

#![allow(dead_code, unused_imports, clippy::unwrap_used)]

#[path = "mail_server/script.rs"]
mod script;
#[path = "mail_server/session.rs"]
mod session;
#[path = "mail_server/wire.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use script::{Act, Fault, Script, ServerTls, Step, Whose};
use wire::Breakable;

/// What one direction of a connection in memory holds.
const WINDOW: usize = 64 * 1024;

/// The user and password that the server takes.
pub const USER: &str = "shop";
pub const PASSWORD: &str = "correct horse";

/// An accepted mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub bytes: Vec<u8>,
    /// Which connection it came over, counted from 0.
    pub connection: usize,
}

impl Mail {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The value of a header, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let head = text
            .split("\r\n\r\n")
            .next()?
            .replace("\r\n ", " ")
            .replace("\r\n\t", " ");
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }

    pub fn message_id(&self) -> String {
        self.header("Message-ID").unwrap_or_default()
    }
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    mails: Vec<Mail>,
    /// The keys of the mails, if the server recognises them.
    known: BTreeSet<String>,
    recognised: usize,
    heard: Vec<(usize, String)>,
    connections: usize,
    open: usize,
    most_open: usize,
    rides: usize,
    struck: usize,
}

/// A running server; it stops when this is dropped.
pub struct MailServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepted: watch::Receiver<usize>,
    cut: watch::Receiver<Option<Vec<u8>>>,
    released: CancellationToken,
    root: Vec<u8>,
    shared: Arc<Shared>,
    /// Dropping it stops the server.
    listening: Mutex<Option<Listening>>,
}

struct Listening {
    stop: CancellationToken,
    _stops: DropGuard,
}

impl Listening {
    fn new() -> Self {
        let stop = CancellationToken::new();
        Self {
            _stops: stop.clone().drop_guard(),
            stop,
        }
    }
}

struct Shared {
    script: Script,
    state: Arc<Mutex<State>>,
    accepted: watch::Sender<usize>,
    /// The message that was cut off last.
    cut: watch::Sender<Option<Vec<u8>>>,
    /// Releases what is held.
    released: CancellationToken,
    tls: TlsAcceptor,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MailServer {
    /// Starts on a free loopback port.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self::new(script, listener.local_addr().unwrap());
        server.listen_at(listener);
        server
    }

    /// In memory, for paused time: who wants a connection dials ([`MailServer::dial`]).
    pub fn in_memory(script: Script) -> Self {
        Self::new(script, SocketAddr::from(([127, 0, 0, 1], 25)))
    }

    fn new(script: Script, address: SocketAddr) -> Self {
        let (tls, root) = certificate();
        let faults = script.faults.clone();
        let state = Arc::new(Mutex::new(State {
            faults,
            ..State::default()
        }));
        let (accepted, seen) = watch::channel(0);
        let (cut, seen_cut) = watch::channel(None);
        let released = CancellationToken::new();
        let shared = Arc::new(Shared {
            script,
            state: state.clone(),
            accepted,
            cut,
            released: released.clone(),
            tls,
        });
        Self {
            address,
            state,
            accepted: seen,
            cut: seen_cut,
            released,
            root,
            listening: Mutex::new(Some(Listening::new())),
            shared,
        }
    }

    /// Goes down: open connections break, and new ones are refused.
    pub fn go_away(&self) {
        self.listening.lock().unwrap().take();
    }

    /// Comes back where it was.
    pub async fn come_back(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        *self.listening.lock().unwrap() = Some(Listening::new());
        self.listen_at(listener);
    }

    /// The same, of a server in memory.
    pub fn come_back_in_memory(&self) {
        *self.listening.lock().unwrap() = Some(Listening::new());
    }

    fn listen_at(&self, listener: TcpListener) {
        let stop = self.stop().unwrap();
        let serving = serve(listener, self.shared.clone(), stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(serving));
    }

    fn stop(&self) -> Option<CancellationToken> {
        let listening = self.listening.lock().unwrap();
        listening.as_ref().map(|listening| listening.stop.clone())
    }

    /// A connection to a server in memory; refused while it is away.
    pub fn dial(&self) -> std::io::Result<DuplexStream> {
        let Some(stop) = self.stop() else {
            lock(&self.state).struck += 1;
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        };
        let (near, far) = tokio::io::duplex(WINDOW);
        let shared = self.shared.clone();
        tokio::spawn(stop.run_until_cancelled_owned(converse(far, shared)));
        Ok(near)
    }

    /// How often a fault of the script struck, or a connection was refused.
    pub fn struck(&self) -> usize {
        lock(&self.state).struck
    }

    /// How many mails it recognised, and did not keep again.
    pub fn recognised(&self) -> usize {
        lock(&self.state).recognised
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `smtp://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// The certificate (PEM) of the server, valid for `localhost`.
    pub fn root(&self) -> Vec<u8> {
        self.root.clone()
    }

    /// The mails accepted so far, oldest first.
    pub fn accepted(&self) -> Vec<Mail> {
        lock(&self.state).mails.clone()
    }

    /// How many mails are accepted so far.
    pub fn count(&self) -> usize {
        *self.accepted.borrow()
    }

    /// How often each Message-ID was accepted.
    pub fn by_message_id(&self) -> BTreeMap<String, usize> {
        self.count_by(|mail| vec![mail.message_id()])
    }

    /// How often each recipient was accepted.
    pub fn by_recipient(&self) -> BTreeMap<String, usize> {
        self.count_by(|mail| mail.to.clone())
    }

    /// How often each value of a header was accepted.
    pub fn by_header(&self, name: &str) -> BTreeMap<String, usize> {
        self.count_by(|mail| mail.header(name).into_iter().collect())
    }

    fn count_by(&self, keys: impl Fn(&Mail) -> Vec<String>) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for key in lock(&self.state).mails.iter().flat_map(keys) {
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    /// Waits until this many mails are accepted.
    pub async fn wait_accepted(&self, count: usize) {
        let mut accepted = self.accepted.clone();
        accepted.wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// Waits until a connection ends in the middle of a message. Returns what was received.
    pub async fn wait_cut(&self) -> Vec<u8> {
        let mut cut = self.cut.clone();
        let cut = cut.wait_for(Option::is_some).await.unwrap();
        cut.clone().unwrap_or_default()
    }

    /// Releases everything that [`Act::Hold`] holds, now and later.
    pub fn release(&self) {
        self.released.cancel();
    }

    /// The commands heard so far, each with its connection.
    pub fn heard(&self) -> Vec<(usize, String)> {
        lock(&self.state).heard.clone()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// How many connections were open at once, at most.
    pub fn most_open(&self) -> usize {
        lock(&self.state).most_open
    }

    /// How often commands came right behind a final dot.
    pub fn rides(&self) -> usize {
        lock(&self.state).rides
    }

    /// Adds a line to the script.
    pub fn add(&self, fault: Fault) {
        lock(&self.state).faults.push(fault);
    }

    /// Clears the script: from now on the server is well.
    pub fn heal(&self) {
        lock(&self.state).faults.clear();
    }
}

fn certificate() -> (TlsAcceptor, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (
        TlsAcceptor::from(Arc::new(config)),
        made.cert.pem().into_bytes(),
    )
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let conversation = converse(stream, shared.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(conversation));
    }
}

/// A conversation, counted from now on.
fn converse<S: Breakable>(stream: S, shared: Arc<Shared>) -> impl Future<Output = ()> + Send {
    let number = {
        let mut state = lock(&shared.state);
        state.open += 1;
        state.most_open = state.most_open.max(state.open);
        state.connections += 1;
        state.connections - 1
    };
    let open = Open(shared.state.clone());
    async move {
        let _open = open;
        session::connection(stream, number, &shared).await;
    }
}

struct Open(Arc<Mutex<State>>);

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.0).open -= 1;
    }
}
