//! Real processes: stopped, killed and frozen while orders come in.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::stores::leases::{Consistency, Incarnation, LeaseStore as _, View, WorkerRow};
use tokio::process::Command;
use tokio::time::{sleep, sleep_until, timeout};

use crate::confirmation::end_to_end::seed;
use crate::fleet::process::{Process, Signal, command, command_to};
use crate::support::clients::localstack_url;
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, check};
use crate::support::streams_server::StreamsServer;

const POLICY: OnAmbiguous = OnAmbiguous::Resend;
const LIMIT: Duration = Duration::from_mins(4);

/// A folder of its own for logs, kept where the test fails.
pub fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn a_process_that_is_told_to_stop_finishes_hands_over_and_ends_well() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let other = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    shop.place(0..20).await;
    other.place(20..30).await;
    let folder = folder("stop");
    let mut command = command(&shop, &mails, None, "one");
    // A second table in the same process.
    command.args(["--table", &shop.orders, "--table", &other.orders]);
    let mut process = Process::start(command, &folder, "one");
    timeout(LIMIT, mails.wait_accepted(30)).await.unwrap();
    process.signal(Signal::Stop).await;
    let status = timeout(LIMIT, process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let view = shop.lease_store().look(Consistency::Strong).await.unwrap();
    assert!(view.workers.is_empty(), "{:?}", view.workers);
    assert!(view.leases.values().all(|row| row.owner.is_none()));
    assert!(!view.leases.is_empty());
    assert_eq!(check(&shop.finished(30, POLICY).await, &mails, POLICY), 0);
    let log = std::fs::read_to_string(folder.join("one.log")).unwrap();
    let stopped: Vec<_> = log
        .lines()
        .filter(|line| line.contains("\"stopped\""))
        .collect();
    assert_eq!(stopped.len(), 2, "{log}");
    assert!(
        log.contains("\"accepted\":20") && log.contains("\"accepted\":10"),
        "{log}"
    );
    assert!(!log.contains("@example.com"), "an address in the log");
}

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    Kill,
    Freeze,
    Stop,
}

/// How many processes share the stream.
const WORKERS: usize = 3;
const ORDERS: usize = 2_000;
/// How long they are struck, and how long orders come in.
const STORM: Duration = Duration::from_mins(1);
const LEASE: Duration = Duration::from_secs(2);
/// How long shards may stand in the name of a worker that was killed, and of one that was stopped,
/// if those who are to take over are well. The same limits hold for each, to the millisecond, in the
/// simulation, where no machine is busy; here one may be late, by as long again.
const AFTER_KILL: Duration = LEASE.saturating_add(Duration::from_secs(2));
const AFTER_STOP: Duration = Duration::from_secs(2);
/// How many takeovers are measured at least.
const MEASURED: usize = 3;

/// Worker processes of a shop, which are struck while its orders come in.
pub struct Storm {
    shop: Arc<Shop>,
    lease: Duration,
    /// Makes the command of the worker with this name.
    worker: Box<dyn Fn(&str) -> Command + Send + Sync>,
    folder: PathBuf,
    rng: fastrand::Rng,
    processes: Vec<Process>,
    /// How long it took until none of the struck worker's shards stood in its name, where nobody
    /// else was struck meanwhile.
    takeovers: Vec<(Blow, Duration)>,
}

impl Storm {
    /// Starts the workers; their logs are in the folder.
    pub fn start(
        (shop, lease): (Arc<Shop>, Duration),
        folder: PathBuf,
        worker: impl Fn(&str) -> Command + Send + Sync + 'static,
    ) -> Self {
        eprintln!("logs: {}", folder.display());
        let mut storm = Self {
            shop,
            lease,
            worker: Box::new(worker),
            folder,
            rng: fastrand::Rng::with_seed(seed()),
            processes: Vec::new(),
            takeovers: Vec::new(),
        };
        for number in 0..WORKERS {
            let process = storm.process(number);
            storm.processes.push(process);
        }
        storm
    }

    fn process(&self, number: usize) -> Process {
        let name = format!("worker-{number}");
        let mut command = (self.worker)(&name);
        let lease = humantime::format_duration(self.lease).to_string();
        command.args(["--lease-duration", &lease]);
        Process::start(command, &self.folder, &name)
    }

    async fn look(&self) -> View {
        let leases = self.shop.lease_store();
        leases.look(Consistency::Strong).await.unwrap()
    }

    /// Waits until every process beats, and the shards are shared among exactly these.
    /// Answers who has some.
    async fn calm(&self) -> Vec<Incarnation> {
        loop {
            let before = self.look().await.workers;
            sleep(self.lease / 2).await;
            let after = self.look().await;
            let beats = |row: &&WorkerRow| {
                let known = before.get(&row.incarnation);
                !row.draining && known.is_some_and(|known| known.beat < row.beat)
            };
            let alive = after.workers.values().filter(beats);
            let alive: BTreeSet<_> = alive.map(|row| row.incarnation.clone()).collect();
            let open: Vec<_> = after.leases.values().filter(|row| !row.ended()).collect();
            let owners = open.iter().map(|row| row.owner.clone());
            // `None`: a shard is free.
            let owners: Option<BTreeSet<_>> = owners.collect();
            let shared = owners.filter(|owners| {
                owners.is_subset(&alive) && owners.len() == WORKERS.min(open.len())
            });
            if let Some(owners) = shared.filter(|_| alive.len() == WORKERS) {
                return owners.into_iter().collect();
            }
        }
    }

    /// Strikes a process while all are well, and measures how long its shards are idle.
    async fn strike_and_measure(&mut self) {
        let owners = self.calm().await;
        let victim = owners[self.rng.usize(..owners.len())].clone();
        let blow = [Blow::Kill, Blow::Stop][self.rng.usize(..2)];
        let number = victim.worker().strip_prefix("worker-").unwrap();
        let number = number.parse().unwrap();
        let struck = Instant::now();
        let shop = self.shop.clone();
        let taken = tokio::spawn(async move {
            let leases = shop.lease_store();
            loop {
                let view = leases.look(Consistency::Strong).await.unwrap();
                let mut owners = view.leases.values().filter_map(|row| row.owner.as_ref());
                if !owners.any(|owner| *owner == victim) {
                    return struck.elapsed();
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        self.strike(number, blow).await;
        self.takeovers.push((blow, taken.await.unwrap()));
    }

    /// Strikes a process, and makes sure that it works again.
    async fn strike(&mut self, number: usize, blow: Blow) {
        match blow {
            Blow::Kill => {
                self.processes[number].signal(Signal::Kill).await;
                self.processes[number].ended().await;
                self.processes[number] = self.process(number);
            }
            Blow::Freeze => {
                self.processes[number].signal(Signal::Freeze).await;
                // Shorter and longer than others are patient.
                let time = self.lease.mul_f64(0.2 + 2.5 * self.rng.f64());
                sleep(time).await;
                self.processes[number].signal(Signal::Thaw).await;
            }
            Blow::Stop => {
                self.processes[number].stop().await;
                self.processes[number] = self.process(number);
            }
        }
    }

    /// Kills and freezes processes for this long during the trade, and until this many takeovers were
    /// measured.
    pub async fn rage(
        &mut self,
        (time, with, measured): (Duration, &[Blow], usize),
        trade: impl Future<Output = ()> + Send + 'static,
    ) {
        let trade = tokio::spawn(trade);
        let over = tokio::time::Instant::now() + time;
        let mut blows = 0;
        while tokio::time::Instant::now() < over {
            let pause = Duration::from_millis(self.rng.u64(200..4_000));
            sleep_until((tokio::time::Instant::now() + pause).min(over)).await;
            blows += 1;
            if measured > 0 && blows % 3 == 0 {
                self.strike_and_measure().await;
                continue;
            }
            let number = self.rng.usize(..WORKERS);
            let blow = with[self.rng.usize(..with.len())];
            self.strike(number, blow).await;
        }
        while self.takeovers.len() < measured {
            self.strike_and_measure().await;
        }
        trade.await.unwrap();
        eprintln!("{blows} blows");
    }

    /// Stops the workers.
    pub async fn stop(&mut self) {
        for process in &mut self.processes {
            process.stop().await;
        }
    }

    /// Takeovers are as fast as is promised.
    fn check_takeovers(mut self) {
        self.takeovers.sort_unstable();
        for (blow, time) in &self.takeovers {
            eprintln!("taken over after {blow:?}: {:.2} s", time.as_secs_f64());
        }
        let limit = |blow| match blow {
            Blow::Stop => AFTER_STOP,
            Blow::Kill | Blow::Freeze => AFTER_KILL,
        };
        let later = |times| {
            let late = self
                .takeovers
                .iter()
                .filter(|(blow, time)| *time > limit(*blow) * times);
            late.count()
        };
        assert!(later(1) <= 1 && later(2) == 0, "{:?}", self.takeovers);
    }
}

/// The mail server accepts a mail some time before it replies: a process struck in between cannot know.
pub async fn mail_server_late_by(time: Duration) -> MailServer {
    let late = Fault::always(Step::Dot, Act::Late(time));
    MailServer::start(Script::default().fault(late)).await
}

/// Places orders and strikes until the time is over, then lets everything finish.
async fn storm_over(url: &str, streams: Option<String>, shop: Shop) {
    let (shop, mails) = (
        Arc::new(shop),
        mail_server_late_by(Duration::from_millis(60)).await,
    );
    let folder = folder(&format!("storm-{}", url.rsplit(':').next().unwrap()));
    let (of, to) = (shop.clone(), mails.url());
    let mut storm = Storm::start((shop.clone(), LEASE), folder, move |name| {
        command_to(&of, &to, streams.as_deref(), name)
    });
    let of = shop.clone();
    let trade = async move {
        let batches = ORDERS / 20;
        for batch in 0..batches {
            of.place(batch * 20..(batch + 1) * 20).await;
            sleep(STORM / u32::try_from(batches).unwrap()).await;
        }
    };
    let blows = [Blow::Kill, Blow::Freeze, Blow::Stop];
    storm.rage((STORM, &blows, MEASURED), trade).await;
    let calm = Instant::now();
    let rows = shop.finished(ORDERS, POLICY).await;
    eprintln!(
        "finished {:.1} s after the storm",
        calm.elapsed().as_secs_f64()
    );
    storm.stop().await;
    let doubts = check(&rows, &mails, POLICY);
    let mails = mails.count();
    eprintln!("{ORDERS} orders, {mails} mails, {doubts} orders in doubt");
    storm.check_takeovers();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_frozen_and_stopped_mail_every_order_once_or_say_so() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let streams = StreamsServer::start(&server, &shop.arn, 6);
    let streams = Some(streams.url().to_owned());
    let storm = storm_over(server.url(), streams, shop);
    timeout(LIMIT, storm).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn on_localstack_processes_that_are_struck_mail_every_order_once_or_say_so() {
    let url = localstack_url();
    let shop = Shop::open(&url).await;
    timeout(LIMIT, storm_over(&url, None, shop)).await.unwrap();
}
