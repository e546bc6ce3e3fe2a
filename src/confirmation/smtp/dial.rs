//! Connects to one of several addresses, and sets the sockets' options.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::stage::Cause;
use super::stage::within;

/// Connects to a simulated server.
#[cfg(feature = "simulation")]
#[derive(Clone)]
pub(super) struct Dial(
    pub(super) std::sync::Arc<dyn Fn() -> std::io::Result<tokio::io::DuplexStream> + Send + Sync>,
);

#[cfg(feature = "simulation")]
impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dial")
    }
}

/// The next address is tried after this time if the earlier ones have not answered
/// ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305#section-5)).
const STAGGER: Duration = Duration::from_millis(250);

/// A silent connection is probed after this time. Load balancers and firewalls forget a silent
/// connection after minutes, and a reply to the final dot can take ten.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// How often it is probed again, and how many times, before it counts as dead.
const ASKED_AGAIN: (Duration, u32) = (Duration::from_secs(15), 4);

/// Data that is not acknowledged for this long means that the connection is dead.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_mins(2);

/// Connects to whichever address answers first. Each has its own timeout, so that an address that
/// swallows connections does not hide another that works.
pub(super) async fn first_to_answer(
    addresses: Vec<SocketAddr>,
    limit: Duration,
) -> Result<TcpStream, Cause> {
    let attempts = alternating(addresses).into_iter().zip(0..);
    let attempts = attempts.map(|(address, place)| async move {
        sleep(STAGGER * place).await;
        within(limit, TcpStream::connect(address)).await
    });
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut failed = Cause::Io(std::io::Error::other("the name has no address"));
    while let Some(connected) = attempts.next().await {
        match connected {
            Ok(stream) => return Ok(stream),
            Err(cause) => failed = cause,
        }
    }
    Err(failed)
}

/// IPv6 and IPv4 alternating, beginning with the first address of the look-up.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut order = Vec::new();
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = [first.next(), second.next()];
        let before = order.len();
        order.extend(pair.into_iter().flatten());
        if order.len() == before {
            return order;
        }
    }
}

/// Sends short segments at once, which would otherwise wait 40 ms for the peer's delayed
/// acknowledgement, and detects dead connections.
pub(super) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let (interval, retries) = ASKED_AGAIN;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive.with_interval(interval).with_retries(retries))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(100);

    /// An address that swallows connections: a full queue drops each further SYN.
    async fn silent() -> (SocketAddr, impl Drop) {
        struct Held(#[expect(dead_code)] (TcpListener, Vec<TcpStream>));
        impl Drop for Held {
            fn drop(&mut self) {}
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let address = full.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = timeout(SOON, TcpStream::connect(address)).await {
            queue.push(stream.unwrap());
        }
        (address, Held((full, queue)))
    }

    #[tokio::test]
    async fn an_address_that_swallows_connections_does_not_hide_one_that_is_well() {
        let (silent, _held) = silent().await;
        let well = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well = well.local_addr().map(|address| (well, address)).unwrap();
        let long = Duration::from_hours(1);
        let stream = first_to_answer(vec![silent, well.1], long).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), well.1);
        let nobody = first_to_answer(vec![silent], SOON).await;
        assert!(matches!(nobody, Err(Cause::Timeout(limit)) if limit == SOON));
    }

    #[tokio::test]
    async fn a_connection_that_dies_without_a_sign_is_noticed() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let stream = first_to_answer(vec![address], Duration::from_mins(1));
        let stream = stream.await.unwrap();
        tune(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn the_families_take_turns() {
        let all = |texts: [&str; 4]| texts.map(|text| text.parse().unwrap()).to_vec();
        let found = all(["[::1]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let order = all(["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1"]);
        assert_eq!(alternating(found), order);
    }
}
