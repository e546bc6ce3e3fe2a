//! One worker, as `aftercommit run` wires it.

use std::sync::Arc;
use std::time::Duration;

use aftercommit::EffectName;
use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::mapping::Mapping;
use aftercommit::confirmation::smtp::{Smtp, SmtpSettings};
use aftercommit::confirmation::template::Templates;
use aftercommit::confirmation::{Confirmation, ConfirmationSettings};
use aftercommit::monitor::metrics::Mails;
use aftercommit::monitor::{Status, Watch, http};
use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::{Clock, Consumer, Group, GroupTable, Settings};
use clap::Args;
use tokio::net::TcpListener;

use crate::support::clients;

pub const LEASES: &str = "aftercommit-leases";
pub const LEDGER: &str = "aftercommit-ledger";
pub const LETTERS: &str = "aftercommit-dead-letters";
const RETENTION: Duration = Duration::from_hours(400 * 24);

/// Where everything is.
#[derive(Debug, Clone, Args)]
pub struct Site {
    /// The DynamoDB
    #[arg(long)]
    pub tables: String,
    /// Its streams
    #[arg(long)]
    pub streams: String,
    /// The stream to follow
    #[arg(long)]
    pub arn: String,
    /// The mail server
    #[arg(long)]
    pub smtp: String,
    /// How long a worker may be silent before others take its shards
    #[arg(long, value_parser = humantime::parse_duration)]
    pub lease_duration: Duration,
}

impl Site {
    /// The same on a command line.
    pub fn arguments(&self) -> Vec<String> {
        let lease = humantime::format_duration(self.lease_duration).to_string();
        [
            ("--tables", &self.tables),
            ("--streams", &self.streams),
            ("--arn", &self.arn),
            ("--smtp", &self.smtp),
            ("--lease-duration", &lease),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.clone()])
        .collect()
    }

    /// The group that confirms the shop's orders.
    pub fn place(&self) -> GroupTable {
        GroupTable::new(Group::default(), &self.arn)
    }

    /// The lease table.
    pub fn leases(&self) -> DynamoDbLeases {
        DynamoDbLeases::new(clients::dynamodb(&self.tables), LEASES, &self.place())
    }

    /// The ledger.
    pub fn ledger(&self) -> DynamoDbLedger {
        DynamoDbLedger::new(clients::dynamodb(&self.tables), LEDGER, RETENTION)
    }
}

/// Sends a mail for every order until it is stopped.
pub async fn work(site: Site, name: String, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let clock = Clock::system();
    let source = DynamoDbStream::new(clients::streams(&site.streams), &site.arn, clock.clone());
    let letterhead = Letterhead::new(
        Templates::built_in()?,
        "Demo Shop <orders@example.com>".parse()?,
    );
    let smtp = Smtp::new(SmtpSettings::from_url(&site.smtp, None)?)?;
    let mut confirmation = ConfirmationSettings::new(Mapping::new("id")?);
    confirmation.retention = RETENTION;
    confirmation.clock = clock;
    let rng = fastrand::Rng::new();
    let ledger = site.ledger();
    let handler = Arc::new(Confirmation::new(
        ledger.clone(),
        smtp,
        letterhead,
        confirmation,
        rng,
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut settings = Settings::default();
    settings.worker_id = name;
    settings.place.status_address = Some(listener.local_addr()?.to_string());
    settings.start = InitialPosition::TrimHorizon;
    settings.timing.lease_duration = site.lease_duration;
    settings.timing.heartbeat_interval = site.lease_duration / 5;
    settings.timing.look_interval = site.lease_duration / 10;
    let consumer = Consumer::new(site.place(), source, site.leases()).handler(handler.clone());
    let letters = DynamoDbDeadLetters::new(clients::dynamodb(&site.tables), LETTERS);
    let consumer = consumer.settings(settings).dead_letters(letters);
    let effect = EffectName::default();
    let watch = Watch::of(&consumer).mails(&effect, move || Mails::of(handler.tally()));
    let status = Status::new(Clock::system(), [watch]);
    status.attention(move || {
        let ledger = ledger.clone();
        async move { ledger.attention().await }
    });
    tokio::select! {
        ended = consumer.run(stop) => ended,
        served = http::serve(listener, status) => Ok(served?),
    }
}
