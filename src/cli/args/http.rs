//! The address at which a worker serves its status.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;

/// The address at which the status is served.
#[derive(Debug, Args)]
pub struct HttpArgs {
    /// Address that serves health, metrics and a page, such as 127.0.0.1:9464 [default: none]. Anyone who
    /// can reach it can read them
    #[arg(long, value_name = "ADDRESS", env = "AFTERCOMMIT_HTTP", value_parser = address)]
    pub http: Option<SocketAddr>,
}

impl HttpArgs {
    /// The address at which a process on this machine reaches the status.
    pub fn address_here(&self) -> Option<SocketAddr> {
        let mut address = self.http?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        Some(address)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| "write an IP address and a port, such as 127.0.0.1:9464".to_owned();
    text.parse().map_err(wrong)
}
