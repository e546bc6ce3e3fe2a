//! What handles the records: the confirmation, or a handler in another language.

use std::time::Duration;

use crate::confirmation::dynamodb::DynamoDbLookup;
use crate::confirmation::mapping::Mapping;
use crate::confirmation::wanted::Wanted;
use crate::confirmation::{Confirmation, Transport};
use crate::engine::dependency::{Dependency, Limits};
use crate::engine::{Batched, Identity};
use crate::handlers::{OnceProgram, Program};
use crate::monitor::metrics::Mails;
#[cfg(feature = "lambda")]
use crate::once::Counted;
use crate::once::Tally;
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::{Context, EffectName, Failure, Record, RecordHandler};
use clap::Args;

use crate::cli::args::handler::HandlerArgs;
use crate::cli::args::mail::MailArgs;
use crate::cli::args::records::RecordArgs;
use crate::cli::args::sending::{MailServerArgs, SendingArgs};
use crate::cli::args::tables::LedgerName;
use crate::cli::fault::Fault;
use crate::cli::host::aws::Clients;
use crate::engine::effect::ErasedHandler;

/// The setting of a group that says that its records go to a program.
pub const HANDLER: &str = "handler";

/// The setting that says how the order's id is derived.
pub const ID: &str = "id";

/// What handles the records.
#[derive(Debug, Args)]
pub struct MeansArgs {
    #[command(flatten)]
    pub handler: HandlerArgs,
    #[command(flatten)]
    pub sending: SendingArgs,
    #[command(flatten)]
    pub mail: MailArgs,
    #[command(flatten)]
    mail_server: MailServerArgs,
}

/// The items of a table.
pub struct Items<'a> {
    /// The table's name or ARN.
    pub table: &'a str,
    /// How an item becomes an order.
    pub mapping: Mapping,
    /// Whether effects have the order's id as their key, or each change has a key of its own.
    pub keyed: bool,
    /// The attribute that is the table's partition key, if it is known.
    pub partition_key: Option<String>,
}

/// By what means an effect is performed. Its connections are shared.
#[derive(Clone)]
pub enum Means {
    /// The confirmation sends an email.
    Mails(Transport),
    /// A program handles the records.
    Program(Program),
    /// The handler of this program's author.
    Own(ErasedHandler),
}

impl Means {
    /// The value of [`HANDLER`]; a confirmation has none.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Mails(_) => None,
            Self::Program(_) => Some("program"),
            Self::Own(_) => Some("own"),
        }
    }

    /// Ends connections that are open.
    pub async fn close(&self) {
        match self {
            Self::Mails(transport) => transport.close().await,
            Self::Program(program) => program.close().await,
            Self::Own(_) => {}
        }
    }
}

impl MeansArgs {
    /// Checks what can be checked without a network, and connects to nothing yet. A handler's host must
    /// have an address, and a handler's processes are started.
    pub async fn open(&self) -> Result<Means, Fault> {
        if self.handler.is_set()
            && !self.handler.once
            && self.sending.provider_remembers()?.is_some()
        {
            return Err(Fault::wrong(
                "--provider-remembers needs --once where a handler is named: without it nothing is in doubt",
            ));
        }
        if let Some(program) = self.handler.program().await? {
            return Ok(Means::Program(program));
        }
        if self.sending.provider_remembers()?.is_some() {
            self.mail.must_be_recognisable()?;
        }
        let transport = self.mail.transport().await?;
        self.mail.letter.letterhead()?;
        self.sending.sparing().suppress_when()?;
        self.sending
            .settings(self.mail.fields.with_default_id("id")?)?;
        Ok(Means::Mails(transport))
    }

    /// How long an attempt may take unless a flag says otherwise. A mail server has 10 minutes for its
    /// reply to the final dot.
    pub fn longest_attempt(&self) -> Duration {
        if self.handler.is_set() {
            return Duration::from_mins(1);
        }
        Duration::from_mins(15)
    }

    /// The mail server or the handler as a dependency with its limits.
    pub fn dependency(&self, means: &Means) -> Dependency {
        match means {
            Means::Mails(transport) => self.mail_server.dependency(transport),
            Means::Program(program) => self.handler.dependency(program),
            Means::Own(_) => own_dependency(),
        }
    }

    /// The settings that decide which record becomes which effect.
    pub fn identity(
        &self,
        means: &Means,
        (mapping, records): (&Mapping, &RecordArgs),
    ) -> Result<Identity, Fault> {
        let identity = records.identify(Identity::default());
        let Some(handler) = means.setting() else {
            return Ok(identity.with(ID, mapping.id()));
        };
        let identity = identity.with(HANDLER, handler);
        Ok(match self.mail.fields.named()? {
            Some(named) => identity.with(ID, named.id()),
            None => identity,
        })
    }

    /// The handler for the records of a table. A program gets an effect key for each change, or for each
    /// id that the flags or the group name.
    pub fn handler(
        &self,
        tables: (&Clients, &LedgerName),
        items: Items<'_>,
        means: &Means,
        (effect, wanted): (EffectName, Wanted),
    ) -> Result<Handler, Fault> {
        let program = match means {
            Means::Own(handler) => return Ok(Handler::Own(handler.clone(), wanted)),
            Means::Program(program) => program.clone().effect(effect),
            Means::Mails(transport) => {
                let of = (items.table, items.mapping);
                let letter = &self.mail.letter;
                let handler = self.sending.confirmation(tables, of, letter, transport)?;
                let handler = handler.effect(effect).wanting(wanted);
                return Ok(Handler::Confirmation(Box::new(handler)));
            }
        };
        let program = if items.keyed {
            let mapping = items.mapping;
            program.keyed_by(move |record| {
                let images = [&record.new_image, &record.old_image];
                let item = images.into_iter().flatten().next();
                let id = mapping.id_of(item.unwrap_or(&record.keys));
                id.map_err(|error| Failure::Reject(error.into()))
            })
        } else {
            program
        };
        if let Some(limits) = self.handler.batches(&program, items.partition_key) {
            let batched = Batched::new(program, limits);
            return Ok(Handler::Batched(batched, wanted));
        }
        if !self.handler.once {
            return Ok(Handler::Program(program, wanted));
        }
        let (clients, ledger) = tables;
        let at_a_time = self.handler.calls(&program);
        let settings = self.sending.once(clients.clock(), at_a_time)?;
        let ledger = self.sending.ledger(clients, ledger);
        let once = program.once(ledger, settings, fastrand::Rng::new());
        Ok(Handler::Once(Box::new(once), wanted))
    }
}

/// What the handler of this program's author depends on.
pub fn own_dependency() -> Dependency {
    let limits = Limits {
        name: Some("the handler".to_owned()),
        ..Limits::default()
    };
    Dependency::new(&limits, fastrand::Rng::new())
}

/// The handler of this process.
pub enum Handler {
    /// Sends one email for each order.
    Confirmation(Box<Confirmation<DynamoDbLedger, DynamoDbLookup>>),
    /// Hands each change that is wanted to a program.
    Program(Program, Wanted),
    /// The same, several changes in a call.
    Batched(Batched, Wanted),
    /// The same, once for each effect key.
    Once(Box<OnceProgram<DynamoDbLedger>>, Wanted),
    /// The handler of this program's author.
    Own(ErasedHandler, Wanted),
}

impl RecordHandler for Handler {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Confirmation(confirmation) => confirmation.handle(record, context).await,
            Self::Program(program, wanted) => handled(wanted, program, (record, context)).await,
            Self::Batched(program, wanted) => handled(wanted, program, (record, context)).await,
            Self::Once(program, wanted) => handled(wanted, &**program, (record, context)).await,
            Self::Own(handler, wanted) => handled(wanted, handler, (record, context)).await,
        }
    }

    fn needs_at_a_time(&self) -> usize {
        match self {
            Self::Batched(program, _) => program.needs_at_a_time(),
            Self::Own(handler, _) => handler.needs_at_a_time(),
            _ => 1,
        }
    }
}

/// Hands a change to the handler if it is wanted.
async fn handled(
    wanted: &Wanted,
    handler: &impl RecordHandler,
    (record, context): (&Record, &Context),
) -> Result<(), Failure> {
    let is_wanted = record.new_image.as_ref().map(|item| wanted.wants(item));
    match is_wanted.transpose() {
        Ok(Some(false)) => {
            context.did_not_ask();
            Ok(())
        }
        Ok(_) => handler.handle(record, context).await,
        Err(error) => Err(Failure::Reject(error.into())),
    }
}

impl Handler {
    fn tally(&self) -> Option<&Tally> {
        match self {
            Self::Confirmation(confirmation) => Some(confirmation.tally()),
            Self::Program(..) | Self::Batched(..) | Self::Own(..) => None,
            Self::Once(program, _) => Some(program.tally()),
        }
    }

    /// What became of the effects, if they take place once.
    pub fn mails(&self) -> Option<Mails> {
        self.tally().map(Mails::of)
    }

    /// How many effects came into doubt in this process.
    #[cfg(feature = "lambda")]
    pub fn ambiguous(&self) -> u64 {
        let tally = self.tally();
        tally.map_or(0, |tally| tally.of(Counted::Ambiguous))
    }

    /// Where it records what took place, if it does.
    pub fn ledger(&self) -> Option<&DynamoDbLedger> {
        match self {
            Self::Confirmation(confirmation) => Some(confirmation.ledger()),
            Self::Program(..) | Self::Batched(..) | Self::Own(..) => None,
            Self::Once(program, _) => Some(program.ledger()),
        }
    }

    /// Waits, at most this long, for outcomes that are not recorded yet; how many are left.
    pub async fn finish(&self, limit: Duration) -> usize {
        match self {
            Self::Confirmation(confirmation) => confirmation.finish(limit).await,
            Self::Program(..) | Self::Batched(..) | Self::Own(..) => 0,
            Self::Once(program, _) => program.finish(limit).await,
        }
    }
}
