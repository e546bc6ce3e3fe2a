//! The time is DynamoDB's, from its answers.

use std::time::{Duration, SystemTime};

use aftercommit::internal::clock::dynamodb::with_service_time;
use aftercommit::stores::leases::{Consistency, LeaseStore as _};

use crate::stores::leases::OnServer;
use crate::support::server::Server;
use crate::support::wiretap::Refusal;

const HOURS: Duration = Duration::from_hours(5);

/// How far a time is from being five hours ahead of this machine's.
fn error(time: Option<SystemTime>) -> Duration {
    let (time, right) = (time.unwrap(), SystemTime::now() + HOURS);
    let behind = right.duration_since(time);
    behind.unwrap_or_else(|ahead| ahead.duration())
}

#[tokio::test]
async fn the_lease_table_takes_the_time_from_the_answers_to_its_calls() {
    let (wiretap, server) = Server::heard();
    let on = OnServer::on(server).await;
    let leases = on.leases();
    assert_eq!(leases.service_time(), None, "nothing was answered yet");
    wiretap.set_ahead(HOURS);
    leases.look(Consistency::Eventual).await.unwrap();
    assert!(error(leases.service_time()) < Duration::from_secs(10));
    // Each clone hears the answers to all of them, and a server that is set right is believed.
    let clone = leases.clone();
    wiretap.set_ahead(HOURS * 2);
    clone.look(Consistency::Strong).await.unwrap();
    assert!(error(leases.service_time()) > Duration::from_hours(4));
    wiretap.set_ahead(HOURS);
    clone.look(Consistency::Strong).await.unwrap();
    assert!(error(leases.service_time()) < Duration::from_secs(10));
}

#[tokio::test]
async fn an_error_of_the_service_gives_the_time_and_an_answer_of_another_server_does_not() {
    let (wiretap, server) = Server::heard();
    let (client, time) = with_service_time(server.client.clone());
    wiretap.refuse("DescribeTable", Refusal::ByAProxy, 1);
    let get = || client.describe_table().table_name("nowhere").send();
    assert!(get().await.is_err());
    assert_eq!(time.now(), None);
    wiretap.set_ahead(HOURS);
    assert!(get().await.is_err());
    assert!(error(time.now()) < Duration::from_secs(10));
}
