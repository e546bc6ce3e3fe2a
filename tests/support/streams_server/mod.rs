//! A server that speaks the DynamoDB Streams protocol in front of the embedded DynamoDB.
//!
//! It reads the one stream that the embedded server has and deals its records into virtual shards
//! by the item's key. The test decides when shards split, roll over, are trimmed and forgotten,
//! when the stream is replaced by another, when iterators expire and when calls are throttled; so
//! the real SDK meets what no emulator does.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::sync::oneshot;

use self::shards::Shards;
use self::state::{Server, Stream, request};
use super::embedded::Embedded;

mod shards;
mod state;
mod wire;

/// A call of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    ListStreams,
    DescribeStream,
    GetShardIterator,
    GetRecords,
}

/// What a call is answered with instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `LimitExceededException`.
    LimitExceeded,
    /// `ThrottlingException`.
    Throttling,
    /// `InternalServerError`, status 500.
    Internal,
}

/// A question for children that was answered with nothing, as asked for.
pub const NO_CHILDREN: &str = "no children";
/// A query for children, one of which was hidden.
pub const HIDDEN_CHILD: &str = "a hidden child";
/// A question for children that was answered with every shard.
pub const FILTER_IGNORED: &str = "the filter ignored";

/// What `DescribeStream` makes of the filter for a shard's children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// Answers with the children, as the service does.
    Filtered,
    /// Answers with every shard, as DynamoDB Local does.
    FilterIgnored,
}

/// A running server. It stops when dropped.
pub struct StreamsServer {
    url: String,
    server: Arc<Mutex<Server>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

async fn serve(
    State(server): State<Arc<Mutex<Server>>>,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    wire::answer(&mut lock(&server), &headers, &body)
}

fn lock(server: &Mutex<Server>) -> MutexGuard<'_, Server> {
    server.lock().expect("no call has panicked")
}

impl StreamsServer {
    /// Serves the embedded stream with this ARN, dealt into `shards` shards without parents.
    pub fn start(embedded: &Embedded, arn: &str, shards: u16) -> Self {
        let server = Server::new(embedded.database(), arn, shards);
        let server = Arc::new(Mutex::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = Router::new().route("/", post(serve));
        let routes = routes.with_state(Arc::clone(&server));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    ended = axum::serve(listener, routes) => ended.expect("the streams server"),
                }
            });
        });
        Self {
            url,
            server,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens: the streams endpoint. Tables are at the embedded server's own.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The state, with all that is committed dealt out.
    fn now(&self) -> MutexGuard<'_, Server> {
        let mut server = lock(&self.server);
        server.pull();
        server
    }

    /// The shards that take records now, the oldest first.
    pub fn open_shards(&self) -> Vec<String> {
        let server = self.now();
        let all = server.newest().shards.all.iter();
        let open = all.filter(|(_, shard)| !shard.closed);
        open.map(|(id, _)| id.clone()).collect()
    }

    /// How many records the shard holds, without the trimmed ones.
    pub fn holds(&self, shard: &str) -> usize {
        let server = self.now();
        let shard = &server.newest().shards.all[shard];
        shard.records.len() - shard.trimmed
    }

    /// Ends a shard after its last record. Two children continue, each with half of its keys.
    pub fn split(&self, shard: &str) -> [String; 2] {
        self.now().newest_mut().shards.split(shard)
    }

    /// Ends a shard after its last record. One child continues.
    pub fn roll_over(&self, shard: &str) -> String {
        self.now().newest_mut().shards.roll_over(shard)
    }

    /// Trims the oldest records of a shard.
    pub fn trim(&self, shard: &str, records: usize) {
        self.now().newest_mut().shards.trim(shard, records);
    }

    /// Removes an ended shard from the stream, as the service does a day later.
    pub fn forget(&self, shard: &str) {
        let gone = self.now().newest_mut().shards.all.remove(shard);
        assert!(gone.is_some_and(|shard| shard.closed), "an ended shard");
    }

    /// The table's stream was switched off: its shards end behind all that is committed.
    pub fn switch_off(&self) {
        self.now().newest_mut().shards.close_all();
    }

    /// The table has the stream with this ARN now, dealt into so many shards without parents. The
    /// earlier one ends.
    pub fn switch_on(&self, arn: &str, shards: u16) {
        self.switch_off();
        let mut server = self.now();
        let described = server
            .source
            .database
            .describe_stream(request!({ "StreamArn": arn }));
        let described = described.expect("a stream").stream_description;
        server.streams.push(Stream {
            arn: arn.to_owned(),
            view: described.stream_view_type,
            shards: Shards::new(shards),
        });
    }

    /// The stream with this ARN is gone, as a day after it was switched off.
    pub fn forget_stream(&self, arn: &str) {
        self.now().streams.retain(|stream| stream.arn != arn);
    }

    /// `ListStreams` also returns the stream with this ARN, of any table.
    pub fn list_stranger(&self, arn: &str) {
        self.now().strangers.push(arn.to_owned());
    }

    /// `ListStreams` does not return the stream with this ARN.
    pub fn do_not_list(&self, arn: &str) {
        self.now().unlisted.insert(arn.to_owned());
    }

    /// `ListStreams` returns at most this many streams at once.
    pub fn streams_per_page(&self, streams: usize) {
        self.now().streams_per_page = streams;
    }

    /// Shards that are created from now on are not listed until [`StreamsServer::reveal`].
    pub fn hide_new_shards(&self) {
        self.now().newest_mut().shards.hide_new = true;
    }

    /// Lists all shards again.
    pub fn reveal(&self) {
        self.now().newest_mut().shards.reveal();
    }

    /// Expires every iterator that was given out.
    pub fn expire_iterators(&self) {
        let mut server = self.now();
        server.iterators_of += 1;
        server.read.send_replace(BTreeSet::new());
    }

    /// Waits until every shard that is open and listed was read with an iterator that has not
    /// expired: only then does somebody meet its expiry.
    pub async fn open_shards_are_read(&self) {
        let (mut read, open) = {
            let server = self.now();
            let open = server.newest().shards.all.iter();
            let open = open.filter(|(_, shard)| !shard.closed && !shard.hidden);
            let open: BTreeSet<_> = open.map(|(id, _)| id.clone()).collect();
            (server.read.subscribe(), open)
        };
        let all = read.wait_for(|read| open.is_subset(read));
        let all = tokio::time::timeout(Duration::from_mins(1), all).await;
        assert!(all.is_ok(), "nobody reads some of {open:?}");
    }

    /// What questions for children are answered with.
    pub fn answer_children(&self, how: Children) {
        self.now().children = how;
    }

    /// Answers the next `times` queries for children with an empty list.
    pub fn answer_no_children(&self, times: usize) {
        self.now().empty_children = times;
    }

    /// Fails the next `times` calls of an operation.
    pub fn fail(&self, operation: Operation, fault: Fault, times: usize) {
        let mut server = self.now();
        let faults = server.faults.entry(operation).or_default();
        faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Lists at most this many shards in one answer (100, as the service).
    pub fn page_size(&self, shards: usize) {
        self.now().page_size = shards;
    }

    /// Returns at most this many records in one answer (1,000, as the service).
    pub fn batch_size(&self, records: usize) {
        self.now().batch_size = records;
    }

    /// Waits until this was met so often: an error, by its type, or one of this module's constants.
    pub async fn meets(&self, what: &str, times: usize) {
        let mut met = self.now().met.subscribe();
        let often = met.wait_for(|met| met.get(what).is_some_and(|count| *count >= times));
        let often = tokio::time::timeout(Duration::from_mins(1), often).await;
        let known = || self.now().met.borrow().clone();
        assert!(
            often.is_ok(),
            "{what} was not met {times} times: {:?}",
            known()
        );
    }

    /// When an operation was called, failed calls included.
    pub fn calls(&self, operation: Operation) -> Vec<Instant> {
        let server = self.now();
        let calls = server.calls.iter().filter(|(of, _)| *of == operation);
        calls.map(|(_, when)| *when).collect()
    }
}

impl Drop for StreamsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A server that panicked has said so already.
            let _ = thread.join();
        }
    }
}
