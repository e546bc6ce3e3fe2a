//! The servers that every store is tested on, and how a behaviour is run on each.

#![allow(unused_macros, unused_imports)]

use std::sync::Arc;

use aws_sdk_dynamodb::Client;

use super::clients;
use super::embedded::Embedded;
use super::wiretap::Wiretap;

/// A DynamoDB: embedded, for as long as this lives, or LocalStack.
pub struct Server {
    pub client: Client,
    embedded: Option<Arc<Embedded>>,
}

impl Server {
    pub fn embedded() -> Self {
        let server = Embedded::start();
        Self {
            client: clients::dynamodb(server.url()),
            embedded: Some(Arc::new(server)),
        }
    }

    /// The same server, for another table.
    pub fn like(other: &Self) -> Self {
        Self {
            client: other.client.clone(),
            embedded: other.embedded.clone(),
        }
    }

    /// One that refuses each read and write when it comes for the first time: throttled, or because
    /// another transaction is under way.
    pub fn hindered() -> Self {
        let (wiretap, server) = Self::heard();
        wiretap.hinder();
        server
    }

    /// One with an ear on what is asked of it.
    pub fn heard() -> (Wiretap, Self) {
        let server = Self::embedded();
        let (wiretap, client) = Wiretap::on(&server.client);
        (wiretap, Self { client, ..server })
    }

    pub fn localstack() -> Self {
        Self {
            client: clients::dynamodb(&clients::localstack_url()),
            embedded: None,
        }
    }
}

/// Runs every behaviour on what `$open` makes on every server.
macro_rules! on_each_server {
    ($open:expr; $($behaviour:ident,)*) => {
        mod embedded {
            use super::*;
            $(#[tokio::test]
            async fn $behaviour() {
                let server = $crate::support::server::Server::embedded();
                super::$behaviour($open(server).await).await;
            })*
        }
        mod localstack {
            use super::*;
            $(#[tokio::test]
            #[ignore = "needs LocalStack: run localstack/test.sh"]
            async fn $behaviour() {
                let server = $crate::support::server::Server::localstack();
                super::$behaviour($open(server).await).await;
            })*
        }
    };
}
pub(crate) use on_each_server;

/// Runs every behaviour on every store: the one in memory, and `$store` of what `$open` makes on
/// every server, one that hinders included. A store on a server may hold what others wrote.
macro_rules! on_each_store {
    ($memory:expr, $open:expr, $store:expr; $($behaviour:ident,)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $behaviour() {
                super::$behaviour($memory).await;
            })*
        }
        mod embedded {
            use super::*;
            $(#[tokio::test]
            async fn $behaviour() {
                let opened = $open($crate::support::server::Server::embedded()).await;
                super::$behaviour($store(&opened)).await;
            })*
        }
        mod hindered {
            use super::*;
            $(#[tokio::test]
            async fn $behaviour() {
                let opened = $open($crate::support::server::Server::hindered()).await;
                super::$behaviour($store(&opened)).await;
            })*
        }
        mod localstack {
            use super::*;
            $(#[tokio::test]
            #[ignore = "needs LocalStack: run localstack/test.sh"]
            async fn $behaviour() {
                let opened = $open($crate::support::server::Server::localstack()).await;
                super::$behaviour($store(&opened)).await;
            })*
        }
    };
}
pub(crate) use on_each_store;
