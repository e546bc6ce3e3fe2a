//! `run --table` on a table without a stream, or with one that cannot be used.

use std::time::Duration;

use aftercommit::stores::leases::{Consistency, LeaseStore as _};
use aftercommit::stores::tables::dynamodb::{TableStream, create_orders_table};
use aws_sdk_dynamodb::types::StreamViewType;
use tokio::time::timeout;

use crate::cli::start::complaint;
use crate::fleet::process::{Process, command};
use crate::monitor::watching::{process_ends, served, until};
use crate::support::embedded::Embedded;
use crate::support::http::Answer;
use crate::support::mail_server::{MailServer, Script};
use crate::support::shop::{Shop, specify_stream};
use crate::support::streams_server::StreamsServer;

const LIMIT: Duration = Duration::from_mins(4);

/// A shop whose orders are mailed, and the streams of its table.
struct Scene {
    shop: Shop,
    mails: MailServer,
    streams: StreamsServer,
    folder: tempfile::TempDir,
    _embedded: Embedded,
}

impl Scene {
    async fn open() -> Self {
        let embedded = Embedded::start();
        let shop = Shop::open(embedded.url()).await;
        Self {
            streams: StreamsServer::start(&embedded, &shop.arn, 1),
            mails: MailServer::start(Script::default()).await,
            folder: tempfile::tempdir().unwrap(),
            shop,
            _embedded: embedded,
        }
    }

    async fn switch_off(&self) {
        self.streams.switch_off();
        specify_stream(&self.shop.client, &self.shop.orders, None).await;
    }

    /// Switches a stream on; answers its label.
    async fn switch_on(&self, view: StreamViewType) -> String {
        let Shop { client, orders, .. } = &self.shop;
        specify_stream(client, orders, Some(view)).await;
        self.list_stream().await
    }

    /// Serves the stream that the table has now; answers its label.
    async fn list_stream(&self) -> String {
        let Shop { client, orders, .. } = &self.shop;
        let arn = TableStream::resolve(client, orders).await.unwrap().arn;
        self.streams.switch_on(&arn, 1);
        arn.rsplit('/').next().unwrap().to_owned()
    }

    fn start(&self, name: &str) -> Process {
        let url = Some(self.streams.url());
        let mut command = command(&self.shop, &self.mails, url, name);
        command.args(["--http", "127.0.0.1:0", "--lease-duration", "1s"]);
        Process::start(command, self.folder.path(), name)
    }

    /// Where a worker that has not begun serves its status, as it logged.
    async fn address(&self, name: &str) -> String {
        let log = self.folder.path().join(format!("{name}.log"));
        loop {
            let lines = std::fs::read_to_string(&log).unwrap_or_default();
            let mut lines = lines
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let address = lines
                .find_map(|line: serde_json::Value| line["address"].as_str().map(str::to_owned));
            if let Some(address) = address {
                return address;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How often a worker has logged that it does not read.
    fn complaints(&self, name: &str) -> usize {
        let log = self.folder.path().join(format!("{name}.log"));
        let log = std::fs::read_to_string(log).unwrap();
        log.matches("committed changes are not read").count()
    }

    /// The group has begun, and three orders are mailed.
    async fn begun() -> Self {
        let scene = Self::open().await;
        let mut worker = scene.start("one");
        scene.shop.place(0..3).await;
        scene.mails.wait_accepted(3).await;
        process_ends(&mut worker).await;
        scene
    }

    async fn gaps(&self) -> Vec<String> {
        let view = self.shop.lease_store().look(Consistency::Strong).await;
        let gaps = view.unwrap().gaps.into_iter();
        gaps.map(|gap| gap.shard.to_string()).collect()
    }
}

#[tokio::test]
async fn a_group_that_has_begun_waits_for_a_stream_and_says_so() {
    let scene = Scene::begun().await;
    let run = async {
        scene.switch_off().await;
        let mut worker = scene.start("two");
        let at = served(&scene.shop).await;
        let waits = |answer: &Answer| answer.body.contains("has no stream");
        let reported = until(&at, "/readyz", waits).await;
        assert_eq!(
            (reported.code, reported.body.matches('\n').count()),
            (503, 1)
        );
        let what_to_do = "aws dynamodb update-table --table-name";
        assert!(reported.body.contains(what_to_do), "{}", reported.body);
        scene.switch_on(StreamViewType::NewAndOldImages).await;
        scene.shop.place(3..6).await;
        scene.mails.wait_accepted(6).await;
        until(&at, "/readyz", |answer| answer.code == 200).await;
        process_ends(&mut worker).await;
    };
    timeout(LIMIT, run).await.unwrap();
    assert_eq!(scene.complaints("two"), 1);
    assert_eq!(scene.gaps().await, [""; 0]);
}

#[tokio::test]
async fn a_group_that_has_begun_waits_out_a_stream_without_images_which_is_a_gap() {
    let scene = Scene::begun().await;
    let run = async {
        scene.switch_off().await;
        let blind = scene.switch_on(StreamViewType::KeysOnly).await;
        let mut worker = scene.start("two");
        let at = served(&scene.shop).await;
        let waits = |answer: &Answer| answer.body.contains("KEYS_ONLY");
        assert_eq!(until(&at, "/readyz", waits).await.code, 503);
        scene.switch_off().await;
        scene.switch_on(StreamViewType::NewAndOldImages).await;
        scene.shop.place(3..6).await;
        scene.mails.wait_accepted(6).await;
        until(&at, "/readyz", |answer| answer.code == 200).await;
        process_ends(&mut worker).await;
        assert_eq!(scene.gaps().await, [format!("{blind}#whole-stream")]);
    };
    timeout(LIMIT, run).await.unwrap();
}

#[tokio::test]
async fn a_group_that_has_begun_waits_until_its_table_is_created_again() {
    let scene = Scene::begun().await;
    let run = async {
        scene.switch_off().await;
        let Shop { client, orders, .. } = &scene.shop;
        client
            .delete_table()
            .table_name(orders)
            .send()
            .await
            .unwrap();
        let mut worker = scene.start("two");
        let at = scene.address("two").await;
        let waits = |answer: &Answer| answer.body.contains("waits until it is created again");
        assert_eq!(until(&at, "/readyz", waits).await.code, 503);
        create_orders_table(client, orders).await.unwrap();
        scene.list_stream().await;
        scene.shop.place(3..6).await;
        scene.mails.wait_accepted(6).await;
        until(&at, "/readyz", |answer| answer.code == 200).await;
        process_ends(&mut worker).await;
    };
    timeout(LIMIT, run).await.unwrap();
    assert_eq!(scene.gaps().await, [""; 0]);
}

#[tokio::test]
async fn a_group_that_never_began_is_not_started_on_a_table_without_a_stream() {
    let scene = Scene::open().await;
    scene.switch_off().await;
    let refused = || command(&scene.shop, &scene.mails, None, "one").output();
    let reported = complaint(&refused().await.unwrap());
    assert!(reported.contains("has no stream"), "{reported}");
    scene.switch_on(StreamViewType::KeysOnly).await;
    let reported = complaint(&refused().await.unwrap());
    assert!(reported.contains("KEYS_ONLY"), "{reported}");
}
