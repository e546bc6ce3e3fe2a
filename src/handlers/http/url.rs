//! Where a handler is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};

/// Where a handler is: `http://host:port/path`, `https://...`, or `unix:/path/to/socket`, where the path of
/// the request may follow after another colon: `unix:/run/shop.sock:/changes`.
///
/// It is shown without its query, which may hold a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerUrl {
    uri: Uri,
    server: HandlerServer,
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HandlerServer {
    Tcp {
        host: Arc<str>,
        port: u16,
        tls: bool,
    },
    Unix(Arc<PathBuf>),
}

/// A text that is not the URL of a handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It is not a URL of a known kind.
    #[error(
        "expected a URL such as http://127.0.0.1:8080/changes, https://handler.example.com/ or \
         unix:/run/handler.sock:/changes"
    )]
    Unknown,
    /// It has a user or a password, which would be shown.
    #[error(
        "the URL has a user or a password: remove it, and let the handler check a signature instead"
    )]
    HasUser,
}

impl FromStr for HandlerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        match text.strip_prefix("unix:") {
            Some(rest) => Self::unix(rest),
            None => Self::tcp(text),
        }
    }
}

impl HandlerUrl {
    fn tcp(text: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidUrl::Unknown)?;
        let authority = uri.authority().ok_or(InvalidUrl::Unknown)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::HasUser);
        }
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidUrl::Unknown),
        };
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let named = authority.as_str().len() - authority.host().len();
        // `host:` and `host:99999` have no port that can be read, and are not the default either.
        let port = match (authority.port_u16(), named, tls) {
            (Some(port), ..) => port,
            (None, 0, false) => 80,
            (None, 0, true) => 443,
            (None, ..) => return Err(InvalidUrl::Unknown),
        };
        if host.is_empty() || port == 0 {
            return Err(InvalidUrl::Unknown);
        }
        let host = host.into();
        let server = HandlerServer::Tcp { host, port, tls };
        Ok(Self { uri, server })
    }

    fn unix(rest: &str) -> Result<Self, InvalidUrl> {
        let (socket, path) = rest.split_once(":/").unwrap_or((rest, ""));
        if !socket.starts_with('/') {
            return Err(InvalidUrl::Unknown);
        }
        let path: PathAndQuery = format!("/{path}")
            .parse()
            .map_err(|_| InvalidUrl::Unknown)?;
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(Authority::from_static("localhost"))
            .path_and_query(path)
            .build();
        let server = HandlerServer::Unix(Arc::new(socket.into()));
        Ok(Self {
            uri: uri.map_err(|_| InvalidUrl::Unknown)?,
            server,
        })
    }

    /// The host and the port that are connected to; `None`: a socket on this machine.
    pub fn host(&self) -> Option<(&str, u16)> {
        match &self.server {
            HandlerServer::Tcp { host, port, .. } => Some((host, *port)),
            HandlerServer::Unix(_) => None,
        }
    }

    /// Whether this is the runtime emulator of a Lambda function's container, which serves one call at a
    /// time.
    ///
    /// Source: [the emulator](https://docs.aws.amazon.com/lambda/latest/dg/images-test.html).
    pub fn is_emulator(&self) -> bool {
        let path = self.uri.path();
        path.starts_with("/2015-03-31/functions/") && path.ends_with("/invocations")
    }

    /// What is asked for there.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn server(&self) -> &HandlerServer {
        &self.server
    }
}

impl fmt::Display for HandlerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.uri.scheme_str(), self.uri.authority());
        let path = self.uri.path();
        match &self.server {
            HandlerServer::Unix(socket) => write!(f, "unix:{}:{path}", socket.display()),
            HandlerServer::Tcp { host, .. } => {
                let authority = authority.map_or(&**host, Authority::as_str);
                write!(f, "{}://{authority}{path}", scheme.unwrap_or("http"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_url_names_a_server_and_what_is_asked_for_there() {
        for (text, host, path, shown) in [
            (
                "http://127.0.0.1:8080/changes",
                Some(("127.0.0.1", 8080)),
                "/changes",
                "http://127.0.0.1:8080/changes",
            ),
            (
                "https://example.com",
                Some(("example.com", 443)),
                "/",
                "https://example.com/",
            ),
            (
                "http://[::1]:81/a?token=1",
                Some(("::1", 81)),
                "/a?token=1",
                "http://[::1]:81/a",
            ),
            ("unix:/run/app.sock", None, "/", "unix:/run/app.sock:/"),
            (
                "unix:/run/app.sock:/a/b",
                None,
                "/a/b",
                "unix:/run/app.sock:/a/b",
            ),
        ] {
            let url: HandlerUrl = text.parse().unwrap();
            assert_eq!(url.host(), host, "{text}");
            assert_eq!(url.uri().path_and_query().unwrap().as_str(), path, "{text}");
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn a_text_that_names_a_server_in_no_known_way_is_refused() {
        for wrong in [
            "",
            "127.0.0.1:8080",
            "localhost",
            "ftp://a/",
            "http://",
            "http:///a",
            "http://a:99999/",
            "http://a:/",
            "http://a:0/",
            "unix:app.sock",
            "unix:",
            "file:///a",
            "http://a b/",
        ] {
            assert_eq!(
                wrong.parse::<HandlerUrl>(),
                Err(InvalidUrl::Unknown),
                "{wrong}"
            );
        }
        let user = "http://me:pw@example.com/".parse::<HandlerUrl>();
        assert_eq!(user, Err(InvalidUrl::HasUser));
    }

    #[test]
    fn the_emulator_is_known_by_its_path() {
        let is = |text: &str| text.parse::<HandlerUrl>().unwrap().is_emulator();
        assert!(is(
            "http://localhost:9000/2015-03-31/functions/function/invocations"
        ));
        assert!(!is("http://localhost:9000/2015-03-31/functions"));
    }
}
