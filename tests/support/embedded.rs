//! A DynamoDB in this process: dynoxide on a loopback port, in memory, on a thread of its own.

use std::net::TcpListener;
use std::thread::JoinHandle;

use dynoxide::Database;
use dynoxide::server::serve_with_shutdown;
use tokio::sync::oneshot;

/// A running server. It stops when dropped, and everything in it is gone.
pub struct Embedded {
    url: String,
    database: Database,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts an empty server. It accepts connections when this returns.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let database = Database::memory().expect("a database in memory");
        let shared = database.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let server = serve_with_shutdown(listener, shared, std::future::pending());
                // Clients keep idle connections, so the server does not wait for them to close.
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    ended = server => ended.expect("the embedded server"),
                }
            });
        });
        Self {
            url,
            database,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it serves, for those who look past its HTTP interface.
    pub fn database(&self) -> Database {
        self.database.clone()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A server that panicked has said so already.
            let _ = thread.join();
        }
    }
}
