//! The secret of a login, which can change while the worker runs: passwords are rotated, and an access
//! token is valid for an hour.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tracing::{info, warn};
use zeroize::Zeroizing;

/// A secret: erased from memory when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// Reads a secret again from its source.
#[derive(Clone)]
pub struct Reload(Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<Secret>> + Send + Sync>);

impl Reload {
    /// Uses this function to read it.
    pub fn by<F>(read: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<Secret>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(read())))
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

/// The secret that was last read.
pub(super) struct Secrets {
    reload: Option<Reload>,
    last: Mutex<Last>,
}

struct Last {
    secret: Secret,
    /// Whether the server refused it.
    refused: bool,
}

impl Secrets {
    pub fn new(secret: Secret, reload: Option<Reload>) -> Self {
        let refused = false;
        let last = Mutex::new(Last { secret, refused });
        Self { reload, last }
    }

    /// The secret for the next login. It is read again if the last one was refused, so that the server
    /// does not get the same wrong secret at every attempt.
    pub async fn next(&self) -> Secret {
        let mut last = self.last.lock().await;
        if last.refused {
            self.read(&mut last).await;
        }
        last.secret.clone()
    }

    /// The server refused `tried`. Returns whether there is another secret by now.
    pub async fn refused(&self, tried: &Secret) -> bool {
        let mut last = self.last.lock().await;
        if last.secret == *tried {
            last.refused = true;
            self.read(&mut last).await;
        }
        last.secret != *tried
    }

    async fn read(&self, last: &mut Last) {
        let Some(Reload(read)) = &self.reload else {
            return;
        };
        match read().await {
            Ok(secret) if secret != last.secret => {
                info!("the mail server's password has changed; the new one is used from now on");
                let refused = false;
                *last = Last { secret, refused };
            }
            Ok(_) => {}
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "cannot read the mail server's password again");
            }
        }
    }
}
